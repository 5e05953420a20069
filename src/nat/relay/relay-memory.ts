import type { NodeId, Random } from '../../base/index.ts'
import type { ReservationsConfig } from './config.ts'

/** Relays that are remembered; the ones that failed longest ago are forgotten first. */
const REMEMBERED_MAX = 1024

interface Failure {
  readonly count: number
  readonly at: number
  readonly until: number
}

/**
 * Which relays failed, and when each may be tried again: twice as late with each failure. Pure: times (monotonic ms) are arguments.
 * While no relay at all is held, it may be this node's own network that failed: then nobody has to wait longer than the first time.
 */
export class RelayMemory {
  readonly #config: Pick<ReservationsConfig, 'retryMs' | 'maxRetryMs' | 'refusedRetryMs'>
  readonly #random: Random
  readonly #failures = new Map<NodeId, Failure>()

  constructor(config: Pick<ReservationsConfig, 'retryMs' | 'maxRetryMs' | 'refusedRetryMs'>, random: Random) {
    this.#config = config
    this.#random = random
  }

  /** @param isRefusal the relay answered, with no */
  fail(id: NodeId, isRefusal: boolean, now: number): void {
    const { retryMs, refusedRetryMs, maxRetryMs } = this.#config
    const count = (this.#failures.get(id)?.count ?? 0) + 1
    const base = isRefusal ? refusedRetryMs : retryMs
    // Up to a quarter more, so that those who lost one relay together do not come back together.
    const wait = Math.min(maxRetryMs, base * 2 ** Math.min(count - 1, 20)) * (1 + this.#random.unit() / 4)
    this.#failures.delete(id)
    this.#failures.set(id, { count, at: now, until: now + wait })
    const oldest = this.#failures.size > REMEMBERED_MAX ? this.#failures.keys().next().value : undefined
    if (oldest !== undefined) this.#failures.delete(oldest)
  }

  succeed(id: NodeId): void {
    this.#failures.delete(id)
  }

  clear(): void {
    this.#failures.clear()
  }

  /** @param isAlone no relay is held */
  isUsable(id: NodeId, isAlone: boolean, now: number): boolean {
    const failure = this.#failures.get(id)
    if (!failure || failure.until <= now) return true
    return isAlone && now - failure.at >= this.#config.retryMs
  }
}
