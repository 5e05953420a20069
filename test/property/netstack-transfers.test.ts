import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../src/base/index.ts'
import type { TcpConnection, TcpSettings } from '../../src/netstack/index.ts'
import type { Faults } from '../../src/packet/index.ts'
import { endpoint, Sink, Source, transfer, VirtualNet } from '../support/virtual-net.ts'

const seed = Number(process.env.SHALLOT_SEED ?? Date.now() % 100_000)

/** A path that is bad in some of the ways there are, and two ends that agree on some of the options. */
function drawCase(random: SeededRandom): { faults: Faults; settings: Partial<TcpSettings>; v6: boolean } {
  const maybe = (share: number, most: number) => (random.unit() < share ? random.unit() * most : 0)
  return {
    faults: {
      loss: maybe(0.6, 0.05),
      duplicate: maybe(0.4, 0.05),
      reorder: maybe(0.4, 0.05),
      reorderMs: 1 + random.int(30),
      corrupt: maybe(0.3, 0.02),
      delayMs: random.int(60),
      jitterMs: maybe(0.3, 10),
      ...(random.unit() < 0.2 ? { bytesPerSecond: 200_000 + random.int(2_000_000) } : {}),
    },
    settings: {
      sack: random.unit() < 0.8,
      timestamps: random.unit() < 0.8,
      windowScaling: random.unit() < 0.8,
      nagle: random.unit() < 0.3,
      receiveBufferBytes: 3000 + random.int(300_000),
      sendBufferBytes: 3000 + random.int(300_000),
    },
    v6: random.unit() < 0.4,
  }
}

describe(`netstack: what goes in comes out, whatever the path does (SHALLOT_SEED=${seed})`, () => {
  for (let i = 0; i < 60; i++) {
    it(`transfer ${i}`, () => {
      const random = new SeededRandom(seed * 100 + i)
      const { faults, settings, v6 } = drawCase(random)
      const net = new VirtualNet(seed * 100 + i, faults, { b: { tcp: settings } })
      const result = transfer(net, 20_000 + random.int(300_000), 80, v6)
      const told = JSON.stringify({ faults, settings, v6, result })
      expect(result.intact, told).toBe(true)
      expect(result.closed, told).toEqual(['done', 'done'])
      // Nothing waits for a timer of a minute on the way.
      expect(result.ms, told).toBeLessThan(180_000)
      net.wait(120_000)
      for (const { facts } of [net.a, net.b])
        expect(facts, told).toMatchObject({ connections: 0, timeWaits: 0, timers: 0, bufferBytes: 0, halfOpen: 0 })
    })
  }

  it('survives a path whose MTU shrinks without a word, and one that goes away for a while', () => {
    const net = new VirtualNet(seed, { delayMs: 10 })
    let packets = 0
    net.onPacket = () => {
      packets++
      if (packets === 300) net.toB.faults = { delayMs: 10, mtu: 1300 }
      if (packets === 600) net.toB.faults = { loss: 1 }
      if (packets === 640) net.toB.faults = { delayMs: 20, mtu: 1300 }
    }
    const result = transfer(net, 1_000_000)
    expect(result).toMatchObject({ intact: true, closed: ['done', 'done'] })
  })

  it('shares a narrow link: ten flows all come through, none starved', () => {
    const net = new VirtualNet(seed, { delayMs: 15, bytesPerSecond: 2_000_000, queueMs: 100 })
    net.b.listen({ address: null, port: 80 })
    const sinks = new Map<TcpConnection, Sink>()
    const finished: number[] = []
    const sources = new Map<TcpConnection, Source>()
    for (let i = 0; i < 10; i++) {
      const connection = net.a.dial(endpoint('10.0.0.2', 80), net.now)
      sources.set(connection, new Source(connection, i, 500_000))
    }
    net.onEvent = (side, event) => {
      if (event.type === 'incoming') {
        event.connection.accept()
        sinks.set(event.connection, new Sink())
      } else if (event.type === 'connected' || event.type === 'drained') sources.get(event.connection)?.pump()
      else if (event.type === 'readable') sinks.get(event.connection)?.read(event.connection)
      else if (event.type === 'remote-end') {
        sinks.get(event.connection)?.read(event.connection)
        event.connection.end()
      } else if (event.type === 'closed' && side === 'b') finished.push(net.now)
    }
    expect(net.run(() => finished.length === 10)).toBe(true)
    expect([...sinks.values()].map(({ bytes }) => bytes)).toEqual(new Array(10).fill(500_000))
    // 5 MB through 2 MB/s.
    expect(finished.at(-1)! - 1000).toBeLessThan(6000)
  })
})

