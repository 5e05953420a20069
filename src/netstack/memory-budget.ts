/** Memory that is kept for the next who needs a piece of its size. */
const MOST_KEPT_BYTES = 8 << 20
const LARGEST_KEPT_BYTES = 1 << 20

/**
 * The memory of all buffers of a stack: taken before it is used, given back after. Pieces come in powers of two and are used again
 * as they are, since who takes one reads only what it wrote.
 */
export class MemoryBudget {
  readonly limit: number
  #used = 0
  /** A piece was refused since this was last set to false. */
  exhausted = false
  #kept = 0
  readonly #free = new Map<number, Uint8Array[]>()

  constructor(limit: number) {
    this.limit = limit
  }

  get used(): number {
    return this.#used
  }

  /** A piece of `bytes`, a power of two; null when the limit is reached. `replaced` bytes will be given back as soon as they are copied. */
  take(bytes: number, replaced = 0): Uint8Array | null {
    if (this.#used + bytes - replaced > this.limit) {
      this.exhausted = true
      return null
    }
    this.#used += bytes
    const piece = this.#free.get(bytes)?.pop()
    if (piece === undefined) return new Uint8Array(bytes)
    this.#kept -= bytes
    return piece
  }

  give(piece: Uint8Array): void {
    this.#used -= piece.length
    if (piece.length > LARGEST_KEPT_BYTES || this.#kept + piece.length > MOST_KEPT_BYTES) return
    this.#kept += piece.length
    const list = this.#free.get(piece.length)
    if (list === undefined) this.#free.set(piece.length, [piece])
    else list.push(piece)
  }
}
