import { describe, expect, test } from 'vitest'
import { formatIp, type IpAddress, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import { LeaseFilter, type LeaseFilterOptions } from '../../../../src/egress/tun-nat/lease-filter.ts'
import { batchOfPackets, foldChecksum, IpHeader, sumRange } from '../../../../src/packet/index.ts'
import { fragmentsOf } from '../../../support/ip-fragments.ts'
import { echoPacket, rawPacket, udpPacket } from '../../../support/packet-client.ts'

const own = { 4: parseIp('100.89.0.2'), 6: parseIp('fd73::2') } as const
const server = { 4: '93.184.216.34', 6: '2606:4700::1111' } as const
const families = [4, 6] as const

interface Asked {
  readonly address: string
  readonly port: number | null
}

function filter(options: Partial<LeaseFilterOptions> = {}) {
  const asked: Asked[] = []
  const one = new LeaseFilter({
    lease: { address4: own[4], address6: own[6] },
    allows: (address: IpAddress, port) => {
      asked.push({ address: formatIp(address), port })
      return port !== 25
    },
    takeRate: () => true,
    isLeaseAddress: (address) => formatIp(address).startsWith('100.89.') || formatIp(address).startsWith('fd73:'),
    protocols: [50, 132],
    icmpPerSecond: 100,
    fragmentsPerSecond: 100,
    now: 0,
    ...options,
  })
  const header = new IpHeader()
  return {
    asked,
    check(packet: Uint8Array, now = 0) {
      const batch = batchOfPackets([packet])
      return one.check(header, batch.view, batch.start(0), batch.end(0), now)
    },
  }
}

const udp = (family: 4 | 6, port = 53, from: IpAddress = own[family], to: string = server[family]) =>
  udpPacket({ from, to }, 5000, port, new Uint8Array(20))

/** A packet with some bytes changed, and its IPv4 checksum right again. */
function changed(packet: Uint8Array, changes: Readonly<Record<number, number>>): Uint8Array {
  const copy = packet.slice()
  for (const [at, value] of Object.entries(changes)) copy[Number(at)] = value
  if (copy[0]! >> 4 === 4) {
    const view = new DataView(copy.buffer)
    view.setUint16(10, 0)
    view.setUint16(10, foldChecksum(sumRange(view, 0, (copy[0]! & 15) * 4)))
  }
  return copy
}

describe('what a lease may send', () => {
  test.each(families)('IPv%i: TCP, UDP, echo requests and the protocols of the configuration, by the policy', (family) => {
    const { check, asked } = filter()
    const base = { from: own[family], to: server[family] }
    expect(check(udp(family))).toBe(null)
    expect(check(rawPacket(base, 6, 40).packet)).toBe(null)
    expect(check(echoPacket(base, 1, 1, new Uint8Array(8)))).toBe(null)
    expect(check(rawPacket(base, 50, 40).packet)).toBe(null)
    expect(check(udp(family, 25))).toBe('policy')
    expect(asked).toContainEqual({ address: formatIp(parseIp(server[family])), port: 53 })
    expect(asked).toContainEqual({ address: formatIp(parseIp(server[family])), port: null })
  })

  test.each(families)('IPv%i: nothing from another address, and nothing to leases, groups or nobody', (family) => {
    const { check, asked } = filter()
    expect(check(udp(family, 53, parseIp(family === 4 ? '100.89.0.3' : 'fd73::3')))).toBe('source')
    expect(check(udp(family, 53, parseIp(server[family])))).toBe('source')
    for (const to of family === 4 ? ['100.89.0.1', '100.89.0.9', '224.0.0.1', '255.255.255.255', '0.0.0.0'] : ['fd73::1', 'ff02::1', '::'])
      expect(check(udp(family, 53, own[family], to)), to).toBe('policy')
    expect(asked).toEqual([])
  })

  test('a family that was not leased has no source', () => {
    const { check } = filter({ lease: { address4: own[4], address6: null } })
    expect(check(udp(6))).toBe('source')
    expect(filter({ lease: { address4: null, address6: own[6] } }).check(udp(4))).toBe('source')
  })

  test('protocols that are not served, and ICMP other than echo requests and errors', () => {
    const { check } = filter()
    const base = { from: own[4], to: server[4] }
    for (const protocol of [2, 4, 41, 47, 58, 89]) expect(check(rawPacket(base, protocol, 40).packet), String(protocol)).toBe('protocol')
    const base6 = { from: own[6], to: server[6] }
    for (const protocol of [1, 4, 41, 47]) expect(check(rawPacket(base6, protocol, 40).packet), String(protocol)).toBe('protocol')
    const echo = echoPacket(base, 1, 1, new Uint8Array(40))
    for (const [type, verdict] of [
      [8, null],
      [3, null],
      [11, null],
      [0, 'protocol'],
      [5, 'protocol'],
      [9, 'protocol'],
      [13, 'protocol'],
    ] as const)
      expect(check(changed(echo, { 20: type })), `type ${type}`).toBe(verdict)
    const echo6 = echoPacket(base6, 1, 1, new Uint8Array(40))
    for (const [type, verdict] of [
      [128, null],
      [1, null],
      [2, null],
      [3, null],
      [129, 'protocol'],
      [133, 'protocol'],
      [135, 'protocol'],
      [137, 'protocol'],
    ] as const)
      expect(check(changed(echo6, { 40: type })), `type ${type}`).toBe(verdict)
  })

  test('IPv4 options and IPv6 extension headers', () => {
    const { check } = filter()
    // A source route: the header is four bytes longer.
    const packet = udp(4)
    const routed = new Uint8Array(packet.length + 4)
    routed.set(packet.subarray(0, 20))
    routed.set([0x83, 3, 4, 0], 20)
    routed.set(packet.subarray(20), 24)
    expect(check(changed(routed, { 0: 0x46, 3: routed.length }))).toBe('protocol')
    const packet6 = udp(6)
    for (const next of [0, 60, 43]) {
      const extended = new Uint8Array(packet6.length + 8)
      extended.set(packet6.subarray(0, 40))
      extended.set([17, 0, 1, 0, 0, 0, 0, 0], 40)
      extended.set(packet6.subarray(40), 48)
      const view = new DataView(extended.buffer)
      view.setUint16(4, view.getUint16(4) + 8)
      extended[6] = next
      expect(check(extended), `header ${next}`).toBe('protocol')
    }
  })

  test.each(families)('IPv%i: fragments up to their rate, but none that hides a TCP header', (family) => {
    const { check, asked } = filter({ fragmentsPerSecond: 20 })
    const base = { from: own[family], to: server[family] }
    const parts = fragmentsOf(udpPacket(base, 5000, 53, new Uint8Array(4000)), 1420)
    expect(parts.map((part) => check(part))).toEqual(parts.map(() => null))
    expect(asked.map(({ port }) => port)).toEqual([53, null])
    expect(check(fragmentsOf(udpPacket(base, 5000, 25, new Uint8Array(4000)), 1420)[0]!)).toBe('policy')
    const tcp = fragmentsOf(rawPacket(base, 6, 64).packet, family === 4 ? 36 : 64)
    expect([check(tcp[0]!), check(tcp[1]!)]).toEqual(['fragment', 'fragment'])
    const many = Array.from({ length: 40 }, () => check(parts[1]!))
    expect(many.filter((verdict) => verdict === null).length).toBeLessThan(20)
    expect(check(parts[1]!, 1000)).toBe(null)
    expect(filter({ fragmentsPerSecond: 0 }).check(parts[0]!)).toBe('fragment')
  })

  test('ICMP up to its rate, bytes up to theirs', () => {
    const { check } = filter({ icmpPerSecond: 10 })
    const echo = echoPacket({ from: own[4], to: server[4] }, 1, 1, new Uint8Array(8))
    const verdicts = Array.from({ length: 12 }, () => check(echo))
    expect(verdicts.filter((verdict) => verdict === null)).toHaveLength(10)
    expect(verdicts.at(-1)).toBe('rate')
    expect(check(echo, 1000)).toBe(null)
    const bytes: number[] = []
    const limited = filter({ takeRate: (count) => bytes.push(count) < 2 })
    expect([limited.check(udp(4)), limited.check(udp(6))]).toEqual([null, 'rate'])
    expect(bytes).toEqual([48, 68])
  })

  test('a verdict is asked for once a destination, and again after half a minute', () => {
    let isAllowed = true
    let asked = 0
    const { check } = filter({
      allows: () => {
        asked++
        return isAllowed
      },
    })
    expect([check(udp(4)), check(udp(4), 29_000), asked]).toEqual([null, null, 1])
    isAllowed = false
    expect([check(udp(4), 30_000), check(udp(4), 31_000), asked]).toEqual(['policy', 'policy', 2])
    // Another port, the other family and no port at all are other questions.
    check(udp(4, 54), 31_000)
    check(udp(6), 31_000)
    check(echoPacket({ from: own[4], to: server[4] }, 1, 1, new Uint8Array(8)), 31_000)
    expect(asked).toBe(5)
  })

  test('destinations that share a place in memory never share a verdict', () => {
    const seed = Date.now() % 0x1_0000_0000
    const random = new SeededRandom(seed)
    const isRight = (address: IpAddress, port: number | null) => (address.bytes.at(-1)! + (port ?? 7)) % 3 !== 0
    const { check } = filter({ allows: isRight })
    for (let i = 0; i < 5000; i++) {
      const family = families[random.int(2)]!
      const to = family === 4 ? `93.184.${random.int(3)}.${random.int(40)}` : `2606:4700::${(1 + random.int(60)).toString(16)}`
      const port = 1 + random.int(5)
      const expected = isRight(parseIp(to), port) ? null : 'policy'
      expect(check(udp(family, port, own[family], to)), `seed ${seed}, packet ${i}`).toBe(expected)
    }
  })

  test('no bytes make it throw, and none with another source pass', () => {
    const seed = Date.now() % 0x1_0000_0000
    const random = new SeededRandom(seed)
    const { check } = filter()
    const bases = [udp(4), udp(6), ...fragmentsOf(udpPacket({ from: own[6], to: server[6] }, 1, 2, new Uint8Array(2000)), 1420)]
    for (let i = 0; i < 20_000; i++) {
      const packet = bases[random.int(bases.length)]!.slice(0, random.int(4) === 0 ? random.int(80) : undefined)
      for (let flips = random.int(8); flips > 0 && packet.length > 0; flips--) packet[random.int(packet.length)] = random.int(256)
      const fixed =
        packet.length >= 20 && packet[0]! >> 4 === 4 && (packet[0]! & 15) * 4 <= packet.length && (packet[0]! & 15) > 4
          ? changed(packet, {})
          : packet
      if (fixed.length === 0 || check(fixed) !== null) continue
      const family = fixed[0]! >> 4 === 4 ? 4 : 6
      const at = family === 4 ? 12 : 8
      expect(fixed.slice(at, at + (family === 4 ? 4 : 16)), `seed ${seed}`).toEqual(own[family].bytes)
    }
  })
})
