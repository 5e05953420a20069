import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import {
  batchOfPackets,
  type Faults,
  FaultyPath,
  FaultyPort,
  memoryPortPair,
  PacketBatch,
  PcapTracer,
  PcapWriter,
} from '../../../src/packet/index.ts'

describe('PacketBatch', () => {
  it('holds packets at multiples of four, up to its count and bytes', () => {
    const batch = new PacketBatch(3, 20)
    expect([batch.add(Uint8Array.of(1, 2, 3)), batch.add(new Uint8Array(12)), batch.add(new Uint8Array(5))]).toEqual([true, true, false])
    expect([batch.count, batch.start(1), batch.end(1), batch.totalBytes]).toEqual([2, 4, 16, 15])
    expect([...batch.packet(0)]).toEqual([1, 2, 3])
    expect(batch.add(new Uint8Array(4))).toBe(true)
    expect(batch.add(new Uint8Array(0))).toBe(false)
    batch.clear()
    expect(batch.reserve(20)).toBe(0)
    expect(batch.reserve(21)).toBe(-1)
  })
})

describe('the pcap tracer', () => {
  it('writes a file that tcpdump and Wireshark read, both directions, cut to its snap length', () => {
    const written: Uint8Array[] = []
    const tasks: (() => void)[] = []
    const [port, other] = memoryPortPair({ carry: (task) => void tasks.push(task) })
    const tracer = new PcapTracer(port, {
      sink: { ready: true, write: (bytes) => written.push(bytes) > 0 },
      now: () => 1_700_000_000_123.456,
      snapLength: 30,
    })
    const handlers = { packets() {}, drained() {}, ended() {} }
    tracer.attach(handlers)
    other.attach(handlers)
    tracer.send(batchOfPackets([new Uint8Array(40).fill(1)]))
    other.send(batchOfPackets([new Uint8Array(10).fill(2)]))
    for (const task of tasks) task()
    const file = Buffer.concat(written)
    expect(file.subarray(0, 24).toString('hex')).toBe('a1b2c3d40002000400000000000000000000001e00000065')
    // seconds, microseconds, kept, length
    expect([0, 4, 8, 12].map((at) => file.readUInt32BE(24 + at))).toEqual([1_700_000_000, 123_456, 30, 40])
    expect([8, 12].map((at) => file.readUInt32BE(24 + 16 + 30 + at))).toEqual([10, 10])
    expect(file.length).toBe(24 + 16 + 30 + 16 + 10)
  })

  it('writes what was sent as it was, though the port changes the bytes, and each packet once though the port is full', () => {
    const written: Uint8Array[] = []
    const [near] = memoryPortPair({ carry: () => {}, queuePackets: 2 })
    const port = {
      name: 'nat',
      medium: 'ip' as const,
      mtu: 1420,
      stats: near.stats,
      attach: () => {},
      // Takes two of each batch, and scribbles over all of it.
      send: (batch: PacketBatch, from = 0) => {
        batch.bytes.fill(0xee)
        return Math.min(2, batch.count - from)
      },
      pause() {},
      resume() {},
      close() {},
    }
    const tracer = new PcapTracer(port, { sink: { ready: true, write: (bytes) => written.push(bytes) > 0 }, now: () => 0 })
    const packets = [1, 2, 3].map((n) => new Uint8Array(5 * n).fill(n))
    expect(tracer.send(batchOfPackets(packets))).toBe(2)
    expect(tracer.send(batchOfPackets(packets), 2)).toBe(1)
    const file = Buffer.concat(written).subarray(24)
    const lengths: number[] = []
    for (let at = 0; at < file.length; ) {
      const length = file.readUInt32BE(at + 8)
      const number = lengths.push(length)
      expect([...file.subarray(at + 16, at + 16 + length)]).toEqual(new Array(length).fill(number))
      at += 16 + length
    }
    expect([lengths, tracer.missed]).toEqual([[5, 10, 15], 0])
  })

  it('is bounded, and counts what it leaves out', () => {
    let bytes = 0
    const sink = {
      ready: true,
      write(piece: Uint8Array) {
        bytes += piece.length
        return true
      },
    }
    const writer = new PcapWriter('ip', { sink, now: () => 0, maxBytes: 200 })
    for (let i = 0; i < 10; i++) writer.record(batchOfPackets([new Uint8Array(50)]))
    expect(bytes).toBeLessThanOrEqual(200)
    expect(writer.missed).toBe(8)
    sink.ready = false
    writer.record(batchOfPackets([new Uint8Array(1)]))
    expect(writer.missed).toBe(9)
  })
})

