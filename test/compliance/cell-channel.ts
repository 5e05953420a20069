import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import type { ByteMeter, CellChannel, CellChannelHandlers } from '../../src/link/index.ts'
import { BATCH_HEADROOM, batchCells, CELL_BYTES, type CellBatch, type ChannelEnd, newBatch, subBatch } from '../../src/onion/index.ts'

/** The contract of CellChannel (src/link/channel.ts), for any implementation. */
export interface ChannelHarness {
  /** Two joined channels, `a` the one that was opened. Both have been attached to the given handlers; one hello cell has been sent from a to b. */
  connect(a: CellChannelHandlers, b: CellChannelHandlers): Promise<{ a: CellChannel; b: CellChannel }>
  /** A channel at `b` that got one whole cell and then, at its end, a part of one. */
  truncate(b: CellChannelHandlers): Promise<void>
  readonly meters: readonly ByteMeter[]
  /** The most a paused receiver may hold, in bytes. */
  readonly mostHeldBytes: number
  readonly closeTimeoutMs: number
  stop(): Promise<void>
}

const HELLO = 0xffff_ffff

/** A channel's handlers that keep what they are told. */
export class Recorder implements CellChannelHandlers {
  channel: CellChannel | null = null
  /** Cells that came in, the hello not counted. */
  count = 0
  hellos = 0
  batches = 0
  drains = 0
  readonly ends: ChannelEnd[] = []
  wrong: string | null = null
  onCells: ((batch: CellBatch) => void) | null = null
  onDrained: (() => void) | null = null

  cells(batch: CellBatch): void {
    if (this.ends.length > 0) this.wrong = 'cells after the end'
    if (batch.count < 1 || batch.start < BATCH_HEADROOM) this.wrong = 'a batch of the wrong form'
    this.batches++
    for (let i = 0; i < batch.count; i++) {
      const at = batch.start + i * CELL_BYTES
      const sequence = readSequence(batch.bytes, at)
      if (sequence === HELLO) {
        this.hellos++
        continue
      }
      if (!isIntact(batch.bytes, at, this.count)) this.wrong ??= `cell ${this.count} came as ${sequence}, or changed`
      this.count++
    }
    // The batch is ours now, headroom included: scribbling over it harms nobody.
    if (this.onCells === null) batch.bytes.fill(0xee, batch.start - BATCH_HEADROOM)
    else this.onCells(batch)
  }

  drained(): void {
    this.drains++
    this.onDrained?.()
  }

  ended(how: ChannelEnd): void {
    this.ends.push(how)
  }
}

/** A batch of cells numbered from `from`. */
export function numbered(from: number, count: number): CellBatch {
  const batch = newBatch(count)
  for (let i = 0; i < count; i++) writeCell(batch.bytes, batch.start + i * CELL_BYTES, from + i)
  return batch
}

export function hello(): CellBatch {
  const batch = newBatch(1)
  writeCell(batch.bytes, batch.start, HELLO)
  return batch
}

function writeCell(bytes: Uint8Array, at: number, sequence: number): void {
  bytes.fill(sequence % 251, at, at + CELL_BYTES)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  for (const place of [0, 764, CELL_BYTES - 4]) view.setUint32(at + place, sequence)
}

function readSequence(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at)
}

