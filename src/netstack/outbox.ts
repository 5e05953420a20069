import { PacketBatch } from '../packet/index.ts'

/** Where a packet may be written. */
export interface Place {
  readonly batch: PacketBatch
  readonly at: number
}

/** Packets that belong to no connection and wait to leave, bounded: what finds no room is dropped, as a router would. */
export class Outbox {
  readonly #batch: PacketBatch
  #next = 0
  /** Packets for which there was no room. */
  dropped = 0

  constructor(packets: number, bytes: number) {
    this.#batch = new PacketBatch(packets, bytes)
  }

  get isEmpty(): boolean {
    return this.#next === this.#batch.count
  }

  /** A batch and place for a packet of up to `length` bytes, to be committed there; null when there is no room. */
  place(length: number): Place | null {
    const at = this.#batch.reserve(length)
    if (at >= 0) return { batch: this.#batch, at }
    this.dropped++
    return null
  }

  /** Moves what fits; true when all has gone. */
  moveTo(batch: PacketBatch): boolean {
    const own = this.#batch
    for (; this.#next < own.count; this.#next++) if (!batch.add(own.packet(this.#next))) return false
    own.clear()
    this.#next = 0
    return true
  }
}
