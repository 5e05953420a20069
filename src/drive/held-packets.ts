import { PacketBatch } from '../packet/index.ts'

const HELD_PACKETS = 1024
const HELD_BYTES = 128 * 1024

/**
 * Packets that whoever they are for has no room for now, in order: up to 2048 packets and 256 KiB, in memory that is only there meanwhile.
 * Links bring packets in bursts, so what takes them in turns must hold a burst.
 */
export class HeldPackets {
  /** Given out from `#from` on. Full, or being looked at, it is followed by `#back`. */
  #front: PacketBatch | null = null
  #back: PacketBatch | null = null
  #from = 0
  #isGiving = false

  get isEmpty(): boolean {
    return this.#front === null
  }

  /** Copies packets `from` … of a batch. Returns how many did not fit. */
  add(batch: PacketBatch, from: number): number {
    for (let index = from; index < batch.count; index++) {
      const packet = batch.packet(index)
      if (this.#front === null || (this.#back === null && !this.#isGiving)) {
        this.#front ??= newBatch()
        if (this.#front.add(packet)) continue
      }
      this.#back ??= newBatch()
      if (!this.#back.add(packet)) return batch.count - index
    }
    return 0
  }

  /** Gives out what is held until `give` takes fewer than there were. @param give takes packets `from` … of a batch, returns how many */
  drain(give: (batch: PacketBatch, from: number) => number): void {
    for (let front = this.#front; front !== null && !this.#isGiving; front = this.#front) {
      this.#isGiving = true
      let taken: number
      try {
        taken = give(front, this.#from)
      } finally {
        this.#isGiving = false
      }
      // Cleared meanwhile.
      if (this.#front !== front) return
      this.#from += taken
      if (this.#from < front.count) return
      this.#front = this.#back
      this.#back = null
      this.#from = 0
    }
  }

  clear(): void {
    this.#front = null
    this.#back = null
    this.#from = 0
  }
}

function newBatch(): PacketBatch {
  return new PacketBatch(HELD_PACKETS, HELD_BYTES)
}
