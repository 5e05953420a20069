import type { MemoryBudget } from '../memory-budget.ts'
import { ByteRing } from './byte-ring.ts'
import { ReceivedRanges } from './ranges.ts'
import { after, before, distance } from './sequence.ts'

/**
 * The receiving half of a connection: data in order and behind gaps, the window, the FIN.
 *
 *     read ───── next ─────────────── advertised edge
 *      | in order | gaps and ranges | room
 */
export class Receiver {
  readonly ranges = new ReceivedRanges()
  readonly #ring: ByteRing
  readonly #limit: number
  /** RCV.NXT: the FIN counts. */
  next = 0
  /** The first byte the application has not taken. */
  #read = 0
  /** The right edge of the window that was told; it never moves left (RFC 9293 §3.8.6, SHLD-14). */
  #edge = 0
  /** Where the FIN stands, once it came. */
  #finAt: number | null = null
  finished = false
  /** Shift of the windows we send. */
  scale = 0
  /** Received bytes that were taken in. */
  totalBytes = 0
  #discarding = false

  constructor(budget: MemoryBudget, limit: number) {
    this.#ring = new ByteRing(budget)
    this.#limit = limit
  }

  /** The peer's SYN stood at `initial`; our own promises `window` bytes. */
  start(initial: number, window: number): void {
    this.next = (initial + 1) | 0
    this.#read = this.next
    this.#edge = (this.next + window) | 0
  }

  /** Bytes in order that wait for the application. */
  get readable(): number {
    return distance(this.#read, this.next) - (this.finished ? 1 : 0)
  }

  /** RCV.WND as the peer knows it. */
  get window(): number {
    return Math.max(0, distance(this.next, this.#edge))
  }

  /** How many bytes the edge could move right. */
  get windowGrowth(): number {
    return distance(this.#edge, (this.#read + this.#limit) | 0)
  }

  /** The window to put into a segment, scaled; what it says is promised from now on. */
  advertise(): number {
    const room = Math.min(distance(this.next, (this.#read + this.#limit) | 0), 0xffff << this.scale)
    // What was promised stays so, rounded up to what the scale can say.
    const promised = (this.window + (1 << this.scale) - 1) >> this.scale
    const scaled = Math.max(0, room) >> this.scale
    const edge = (this.next + (scaled << this.scale)) | 0
    const told = Math.min(0xffff, Math.max(scaled, promised))
    if (after(edge, this.#edge)) this.#edge = edge
    else this.#edge = (this.next + (told << this.scale)) | 0
    return told
  }

  /** How far the window's edge would move if it were told now; whether that is worth a segment of its own (RFC 9293 §3.8.6.2.2). */
  wantsUpdate(mss: number): boolean {
    if (this.finished) return false
    const growth = this.windowGrowth
    const told = this.window
    if (growth >= this.#limit / 2) return true
    return told < 2 * mss ? growth >= Math.min(this.#limit / 2, 2 * mss) : growth >= this.#limit / 4
  }

  /**
   * Takes the segment's data [from, to) of `bytes`, whose first byte is `sequence`; both edges trimmed to the window by the caller's check or here.
   * @returns 'next' when data came in order, 'gap' when behind a gap, 'old' when all was there, 'refused' when there was no room for it
   */
  take(sequence: number, bytes: Uint8Array, from: number, to: number): 'next' | 'gap' | 'old' | 'refused' {
    let left = sequence
    let start = from
    let right = (sequence + to - from) | 0
    if (this.finished) return 'old'
    if (!after(right, this.next)) {
      this.ranges.noteDuplicate(left, right)
      return 'old'
    }
    if (before(left, this.next)) {
      this.ranges.noteDuplicate(left, this.next)
      start += distance(left, this.next)
      left = this.next
    }
    // Rounding up may have promised a little more than the limit: that much is refused, and comes again.
    const end = (this.#read + this.#limit) | 0
    if (after(right, this.#edge)) right = this.#edge
    if (after(right, end)) right = end
    if (this.#finAt !== null && after(right, this.#finAt)) right = this.#finAt
    if (!before(left, right)) return 'refused'
    if (this.#discarding) {
      this.#read = right
      this.next = right
      return 'next'
    }
    const size = distance(this.#read, right)
    if (!this.#ring.ensure(size, distance(this.#read, this.ranges.isEmpty ? this.next : this.ranges.end))) return 'refused'
    if (left === this.next && this.ranges.isEmpty) {
      this.#ring.write(distance(this.#read, left), bytes, start, start + distance(left, right))
      this.next = right
      this.totalBytes += distance(left, right)
      return 'next'
    }
    if (this.ranges.holds(left, right)) {
      this.ranges.noteDuplicate(left, right)
      return 'old'
    }
    const inOrder = left === this.next
    const taken = this.ranges.add(left, right, (gapLeft, gapRight) => {
      const at = start + distance(left, gapLeft)
      this.#ring.write(distance(this.#read, gapLeft), bytes, at, at + distance(gapLeft, gapRight))
      this.totalBytes += distance(gapLeft, gapRight)
    })
    if (!taken) return 'refused'
    this.next = this.ranges.advance(this.next)
    return inOrder ? 'next' : 'gap'
  }

  /** A FIN stands at this number. The first one counts. */
  noteFin(sequence: number): void {
    if (this.#finAt === null && !before(sequence, this.next)) this.#finAt = sequence
  }

  /** Whether the FIN has now been reached in order; true once. */
  reachFin(): boolean {
    if (this.finished || this.#finAt === null || this.next !== this.#finAt) return false
    this.next = (this.next + 1) | 0
    this.finished = true
    this.ranges.clear()
    return true
  }

  /** A view of what can be read, as much as lies in one piece. */
  peek(): Uint8Array {
    return this.#ring.front(this.readable)
  }

  /** Copies out up to target.length bytes and takes them. */
  read(target: Uint8Array): number {
    const length = Math.min(target.length, this.readable)
    this.#ring.copyTo(0, length, target, 0)
    this.consume(length)
    return length
  }

  /** The application has taken `length` bytes. */
  consume(length: number): void {
    this.#read = (this.#read + length) | 0
    if (this.readable === 0 && this.ranges.isEmpty) this.#ring.release()
    else this.#ring.drop(length)
  }

  /** Nobody will read: what is here is dropped. */
  discard(): void {
    this.#discarding = true
    this.#read = this.finished ? (this.next - 1) | 0 : this.next
    this.ranges.clear()
    this.#ring.release()
  }

  get memory(): number {
    return this.#ring.capacity
  }
}
