import {
  BATCH_HEADROOM,
  type BatchMemory,
  CELL_BYTES,
  CELL_ROOM_BYTES,
  type CellBatch,
  MESSAGE_HEADER_BYTES,
  subBatch,
  TAG_BYTES,
} from './cell.ts'
import { putHeader } from './messages.ts'

/** Fills the cells of one new batch with messages, in order. A cell has one addressee. */
export class CellPacker {
  readonly #bytes: Uint8Array
  readonly #count: number
  readonly #memory: BatchMemory | null
  #cell = -1
  #at = 0
  #end = 0
  #hop = -1
  /** Where each run of cells for one hop begins: hop and first cell, in turn. */
  readonly #runs: number[] = []

  /** @param count the most cells there will be, @param memory where a batch of half a buffer and more gets its memory */
  constructor(count: number, memory: BatchMemory | null = null) {
    this.#count = count
    this.#memory = memory !== null && count <= memory.cells && count * 2 > memory.cells ? memory : null
    // Every byte is written below, as message, tag or padding: zeroing it all first costs as much as filling it.
    this.#bytes = this.#memory?.take() ?? new Uint8Array(Buffer.allocUnsafeSlow(BATCH_HEADROOM + count * CELL_BYTES).buffer as ArrayBuffer)
    this.#bytes.fill(0, 0, BATCH_HEADROOM)
  }

  get bytes(): Uint8Array {
    return this.#bytes
  }

  /** The longest body that still fits the present cell, if it is this hop's; below 0 when not even a header does. */
  room(hop: number): number {
    return hop === this.#hop ? this.#end - this.#at - MESSAGE_HEADER_BYTES : -1
  }

  /** Writes a message's header, in the present cell or the next; returns where its body goes, or -1 when the batch is full. */
  take(hop: number, command: number, stream: number, length: number): number {
    if (hop !== this.#hop || this.#end - this.#at < MESSAGE_HEADER_BYTES + length) {
      if (this.#cell + 1 === this.#count) return -1
      this.#pad()
      this.#cell++
      const start = BATCH_HEADROOM + this.#cell * CELL_BYTES
      this.#at = start + TAG_BYTES
      this.#end = this.#at + CELL_ROOM_BYTES
      this.#bytes.fill(0, start, this.#at)
      if (hop !== this.#hop) {
        this.#hop = hop
        this.#runs.push(hop, this.#cell)
      }
    }
    const body = putHeader(this.#bytes, this.#at, command, stream, length)
    this.#at = body + length
    return body
  }

  /** Encrypts what was packed, run by run; null when nothing was. The batch is the caller's. */
  finish(seal: (batch: CellBatch, hop: number) => void): CellBatch | null {
    const used = this.#cell + 1
    if (used === 0) {
      this.#memory?.put(this.#bytes)
      return null
    }
    this.#pad()
    const batch = this.#memory?.lend(this.#bytes, used) ?? this.#ownBatch(used)
    const runs = this.#runs
    for (let i = 0; i < runs.length; i += 2) {
      const from = runs[i + 1]!
      const to = runs[i + 3] ?? used
      seal(from === 0 && to === used ? batch : subBatch(batch, from, to), runs[i]!)
    }
    return batch
  }

  #ownBatch(used: number): CellBatch {
    const length = BATCH_HEADROOM + used * CELL_BYTES
    // Where the estimate of cells was far too high, the rest isn't held while the batch is in flight.
    const bytes = used * 2 < this.#count ? this.#bytes.slice(0, length) : this.#bytes.subarray(0, length)
    return { bytes, start: BATCH_HEADROOM, count: used }
  }

  /** Zeroes what the present cell has left. */
  #pad(): void {
    if (this.#at < this.#end) this.#bytes.fill(0, this.#at, this.#end)
  }
}
