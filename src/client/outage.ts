import type { PathFailure, PathView, Rule } from '../path/index.ts'
import { CircuitBuildError } from './circuit-facts.ts'
import { StreamError } from './stream-error.ts'

/**
 * Where builds fail: no path because the view holds no exit, none that lets the ports through, none that the wishes allow, or no other relay;
 * else the hop that did not answer.
 */
export type FailedAt = 'no-exit' | 'ports' | 'wishes' | 'no-relay' | 'guard' | 'middle' | 'exit'

/** Nothing can be reached now. */
export interface Outage {
  readonly at: FailedAt
  /** Monotonic ms: the first failure after the last success. */
  readonly since: number
  readonly failures: number
  /** Where wishes leave no path: the last path that was looked for. */
  readonly without?: Pick<PathFailure, 'position' | 'counts'>
}

/** Failures in a row that are an outage, and how long it must have lasted: bad luck is over sooner. */
const LEAST_FAILURES = 3
const LEAST_MS = 5_000
/** The same before the first circuit ever: whoever starts does not know everybody yet. */
const STARTING_MS = 30_000
/** Nobody has tried for this long: nobody knows. */
const FORGOTTEN_MS = 120_000
/** The last failures, of which the most frequent place counts. */
const REMEMBERED = 8

const WISHES: readonly Rule[] = [
  'excluded-node',
  'excluded-network',
  'excluded-country',
  'country-unknown',
  'not-in-exit-nodes',
  'not-in-exit-countries',
]

/** What became of the builds of late. Pure; times are monotonic ms. */
export class BuildRecord {
  readonly #last: FailedAt[] = []
  #since: number | null = null
  #triedAt = 0
  #failures = 0
  #everBuilt = false
  #without: Pick<PathFailure, 'position' | 'counts'> | null = null

  noteBuilt(): void {
    this.#everBuilt = true
    this.#last.length = 0
    this.#since = null
    this.#failures = 0
  }

  /** @param at null: a failure that says nothing of the network */
  noteFailed(at: FailedAt | null, now: number): void {
    if (at === null) return
    this.#since ??= now
    this.#triedAt = now
    this.#failures++
    this.#last.push(at)
    if (this.#last.length > REMEMBERED) this.#last.shift()
  }

  /** No path could be drawn. @param view what it was looked for in */
  noteWithoutPath(failure: PathFailure, view: Pick<PathView, 'candidates' | 'exits'>, now: number): void {
    const at = failedWithoutPath(failure, view)
    if (at === 'wishes') this.#without = failure
    this.noteFailed(at, now)
  }

  /** @param hasCircuit whether one stands that can be used: then something is reached, whatever fails beside it */
  outage(hasCircuit: boolean, now: number): Outage | null {
    if (this.#since === null || hasCircuit || this.#failures < LEAST_FAILURES || now - this.#triedAt > FORGOTTEN_MS) return null
    if (now - this.#since < (this.#everBuilt ? LEAST_MS : STARTING_MS)) return null
    const times = (at: FailedAt): number => this.#last.filter((one) => one === at).length
    const at = this.#last.reduce((most, one) => (times(one) >= times(most) ? one : most))
    const without = at === 'wishes' && this.#without !== null ? { without: this.#without } : {}
    return { at, since: this.#since, failures: this.#failures, ...without }
  }
}

/** @param view what the path was looked for in */
export function failedWithoutPath({ position, rule, counts }: PathFailure, view: Pick<PathView, 'candidates' | 'exits'>): FailedAt {
  if (WISHES.some((wish) => (counts[wish] ?? 0) > 0)) return 'wishes'
  if (position === 'guard') return view.candidates('guard').indexes.length > 0 ? 'guard' : 'no-relay'
  if (position === 'middle' || rule === 'same-network' || rule === 'same-family' || rule === 'same-nat-relay') return 'no-relay'
  return view.exits({ ports: [], family: null }).total > 0 ? 'ports' : 'no-exit'
}

/** Where a build broke. Null where it was ended from here. */
export function failedAt(error: unknown): FailedAt | null {
  if (error instanceof StreamError) return null
  if (!(error instanceof CircuitBuildError)) return 'guard'
  const { reason, hops, hop, origin } = error.end
  if (reason === 'requested' || reason === 'finished') return null
  // A hop that speaks of itself stands; what it says of the next one names that one.
  const broken = origin === 'remote' && hop !== null ? Math.max(hop + 1, hops) : hops
  return broken <= 0 ? 'guard' : broken === 1 ? 'middle' : 'exit'
}
