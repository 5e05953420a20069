import { describe, expect, test } from 'vitest'
import { formatIp, ipFromBytes, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import { readQuote, replaceAddress, replaceQuoted, takeHop } from '../../../../src/ingress/tun/rewrite.ts'
import { IpHeader } from '../../../../src/packet/index.ts'
import { echoPacket, errorPacket, seePacket, tcpPacket, udpPacket } from '../../../support/ip-packets.ts'

const seed = 20_261_104
const random = new SeededRandom(seed)
const anyAddress = (family: 4 | 6): string => {
  const bytes = random.bytes(family === 4 ? 4 : 16)
  // A first byte that makes no difference to how the address is read.
  bytes[0] = family === 4 ? 11 : 0x20
  return formatIp(ipFromBytes(bytes))
}
const parsed = (packet: Uint8Array): { ip: IpHeader; view: DataView } => {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
  const ip = new IpHeader()
  expect(ip.parse(view, 0, packet.length)).toBe(null)
  return { ip, view }
}
const makers = {
  udp: (from: string, to: string) =>
    udpPacket({ from, to, fromPort: random.int(65_536), toPort: random.int(65_536), data: random.bytes(random.int(99)) }),
  tcp: (from: string, to: string) => tcpPacket({ from, to, fromPort: random.int(65_536), toPort: random.int(65_536) }),
  echo: (from: string, to: string) => echoPacket({ from, to, id: random.int(65_536), data: random.bytes(random.int(99)) }),
}

describe(`addresses exchanged in a packet (seed ${seed})`, () => {
  for (const family of [4, 6] as const) {
    for (const [name, make] of Object.entries(makers)) {
      test(`IPv${family} ${name}: every checksum stays right, either way`, () => {
        for (let i = 0; i < 200; i++) {
          const [from, to, other] = [anyAddress(family), anyAddress(family), anyAddress(family)]
          const which = random.int(2) === 0 ? 'source' : 'destination'
          const packet = make(from, to)
          const { ip, view } = parsed(packet)
          replaceAddress(view, packet, ip, which, parseIp(other).bytes)
          expect(seePacket(packet)).toMatchObject(which === 'source' ? { from: other, to, sound: true } : { from, to: other, sound: true })
        }
      })
    }

    test(`IPv${family}: a damaged packet stays damaged`, () => {
      for (let i = 0; i < 200; i++) {
        const packet = makers.udp(anyAddress(family), anyAddress(family))
        packet[packet.length - 1 - random.int(4)]! ^= 1 << random.int(8)
        const { ip, view } = parsed(packet)
        replaceAddress(view, packet, ip, 'source', parseIp(anyAddress(family)).bytes)
        expect(seePacket(packet).sound).toBe(false)
      }
    })

    test(`IPv${family}: what an ICMP error quotes is as if it had been sent from the other address, cut short or not`, () => {
      for (let i = 0; i < 200; i++) {
        const [router, leased, local, server] = [anyAddress(family), anyAddress(family), anyAddress(family), anyAddress(family)]
        const make = Object.values(makers)[random.int(3)]!
        const sent = make(leased, server)
        const least = (family === 4 ? 20 : 40) + 8
        // Even: a checksum that is cut in two can't be told.
        const quoted = sent.slice(0, least + (random.int(sent.length - least + 1) & ~1))
        const packet = errorPacket({ from: router, to: leased, kind: 'time-exceeded', quoted })
        const { ip, view } = parsed(packet)
        replaceAddress(view, packet, ip, 'destination', parseIp(local).bytes)
        expect(replaceQuoted(view, packet, ip, 'source', parseIp(local).bytes)).toBe(true)
        const seen = seePacket(packet)
        expect(seen).toMatchObject({ from: router, to: local, sound: true })
        // The same packet, made from the other address in the first place.
        replaceAddress(new DataView(sent.buffer), sent, parsed(sent).ip, 'source', parseIp(local).bytes)
        expect(seen.icmp!.quoted).toEqual(sent.slice(0, quoted.length))
      }
    })

    test(`IPv${family}: a hop is taken off, and the last one is not`, () => {
      for (const hops of [255, 64, 2, 1, 0]) {
        const packet = echoPacket({ from: anyAddress(family), to: anyAddress(family), hopLimit: hops })
        const { ip, view } = parsed(packet)
        expect(takeHop(view, ip)).toBe(hops > 1)
        expect(seePacket(packet)).toMatchObject({ hopLimit: hops > 1 ? hops - 1 : hops, sound: true })
      }
    })
  }

  test('a UDP checksum of none stays none; one that comes out as 0 is all ones', () => {
    const packet = udpPacket({ from: '11.0.0.1', to: '11.0.0.2', fromPort: 1, toPort: 2 })
    packet[26] = 0
    packet[27] = 0
    const { ip, view } = parsed(packet)
    replaceAddress(view, packet, ip, 'source', parseIp('11.9.9.9').bytes)
    expect(view.getUint16(26)).toBe(0)
    let ones = 0
    for (let i = 0; i < 65_536; i++) {
      const one = udpPacket({ from: '11.0.0.1', to: '11.0.0.2', fromPort: 1, toPort: 2 })
      const at = parsed(one)
      replaceAddress(at.view, one, at.ip, 'source', Uint8Array.of(11, 0, i >> 8, i & 255))
      expect(at.view.getUint16(26)).not.toBe(0)
      if (at.view.getUint16(26) === 0xffff) ones++
    }
    expect(ones).toBe(1)
  })

  test('later fragments have no transport to change', () => {
    const packet = udpPacket({ from: '11.0.0.1', to: '11.0.0.2', fromPort: 1, toPort: 2, data: new Uint8Array(16) })
    const view = new DataView(packet.buffer)
    view.setUint16(6, 5)
    view.setUint16(10, 0)
    const ip = new IpHeader()
    expect(ip.parse(view, 0, packet.length)).toBe('checksum')
    // Right again, as a fragment.
    const sum =
      0xffff -
      ((): number => {
        let total = 0
        for (let i = 0; i < 20; i += 2) total += view.getUint16(i)
        while (total > 0xffff) total = (total & 0xffff) + (total >> 16)
        return total
      })()
    view.setUint16(10, sum)
    const { ip: again } = parsed(packet)
    const payload = packet.slice(20)
    replaceAddress(view, packet, again, 'source', parseIp('11.9.9.9').bytes)
    expect(packet.slice(20)).toEqual(payload)
    expect(parsed(packet).ip.isFragment).toBe(true)
  })

  test('what is quoted too short, or of the other version, is not read', () => {
    const sent = udpPacket({ from: '11.0.0.1', to: '11.0.0.2', fromPort: 1, toPort: 2 })
    expect(readQuote(new DataView(sent.buffer), 0, 27, 4)).toBe(null)
    expect(readQuote(new DataView(sent.buffer), 0, 28, 6)).toBe(null)
    expect(readQuote(new DataView(sent.buffer), 0, 28, 4)).toMatchObject({ protocol: 17, fragmentOffset: 0, payloadStart: 20 })
  })
})
