import { describe, expect, it } from 'vitest'
import { batchOf, CELL_BYTES, circuitLimits } from '../../../src/onion/index.ts'
import { Command } from '../../../src/onion/messages.ts'
import { INITIAL_WINDOW_BYTES, LEAST_DATA_CHARGE_BYTES } from '../../../src/onion/streams.ts'
import { CircuitChain } from '../../support/circuit-chain.ts'
import { HostileRelay } from '../../support/hostile.ts'

const EXIT = 2
const target = { host: 'example.com', port: 80 }

describe('a client that builds a circuit', () => {
  it('reports each hop with its round trip', () => {
    const chain = new CircuitChain({ latencyMs: 10 }).build()
    expect(chain.outputsOf(-1, 'hop')).toEqual([
      { type: 'hop', index: 0, rttMs: 20 },
      { type: 'hop', index: 1, rttMs: 40 },
      { type: 'hop', index: 2, rttMs: 60 },
    ])
    expect(chain.client.rttMs).toBeNull()
    chain.client.ping(chain.now)
    chain.run()
    expect(chain.outputsOf(-1, 'rtt')).toEqual([{ type: 'rtt', hop: 2, rttMs: 60 }])
    expect([chain.client.rttMs, chain.client.minRttMs]).toEqual([60, 60])
  })

  it('gives up on a hop that does not answer', () => {
    const chain = new CircuitChain()
    chain.on = (party, output) => party === 0 && output.type === 'extend'
    chain.client.extend(chain.target(0), 0)
    chain.run()
    chain.client.extend(chain.target(1), 0)
    chain.run()
    expect(chain.client.pollTimeout()).toBe(circuitLimits.extendTimeoutMs)
    chain.client.handleTimeout(circuitLimits.extendTimeoutMs)
    chain.run()
    expect(chain.closedAt(-1)).toEqual({ type: 'closed', reason: 'timeout', origin: 'local', hop: 1 })
  })

  it('refuses a relay that does not prove itself', () => {
    const chain = new CircuitChain()
    const { id } = chain.target(0)
    chain.client.extend({ id, onionKey: chain.target(1).onionKey }, 0)
    chain.run()
    expect(chain.closedAt(-1)).toEqual({ type: 'closed', reason: 'handshake-failed', origin: 'remote', hop: 0 })
  })

  it('hears a hop that speaks in the same batch as its EXTENDED', () => {
    let relay: HostileRelay | undefined
    const chain = new CircuitChain({
      relays: 2,
      relay: (index, options) => {
        if (index !== 1) return null
        relay = new HostileRelay(options)
        return relay.machine
      },
      // What the second relay says at once comes together with its CREATED, and at the client with its EXTENDED.
      tamper: (link, direction, batch) => {
        if (direction !== 'backward' || (link === 0 && chain.client.hops === 0)) return batch
        held[link as 0 | 1].push(batch.bytes.slice(batch.start, batch.start + batch.count * CELL_BYTES))
        return held[link as 0 | 1].length < 2 ? null : batchOf(new Uint8Array(Buffer.concat(held[link as 0 | 1])))
      },
    })
    const held: [Uint8Array[], Uint8Array[]] = [[], []]
    chain.client.extend(chain.target(0), 0)
    chain.run()
    chain.client.extend(chain.target(1), 0)
    chain.run()
    relay!.say({ command: Command.ping, stream: 0, body: new Uint8Array(8) })
    chain.run()
    expect(chain.client.hops).toBe(2)
    expect(relay!.heard.map(({ command }) => command)).toEqual([Command.pong])
  })

  it('closes on cells before it asked for any', () => {
    const chain = new CircuitChain()
    chain.client.handleCells(batchOf(new Uint8Array(CELL_BYTES)), 0)
    expect(chain.client.isClosed).toBe(true)
  })
})

