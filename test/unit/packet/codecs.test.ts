import { describe, expect, it } from 'vitest'
import { fromHex, SeededRandom } from '../../../src/base/index.ts'
import {
  foldChecksum,
  IcmpHeader,
  IpHeader,
  MAX_EXTENSION_HEADERS,
  Protocol,
  sumRange,
  TcpFlag,
  TcpHeader,
  transportChecksumHolds,
  UdpHeader,
  updateChecksum,
  writeIcmp,
  writeIp,
  writeTcp,
  writeTransportChecksum,
  writeUdp,
} from '../../../src/packet/index.ts'

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
const v4 = [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(198, 51, 100, 2)] as const
const v6 = [fromHex('20010db8000000000000000000000001'), fromHex('20010db8000000000000000000000002')] as const

/** One at a time, as RFC 1071 writes it. */
function plainSum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
    if (sum > 0xffff) sum -= 0xffff
  }
  return ~sum & 0xffff
}

describe('checksum', () => {
  it('is the example of RFC 1071 §3', () => {
    const bytes = fromHex('0001f203f4f5f6f7')
    expect(foldChecksum(sumRange(viewOf(bytes), 0, 8))).toBe(~0xddf2 & 0xffff)
  })

  it('equals the plain sum at every length and place', () => {
    const random = new SeededRandom(3)
    for (let length = 0; length < 100; length++) {
      const bytes = random.bytes(length + 7)
      const at = random.int(7)
      const slice = bytes.subarray(at, at + length)
      expect(foldChecksum(sumRange(viewOf(bytes), at, at + length)) % 0xffff, `length ${length}`).toBe(plainSum(slice) % 0xffff)
    }
    const large = random.bytes(65_535)
    expect(foldChecksum(sumRange(viewOf(large), 0, 65_535)) % 0xffff).toBe(plainSum(large) % 0xffff)
  })

  it('is updated for a changed word (RFC 1624)', () => {
    const bytes = new SeededRandom(4).bytes(40)
    const view = viewOf(bytes)
    const before = foldChecksum(sumRange(view, 0, 40))
    const old = view.getUint16(6)
    view.setUint16(6, 0x1234)
    expect(updateChecksum(before, old, 0x1234)).toBe(foldChecksum(sumRange(view, 0, 40)))
    // The RFC's §4 example, where the older equation fails.
    expect(updateChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0x0000)
  })
})

describe('IPv4', () => {
  const packet = (payload = 12) => {
    const bytes = new Uint8Array(20 + payload)
    writeIp(bytes, viewOf(bytes), 0, { source: v4[0], destination: v4[1], protocol: 17, hopLimit: 64 }, payload)
    return bytes
  }
  const parse = (bytes: Uint8Array) => {
    const ip = new IpHeader()
    return { problem: ip.parse(viewOf(bytes), 0, bytes.length), ip }
  }
  const resum = (bytes: Uint8Array) => {
    bytes.fill(0, 10, 12)
    viewOf(bytes).setUint16(10, plainSum(bytes.subarray(0, (bytes[0]! & 15) * 4)))
    return bytes
  }

  it('reads what it writes, and leaves padding out', () => {
    const { problem, ip } = parse(new Uint8Array([...packet(), 0, 0, 0]))
    expect(problem).toBeNull()
    expect(ip).toMatchObject({ version: 4, payloadStart: 20, end: 32, protocol: 17, hopLimit: 64, isFragment: false, dontFragment: true })
  })

  it('skips options', () => {
    const bytes = new Uint8Array(36)
    bytes.set(packet(16))
    bytes[0] = 0x46
    expect(parse(resum(bytes)).ip.payloadStart).toBe(24)
  })

  it.each([
    ['short', packet().subarray(0, 19)],
    ['version', Uint8Array.of(0x55, ...packet().subarray(1))],
    ['header-length', Uint8Array.of(0x44, ...packet().subarray(1))],
    ['total-length', Uint8Array.of(0x45, 0, 0, 200, ...packet().subarray(4))],
    ['total-length', Uint8Array.of(0x45, 0, 0, 19, ...packet().subarray(4))],
    ['checksum', Uint8Array.of(0x45, 1, ...packet().subarray(2))],
  ])('refuses with %s', (problem, bytes) => {
    expect(parse(bytes).problem).toBe(problem)
  })

  it('reads fragments, and refuses those that cannot be', () => {
    const bytes = packet(16)
    viewOf(bytes).setUint16(6, 0x2000 | 5)
    expect(parse(resum(bytes)).ip).toMatchObject({ isFragment: true, moreFragments: true, fragmentOffset: 40 })
    const odd = packet(15)
    viewOf(odd).setUint16(6, 0x2000)
    expect(parse(resum(odd)).problem).toBe('fragment')
    const far = packet(16)
    viewOf(far).setUint16(6, 0x1fff)
    expect(parse(resum(far)).problem).toBe('fragment')
  })
})

