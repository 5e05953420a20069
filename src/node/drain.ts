import { type Clocks, wallTime } from './facts.ts'

/** How a serving node is doing while it leaves. */
export interface DrainFacts {
  /** Wall-clock ms since when it takes no new circuits, and when it ends at the latest. */
  readonly since: number
  readonly until: number
  readonly circuitsLeft: number
}

/** What a drain needs of the node. */
export interface DrainModules {
  readonly clocks: Clocks
  /** Takes nothing new from now on, and says so to the network. */
  readonly leave: () => void
  /** Circuits served now. */
  readonly circuits: () => number
  /** Called once: nothing is left, or the time is over. */
  readonly done: () => void
}

/** Where no limit is given: long enough for most downloads. */
export const DRAIN_LIMIT_MS = 10 * 60_000
/** The longest limit. */
export const MAX_DRAIN_LIMIT_MS = 7 * 86_400_000
/** How often it is looked at whether circuits are left. */
const LOOK_MS = 100
/** The network hears that the node leaves before it ends, even if it serves nobody: its new descriptor is signed and handed on in this time. */
const NOTICE_MS = 1_000

/** A node that leaves: it ends when its last circuit does, or at the limit. */
export class Drain {
  readonly #m: DrainModules
  /** Monotonic ms. */
  readonly #begunAt: number
  #untilAt: number
  readonly #timer: NodeJS.Timeout

  /** Begins at once. */
  constructor(modules: DrainModules, limitMs: number) {
    this.#m = modules
    this.#begunAt = modules.clocks.now()
    this.#untilAt = this.#begunAt + limitMs
    modules.leave()
    this.#timer = setInterval(() => this.#look(), LOOK_MS)
  }

  /** Another limit, counted from now. */
  limit(limitMs: number): void {
    this.#untilAt = this.#m.clocks.now() + limitMs
  }

  facts(): DrainFacts {
    return {
      since: wallTime(this.#m.clocks, this.#begunAt),
      until: wallTime(this.#m.clocks, this.#untilAt),
      circuitsLeft: this.#m.circuits(),
    }
  }

  /** Nothing more happens: the node stops anyway. */
  cancel(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const now = this.#m.clocks.now()
    if (now < this.#untilAt && (this.#m.circuits() > 0 || now < this.#begunAt + NOTICE_MS)) return
    this.cancel()
    this.#m.done()
  }
}
