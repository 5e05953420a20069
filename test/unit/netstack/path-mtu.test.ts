import { describe, expect, it } from 'vitest'
import { parseIp } from '../../../src/base/index.ts'
import type { StackEvent, TcpConnection } from '../../../src/netstack/index.ts'
import { batchOfPackets, type IcmpErrorKind, Protocol, writeIcmp, writeIp } from '../../../src/packet/index.ts'
import { endpoint, transfer, VirtualNet } from '../../support/virtual-net.ts'

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** What a router says about a packet: to its sender, with as much of it as fits. */
function routerSays(kind: IcmpErrorKind, mtu: number, about: Uint8Array): Uint8Array {
  const v6 = about[0]! >> 4 === 6
  const source = parseIp(v6 ? 'fd00::99' : '10.0.0.99').bytes
  const destination = v6 ? about.slice(8, 24) : about.slice(12, 16)
  const quoted = about.subarray(0, v6 ? 1232 : 548)
  const packet = new Uint8Array((v6 ? 40 : 20) + 8 + quoted.length)
  const protocol = v6 ? Protocol.icmp6 : Protocol.icmp
  const at = writeIp(packet, viewOf(packet), 0, { source, destination, protocol, hopLimit: 64 }, 8 + quoted.length)
  packet.set(quoted, at + 8)
  writeIcmp(viewOf(packet), 0, at, kind, mtu, quoted.length)
  return packet
}

/** A path with a router in its middle that takes packets of `mtu` bytes and says so, or not. */
function narrowNet(mtu: number, says: number | null): { readonly net: VirtualNet; readonly told: () => number } {
  const net = new VirtualNet(3, { delayMs: 10 })
  net.toB.faults = { delayMs: 10, mtu }
  let told = 0
  net.onPacket = (side, packet) => {
    if (side !== 'a' || packet.length <= mtu || says === null) return
    told++
    net.toA.push(routerSays('packet-too-big', says, packet), net.now)
  }
  return { net, told: () => told }
}

describe.each([
  ['IPv4', false],
  ['IPv6', true],
])('path MTU over %s', (_version, v6) => {
  it('is taken from a router that says it: one flight is sent again, no more', () => {
    const { net, told } = narrowNet(1300, 1300)
    const result = transfer(net, 200_000, 80, v6)
    expect(result).toMatchObject({ intact: true, closed: ['done', 'done'] })
    expect(result.ms).toBeLessThan(2000)
    expect(told()).toBeGreaterThan(0)
    expect(told()).toBeLessThanOrEqual(12)
  })

  it('is found where nobody says it (a black hole), and the transfer goes on', () => {
    const { net } = narrowNet(1300, null)
    const result = transfer(net, 200_000, 80, v6)
    expect(result).toMatchObject({ intact: true, closed: ['done', 'done'] })
    // Three time-outs, of 200, 400 and 800 ms and the round trips.
    expect(result.ms).toBeLessThan(6000)
  })
})

describe('a path MTU that nobody has', () => {
  it('below 1280 is discarded for IPv6 (RFC 8201 §4)', () => {
    const net = new VirtualNet(4, { delayMs: 10 })
    const sent: Uint8Array[] = []
    let connection: TcpConnection | null = null
    net.onPacket = (side, packet) => side === 'a' && packet.length > 1400 && sent.push(packet.slice())
    net.onEvent = (side: 'a' | 'b', event: StackEvent) => {
      if (event.type === 'incoming') event.connection.accept()
      if (event.type !== 'connected' || side !== 'a') return
      connection = event.connection
      connection.write(new Uint8Array(50_000))
    }
    net.b.listen({ address: null, port: 80 })
    net.a.dial(endpoint('fd00::2', 80), net.now)
    net.wait(35)
    const { mss } = connection!.info
    for (const mtu of [0, 68, 576, 1279]) net.a.input(batchOfPackets([routerSays('packet-too-big', mtu, sent.at(-1)!)]), net.now)
    expect(connection!.info.mss).toBe(mss)
    net.a.input(batchOfPackets([routerSays('packet-too-big', 1280, sent.at(-1)!)]), net.now)
    expect(connection!.info.mss).toBe(mss - 140)
  })
})
