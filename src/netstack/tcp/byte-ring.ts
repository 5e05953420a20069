import { assert } from '../../base/index.ts'
import type { MemoryBudget } from '../memory-budget.ts'

const NOTHING = new Uint8Array(0)
const SMALLEST = 4096
const LARGEST_HINT = 256 << 10

/**
 * The bytes of one direction, from a moving base on. Its memory grows with what is put in and is given back when it is empty, so that an idle
 * connection holds none. Who uses it knows which offsets are filled.
 */
export class ByteRing {
  readonly #budget: MemoryBudget
  #bytes: Uint8Array = NOTHING
  #mask = 0
  /** Where offset 0 lies. */
  #base = 0
  /** The most that was needed since the memory was taken, and the time before: so much is taken at once the next time. */
  #most = 0
  #hint = 0

  constructor(budget: MemoryBudget) {
    this.#budget = budget
  }

  get capacity(): number {
    return this.#bytes.length
  }

  /** Makes room for offsets below `size`, keeping those below `filled`; false when the budget has none left. */
  ensure(size: number, filled: number): boolean {
    if (size > this.#bytes.length) {
      let capacity = Math.max(SMALLEST, this.#bytes.length)
      while (capacity < size) capacity *= 2
      if (!(capacity < this.#hint && this.#grow(this.#hint, filled)) && !this.#grow(capacity, filled)) return false
    }
    if (size > this.#most) this.#most = size
    return true
  }

  #grow(capacity: number, filled: number): boolean {
    const grown = this.#budget.take(capacity, this.#bytes.length)
    if (grown === null) return false
    this.copyTo(0, Math.min(filled, this.#bytes.length), grown, 0)
    if (this.#bytes.length > 0) this.#budget.give(this.#bytes)
    this.#bytes = grown
    this.#mask = capacity - 1
    this.#base = 0
    return true
  }

  /** Copies source[from, to) to `offset`, for which there is room. */
  write(offset: number, source: Uint8Array, from: number, to: number): void {
    const length = to - from
    assert(offset + length <= this.#bytes.length, 'there is room in the ring')
    const at = (this.#base + offset) & this.#mask
    const first = Math.min(length, this.#bytes.length - at)
    this.#bytes.set(source.subarray(from, from + first), at)
    if (first < length) this.#bytes.set(source.subarray(from + first, to), 0)
  }

  /** Copies [offset, offset + length) out. */
  copyTo(offset: number, length: number, target: Uint8Array, targetAt: number): void {
    if (length === 0) return
    const at = (this.#base + offset) & this.#mask
    const first = Math.min(length, this.#bytes.length - at)
    target.set(this.#bytes.subarray(at, at + first), targetAt)
    if (first < length) target.set(this.#bytes.subarray(0, length - first), targetAt + first)
  }

  /** A view of up to `length` bytes from offset 0: as many as lie in one piece. */
  front(length: number): Uint8Array {
    return this.#bytes.subarray(this.#base, Math.min(this.#base + length, this.#bytes.length))
  }

  /** Moves the base. */
  drop(length: number): void {
    this.#base = (this.#base + length) & this.#mask
  }

  /** Gives the memory back; what was in it is gone. */
  release(): void {
    if (this.#bytes.length === 0) return
    this.#budget.give(this.#bytes)
    this.#hint = Math.min(2 ** Math.ceil(Math.log2(this.#most + 1)), LARGEST_HINT)
    this.#most = 0
    this.#bytes = NOTHING
    this.#mask = 0
    this.#base = 0
  }
}
