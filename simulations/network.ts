import type { Random } from '../src/base/index.ts'
import type { EventQueue } from './event-queue.ts'

/** Where a node is: coordinates whose distance is a delay, its last mile, and the side of a cut it is on. */
export interface Place {
  /** Milliseconds. */
  readonly x: number
  readonly y: number
  /** One-way delay of its own access, milliseconds. */
  readonly accessMs: number
  up: boolean
  side: number
}

/** The largest distance across the plane, one-way milliseconds: about half the way around the earth. */
const PLANE_MS = 110
/** A delay varies by up to this part. */
const JITTER = 0.15
/** Bytes a millisecond of a message's last mile: 20 Mbit/s. */
const BYTES_PER_MS = 2500
/** A dial to a host that is gone gets no answer; the caller gives up after this. */
export const DIAL_TIMEOUT_MS = 5000

/** Somewhere on the plane: most nodes are in a few clusters, as they are on the map. */
export function randomPlace(random: Random): Place {
  const centres = [
    [0.2, 0.3],
    [0.5, 0.25],
    [0.85, 0.4],
    [0.3, 0.8],
  ] as const
  const [x, y] = centres[random.int(centres.length)]!
  const spread = (): number => (random.unit() + random.unit() - 1) * 0.15
  return { x: (x + spread()) * PLANE_MS, y: (y + spread()) * PLANE_MS, accessMs: 1 + random.unit() ** 2 * 12, up: true, side: 0 }
}

/** The virtual network: delays by place, nothing between nodes that are down or cut off from each other. Counts what it carries. */
export class VirtualNetwork {
  readonly #queue: EventQueue
  readonly #random: Random
  messages = 0
  bytes = 0

  constructor(queue: EventQueue, random: Random) {
    this.#queue = queue
    this.#random = random
  }

  /** One-way delay of a message now, milliseconds. */
  delay(from: Place, to: Place, bytes: number): number {
    const base = Math.hypot(from.x - to.x, from.y - to.y) + from.accessMs + to.accessMs
    return base * (1 + JITTER * this.#random.unit()) + bytes / BYTES_PER_MS
  }

  reaches(from: Place, to: Place): boolean {
    return from.up && to.up && from.side === to.side
  }

  /** Delivers after the delay; `lost` is called instead, after the dial time-out, when the receiver can't be reached. */
  send(from: Place, to: Place, bytes: number, deliver: () => void, lost: () => void = () => {}): void {
    this.messages++
    this.bytes += bytes
    this.#queue.after(this.delay(from, to, bytes), () => {
      if (this.reaches(from, to)) deliver()
      else this.#queue.after(DIAL_TIMEOUT_MS, lost)
    })
  }
}