describe('IPv6', () => {
  const parse = (bytes: Uint8Array) => {
    const ip = new IpHeader()
    return { problem: ip.parse(viewOf(bytes), 0, bytes.length), ip }
  }
  const packet = (next: number, payload: number[]) => {
    const bytes = new Uint8Array(40 + payload.length)
    writeIp(bytes, viewOf(bytes), 0, { source: v6[0], destination: v6[1], protocol: next, hopLimit: 9 }, payload.length)
    bytes.set(payload, 40)
    return bytes
  }
  const options = (next: number, units = 0) => [next, units, 1, 4, 0, 0, 0, 0, ...new Array(units * 8).fill(0)]

  it('walks extension headers to the transport', () => {
    const bytes = packet(0, [...options(60), ...options(43, 1), ...[17, 0, 0, 0, 0, 0, 0, 0], 1, 2, 3, 4, 5, 6, 7, 8])
    expect(parse(bytes)).toMatchObject({ problem: null, ip: { protocol: 17, payloadStart: 40 + 8 + 16 + 8, end: bytes.length } })
  })

  it('takes an atomic fragment as whole (RFC 6946), and stops at a real one', () => {
    expect(parse(packet(44, [17, 0, 0, 0, 1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9])).ip).toMatchObject({ isFragment: false, protocol: 17 })
    expect(parse(packet(44, [17, 0, 0, 1, 1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9])).ip).toMatchObject({
      isFragment: true,
      moreFragments: true,
      identification: 0x01020304,
      fragmentNextAt: 6,
      fragmentHeaderAt: 40,
    })
  })

  it.each([
    ['hop-by-hop that is not first', packet(60, [...options(0), ...options(17)])],
    ['a header that ends beyond the packet', packet(60, options(17, 0).with(1, 9))],
    ['a cut header', packet(60, [17, 0, 0])],
    ['two fragment headers', packet(44, [44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0])],
    ['too many', packet(60, [...new Array(MAX_EXTENSION_HEADERS).fill(options(60)).flat(), ...options(17)])],
  ])('refuses %s', (_what, bytes) => {
    expect(parse(bytes).problem).toBe('extension-headers')
  })

  it('refuses source routing (RFC 5095) and a payload that is not there', () => {
    expect(parse(packet(43, options(17).with(3, 1))).problem).toBe('routing-header')
    expect(parse(packet(17, [1, 2, 3, 4]).subarray(0, 43)).problem).toBe('total-length')
  })
})

