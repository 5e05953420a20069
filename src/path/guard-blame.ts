import type { NodeId } from '../base/index.ts'
import type { CloseReason } from '../onion/index.ts'
import { blameFor, type CircuitFailure } from './relay-health.ts'

/** Relays whose last failure through a guard is remembered; beyond it the one that failed least recently is forgotten. */
const MAX_ACCUSED = 2048
/** One relay counts in full against one guard once in this time: a relay that is down fails again and again, and is one relay. */
const ACCUSED_AGAIN_MS = 3_600_000
/** What it counts for meanwhile where the guard itself says that it is down: less, since it may be, and something, since the guard may lie. */
const AGAIN_SHARE = 0.25
/** What a failure behind the second hop counts for. A guard can't see where a circuit goes from there; it needs a middle that helps it. */
const BEHIND_SHARE = 0.25
/** Failures behind the second hop count while something succeeds: whoever lets nothing through chooses nothing. */
const CONTRAST_MS = 60_000

/**
 * What a failed build counts for against its guard (path bias). What hops behind the guard say is sealed by them: the guard can drop it, and
 * can't make it up. docs/spec/directory.md §6, docs/decisions/2026-11-21-blame-for-failed-builds.md. Bounded; times are monotonic ms.
 */
export class GuardBlame {
  /** By guard and accused relay: when it counted last. Least recently first. */
  readonly #accused = new Map<string, number>()
  #builtAt = Number.NEGATIVE_INFINITY

  /** A circuit was built, through whichever guard. */
  noteBuilt(now: number): void {
    this.#builtAt = now
  }

  /**
   * The share, from 0 to 1, of a failure after the first hop stood.
   * @param behindNat the hops of the path that are behind NAT: where they alone are to blame, nothing counts
   */
  share(path: readonly NodeId[], failure: CircuitFailure, now: number, behindNat: readonly number[] = []): number {
    if (failure.established === 0) return 0
    const blamed = blameFor(failure, path.length, behindNat)
    if (blamed.length > 0 && blamed.every(({ hop }) => behindNat.includes(hop))) return 0
    const isBehind = wasBehindSecondHop(failure)
    if (isBehind && now - this.#builtAt > CONTRAST_MS) return 0
    if (!isBehind && !accusesNext(failure)) return 1
    const accused = failure.hop === null ? failure.established : failure.hop + 1
    // The last hop speaks of itself.
    const isFirst = this.#isFirst(`${path[0]} ${path[Math.min(accused, path.length - 1)]}`, now)
    if (isBehind) return isFirst ? BEHIND_SHARE : 0
    return isFirst ? 1 : AGAIN_SHARE
  }

  get size(): number {
    return this.#accused.size
  }

  #isFirst(key: string, now: number): boolean {
    const last = this.#accused.get(key)
    if (last !== undefined && now - last < ACCUSED_AGAIN_MS) return false
    this.#accused.delete(key)
    this.#accused.set(key, now)
    if (this.#accused.size > MAX_ACCUSED) this.#accused.delete(this.#accused.keys().next().value!)
    return true
  }
}

/** Told by a hop behind the guard, or an answer of the third hop or later that did not come. */
function wasBehindSecondHop({ reason, origin, hop, established, silent = null }: CircuitFailure): boolean {
  if (origin === 'remote') return hop !== null && hop > 0
  return silent === null && established >= 2 && (reason === 'timeout' || reason === 'handshake-failed')
}

/** The guard says that the second hop failed. */
function accusesNext({ reason, origin, hop }: CircuitFailure): boolean {
  return origin === 'remote' && hop === 0 && OF_THE_NEXT.includes(reason)
}

/** docs/spec/circuit.md §3: these speak of the relay behind the one that says so. */
const OF_THE_NEXT: readonly CloseReason[] = [
  'connect-failed',
  'identity-mismatch',
  'unknown-relay',
  'timeout',
  'handshake-failed',
  'channel-lost',
]
