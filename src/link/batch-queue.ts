import { CELL_BYTES, type CellBatch, subBatch } from '../onion/index.ts'
import type { ByteMeter } from './byte-meter.ts'

interface Entry {
  /** What is left of `whole`. */
  batch: CellBatch
  readonly whole: CellBatch
  readonly at: number
}

/** Above this many taken entries the array is compacted. */
const COMPACT_ENTRIES = 32

/** Batches in order, with their time of arrival, charged to a meter. Costs nothing while it is empty. */
export class BatchQueue {
  readonly #meter: ByteMeter
  #entries: Entry[] | null = null
  #head = 0
  #cells = 0
  #finished: CellBatch | null = null

  constructor(meter: ByteMeter) {
    this.#meter = meter
  }

  get cells(): number {
    return this.#cells
  }

  /** The batch as it was pushed, when the last `take` took the end of it; else null. */
  get finished(): CellBatch | null {
    return this.#finished
  }

  get bytes(): number {
    return this.#cells * CELL_BYTES
  }

  /** When the oldest batch came in (monotonic ms), or null. */
  get since(): number | null {
    return this.#cells === 0 ? null : this.#entries![this.#head]!.at
  }

  push(batch: CellBatch, now: number): void {
    if (batch.count === 0) return
    this.#entries ??= []
    this.#entries.push({ batch, whole: batch, at: now })
    this.#cells += batch.count
    this.#meter.add(batch.count * CELL_BYTES)
  }

  /** The oldest cells: a whole batch, or the first `most` cells of it. Null when there are none. */
  take(most: number): CellBatch | null {
    if (this.#cells === 0 || most <= 0) return null
    const entry = this.#entries![this.#head]!
    const batch = entry.batch
    this.#finished = null
    if (batch.count <= most) {
      this.#finished = entry.whole
      this.#dropHead()
      this.#charge(batch.count)
      return batch
    }
    entry.batch = subBatch(batch, most, batch.count)
    this.#charge(most)
    return subBatch(batch, 0, most)
  }

  clear(): void {
    if (this.#cells > 0) this.#meter.add(-this.bytes)
    this.#cells = 0
    this.#entries = null
    this.#finished = null
    this.#head = 0
  }

  #charge(count: number): void {
    this.#cells -= count
    this.#meter.add(-count * CELL_BYTES)
  }

  #dropHead(): void {
    const entries = this.#entries!
    this.#head++
    if (this.#head === entries.length) {
      this.#entries = null
      this.#head = 0
    } else if (this.#head > COMPACT_ENTRIES && this.#head * 2 > entries.length) {
      this.#entries = entries.slice(this.#head)
      this.#head = 0
    }
  }
}