describe('a client’s streams', () => {
  it('are refused by the exit with its reason, and the id is free again', () => {
    const chain = new CircuitChain().build()
    chain.on = (party, output) => {
      if (party !== EXIT || output.type !== 'begin') return false
      chain.relays[EXIT]!.end(output.stream, 'policy')
      return true
    }
    const stream = chain.client.open(target, chain.now)
    chain.client.offer(stream, new Uint8Array(5000))
    chain.run()
    expect(chain.seenAt(-1, stream)).toEqual({ received: [], ends: ['policy'], connected: false })
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
    expect([chain.client.queuedBytes, chain.relays[EXIT]!.queuedBytes]).toEqual([0, 0])
  })

  it('time out when the exit does not answer', () => {
    const chain = new CircuitChain().build()
    chain.on = (party, output) => party === EXIT && (output.type === 'begin' || output.type === 'resolve')
    const stream = chain.client.open(target, chain.now)
    const question = chain.client.resolve('example.com', chain.now)
    chain.run(chain.now + circuitLimits.connectTimeoutMs)
    expect(chain.seenAt(-1, stream).ends).toEqual(['timeout'])
    expect(chain.seenAt(EXIT, stream).ends).toEqual(['timeout'])
    expect(chain.outputsOf(-1, 'resolved')).toEqual([{ type: 'resolved', stream: question, answers: [], error: 'timeout' }])
    expect(chain.client.pollTimeout()).toBeNull()
    chain.relays[EXIT]!.accept(stream, '192.0.2.1')
    chain.relays[EXIT]!.answer(question, 'resolve-failed')
    chain.run()
    expect(chain.outputsOf(-1, 'resolved')).toHaveLength(1)
    expect(chain.client.counts.openStreams).toBe(0)
    expect(chain.client.isClosed).toBe(false)
  })

  it('may be opened at another hop', () => {
    const chain = new CircuitChain().build()
    const stream = chain.client.open(target, chain.now, 0)
    chain.client.offer(stream, new Uint8Array(10).fill(5))
    chain.run()
    expect(chain.bytesAt(0, stream)).toEqual(new Uint8Array(10).fill(5))
    expect(chain.outputsOf(EXIT, 'begin')).toEqual([])
  })

  it('go to several hops in one batch', () => {
    const chain = new CircuitChain().build()
    const streams = [0, 1, 2, 0, 1].map((hop) => [chain.client.open(target, chain.now, hop), hop] as const)
    for (const [stream, hop] of streams) chain.client.offer(stream, new Uint8Array(4000).fill(hop + 1))
    chain.run()
    for (const [stream, hop] of streams) expect(chain.bytesAt(hop, stream)).toEqual(new Uint8Array(4000).fill(hop + 1))
  })

  it('have a limit by name', () => {
    const chain = new CircuitChain({ limits: { streams: 3, datagramStreams: 1 } }).build()
    chain.client.openDatagrams(chain.now)
    expect(() => chain.client.openDatagrams(chain.now)).toThrow(expect.objectContaining({ code: 'resource-limit' }))
    chain.client.open(target, chain.now)
    chain.client.resolve('example.com', chain.now)
    expect(() => chain.client.open(target, chain.now)).toThrow(expect.objectContaining({ code: 'resource-limit' }))
  })

  it('refuse a target that can’t be said', () => {
    const chain = new CircuitChain({ relays: 1 }).build()
    for (const host of ['', 'a b', 'ü', 'x'.repeat(256)]) {
      expect(() => chain.client.open({ host, port: 80 }, 0)).toThrow(expect.objectContaining({ code: 'bad-target' }))
      expect(() => chain.client.resolve(host, 0)).toThrow(expect.objectContaining({ code: 'bad-target' }))
    }
    expect(() => chain.client.open({ host: 'a', port: 0 }, 0)).toThrow(expect.objectContaining({ code: 'bad-target' }))
  })

  it('resolve names', () => {
    const chain = new CircuitChain().build()
    const question = chain.client.resolve('example.com', chain.now)
    chain.run()
    expect(chain.outputsOf(EXIT, 'resolve')).toEqual([{ type: 'resolve', stream: question, name: 'example.com' }])
    expect(chain.outputsOf(-1, 'resolved')).toEqual([
      { type: 'resolved', stream: question, answers: [{ type: 'address', value: '203.0.113.6', ttlSeconds: 60 }], error: null },
    ])
  })

  it('send BEGIN, data and END in one cell when they are small', () => {
    const chain = new CircuitChain().build()
    const before = chain.cells
    const stream = chain.client.open(target, chain.now)
    chain.client.offer(stream, new Uint8Array(100))
    chain.client.offer(stream, new Uint8Array(200))
    chain.client.end(stream, 'done')
    const batch = chain.client.pollCells(40, chain.now)!
    expect(batch.count).toBe(1)
    chain.inject(0, 'forward', batch)
    chain.run()
    // One cell over three links, the answer back, and the PONG to the PING that came with it.
    expect(chain.cells - before).toBe(9)
    expect(chain.bytesAt(EXIT, stream).length).toBe(300)
    expect(chain.seenAt(EXIT, stream).ends).toEqual(['done'])
  })

  it('pack bulk into full cells in one buffer, and give it out in one piece', () => {
    const chain = new CircuitChain({ relays: 1 }).build()
    const stream = chain.client.open(target, chain.now)
    chain.run()
    chain.outputs.length = 0
    chain.client.offer(stream, new Uint8Array(40 * 1515).fill(1))
    const batch = chain.client.pollCells(40, chain.now)!
    expect(batch.count).toBe(40)
    expect(batch.bytes.length).toBe(32 + 40 * CELL_BYTES)
    expect(chain.client.queuedBytes).toBe(0)
    chain.inject(0, 'forward', batch)
    chain.run()
    const pieces = chain.outputsOf(0, 'data')
    expect(pieces).toHaveLength(1)
    expect(pieces[0]!.bytes).toEqual(new Uint8Array(40 * 1515).fill(1))
    // No copy: the data stands in the batch's own buffer.
    expect(pieces[0]!.bytes.buffer).toBe(batch.bytes.buffer)
  })

  it('do not wait for each other: a stream whose reader stands still holds up no other', () => {
    const chain = new CircuitChain({ consumes: false }).build()
    chain.on = (party, output) => {
      if (party === EXIT && output.type === 'data' && output.stream === quick)
        chain.relays[EXIT]!.consume(quick, output.bytes.length, chain.now)
      if (party === -1 && output.type === 'writable' && left[output.stream]! > 0) feed(output.stream)
      return false
    }
    const stuck = chain.client.open(target, chain.now)
    const quick = chain.client.open(target, chain.now)
    const left: Record<number, number> = { [stuck]: 2_000_000, [quick]: 2_000_000 }
    const feed = (stream: number): void => {
      while (left[stream]! > 0) {
        left[stream]! -= 50_000
        if (!chain.client.offer(stream, new Uint8Array(50_000))) return
      }
    }
    feed(stuck)
    feed(quick)
    chain.run()
    expect(chain.bytesAt(EXIT, quick).length).toBe(2_000_000)
    const stuckBytes = chain.bytesAt(EXIT, stuck).length
    expect(stuckBytes).toBeGreaterThan(INITIAL_WINDOW_BYTES - LEAST_DATA_CHARGE_BYTES)
    expect(stuckBytes).toBeLessThanOrEqual(INITIAL_WINDOW_BYTES)
    expect(chain.client.isClosed).toBe(false)
  })

  it('fail alone when a driver does not wait for writable', () => {
    const chain = new CircuitChain().build()
    const stream = chain.client.open(target, chain.now)
    expect(chain.client.offer(stream, new Uint8Array(128 * 1024))).toBe(true)
    expect(chain.client.offer(stream, new Uint8Array(1))).toBe(false)
    expect(chain.client.offer(stream, new Uint8Array(200 * 1024))).toBe(false)
    expect(chain.client.offer(stream, new Uint8Array(1))).toBe(false)
    expect(chain.client.queuedBytes).toBeLessThan(1000)
    chain.run()
    expect(chain.seenAt(-1, stream).ends).toEqual(['internal'])
    expect(chain.seenAt(EXIT, stream).ends).toEqual(['internal'])
    expect(chain.client.isClosed).toBe(false)
  })

  it('are over when both sides reset at the same time', () => {
    const chain = new CircuitChain({ latencyMs: 5 }).build()
    const stream = chain.client.open(target, chain.now)
    chain.run()
    chain.client.end(stream, 'reset')
    chain.relays[EXIT]!.end(stream, 'unreachable')
    chain.run()
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
    expect(chain.client.isClosed).toBe(false)
  })

  it.each(['client', 'exit'])('may be reset by the %s after its own half close', (who) => {
    const chain = new CircuitChain({ latencyMs: 5 }).build()
    const stream = chain.client.open(target, chain.now)
    chain.run()
    const [self, other, party] = who === 'client' ? [chain.client, chain.relays[EXIT]!, EXIT] : [chain.relays[EXIT]!, chain.client, -1]
    self.end(stream, 'done')
    chain.run()
    self.end(stream, 'reset')
    // It crosses the other side's END.
    other.end(stream, 'done')
    chain.run()
    expect(chain.seenAt(party, stream).ends[0]).toBe('done')
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
    expect(chain.client.isClosed).toBe(false)
  })
})