describe('netstack: limits', () => {
  it('10,000 short connections leave nothing behind', () => {
    const net = new VirtualNet(seed, { delayMs: 1 })
    net.b.listen({ address: null, port: 80 })
    const hello = new TextEncoder().encode('GET / HTTP/1.0\r\n\r\n')
    const answer = new Uint8Array(300).fill(97)
    let opened = 0
    let closed = 0
    let answered = 0
    const open = () => {
      opened++
      net.a.dial(endpoint(opened % 2 === 0 ? 'fd00::2' : '10.0.0.2', 80), net.now)
    }
    net.onEvent = (side, event) => {
      switch (event.type) {
        case 'incoming':
          event.connection.accept()
          break
        case 'connected':
          if (side === 'a') event.connection.write(hello)
          break
        case 'readable': {
          const { connection } = event
          if (side === 'b') {
            connection.consume(connection.readable)
            connection.write(answer)
            connection.end()
          } else {
            answered += connection.readable
            connection.consume(connection.readable)
          }
          break
        }
        case 'remote-end':
          event.connection.end()
          break
        case 'closed':
          if (event.reason !== 'done') throw new Error(event.reason)
          if (side === 'a') {
            closed++
            if (opened < 10_000) open()
          }
          break
      }
    }
    for (let i = 0; i < 100; i++) open()
    expect(net.run(() => closed === 10_000)).toBe(true)
    expect(answered).toBe(10_000 * 300)
    net.wait(61_000)
    for (const { facts } of [net.a, net.b])
      expect(facts).toMatchObject({ connections: 0, timeWaits: 0, timers: 0, bufferBytes: 0, halfOpen: 0, droppedPackets: 0 })
  }, 60_000)

  it('a flood of SYNs holds a bounded number of connections, and lets others in between', () => {
    const net = new VirtualNet(seed, {}, { b: { limits: { halfOpen: 100, outboxPackets: 64 } } })
    net.b.listen({ address: null, port: 80 })
    let most = 0
    let connected = 0
    net.onEvent = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      if (side === 'a' && event.type === 'connected') connected++
      most = Math.max(most, net.b.facts.halfOpen)
    }
    // The flood's sources do not exist: its SYN-ACKs go nowhere.
    const flood = new VirtualNet(seed + 1, {}, { a: { promiscuous: true, limits: { connections: 30_000, halfOpen: 30_000 } } })
    flood.onPacket = (_side, packet) => net.toB.push(packet, net.now)
    for (let i = 0; i < 20_000; i++) {
      const from = {
        address: { family: 4 as const, bytes: Uint8Array.of(11, i >> 16, (i >> 8) & 255, (i & 255) | 1) },
        port: 1024 + (i % 60_000),
      }
      flood.a.dial(endpoint('10.0.0.2', 80), net.now, from)
      if (i % 50 === 0) {
        flood.settle()
        if (i % 2000 === 0) net.a.dial(endpoint('10.0.0.2', 80), net.now)
        net.settle()
      }
    }
    net.wait(100)
    expect(most).toBe(100)
    expect(connected).toBe(10)
    expect(net.b.facts.timers).toBeLessThanOrEqual(100 + 10)
    net.wait(70_000)
    expect(net.b.facts).toMatchObject({ halfOpen: 0, connections: 10, bufferBytes: 0 })
  }, 60_000)

  it('a thousand peers that never read hold no more memory than the limit', () => {
    const limit = 4 << 20
    const net = new VirtualNet(seed, { delayMs: 5 }, { a: { limits: { bufferBytes: limit } } })
    net.b.listen({ address: null, port: 80 })
    net.onEvent = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      // b never reads.
      if (side === 'a' && (event.type === 'connected' || event.type === 'drained')) event.connection.write(new Uint8Array(100_000))
      expect(net.a.facts.bufferBytes).toBeLessThanOrEqual(limit)
    }
    for (let i = 0; i < 1000; i++) net.a.dial(endpoint('10.0.0.2', 80), net.now)
    net.wait(2000)
    expect(net.a.facts.connections).toBe(1000)
    expect(net.a.facts.bufferBytes).toBeLessThanOrEqual(limit)
    net.a.stop(net.now)
    net.wait(1000)
    expect(net.a.facts).toMatchObject({ connections: 0, bufferBytes: 0, timers: 0 })
    expect(net.b.facts.connections).toBe(0)
  }, 60_000)
})
