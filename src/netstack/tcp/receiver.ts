import type { MemoryBudget } from '../memory-budget.ts'
import { ByteRing } from './byte-ring.ts'
import { ReceivedRanges } from './ranges.ts'
import { after, before, distance } from './sequence.ts'

/** What a peer may send before it has proven that it sends at all: what 16 bits say. */
const FIRST_WINDOW = 0xffff
/**
 * The window is at most so many times what has come in order. Slow start doubles, so this never holds anybody back; but who has sent nothing
 * can't make us hold a whole buffer by a single byte at its far end.
 */
const WINDOW_PER_RECEIVED = 4

/** Less than one byte in so many of the memory it holds. */
const SPARSE = 8

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
  /** How much may be held now: grows to the limit with what has come. */
  #allowed: number
  #inOrderBytes = 0
  #discarding = false

  constructor(budget: MemoryBudget, limit: number) {
    this.#ring = new ByteRing(budget)
    this.#limit = limit
    this.#allowed = Math.min(limit, FIRST_WINDOW)
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
    return distance(this.#edge, (this.#read + this.#allowed) | 0)
  }

  /**
   * The window to put into a segment, scaled and rounded down; the edge that it (or an earlier one) tells is kept to, however it was rounded
   * since (RFC 7323 §2.4).
   */
  advertise(mss: number): number {
    // A little more room is not told at all, or the peer would fill it with a little segment (RFC 9293 §3.8.6.2.2, MUST-39).
    if (this.windowGrowth >= Math.min(this.#allowed / 2, mss)) {
      const most = (this.next + (0xffff << this.scale)) | 0
      const edge = (this.#read + this.#allowed) | 0
      const told = before(most, edge) ? most : edge
      if (after(told, this.#edge)) this.#edge = told
    }
    return Math.min(0xffff, this.window >> this.scale)
  }

  /** How far the window's edge would move if it were told now; whether that is worth a segment of its own (RFC 9293 §3.8.6.2.2). */
  wantsUpdate(mss: number): boolean {
    if (this.finished) return false
    const growth = this.windowGrowth
    const told = this.window
    if (growth >= this.#allowed / 2) return true
    return told < 2 * mss ? growth >= Math.min(this.#allowed / 2, 2 * mss) : growth >= this.#allowed / 4
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
    if (after(right, this.#edge)) right = this.#edge
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
      this.#advance(right)
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
    })
    if (!taken) return 'refused'
    if (!inOrder) return 'gap'
    this.#advance(this.ranges.advance(left))
    return 'next'
  }

  #advance(next: number): void {
    this.#inOrderBytes += distance(this.next, next)
    this.next = next
    if (this.#allowed < this.#limit)
      this.#allowed = Math.min(this.#limit, Math.max(this.#allowed, WINDOW_PER_RECEIVED * this.#inOrderBytes))
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

  /** Throws away what lies behind gaps, if it is little in much memory: such gaps are made on purpose. Returns the bytes that this frees. */
  prune(): number {
    if (this.ranges.isEmpty || this.ranges.bytes * SPARSE >= this.#ring.capacity) return 0
    this.ranges.clear()
    if (this.readable > 0) return 0
    const { capacity } = this.#ring
    this.#ring.release()
    return capacity
  }

  get memory(): number {
    return this.#ring.capacity
  }
}
