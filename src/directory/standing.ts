import type { NodeId } from '../base/index.ts'
import type { NetworkRules } from './rules.ts'

/** A relay is set aside when its recent failures count more than this: at the third within a few minutes. */
export const FAILURES_MAX = 2.5
/** A failure counts half after this time. */
export const FAILURE_HALF_LIFE_MS = 10 * 60_000
/** A relay that was set aside is tried again when its count has decayed to this. */
const FORGIVEN = 1
/** A weight that changes by less than this part is not worth drawing everything anew. */
const WEIGHT_NOTICE = 0.1

interface Standing {
  failures: number
  at: number
  setAsideUntil: number
  /** Bytes a second, or null: never measured. */
  measured: number | null
}

/** What this node itself has seen of relays: failures that decay, and how fast they were. Kept in memory only. */
export class Standings {
  readonly #rules: NetworkRules
  readonly #most: number
  readonly #standings = new Map<NodeId, Standing>()

  /** @param most relays that are remembered; the oldest note goes first */
  constructor(rules: NetworkRules, most: number) {
    this.#rules = rules
    this.#most = most
  }

  /** Notes a failure of the relay (not of the network). Returns whether the relay has just been set aside. */
  fail(id: NodeId, now: number): boolean {
    const standing = this.#touch(id, now)
    standing.failures += 1
    if (standing.failures <= FAILURES_MAX || standing.setAsideUntil > now) return false
    standing.setAsideUntil = now + FAILURE_HALF_LIFE_MS * Math.log2(standing.failures / FORGIVEN)
    return true
  }

  /** A relay that works has its failures forgiven. Returns whether it was set aside until now. */
  succeed(id: NodeId, now: number): boolean {
    const standing = this.#standings.get(id)
    if (!standing) return false
    const wasSetAside = standing.setAsideUntil > now
    standing.failures = 0
    standing.setAsideUntil = 0
    return wasSetAside
  }

  /** When (wall ms) a relay that is set aside may be used again, or null when it may be now. */
  setAsideUntil(id: NodeId, now: number): number | null {
    const until = this.#standings.get(id)?.setAsideUntil ?? 0
    return until > now ? until : null
  }

  /** Notes a throughput that went through the relay: proof of at least that much. Returns whether its cap changed noticeably. */
  measure(id: NodeId, bytesPerSecond: number, now: number): boolean {
    const standing = this.#touch(id, now)
    const before = this.cap(id)
    const old = standing.measured
    standing.measured = old === null || bytesPerSecond >= old ? bytesPerSecond : old * 0.9 + bytesPerSecond * 0.1
    return Math.abs(this.cap(id) - before) > before * WEIGHT_NOTICE
  }

  /** The most that the relay's claim counts for, bytes a second. */
  cap(id: NodeId): number {
    const { unmeasuredCap, measuredFactor, cap } = this.#rules.weights
    const measured = this.#standings.get(id)?.measured ?? null
    return measured === null ? Math.min(unmeasuredCap, cap) : Math.min(cap, Math.max(unmeasuredCap, measured * measuredFactor))
  }

  #touch(id: NodeId, now: number): Standing {
    let standing = this.#standings.get(id)
    if (standing) {
      const passed = Math.max(0, now - standing.at)
      standing.failures *= 2 ** (-passed / FAILURE_HALF_LIFE_MS)
      standing.at = now
      // Re-inserted, so that the map's order is the order of the last notes.
      this.#standings.delete(id)
    } else {
      standing = { failures: 0, at: now, setAsideUntil: 0, measured: null }
    }
    this.#standings.set(id, standing)
    const oldest = this.#standings.size > this.#most ? this.#standings.keys().next().value : undefined
    if (oldest !== undefined) this.#standings.delete(oldest)
    return standing
  }
}