describe('datagrams', () => {
  const peer = { host: '192.0.2.1', port: 53 }

  it('go both ways, whole cells or fragments, and keep their edges', () => {
    const chain = new CircuitChain().build()
    const association = chain.client.openDatagrams(chain.now)
    chain.run()
    expect(chain.outputsOf(EXIT, 'datagrams-open')).toEqual([{ type: 'datagrams-open', stream: association }])
    const sizes = [0, 1, 1400, 1498, 1499, 1513, 3000, 65_507]
    for (const size of sizes) {
      expect(chain.client.sendDatagram(association, peer, new Uint8Array(size).fill(size), chain.now)).toBe(true)
      expect(chain.relays[EXIT]!.sendDatagram(association, peer, new Uint8Array(size).fill(size), chain.now)).toBe(true)
    }
    chain.run()
    for (const party of [EXIT, -1]) {
      const datagrams = chain.outputsOf(party, 'datagram')
      expect(datagrams.map(({ bytes }) => bytes.length)).toEqual(sizes)
      expect(datagrams.every((datagram) => datagram.peer.host === peer.host && datagram.peer.port === 53)).toBe(true)
      expect(datagrams.every(({ bytes }) => bytes.every((byte) => byte === (bytes.length & 0xff)))).toBe(true)
    }
    chain.client.closeDatagrams(association)
    chain.run()
    expect(chain.outputsOf(EXIT, 'datagrams-closed')).toHaveLength(1)
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
  })

  it('that waited too long are dropped before encryption', () => {
    const chain = new CircuitChain().build()
    const association = chain.client.openDatagrams(chain.now)
    chain.run()
    chain.client.sendDatagram(association, peer, new Uint8Array(10), chain.now)
    chain.now += 101
    chain.client.sendDatagram(association, peer, new Uint8Array(20), chain.now)
    chain.run()
    expect(chain.outputsOf(EXIT, 'datagram').map(({ bytes }) => bytes.length)).toEqual([20])
    expect(chain.client.counts.datagramsDropped).toBe(1)
  })

  it('are dropped at once when the queue is full or the datagram can’t be said', () => {
    const chain = new CircuitChain().build()
    const association = chain.client.openDatagrams(chain.now)
    let sent = 0
    while (chain.client.sendDatagram(association, peer, new Uint8Array(60_000), chain.now)) sent++
    expect(sent).toBe(5)
    expect(chain.client.sendDatagram(association, peer, new Uint8Array(65_508), chain.now)).toBe(false)
    expect(chain.client.sendDatagram(association, { host: 'x', port: 0 }, new Uint8Array(1), chain.now)).toBe(false)
    chain.run()
    expect(chain.client.queuedBytes).toBe(0)
  })

  it('closed in the middle of a datagram do not disturb the circuit', () => {
    const chain = new CircuitChain().build()
    const association = chain.client.openDatagrams(chain.now)
    chain.run()
    chain.client.sendDatagram(association, peer, new Uint8Array(60_000), chain.now)
    const batch = chain.client.pollCells(3, chain.now)!
    chain.inject(0, 'forward', batch)
    chain.client.closeDatagrams(association)
    chain.run()
    expect(chain.client.isClosed).toBe(false)
    expect(chain.outputsOf(EXIT, 'datagrams-closed')).toHaveLength(1)
    expect(chain.client.counts.openStreams).toBe(0)
    expect(chain.client.queuedBytes).toBe(0)
  })

  it('closed by the exit are closed at the client', () => {
    const chain = new CircuitChain().build()
    const association = chain.client.openDatagrams(chain.now)
    chain.run()
    chain.relays[EXIT]!.closeDatagrams(association)
    chain.client.sendDatagram(association, peer, new Uint8Array(10), chain.now)
    chain.run()
    expect(chain.outputsOf(-1, 'datagrams-closed')).toEqual([{ type: 'datagrams-closed', stream: association }])
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
  })
})
