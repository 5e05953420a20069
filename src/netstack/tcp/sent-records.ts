import { before, distance } from './sequence.ts'

/** What is known of a segment that was sent. */
export const Sent = { sacked: 1, lost: 2, retransmitted: 4, everRetransmitted: 8 } as const

const NO_ENDS = new Int32Array(0)
const NO_TIMES = new Float64Array(0)
const NO_FLAGS = new Uint8Array(0)
/** Records for which room is made first, and for which it is kept when nothing is in flight. */
const FEWEST = 16
const MOST_KEPT = 64

/**
 * The segments between SND.UNA and SND.NXT in order, each [end of the one before, its end), with when it was last sent and what became of it:
 * the scoreboard of RFC 6675, in arrays that go round. Counts what is in flight as flags change.
 */
export class SentRecords {
  #ends = NO_ENDS
  #times = NO_TIMES
  #flags = NO_FLAGS
  /** One less than there is room for: none before something is sent, and none again after a long flight has landed. */
  #mask = -1
  #head = 0
  #count = 0
  /** SND.UNA: where the first record starts. */
  #start = 0
  /** Bytes thought to be in the network (RFC 6675's pipe). */
  pipe = 0
  sackedCount = 0
  /** Records that are lost and not sent again since. */
  lostCount = 0
  /** The end of the highest record that was sacked. */
  highestSacked = 0

  reset(start: number): void {
    this.#start = start
    this.#count = 0
    this.pipe = 0
    this.sackedCount = 0
    this.lostCount = 0
  }

  get count(): number {
    return this.#count
  }

  start(index: number): number {
    return index === 0 ? this.#start : this.#ends[(this.#head + index - 1) & this.#mask]!
  }

  end(index: number): number {
    return this.#ends[(this.#head + index) & this.#mask]!
  }

  sentAt(index: number): number {
    return this.#times[(this.#head + index) & this.#mask]!
  }

  flags(index: number): number {
    return this.#flags[(this.#head + index) & this.#mask]!
  }

  length(index: number): number {
    return distance(this.start(index), this.end(index))
  }

  push(end: number, now: number): void {
    if (this.#count === this.#mask + 1) this.#grow()
    const at = (this.#head + this.#count++) & this.#mask
    this.#ends[at] = end
    this.#times[at] = now
    this.#flags[at] = 0
    this.pipe += this.length(this.#count - 1)
  }

  setFlags(index: number, flags: number): void {
    const at = (this.#head + index) & this.#mask
    const old = this.#flags[at]!
    if (old === flags) return
    const length = this.length(index)
    this.#account(old, -1, length)
    this.#flags[at] = flags
    this.#account(flags, 1, length)
  }

  /** A lost record has been sent again. */
  markRetransmitted(index: number, now: number): void {
    this.setFlags(index, this.flags(index) | Sent.retransmitted | Sent.everRetransmitted)
    this.#times[(this.#head + index) & this.#mask] = now
  }

  markSacked(index: number): void {
    const end = this.end(index)
    if (this.sackedCount === 0 || before(this.highestSacked, end)) this.highestSacked = end
    this.setFlags(index, (this.flags(index) & Sent.everRetransmitted) | Sent.sacked)
  }

  markLost(index: number): void {
    this.setFlags(index, (this.flags(index) & Sent.everRetransmitted) | Sent.lost)
  }

  /** Not lost after all. */
  unmarkLost(index: number): void {
    this.setFlags(index, this.flags(index) & ~Sent.lost)
  }

  /** Forgets the first record. */
  shift(): void {
    const end = this.end(0)
    this.#account(this.flags(0), -1, this.length(0))
    this.#start = end
    this.#head = (this.#head + 1) & this.#mask
    if (--this.#count === 0 && this.#mask >= MOST_KEPT) this.#release()
  }

  #release(): void {
    this.#ends = NO_ENDS
    this.#times = NO_TIMES
    this.#flags = NO_FLAGS
    this.#mask = -1
    this.#head = 0
  }

  /** SND.UNA has moved into the first record. */
  trim(start: number): void {
    const flags = this.flags(0)
    this.#account(flags, -1, this.length(0))
    this.#start = start
    this.#account(flags, 1, this.length(0))
  }

  /** The index of the first record that starts at or behind `sequence`. */
  find(sequence: number): number {
    let low = 0
    let high = this.#count
    while (low < high) {
      const middle = (low + high) >> 1
      if (before(this.start(middle), sequence)) low = middle + 1
      else high = middle
    }
    return low
  }

  #account(flags: number, sign: number, length: number): void {
    if ((flags & Sent.sacked) !== 0) {
      this.sackedCount += sign
      return
    }
    if ((flags & Sent.lost) !== 0) {
      if ((flags & Sent.retransmitted) !== 0) this.pipe += sign * length
      else this.lostCount += sign
      return
    }
    this.pipe += sign * length
  }

  #grow(): void {
    const size = Math.max(FEWEST, 2 * (this.#mask + 1))
    const ends = new Int32Array(size)
    const times = new Float64Array(size)
    const flags = new Uint8Array(size)
    for (let i = 0; i < this.#count; i++) {
      ends[i] = this.end(i)
      times[i] = this.sentAt(i)
      flags[i] = this.flags(i)
    }
    this.#ends = ends
    this.#times = times
    this.#flags = flags
    this.#mask = size - 1
    this.#head = 0
  }
}
