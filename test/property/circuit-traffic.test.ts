import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { type Random, SeededRandom } from '../../src/base/index.ts'
import { nativeSuite } from '../../src/crypto/index.ts'
import { circuitLimits } from '../../src/onion/circuit-limits.ts'
import { Endpoint } from '../../src/onion/endpoint.ts'
import type { CellBatch, CircuitOutput } from '../../src/onion/index.ts'
import { OutputQueue } from '../../src/onion/outputs.ts'
import { CircuitChain } from '../support/circuit-chain.ts'

const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)
const target = { host: 'example.com', port: 80 }

/** Both ends of a circuit's streams without the layers between them: cells go as they are. */
class Pair {
  now = 0
  readonly outputs = [new OutputQueue(), new OutputQueue()] as const
  readonly ends: readonly [Endpoint, Endpoint]
  /** Cells under way to each end. */
  readonly wire: readonly [CellBatch[], CellBatch[]] = [[], []]
  handle: (side: 0 | 1, output: CircuitOutput) => void = () => {}

  constructor() {
    const suite = nativeSuite()
    this.ends = [
      new Endpoint({ role: 'client', suite, limits: circuitLimits, outputs: this.outputs[0], servesExit: false }),
      new Endpoint({ role: 'relay', suite, limits: circuitLimits, outputs: this.outputs[1], servesExit: true }),
    ]
  }

  drain(side: 0 | 1): void {
    for (let output = this.outputs[side].poll(); output; output = this.outputs[side].poll()) this.handle(side, output)
  }

  send(side: 0 | 1, most: number): boolean {
    const batch = this.ends[side].pollCells(most, this.now, () => {})
    this.drain(side)
    if (batch) this.wire[side === 0 ? 1 : 0].push(batch)
    return batch !== null
  }

  deliver(side: 0 | 1): boolean {
    const batch = this.wire[side].shift()
    if (!batch) return false
    const handler = { isClosed: false, circuitMessage: () => 'protocol' as const }
    for (let i = 0; i < batch.count; i++) expect(this.ends[side].receive(batch, i, 0, this.now, handler)).toBeNull()
    this.ends[side].flush()
    this.drain(side)
    return true
  }

  settle(): void {
    let moves = true
    while (moves) {
      moves = false
      for (const side of [0, 1] as const) {
        this.drain(side)
        while (this.send(side, 40)) moves = true
        while (this.deliver(side)) moves = true
      }
    }
  }
}

/** What one side of a stream says: bytes that follow from its seed, and how it ends. */
class Talker {
  readonly #pattern: number
  readonly length: number
  offered = 0
  isEnded = false
  received = 0
  unread = 0
  heardEnd: string | null = null

  constructor(random: Random) {
    this.#pattern = random.int(256)
    this.length = random.int(4) === 0 ? random.int(400_000) : random.int(3000)
  }

