import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { parseIp, SeededRandom } from '../../src/base/index.ts'
import { nativeSuite } from '../../src/crypto/index.ts'
import { circuitLimits } from '../../src/onion/circuit-limits.ts'
import { Endpoint } from '../../src/onion/endpoint.ts'
import { CELL_BYTES, type CellBatch, type CircuitOutput, newBatch } from '../../src/onion/index.ts'
import { OutputQueue } from '../../src/onion/outputs.ts'
import { packetLimits } from '../../src/onion/packets.ts'
import { PacketBatch } from '../../src/packet/index.ts'

const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)
const target = { host: 'example.com', port: 80 }
const grant = { address4: parseIp('100.64.0.2'), address6: null, mtu: 1420 }

/** Both ends of a circuit's streams without the layers between them. */
class Pair {
  now = 0
  readonly outputs = [new OutputQueue(), new OutputQueue()] as const
  readonly ends: readonly [Endpoint, Endpoint]
  readonly wire: readonly [CellBatch[], CellBatch[]] = [[], []]
  handle: (side: 0 | 1, output: CircuitOutput) => void = () => {}

  constructor() {
    const options = { suite: nativeSuite(), limits: circuitLimits }
    this.ends = [
      new Endpoint({ ...options, role: 'client', outputs: this.outputs[0], servesExit: false }),
      new Endpoint({ ...options, role: 'relay', outputs: this.outputs[1], servesExit: true }),
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
    this.read(side, batch)
    return true
  }

  read(side: 0 | 1, batch: CellBatch): void {
    for (let i = 0; i < batch.count; i++) expect(this.ends[side].receive(batch, i, 0, this.now, handler)).toBeNull()
    this.ends[side].flush()
    this.drain(side)
  }

  settle(): void {
    for (let moves = true; moves; ) {
      moves = false
      for (const side of [0, 1] as const) {
        this.drain(side)
        while (this.send(side, 40)) moves = true
        while (this.deliver(side)) moves = true
      }
    }
  }
}

const handler = { isClosed: false, circuitMessage: () => 'protocol' as const }

/** What one side of a lease has sent, and what the other has received of it. */
interface Flow {
  /** Numbers of the packets that were taken and are not received, in order, with their lengths. */
  readonly under: { number: number; length: number }[]
  sent: number
  received: number
}

describe(`random packets (SHALLOT_TEST_SEED=${seed})`, () => {
  it.each([0, 1, 2])('of several leases between streams arrive whole and in order, or not at all (run %i)', (run) => {
    const random = new SeededRandom(seed + run)
    const pair = new Pair()
    const flows = new Map<string, Flow>()
    const open = new Set<number>()
    const scratch = new PacketBatch(64, 64 * 1424)
    let [lost, received, leases] = [0, 0, 0]
    const flowOf = (side: 0 | 1, lease: number): Flow => {
      const key = `${side}/${lease}`
      const flow = flows.get(key) ?? { under: [], sent: 0, received: 0 }
      flows.set(key, flow)
      return flow
    }
    pair.handle = (side, output) => {
      if (output.type === 'begin') pair.ends[1].accept(output.stream, '192.0.2.1')
      if (output.type === 'packets-open') pair.ends[1].acceptPackets(output.stream, grant)
      if (output.type === 'end' && side === 1 && output.reason === 'done') pair.ends[1].end(output.stream, 'done')
      if (output.type === 'packets-opened') {
        open.add(output.stream)
        leases++
      }
      if (output.type === 'packets-closed') {
        open.delete(output.stream)
        flows.delete(`0/${output.stream}`)
        flows.delete(`1/${output.stream}`)
      }
      if (output.type === 'data') pair.ends[side].consume(output.stream, output.bytes.length, pair.now)
      if (output.type !== 'packets') return
      const { under } = flowOf(side === 0 ? 1 : 0, output.stream)
      for (let i = 0; i < output.batch.count; i++) {
        const packet = output.batch.packet(i)
        const number = new DataView(packet.buffer, packet.byteOffset).getUint32(0)
        while (under.length > 0 && under[0]!.number !== number) {
          under.shift()
          lost++
        }
        expect(under.shift()).toEqual({ number, length: packet.length })
        for (let at = 4; at < packet.length; at++)
          if (packet[at] !== ((number + at) & 0xff)) throw new Error(`packet ${number} was changed`)
        received++
      }
    }
    for (let step = 0; step < 5000; step++) {
      pair.now += random.int(random.int(200) === 0 ? 150 : 3)
      const side = random.int(2) as 0 | 1
      const lease = open.size > 0 ? [...open][random.int(open.size)]! : 0
      switch (random.int(10)) {
        case 0:
          // Refused as long as closed ones are not over.
          if (random.int(20) === 0) tryTo(() => pair.ends[0].openPackets(0, { families: [4], mtu: 1420 }, pair.now))
          break
        case 1:
          if (pair.ends[0].openStreams < 20) {
            const stream = pair.ends[0].open(0, target, pair.now)
            pair.ends[0].offer(stream, random.bytes(random.int(20_000)))
            pair.ends[0].end(stream, random.int(2) === 0 ? 'done' : 'reset')
          }
          break
        case 2:
          if (random.int(60) === 0 && open.delete(lease)) {
            pair.ends[0].closePackets(lease, 'done')
            flows.delete(`1/${lease}`)
          }
          break
        case 3:
        case 4:
        case 5: {
          if (lease === 0) break
          const flow = flowOf(side, lease)
          scratch.clear()
          const count = 1 + random.int(64)
          for (let i = 0; i < count; i++) {
            const length = 20 + random.int([30, 300, 1401][random.int(3)]!)
            const at = scratch.reserve(length)
            scratch.view.setUint32(at, flow.sent + i)
            for (let k = 4; k < length; k++) scratch.bytes[at + k] = (flow.sent + i + k) & 0xff
            scratch.commit(length)
          }
          const from = random.int(count)
          const taken = pair.ends[side].sendPackets(lease, scratch, from, count, pair.now)
          for (let i = from; i < from + taken; i++) flow.under.push({ number: flow.sent + i, length: scratch.end(i) - scratch.start(i) })
          flow.sent += count
          scratch.bytes.fill(0xee)
          break
        }
        case 6:
        case 7:
          pair.send(side, 1 + random.int(40))
          break
        default:
          pair.deliver(side)
      }
      for (const end of pair.ends) expect(end.queuedBytes).toBeLessThan(packetLimits.queueBytes + 30 * 20_000 + 100_000)
    }
    pair.settle()
    for (const lease of open) pair.ends[0].closePackets(lease, 'done')
    pair.settle()
    expect(received).toBeGreaterThan(1000)
    expect(leases).toBeGreaterThan(circuitLimits.packetStreams)
    expect(lost).toBeLessThan(received)
    for (const end of pair.ends) expect([end.openStreams, end.queuedBytes, end.timeout]).toEqual([0, 0, null])
  })
})

describe('a packet on its way', () => {
  it('costs no memory of its own, in neither direction', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const pair = new Pair()
    let opened = 0
    let got = 0
    pair.handle = (_, output) => {
      if (output.type === 'packets-open') pair.ends[1].acceptPackets(output.stream, grant)
      if (output.type === 'packets-opened') opened = output.stream
      if (output.type === 'packets') got += output.batch.count
    }
    pair.ends[0].openPackets(0, { families: [4], mtu: 1420 }, 0)
    pair.settle()
    const batch = new PacketBatch(64, 64 * 64)
    for (let i = 0; i < 64; i++) batch.add(new Uint8Array(60).fill(i))
    const receive = pair.ends[1].receive.bind(pair.ends[1])
    const round = (): void => {
      for (let i = 0; i < 10; i++) pair.ends[0].sendPackets(opened, batch, 0, 64, pair.now)
      for (let cells = pair.ends[0].pollCells(42, pair.now, seal); cells; cells = pair.ends[0].pollCells(42, pair.now, seal)) {
        for (let i = 0; i < cells.count; i++) receive(cells, i, 0, pair.now, handler)
        pair.ends[1].flush()
        pair.drain(1)
      }
    }
    for (let i = 0; i < 500; i++) round()
    got = 0
    // The least of several measurements: anything else of this process may allocate meanwhile.
    let least = Number.POSITIVE_INFINITY
    for (let tries = 0; tries < 10; tries++) {
      collect()
      const before = process.memoryUsage().heapUsed
      for (let i = 0; i < 20; i++) round()
      const used = process.memoryUsage().heapUsed - before
      if (used > 0) least = Math.min(least, used / (20 * 640))
    }
    expect(got).toBe(10 * 20 * 640)
    // A view of a packet alone would be over a hundred bytes. What there is, is per batch of cells.
    expect(least).toBeLessThan(24)
  })

  it('that is small does not hold a batch of cells, nor is a batch held by many circuits', () => {
    expect(newBatch(1).bytes.length).toBeGreaterThan(CELL_BYTES)
    const pairs = Array.from({ length: 50 }, () => new Pair())
    const batches = new Set<PacketBatch>()
    for (const pair of pairs) {
      let opened = 0
      pair.handle = (_, output) => {
        if (output.type === 'packets-open') pair.ends[1].acceptPackets(output.stream, grant)
        if (output.type === 'packets-opened') opened = output.stream
        if (output.type === 'packets') batches.add(output.batch)
      }
      pair.ends[0].openPackets(0, { families: [4], mtu: 1420 }, 0)
      pair.settle()
      const batch = new PacketBatch(1, 64)
      batch.add(new Uint8Array(60))
      pair.ends[0].sendPackets(opened, batch, 0, 1, 0)
      pair.settle()
    }
    expect(batches.size).toBe(1)
  })
})

const seal = (): void => {}

function tryTo(open: () => void): void {
  try {
    open()
  } catch (error) {
    expect(error).toMatchObject({ code: 'resource-limit' })
  }
}
