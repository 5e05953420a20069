import { Sent, type SentRecords } from './sent-records.ts'
import { distance } from './sequence.ts'

/** Which lost segment is sent again next, and how far, when it is larger than a segment may be now. */
export class LostQueue {
  readonly #records: SentRecords
  #index = 0
  /** Bytes of that segment that have gone again already. */
  #offset = 0

  constructor(records: SentRecords) {
    this.#records = records
  }

  get isEmpty(): boolean {
    return this.#records.lostCount === 0
  }

  /** Segments were found lost: from the first on. */
  rescan(): void {
    this.#index = 0
    this.#offset = 0
  }

  /** So many records have gone from the front, or the first has become shorter. */
  shift(count: number): void {
    if (count >= this.#index) this.#offset = 0
    this.#index = Math.max(0, this.#index - count)
  }

  /** The start of what is to be sent again, up to `end`; null when there is nothing. */
  next(): { readonly sequence: number; readonly end: number } | null {
    const records = this.#records
    if (this.#offset === 0) {
      while (this.#index < records.count && (records.flags(this.#index) & (Sent.lost | Sent.retransmitted)) !== Sent.lost) this.#index++
    }
    if (this.#index >= records.count) {
      this.rescan()
      return null
    }
    return { sequence: (records.start(this.#index) + this.#offset) | 0, end: records.end(this.#index) }
  }

  /** Up to `end` it has been sent. */
  sent(end: number, now: number): void {
    const records = this.#records
    if (end !== records.end(this.#index)) {
      this.#offset = distance(records.start(this.#index), end)
      return
    }
    records.markRetransmitted(this.#index, now)
    this.#offset = 0
    this.#index++
  }
}
