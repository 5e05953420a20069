import { assert } from '../base/index.ts'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import { BatchQueue } from './batch-queue.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { CellChannelHandlers } from './channel.ts'

/**
 * The receiving half of every channel: holds back while paused or not attached, delivers in order, ends exactly once.
 *
 *   open --(finish)--> finishing --(all delivered)--> ended
 *   open, finishing --(stop)--> ended                 what is queued is lost
 */
export class Inbox {
  readonly #queue: BatchQueue
  readonly #delivered: (cells: number) => void
  #handlers: CellChannelHandlers | null = null
  #paused = false
  #delivering = false
  #finish: ChannelEnd | null = null
  #closed = false
  #ended = false

  /** @param delivered called after each batch that was handed over */
  constructor(meter: ByteMeter, delivered: (cells: number) => void) {
    this.#queue = new BatchQueue(meter)
    this.#delivered = delivered
  }

  get cells(): number {
    return this.#queue.cells
  }

  get bytes(): number {
    return this.#queue.bytes
  }

  get since(): number | null {
    return this.#queue.since
  }

  get isPaused(): boolean {
    return this.#paused
  }

  get isAttached(): boolean {
    return this.#handlers !== null
  }

  get isEnded(): boolean {
    return this.#ended
  }

  attach(handlers: CellChannelHandlers): void {
    assert(this.#handlers === null, 'a channel is attached once')
    this.#handlers = handlers
  }

  pause(): void {
    this.#paused = true
  }

  /** Returns whether `deliver` has something to do. */
  resume(): boolean {
    this.#paused = false
    return this.#queue.cells > 0 || this.#finish !== null
  }

  /** Hands the batch over, or queues it. */
  push(batch: CellBatch, now: number): void {
    if (this.#closed || this.#ended || this.#finish !== null) return
    if (this.#paused || this.#delivering || this.#handlers === null || this.#queue.cells > 0) {
      this.#queue.push(batch, now)
      return
    }
    this.#delivering = true
    try {
      this.#handlers.cells(batch)
    } finally {
      this.#delivering = false
    }
    if (!this.#ended && !this.#closed) this.#delivered(batch.count)
    if (this.#queue.cells > 0 || this.#finish !== null) this.deliver()
  }

  /** Delivers what is queued, until the handler pauses. */
  deliver(): void {
    if (this.#delivering || this.#handlers === null) return
    this.#delivering = true
    try {
      while (!this.#paused && !this.#ended) {
        const batch = this.#queue.take(Number.POSITIVE_INFINITY)
        if (batch === null) break
        this.#handlers.cells(batch)
        if (!this.#ended && !this.#closed) this.#delivered(batch.count)
      }
    } finally {
      this.#delivering = false
    }
    if (this.#finish !== null && this.#queue.cells === 0) this.#end(this.#finish)
  }

  /** Ends after what came before has been delivered. */
  finish(how: ChannelEnd): void {
    if (this.#ended || this.#finish !== null) return
    this.#finish = how
    if (this.#queue.cells === 0 && !this.#delivering && this.#handlers !== null) this.#end(how)
  }

  /** No more cells from here on; what is queued is lost. `ended` is still owed: `stop` follows. */
  close(): void {
    this.#closed = true
    this.#queue.clear()
  }

  /** Ends at once; what is queued is lost. */
  stop(how: ChannelEnd): void {
    if (this.#ended) return
    this.close()
    if (this.#handlers === null) {
      // Obtained but not attached yet: whoever attaches in this turn is still told.
      this.#finish ??= how
      queueMicrotask(() => this.deliver())
      return
    }
    this.#end(how)
  }

  #end(how: ChannelEnd): void {
    if (this.#ended) return
    this.#ended = true
    this.#handlers!.ended(how)
  }
}