function isIntact(bytes: Uint8Array, at: number, sequence: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  for (const place of [0, 764, CELL_BYTES - 4]) if (view.getUint32(at + place) !== sequence) return false
  for (const place of [4, 500, 768, 1200, CELL_BYTES - 5]) if (bytes[at + place] !== sequence % 251) return false
  return true
}

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean, timeoutMs = 10_000): Promise<void> {
  const end = performance.now() + timeoutMs
  while (!holds()) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`)
    await delay(2)
  }
}

/** Runs the suite for one kind of channel. */
export function cellChannelCompliance(kind: string, start: () => Promise<ChannelHarness>): void {
  describe(`cell channel: ${kind}`, () => {
    let harness: ChannelHarness | null = null
    afterEach(async () => {
      await harness?.stop()
      harness = null
    })

    async function connected(): Promise<{ a: CellChannel; b: CellChannel; atA: Recorder; atB: Recorder }> {
      harness = await start()
      const atA = new Recorder()
      const atB = new Recorder()
      const { a, b } = await harness.connect(atA, atB)
      await until('the hello', () => atB.hellos === 1)
      return { a, b, atA, atB }
    }

    function finish(...recorders: Recorder[]): void {
      for (const recorder of recorders) expect(recorder.wrong).toBeNull()
    }

    async function metersAreZero(): Promise<void> {
      await until('the meters to be zero', () => harness!.meters.every((meter) => meter.total === 0))
    }

    /** Sends `total` cells from `from`, as room allows. */
    function sendAll(channel: CellChannel, recorder: Recorder, total: number, from = 0): void {
      let next = from
      const pump = (): void => {
        while (next < from + total && channel.room > 0) {
          const count = Math.min(channel.room, from + total - next)
          channel.send(numbered(next, count))
          next += count
        }
      }
      recorder.onDrained = pump
      pump()
    }

    it('carries cells both ways, in order, whatever the batches', async () => {
      const { a, b, atA, atB } = await connected()
      let next = 0
      for (let size = 1; size <= 100; size++) {
        a.send(numbered(next, size))
        b.send(numbered(next, size))
        next += size
        if (size % 7 === 0) await delay(0)
      }
      await until('all cells', () => atA.count === next && atB.count === next)
      expect(atB.batches).toBeLessThan(next)
      await metersAreZero()
      expect(a.queuedBytes + b.queuedBytes).toBe(0)
      expect(a.queuedSince).toBeNull()
      finish(atA, atB)
    })

    it('sends parts of one batch back to back without mixing them up', async () => {
      const { a, atA, atB } = await connected()
      for (let round = 0; round < 40; round++) {
        const batch = numbered(round * 20, 20)
        for (const [from, to] of [
          [0, 1],
          [1, 7],
          [7, 8],
          [8, 20],
        ] as const) {
          a.send(subBatch(batch, from, to))
        }
      }
      await until('all cells', () => atB.count === 800)
      finish(atA, atB)
    })

    it('passes on batches that were received, as a relay does', async () => {
      const { a, b, atA, atB } = await connected()
      atB.onCells = (batch) => b.send(batch)
      sendAll(a, atA, 3000)
      await until('the echo', () => atA.count === 3000)
      await metersAreZero()
      finish(atA, atB)
    })

    it('keeps 48 MiB intact behind a slow reader, in bounded memory', async () => {
      const { a, b, atA, atB } = await connected()
      const total = (48 * 1024 * 1024) / CELL_BYTES
      let most = 0
      let sinceRest = 0
      atB.onCells = (batch) => {
        sinceRest += batch.count
        if (sinceRest < 1024) return
        sinceRest = 0
        b.pause()
        setTimeout(() => {
          for (const meter of harness!.meters) most = Math.max(most, meter.total)
          b.resume()
        }, 2)
      }
      sendAll(a, atA, total)
      await until('all cells', () => atB.count === total, 60_000)
      expect(most).toBeLessThanOrEqual(harness!.mostHeldBytes)
      await metersAreZero()
      finish(atA, atB)
    }, 60_000)

    it('delivers nothing while paused, holds the sender back, and tells it when there is room again', async () => {
      const { a, b, atA, atB } = await connected()
      b.pause()
      sendAll(a, atA, 20_000)
      await until('the sender to be held back', () => a.room === 0)
      await delay(50)
      expect(a.room).toBe(0)
      expect(atB.count).toBe(0)
      expect(atA.drains).toBeLessThan(20_000)
      expect(a.queuedBytes).toBeGreaterThan(0)
      expect(a.queuedSince).toBeLessThanOrEqual(performance.now())
      expect(b.queuedBytes).toBeGreaterThan(0)
      expect(b.queuedSince).not.toBeNull()
      const held = harness!.meters.reduce((sum, meter) => sum + meter.total, 0)
      expect(held).toBeGreaterThan(0)
      expect(held).toBeLessThanOrEqual(harness!.mostHeldBytes)
      const drains = atA.drains
      b.resume()
      await until('the rest', () => atB.count === 20_000)
      expect(atA.drains).toBeGreaterThan(drains)
      await until('room', () => a.room > 0)
      await metersAreZero()
      finish(atA, atB)
    })

    it('pauses within a delivery', async () => {
      const { a, b, atA, atB } = await connected()
      let calls = 0
      atB.onCells = () => {
        calls++
        b.pause()
      }
      for (let i = 0; i < 30; i++) a.send(numbered(i * 42, 42))
      for (let i = 1; i <= 5; i++) {
        await until(`delivery ${i}`, () => calls === i)
        await delay(10)
        expect(calls).toBe(i)
        if (i < 5) b.resume()
      }
      atB.onCells = () => {}
      b.resume()
      await until('the rest', () => atB.count === 30 * 42)
      finish(atA, atB)
    })

    it('charges a sender that goes on without room, and loses nothing', async () => {
      const { a, b, atA, atB } = await connected()
      b.pause()
      for (let i = 0; i < 100; i++) a.send(numbered(i * 40, 40))
      expect(a.queuedBytes + b.queuedBytes).toBeGreaterThan(1_000_000)
      await delay(20)
      b.resume()
      await until('all cells', () => atB.count === 4000)
      await metersAreZero()
      finish(atA, atB)
    })

    it('delivers all that was sent before a close, then ends both sides', async () => {
      const { a, b, atA, atB } = await connected()
      for (let i = 0; i < 10; i++) a.send(numbered(i * 42, 42))
      a.close()
      a.send(numbered(420, 1)) // after the close: nothing
      expect(a.room).toBe(0)
      await until('both ends', () => atA.ends.length > 0 && atB.ends.length > 0)
      expect(atB.count).toBe(420)
      expect(atA.ends).toEqual(['fin'])
      expect(atB.ends).toEqual(['fin'])
      b.send(numbered(0, 1)) // after the end: nothing
      expect(b.room).toBe(0)
      await delay(30)
      expect(atA.count).toBe(0)
      await metersAreZero()
      finish(atA, atB)
    })

    it('delivers what came before the FIN to a reader that was paused, and the end after it', async () => {
      const { a, b, atA, atB } = await connected()
      b.pause()
      a.send(numbered(0, 42))
      a.send(numbered(42, 20))
      a.close()
      await until('the end of the closing side', () => atA.ends.length > 0)
      await delay(30)
      expect(atB.count).toBe(0)
      expect(atB.ends).toEqual([])
      b.resume()
      await until('the end', () => atB.ends.length > 0)
      expect(atB.count).toBe(62)
      expect(atB.ends).toEqual(['fin'])
      await metersAreZero()
      finish(atA, atB)
    })

    it('ends the closing side when the other closes too, each once', async () => {
      const { a, b, atA, atB } = await connected()
      a.send(numbered(0, 5))
      b.send(numbered(0, 5))
      a.close()
      b.close()
      await until('both ends', () => atA.ends.length > 0 && atB.ends.length > 0)
      a.close()
      b.abort()
      a.pause()
      a.resume()
      b.resume()
      await delay(30)
      expect(atA.ends).toEqual(['fin'])
      expect(atB.ends).toEqual(['fin'])
      await metersAreZero()
      finish(atA, atB)
    })

    it('aborts at once, loses what is queued, and the peer sees a reset', async () => {
      const { a, b, atA, atB } = await connected()
      b.pause()
      sendAll(a, atA, 5000)
      await until('the sender to be held back', () => a.room === 0)
      a.abort()
      expect(atA.ends).toEqual([]) // never within the call
      await until('both ends', () => atA.ends.length > 0 && atB.ends.length > 0)
      expect(atA.ends).toEqual(['reset'])
      expect(atB.ends).toEqual(['reset'])
      expect(atB.count).toBe(0)
      await metersAreZero()
      expect(a.queuedBytes).toBe(0)
      finish(atA, atB)
    })

    it('can be aborted by the receiver within a delivery', async () => {
      const { a, b, atA, atB } = await connected()
      atB.onCells = () => b.abort()
      sendAll(a, atA, 2000)
      await until('both ends', () => atA.ends.length > 0 && atB.ends.length > 0)
      expect(atA.ends).toEqual(['reset'])
      expect(atB.ends).toEqual(['reset'])
      await metersAreZero()
      finish(atA, atB)
    })

    it('gives up a close whose peer does not read', async () => {
      const { a, b, atA, atB } = await connected()
      b.pause()
      for (let i = 0; i < 100; i++) a.send(numbered(i * 40, 40))
      a.close()
      await until('the end of the closing side', () => atA.ends.length > 0, harness!.closeTimeoutMs + 5000)
      expect(atA.ends).toEqual(['reset'])
      b.resume()
      await until('the end of the other side', () => atB.ends.length > 0)
      expect(atB.ends).toEqual(['reset'])
      await metersAreZero()
      finish(atA, atB)
    })

    it('calls a cell that is cut short a violation, after the whole cells before it', async () => {
      harness = await start()
      const atB = new Recorder()
      await harness.truncate(atB)
      await until('the end', () => atB.ends.length > 0)
      expect(atB.ends).toEqual(['violation'])
      expect(atB.hellos).toBe(1)
      expect(atB.count).toBe(0)
      await metersAreZero()
      finish(atB)
    })

    it('shows who is at the other side', async () => {
      const { a, b } = await connected()
      expect(a.kind).toBe(b.kind)
      expect(a.peer).toMatch(/^12D3KooW/)
      expect(b.peer).toMatch(/^12D3KooW/)
      expect(a.peer).not.toBe(b.peer)
    })
  })
}

/** For harnesses: the cells of a batch back to back. */
export function plainBytes(batch: CellBatch): Uint8Array {
  return batchCells(batch)
}
