import { assert } from '../base/index.ts'
import { BATCH_HEADROOM, type BatchMemory, CELL_BYTES, type CellBatch } from '../onion/index.ts'

/** Cells of a pooled buffer: a batch of them and a frame header are just under 64 KiB. */
export const POOL_CELLS = 42
export const POOL_BYTES = BATCH_HEADROOM + POOL_CELLS * CELL_BYTES
/** Smaller batches get memory of their own, so that a few cells never hold a large buffer. */
export const OWN_MEMORY_CELLS = 20
/** Free buffers kept: 4 MiB. */
const MAX_FREE = 64

/**
 * Large batch buffers, used again once the system has taken what was in them. Passing a batch to `CellChannel.send` hands its memory over,
 * so what a relay passes on needs no new memory at all: without this, every megabyte relayed would make the garbage collector run.
 * Only whole batches come back; a batch whose cells were used apart is left to the collector.
 */
export class BatchPool implements BatchMemory {
  readonly cells = POOL_CELLS
  readonly #free: Uint8Array[] = []
  /** Buffers given out as batches: nothing else is ever taken back, and each only once. */
  readonly #lent: WeakSet<ArrayBufferLike> = new WeakSet()
  readonly #poison: boolean
  /** The fewest buffers that were free since the last `trim`. */
  #spare = 0

  /** @param poison overwrites what comes back, so that a test sees who uses a batch after sending it */
  constructor(poison = false) {
    this.#poison = poison
  }

  get free(): number {
    return this.#free.length
  }

  /** POOL_BYTES of memory with anything in it. Give it back by `put`, or make it a batch by `lend`. */
  take(): Uint8Array {
    const buffer = this.#free.pop()
    this.#spare = Math.min(this.#spare, this.#free.length)
    return buffer ?? uninitialised(POOL_BYTES)
  }

  /** Lets go of half of what was not needed since the last call; called about once a second. */
  trim(): void {
    this.#free.length -= Math.ceil(this.#spare / 2)
    this.#spare = this.#free.length
  }

  put(buffer: Uint8Array): void {
    if (this.#free.length < MAX_FREE) this.#free.push(buffer)
  }

  /** A batch of the first `count` cells of a buffer from `take`. */
  lend(buffer: Uint8Array, count: number): CellBatch {
    assert(buffer.length === POOL_BYTES, 'only buffers of the pool are lent')
    if (count <= OWN_MEMORY_CELLS) {
      const bytes = uninitialised(BATCH_HEADROOM + count * CELL_BYTES)
      bytes.set(buffer.subarray(BATCH_HEADROOM, bytes.length), BATCH_HEADROOM)
      this.put(buffer)
      return { bytes, start: BATCH_HEADROOM, count }
    }
    this.#lent.add(buffer.buffer)
    const bytes = count === POOL_CELLS ? buffer : new Uint8Array(buffer.buffer, 0, BATCH_HEADROOM + count * CELL_BYTES)
    return { bytes, start: BATCH_HEADROOM, count }
  }

  /** Takes back the memory of a batch that nobody uses any more, when it is the pool's and whole. */
  recycle(batch: CellBatch): void {
    const { bytes, start, count } = batch
    if (start !== BATCH_HEADROOM || bytes.byteOffset !== 0 || bytes.length !== BATCH_HEADROOM + count * CELL_BYTES) return
    if (count <= OWN_MEMORY_CELLS || !this.#lent.delete(bytes.buffer)) return
    if (this.#poison) new Uint8Array(bytes.buffer).fill(0xdd)
    this.put(bytes.length === POOL_BYTES ? bytes : new Uint8Array(bytes.buffer))
  }
}

/** Memory that is not cleared first: for batches every byte of which is overwritten, but the headroom, which is never sent or shown. */
export function uninitialised(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer)
}
