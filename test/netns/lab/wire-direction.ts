import { createHash } from 'node:crypto'
import type { WireOptions, WireStats } from './wire.ts'

const defaultQueueBytes = 256 * 1024
/** What a wire holds in all, with the frames that are on their way: beyond it frames are lost. */
const maxHeldBytes = 16 * 1024 * 1024

interface Held {
  readonly dueAt: number
  readonly bytes: Uint8Array
}

/** One direction of an emulated wire: frames and the time in, frames that have arrived out. Its chances come from a seed, so that a run repeats. */
export class WireDirection {
  #options: WireOptions
  readonly #seed: string
  #drawn = 0
  /** By `dueAt`; equal ones in their order. */
  readonly #held: Held[] = []
  #heldBytes = 0
  /** When the last bit of what was accepted so far has left the queue. */
  #freeAt = 0
  #frames = 0
  #bytes = 0
  #lost = 0
  #overflowed = 0

  constructor(options: WireOptions, seed: string) {
    this.#options = options
    this.#seed = seed
  }

  change(options: WireOptions): void {
    this.#options = options
  }

  get stats(): WireStats {
    return { frames: this.#frames, bytes: this.#bytes, lost: this.#lost, overflowed: this.#overflowed }
  }

  /** When the next frame arrives: ms; Infinity when none is on its way. */
  get deadline(): number {
    return this.#held[0]?.dueAt ?? Number.POSITIVE_INFINITY
  }

  /** Takes ownership of the bytes. */
  put(bytes: Uint8Array, now: number): void {
    const { delayMs = 0, loss = 0, bitsPerSecond, queueBytes = defaultQueueBytes, jitterMs = 0 } = this.#options
    if (loss > 0 && this.#chance() < loss) {
      this.#lost++
      return
    }
    let leavesAt = now
    if (bitsPerSecond !== undefined) {
      const waitingBytes = ((Math.max(this.#freeAt, now) - now) * bitsPerSecond) / 8000
      if (waitingBytes > queueBytes) {
        this.#overflowed++
        return
      }
      this.#freeAt = Math.max(this.#freeAt, now) + (bytes.length * 8000) / bitsPerSecond
      leavesAt = this.#freeAt
    }
    if (this.#heldBytes + bytes.length > maxHeldBytes) {
      this.#overflowed++
      return
    }
    this.#insert({ dueAt: leavesAt + delayMs + (jitterMs > 0 ? this.#chance() * jitterMs : 0), bytes })
  }

  /** The frames that have arrived by now, in the order of their arrival. The caller owns them. */
  take(now: number): readonly Uint8Array[] {
    let n = 0
    while (n < this.#held.length && this.#held[n]!.dueAt <= now) n++
    if (n === 0) return []
    return this.#held.splice(0, n).map(({ bytes }) => {
      this.#heldBytes -= bytes.length
      this.#frames++
      this.#bytes += bytes.length
      return bytes
    })
  }

  #insert(frame: Held): void {
    let at = this.#held.length
    while (at > 0 && this.#held[at - 1]!.dueAt > frame.dueAt) at--
    this.#held.splice(at, 0, frame)
    this.#heldBytes += frame.bytes.length
  }

  /** From 0 to below 1, the same numbers for the same seed. */
  #chance(): number {
    return (
      createHash('sha256')
        .update(`${this.#seed}/${this.#drawn++}`)
        .digest()
        .readUInt32LE(0) /
      2 ** 32
    )
  }
}