describe('FaultyPath', () => {
  const through = (faults: Faults, count = 1000, seed = 1) => {
    const path = new FaultyPath(faults, new SeededRandom(seed))
    const out: { at: number; number: number; bytes: Uint8Array }[] = []
    const drain = (now: number) => {
      for (let packet = path.pop(now); packet !== null; packet = path.pop(now))
        out.push({ at: now, number: new DataView(packet.buffer).getUint32(0), bytes: packet })
    }
    for (let i = 0; i < count; i++) {
      const packet = new Uint8Array(100)
      new DataView(packet.buffer).setUint32(0, i)
      path.push(packet, i)
      drain(i)
    }
    for (let at = path.deadline; at !== null; at = path.deadline) drain(at)
    return { out, path }
  }

  it('without faults is a wire', () => {
    const { out } = through({})
    expect(out.map(({ number, at }) => number === at)).not.toContain(false)
    expect(out).toHaveLength(1000)
  })

  it('loses, doubles, corrupts, delays and reorders about as often as it is told', () => {
    expect(through({ loss: 0.1 }).path.lost).toBeGreaterThan(60)
    expect(through({ loss: 0.1 }).path.lost).toBeLessThan(140)
    expect(through({ duplicate: 0.1 }).out.length).toBeGreaterThan(1050)
    const late = through({ delayMs: 7 })
    expect(late.out.every(({ at, number }) => at >= number + 7)).toBe(true)
    const jitter = through({ jitterMs: 20 }).out.map(({ number }) => number)
    expect(jitter).toEqual([...jitter].sort((a, b) => a - b))
    const mixed = through({ reorder: 0.1, reorderMs: 5 }).out.map(({ number }) => number)
    expect(mixed).not.toEqual([...mixed].sort((a, b) => a - b))
    expect(mixed).toHaveLength(1000)
    const bad = through({ corrupt: 0.5 }).out.filter(({ bytes }) => bytes.subarray(4).some((byte) => byte !== 0))
    expect(bad.length).toBeGreaterThan(400)
  })

  it('has a rate with a bounded queue, and an MTU', () => {
    const { out, path } = through({ bytesPerSecond: 10_000, queueMs: 50 })
    expect(out.length).toBeGreaterThan(95)
    expect(out.length).toBeLessThan(115)
    expect(path.lost).toBe(1000 - out.length)
    expect(through({ mtu: 99 }).out).toHaveLength(0)
    expect(through({ delayMs: 1e9, queuePackets: 10 }).out).toHaveLength(10)
  })

  it('decides about the n-th packet by the seed and n, whenever it comes', () => {
    const faults = { loss: 0.1, reorder: 0.2, duplicate: 0.1, corrupt: 0.1, jitterMs: 3 }
    const fates = (step: number, queuePackets: number) => {
      const path = new FaultyPath({ ...faults, queuePackets }, new SeededRandom(4))
      const out: string[] = []
      const drain = (now: number) => {
        for (let packet = path.pop(now); packet !== null; packet = path.pop(now)) out.push(Buffer.from(packet).toString('hex'))
      }
      for (let i = 0; i < 300; i++) {
        const packet = new Uint8Array(20)
        new DataView(packet.buffer).setUint32(0, i)
        path.push(packet, i * step)
        drain(i * step)
      }
      drain(1e9)
      return out.sort()
    }
    expect(fates(1, 4096)).toEqual(fates(0.01, 4096))
    // What a full queue drops is missing, and nothing else is changed.
    const all = new Set(fates(1, 4096))
    const few = fates(0.01, 20)
    expect(few.length).toBeLessThan(all.size)
    for (const packet of few) expect(all).toContain(packet)
  })

  it('keeps the two directions of a port apart: what comes one way changes nothing of the other', () => {
    const sentThrough = (incoming: number) => {
      const tasks: (() => void)[] = []
      const [near, far] = memoryPortPair({ carry: (task) => void tasks.push(task), queuePackets: 1000 })
      const time = { now: () => 0, at: (_time: number, task: () => void) => void tasks.push(task) }
      const port = new FaultyPort(near, { random: new SeededRandom(3), time, outgoing: { loss: 0.5 }, incoming: { loss: 0.5 } })
      const arrived: number[] = []
      port.attach({ packets: () => {}, drained() {}, ended() {} })
      far.attach({
        packets: (batch) => void Array.from({ length: batch.count }, (_, i) => arrived.push(batch.packet(i)[0]!)),
        drained() {},
        ended() {},
      })
      for (let i = 0; i < 100; i++) {
        if (i < incoming) far.send(batchOfPackets([Uint8Array.of(200)]))
        for (const task of tasks.splice(0)) task()
        port.send(batchOfPackets([Uint8Array.of(i)]))
      }
      while (tasks.length > 0) for (const task of tasks.splice(0)) task()
      return arrived
    }
    const alone = sentThrough(0)
    expect(alone.length).toBeGreaterThan(30)
    expect(alone.length).toBeLessThan(70)
    expect(sentThrough(50)).toEqual(alone)
  })

  it('replays from its seed', () => {
    const faults = { loss: 0.1, reorder: 0.2, duplicate: 0.1, jitterMs: 3 }
    expect(through(faults, 200, 9).out.map(({ number }) => number)).toEqual(through(faults, 200, 9).out.map(({ number }) => number))
    expect(through(faults, 200, 9).out.map(({ number }) => number)).not.toEqual(through(faults, 200, 8).out.map(({ number }) => number))
  })
})
