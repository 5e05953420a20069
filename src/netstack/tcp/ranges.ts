import { MAX_SACK_BLOCKS } from '../../packet/index.ts'
import { after, before, distance } from './sequence.ts'

/** Ranges that one connection keeps apart. A segment that would make one more is not taken. */
const MAX_RANGES = 64

interface Range {
  left: number
  right: number
  /** When it last grew, by count: RFC 2018 §4 wants the most recent first. */
  stamp: number
}

/** What has come behind a gap: disjoint ranges of sequence numbers in order, and how they are told to the sender. */
export class ReceivedRanges {
  readonly #ranges: Range[] = []
  #stamp = 0
  /** A range that came twice, to be said once (RFC 2883). */
  #duplicateLeft = 0
  #duplicateRight = 0

  get isEmpty(): boolean {
    return this.#ranges.length === 0
  }

  /** Whether something is to be said in a SACK option. */
  get hasNews(): boolean {
    return this.#ranges.length > 0 || this.#duplicateLeft !== this.#duplicateRight
  }

  /** The end of the last range. */
  get end(): number {
    return this.#ranges.at(-1)!.right
  }

  /**
   * Adds [left, right); `gap` is called for each part that was not there before, in order: first come is kept, what comes twice is not looked at.
   * False when there are too many ranges.
   */
  add(left: number, right: number, gap: (left: number, right: number) => void): boolean {
    const ranges = this.#ranges
    let first = 0
    while (first < ranges.length && before(ranges[first]!.right, left)) first++
    let last = first
    while (last < ranges.length && !after(ranges[last]!.left, right)) last++
    if (first === last) {
      if (ranges.length === MAX_RANGES) return false
      gap(left, right)
      ranges.splice(first, 0, { left, right, stamp: ++this.#stamp })
      return true
    }
    const joined = { left, right, stamp: ++this.#stamp }
    let at = left
    for (let i = first; i < last; i++) {
      const range = ranges[i]!
      if (before(at, range.left)) gap(at, before(range.left, right) ? range.left : right)
      if (after(range.right, at)) at = range.right
      if (before(range.left, joined.left)) joined.left = range.left
      if (after(range.right, joined.right)) joined.right = range.right
    }
    if (before(at, right)) gap(at, right)
    ranges.splice(first, last - first, joined)
    return true
  }

  /** Whether [left, right) is all there. */
  holds(left: number, right: number): boolean {
    return this.#ranges.some((range) => !before(left, range.left) && !after(right, range.right))
  }

  noteDuplicate(left: number, right: number): void {
    this.#duplicateLeft = left
    this.#duplicateRight = right
  }

  /** What has been reached in order: the new end of the data in order. */
  advance(next: number): number {
    let end = next
    while (this.#ranges.length > 0 && !after(this.#ranges[0]!.left, end)) {
      const { right } = this.#ranges.shift()!
      if (after(right, end)) end = right
    }
    return end
  }

  clear(): void {
    this.#ranges.length = 0
  }

  /** Writes up to `most` pairs of edges into `edges`, the duplicate first, then the newest; returns how many pairs. The duplicate is then said. */
  blocks(edges: Int32Array, most: number): number {
    let count = 0
    const limit = Math.min(most, MAX_SACK_BLOCKS)
    if (this.#duplicateLeft !== this.#duplicateRight && limit > 0) {
      edges[0] = this.#duplicateLeft
      edges[1] = this.#duplicateRight
      this.#duplicateLeft = this.#duplicateRight
      count = 1
    }
    let below = Number.POSITIVE_INFINITY
    while (count < limit) {
      let best: Range | null = null
      for (const range of this.#ranges) if (range.stamp < below && (best === null || range.stamp > best.stamp)) best = range
      if (best === null) break
      edges[2 * count] = best.left
      edges[2 * count + 1] = best.right
      below = best.stamp
      count++
    }
    return count
  }

  /** How many pairs `blocks` would write. */
  count(most: number): number {
    return Math.min(most, MAX_SACK_BLOCKS, this.#ranges.length + (this.#duplicateLeft === this.#duplicateRight ? 0 : 1))
  }

  /** Bytes held behind gaps. */
  get bytes(): number {
    let total = 0
    for (const range of this.#ranges) total += distance(range.left, range.right)
    return total
  }
}