describe('TCP', () => {
  const options = {
    mss: 1460,
    windowScale: 7,
    sackPermitted: true,
    timestamp: -5,
    timestampEcho: 77,
  }

  it.each([
    ['4', v4],
    ['6', v6],
  ])('reads what it writes, over IPv%s, and holds the checksum', (_version, [source, destination]) => {
    const bytes = new Uint8Array(200)
    const view = viewOf(bytes)
    const header = source.length === 4 ? 20 : 40
    const fields = { sourcePort: 1, destinationPort: 65_535, sequence: -1, acknowledgment: 0x7fff_ffff, flags: TcpFlag.syn, window: 9 }
    const dataAt = writeTcp(view, header, fields, options)
    bytes.set([1, 2, 3], dataAt)
    writeIp(bytes, view, 0, { source, destination, protocol: Protocol.tcp, hopLimit: 64 }, dataAt + 3 - header)
    writeTransportChecksum(view, 0, Protocol.tcp, header, dataAt + 3, header + 16)
    const ip = new IpHeader()
    expect(ip.parse(view, 0, dataAt + 3)).toBeNull()
    expect(transportChecksumHolds(view, ip)).toBe(true)
    const tcp = new TcpHeader()
    expect(tcp.parse(view, ip.payloadStart, ip.end)).toBeNull()
    expect(tcp).toMatchObject({ ...fields, ...options, hasTimestamps: true, payloadStart: dataAt, end: dataAt + 3 })
    bytes[dataAt]! ^= 4
    expect(transportChecksumHolds(view, ip)).toBe(false)
  })

  it('reads SACK blocks, four at most, and none from an option of the wrong length', () => {
    const bytes = new Uint8Array(60)
    const end = writeTcp(viewOf(bytes), 0, zero, { sack: [1, 2, 3, 4, -6, -5] })
    const tcp = new TcpHeader()
    expect(tcp.parse(viewOf(bytes), 0, end)).toBeNull()
    expect(tcp.sackCount).toBe(3)
    expect([tcp.sackLeft[2], tcp.sackRight[2]]).toEqual([-6, -5])
    bytes[21] = 20
    tcp.parse(viewOf(bytes), 0, end)
    expect(tcp.sackCount).toBe(0)
  })

  it('leaves out what a broken option stands in front of', () => {
    const bytes = new Uint8Array(28)
    writeTcp(viewOf(bytes), 0, zero, {})
    const tcp = new TcpHeader()
    bytes[12] = 0x70
    for (const tail of [
      [8, 0, 2, 4, 5, 0xb4, 0, 0],
      [8, 200, 2, 4, 5, 0xb4, 0, 0],
      [0, 0, 2, 4, 5, 0xb4, 0, 0],
      [1, 1, 1, 1, 1, 1, 1, 2],
    ]) {
      bytes.set(tail, 20)
      expect(tcp.parse(viewOf(bytes), 0, 28)).toBeNull()
      expect([tcp.mss, tcp.hasTimestamps]).toEqual([-1, false])
    }
  })

  it('refuses a header that is cut, or longer than the segment', () => {
    const bytes = new Uint8Array(20)
    const tcp = new TcpHeader()
    expect(tcp.parse(viewOf(bytes), 0, 19)).toBe('short')
    expect(tcp.parse(viewOf(bytes), 0, 20)).toBe('data-offset')
    bytes[12] = 0x60
    expect(tcp.parse(viewOf(bytes), 0, 20)).toBe('data-offset')
  })
})

const zero = { sourcePort: 1, destinationPort: 2, sequence: 0, acknowledgment: 0, flags: 0, window: 0 }

describe('UDP and ICMP', () => {
  it('UDP reads what it writes, and refuses other lengths and IPv6 without a checksum', () => {
    const bytes = new Uint8Array(12)
    writeUdp(viewOf(bytes), 0, 5, 6, 4)
    const udp = new UdpHeader()
    expect(udp.parse(viewOf(bytes), 0, 12, 4)).toBeNull()
    expect(udp).toMatchObject({ sourcePort: 5, destinationPort: 6, payloadStart: 8, end: 12, hasChecksum: false })
    expect(udp.parse(viewOf(bytes), 0, 12, 6)).toBe('no-checksum')
    expect(udp.parse(viewOf(bytes), 0, 11, 4)).toBe('length')
    expect(udp.parse(viewOf(bytes), 0, 7, 4)).toBe('short')
  })

  it.each([
    ['echo-request', 0x00050007],
    ['echo-reply', 0x00050007],
    ['net-unreachable', 0],
    ['host-unreachable', 0],
    ['port-unreachable', 0],
    ['protocol-unreachable', 0],
    ['prohibited', 0],
    ['packet-too-big', 1280],
    ['time-exceeded', 0],
    ['reassembly-time-exceeded', 0],
  ] as const)('ICMP %s reads as it was written, in both versions', (kind, rest) => {
    for (const [source, destination] of [v4, v6]) {
      const bytes = new Uint8Array(80)
      const view = viewOf(bytes)
      const protocol = source.length === 4 ? Protocol.icmp : Protocol.icmp6
      const at = writeIp(bytes, view, 0, { source, destination, protocol, hopLimit: 64 }, 12)
      bytes.set([1, 2, 3, 4], at + 8)
      writeIcmp(view, 0, at, kind, rest, 4)
      const ip = new IpHeader()
      expect(ip.parse(view, 0, at + 12)).toBeNull()
      if (ip.version === 6) expect(transportChecksumHolds(view, ip)).toBe(true)
      const icmp = new IcmpHeader()
      expect(icmp.parse(view, ip.payloadStart, ip.end, ip.version)).toBeNull()
      expect(icmp.kind).toBe(kind)
      expect(icmp.isError).toBe(!kind.startsWith('echo'))
      if (kind === 'packet-too-big') expect(icmp.mtu).toBe(1280)
      if (kind.startsWith('echo')) expect([icmp.identifier, icmp.sequence]).toEqual([5, 7])
    }
  })
})