  bytes(from: number, to: number): Uint8Array {
    const bytes = new Uint8Array(to - from)
    for (let i = from; i < to; i++) bytes[i - from] = (this.#pattern + i * 31 + (i >> 8)) & 0xff
    return bytes
  }
}

function randomTraffic(random: Random, steps: number): void {
  const pair = new Pair()
  const talkers = new Map<number, readonly [Talker, Talker]>()
  const blocked = new Set<string>()
  const begun = new Set<number>()
  let opened = 0
  let completed = 0

  const talk = (side: 0 | 1, stream: number, pieces: number): void => {
    const talker = talkers.get(stream)?.[side]
    if (!talker || talker.isEnded || blocked.has(`${side}/${stream}`) || (side === 1 && !begun.has(stream))) return
    for (let i = 0; i < pieces && talker.offered < talker.length; i++) {
      const to = Math.min(talker.length, talker.offered + 1 + random.int(random.int(3) === 0 ? 60_000 : 700))
      const hasRoom = pair.ends[side].offer(stream, talker.bytes(talker.offered, to))
      talker.offered = to
      if (!hasRoom) {
        blocked.add(`${side}/${stream}`)
        return
      }
    }
    if (talker.offered === talker.length) {
      talker.isEnded = true
      pair.ends[side].end(stream, 'done')
    }
  }

  pair.handle = (side, output) => {
    const stream = 'stream' in output ? output.stream : 0
    const self = talkers.get(stream)?.[side]
    const other = talkers.get(stream)?.[side === 0 ? 1 : 0]
    if (output.type === 'begin') {
      begun.add(stream)
      pair.ends[1].accept(stream, '192.0.2.1')
    }
    if (output.type === 'writable') blocked.delete(`${side}/${stream}`)
    if (output.type === 'data' && self && other) {
      expect(self.heardEnd, 'nothing comes after the end').toBeNull()
      expect(
        Buffer.compare(output.bytes, other.bytes(self.received, self.received + output.bytes.length)),
        'bytes are the right ones',
      ).toBe(0)
      self.received += output.bytes.length
      self.unread += output.bytes.length
    }
    if (output.type === 'end' && self && other) {
      self.heardEnd = output.reason
      if (output.reason === 'done') expect(self.received, 'what looks complete is complete').toBe(other.length)
      else {
        self.isEnded = true
        other.isEnded = true
      }
      if (self.heardEnd === 'done' && other.heardEnd === 'done') completed++
    }
  }

  for (let step = 0; step < steps; step++) {
    pair.now += random.int(8)
    const ids = [...talkers.keys()]
    const stream = ids.length > 0 ? ids[random.int(ids.length)]! : 0
    const side = random.int(2) as 0 | 1
    switch (random.int(12)) {
      case 0:
        if (pair.ends[0].openStreams < 40) {
          const id = pair.ends[0].open(0, target, pair.now)
          talkers.set(id, [new Talker(random), new Talker(random)])
          opened++
        }
        break
      case 1:
      case 2:
      case 3:
        talk(side, stream, 1 + random.int(10))
        break
      case 4:
      case 5: {
        const talker = talkers.get(stream)?.[side]
        if (talker && talker.unread > 0) {
          const taken = 1 + random.int(talker.unread)
          talker.unread -= taken
          pair.ends[side].consume(stream, taken, pair.now)
        }
        break
      }
      case 6:
        // Now and then somebody gives up.
        if (random.int(20) === 0 && begun.has(stream)) {
          talkers.get(stream)![side].isEnded = true
          talkers.get(stream)![side].heardEnd ??= 'reset'
          pair.ends[side].end(stream, 'reset')
        }
        break
      case 7:
        pair.ends[side].ping(0, pair.now)
        break
      case 8:
      case 9:
        pair.send(side, 1 + random.int(40))
        break
      default:
        pair.deliver(side)
    }
    for (const end of pair.ends) expect(end.queuedBytes).toBeLessThan(40 * (circuitLimits.offerBytes + 60_000))
  }
  // Everything that was begun is finished, or was given up.
  for (let round = 0; round < 500; round++) {
    pair.now += 5
    for (const [stream, both] of talkers) {
      for (const side of [0, 1] as const) {
        talk(side, stream, 100)
        pair.ends[side].consume(stream, both[side].unread, pair.now)
        both[side].unread = 0
      }
    }
    pair.settle()
  }
  for (const [stream, both] of talkers) {
    for (const side of [0, 1] as const) expect(both[side].heardEnd, `stream ${stream}, side ${side}`).not.toBeNull()
  }
  for (const end of pair.ends) {
    expect(end.openStreams).toBe(0)
    expect(end.queuedBytes).toBe(0)
    expect(end.timeout).toBeNull()
  }
  expect(opened).toBeGreaterThan(0)
  expect(completed).toBeGreaterThan(0)
}

describe(`random traffic (SHALLOT_TEST_SEED=${seed})`, () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7])('of many streams arrives whole and in order, within its credit (run %i)', (run) => {
    randomTraffic(new SeededRandom(seed + run), 6000)
  })
})

describe('many streams and circuits', () => {
  it('leave nothing behind: 70,000 streams on one circuit, past the last id', () => {
    const pair = new Pair()
    let echoed = 0
    pair.handle = (side, output) => {
      if (output.type === 'begin') pair.ends[1].accept(output.stream, '192.0.2.1')
      else if (output.type === 'data') echoed += output.bytes.length
      else if (output.type === 'end' && side === 1) pair.ends[1].end(output.stream, 'done')
    }
    for (let i = 0; i < 700; i++) {
      for (let j = 0; j < 100; j++) {
        const stream = pair.ends[0].open(0, target, pair.now)
        pair.ends[0].offer(stream, new Uint8Array(10))
        pair.ends[0].end(stream, 'done')
      }
      pair.settle()
    }
    expect(echoed).toBe(700_000)
    for (const end of pair.ends) expect([end.openStreams, end.queuedBytes, end.timeout]).toEqual([0, 0, null])
  })

  it('leave nothing behind: 2,000 circuits with five streams each', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const heap = (): number => {
      collect()
      collect()
      const { heapUsed, arrayBuffers, external } = process.memoryUsage()
      return heapUsed + arrayBuffers + external
    }
    const circuit = (index: number): void => {
      const chain = new CircuitChain({ relays: index % 4 === 0 ? 3 : 1 }).build()
      for (let i = 0; i < 5; i++) {
        const stream = chain.client.open(target, chain.now)
        chain.client.offer(stream, new Uint8Array(2000))
        chain.client.end(stream, i % 2 === 0 ? 'done' : 'reset')
      }
      chain.run()
      chain.client.close('finished', chain.now)
      chain.run()
      for (const relay of chain.relays) expect(relay.state).toBe('closed')
    }
    for (let i = 0; i < 200; i++) circuit(i)
    const before = heap()
    for (let i = 0; i < 1800; i++) circuit(i)
    expect(heap() / before).toBeLessThan(1.1)
  }, 120_000)

  it('cost little: a thousand open circuits at a relay', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    collect()
    const used = (): number => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers + process.memoryUsage().external
    const before = used()
    const chains = Array.from({ length: 200 }, () => new CircuitChain().build())
    collect()
    // One client and three relays each; the channels come on top of it.
    expect((used() - before) / chains.length / 4).toBeLessThan(16 * 1024)
  })
})
