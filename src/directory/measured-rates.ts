import type { NodeId } from '../base/index.ts'
import type { NetworkRules } from './rules.ts'

/** A weight that changes by less than this part is not worth drawing everything anew. */
const WEIGHT_NOTICE = 0.1

/** How fast relays were that this node sent through: what their claims count for. Kept in memory only. */
export class MeasuredRates {
  readonly #rules: NetworkRules
  readonly #most: number
  /** Bytes a second; measured least recently first. */
  readonly #rates = new Map<NodeId, number>()

  /** @param most relays that are remembered; the one measured least recently goes first */
  constructor(rules: NetworkRules, most: number) {
    this.#rules = rules
    this.#most = most
  }

  /** Notes a throughput that went through the relay: proof of at least that much. Returns whether its cap changed noticeably. */
  measure(id: NodeId, bytesPerSecond: number): boolean {
    const before = this.cap(id)
    const old = this.#rates.get(id)
    // Re-inserted, so that the map's order is the order of the last measurements.
    this.#rates.delete(id)
    this.#rates.set(id, old === undefined || bytesPerSecond >= old ? bytesPerSecond : old * 0.9 + bytesPerSecond * 0.1)
    const oldest = this.#rates.size > this.#most ? this.#rates.keys().next().value : undefined
    if (oldest !== undefined) this.#rates.delete(oldest)
    return Math.abs(this.cap(id) - before) > before * WEIGHT_NOTICE
  }

  /** The most that the relay's claim counts for, bytes a second. */
  cap(id: NodeId): number {
    const { unmeasuredCap, measuredFactor, cap } = this.#rules.weights
    const measured = this.#rates.get(id)
    return measured === undefined ? Math.min(unmeasuredCap, cap) : Math.min(cap, Math.max(unmeasuredCap, measured * measuredFactor))
  }
}
