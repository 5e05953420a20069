import { describe, expect, test } from 'vitest'
import { SeededRandom } from '../../../../src/base/index.ts'
import { readQuote } from '../../../../src/ingress/tun/rewrite.ts'
import { SentFlows } from '../../../../src/ingress/tun/sent-flows.ts'
import { IpHeader } from '../../../../src/packet/index.ts'
import { echoPacket, otherPacket, tcpPacket, udpPacket } from '../../../support/ip-packets.ts'

const parsed = (packet: Uint8Array): readonly [IpHeader, DataView] => {
  const view = new DataView(packet.buffer)
  const ip = new IpHeader()
  expect(ip.parse(view, 0, packet.length)).toBe(null)
  return [ip, view]
}
const flows = (): SentFlows => new SentFlows(new SeededRandom(5))

describe('what was sent through a lease', () => {
  test('its answers come from the same address and port, to the same port', () => {
    const sent = flows()
    sent.note(...parsed(udpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1000, toPort: 2000 })), 0)
    const answers = (from: string, fromPort: number, toPort: number): boolean =>
      sent.isAnswer(...parsed(udpPacket({ from, to: '10.0.0.2', fromPort, toPort })), 1)
    expect(answers('11.0.0.1', 2000, 1000)).toBe(true)
    expect(answers('11.0.0.1', 2001, 1000)).toBe(false)
    expect(answers('11.0.0.1', 2000, 1001)).toBe(false)
    expect(answers('11.0.0.2', 2000, 1000)).toBe(false)
    expect(sent.isAnswer(...parsed(tcpPacket({ from: '11.0.0.1', to: '10.0.0.2', fromPort: 2000, toPort: 1000 })), 1)).toBe(false)
  })

  test('an echo is answered by its identifier, both families', () => {
    for (const [from, to] of [
      ['10.0.0.2', '11.0.0.1'],
      ['fd00::2', '2a0b::1'],
    ] as const) {
      const sent = flows()
      sent.note(...parsed(echoPacket({ from, to, id: 77 })), 0)
      expect(sent.isAnswer(...parsed(echoPacket({ from: to, to: from, id: 77, kind: 'echo-reply' })), 1)).toBe(true)
      expect(sent.isAnswer(...parsed(echoPacket({ from: to, to: from, id: 78, kind: 'echo-reply' })), 1)).toBe(false)
    }
  })

  test('a protocol without ports is answered by its address', () => {
    const sent = flows()
    const packet = (from: string, to: string) => otherPacket({ from, to, protocol: 132, data: new Uint8Array(20) })
    sent.note(...parsed(packet('10.0.0.2', '11.0.0.1')), 0)
    expect(sent.isAnswer(...parsed(packet('11.0.0.1', '10.0.0.2')), 1)).toBe(true)
    expect(sent.isAnswer(...parsed(packet('11.0.0.2', '10.0.0.2')), 1)).toBe(false)
  })

  test('an error is about a packet that was sent', () => {
    const sent = flows()
    const packet = udpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1000, toPort: 33_434 })
    sent.note(...parsed(packet), 0)
    const about = (quoted: Uint8Array): boolean => {
      const view = new DataView(quoted.buffer)
      return sent.wasSent(readQuote(view, 0, quoted.length, 4)!, 4, view, quoted.length, 1)
    }
    expect(about(packet.slice(0, 28))).toBe(true)
    expect(about(udpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1000, toPort: 33_435 }))).toBe(false)
    expect(about(udpPacket({ from: '11.0.0.1', to: '10.0.0.2', fromPort: 33_434, toPort: 1000 }))).toBe(false)
  })

  test('after five minutes a UDP flow is over, a TCP flow after two hours', () => {
    const sent = flows()
    sent.note(...parsed(udpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1, toPort: 2 })), 0)
    sent.note(...parsed(tcpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1, toPort: 2 })), 0)
    const udp = parsed(udpPacket({ from: '11.0.0.1', to: '10.0.0.2', fromPort: 2, toPort: 1 }))
    const tcp = parsed(tcpPacket({ from: '11.0.0.1', to: '10.0.0.2', fromPort: 2, toPort: 1 }))
    expect([sent.isAnswer(...udp, 299_000), sent.isAnswer(...tcp, 299_000)]).toEqual([true, true])
    expect([sent.isAnswer(...udp, 301_000), sent.isAnswer(...tcp, 7_200_000)]).toEqual([false, true])
    expect(sent.isAnswer(...tcp, 7_441_000)).toBe(false)
  })

  test('a flood of flows takes no more memory, and the newest is still known', () => {
    const sent = flows()
    for (let i = 0; i < 50_000; i++) {
      const port = 1024 + (i % 60_000)
      sent.note(...parsed(udpPacket({ from: '10.0.0.2', to: `11.${i & 255}.${(i >> 8) & 255}.1`, fromPort: port, toPort: 2 })), i)
      if (i % 97 !== 0) continue
      const answer = udpPacket({ from: `11.${i & 255}.${(i >> 8) & 255}.1`, to: '10.0.0.2', fromPort: 2, toPort: port })
      expect(sent.isAnswer(...parsed(answer), i)).toBe(true)
    }
  })
})
