import { assert } from '../base/index.ts'

/**
 * How many bytes of cells all channels of a node hold: the figure that the node-wide byte budget is held against.
 * Everything that queues cells adds what it takes in and subtracts what it gives away.
 */
export class ByteMeter {
  #total = 0

  /** Bytes held now. */
  get total(): number {
    return this.#total
  }

  /** @param delta bytes queued (positive) or released (negative) */
  add(delta: number): void {
    this.#total += delta
    assert(this.#total >= 0, 'more bytes released than were queued')
  }
}
