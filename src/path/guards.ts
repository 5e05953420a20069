import type { NodeId, Random } from '../base/index.ts'
import type { PathConfig } from './config.ts'
import { GUARD_SAMPLE_MAX, type GuardState, parseGuardState, type Tally } from './guard-state.ts'
import { draw, type PathView } from './path-view.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** The sample aims at no more than this share of all guards, or a small network's sample would be the network. guard-spec: MAX_SAMPLE_THRESHOLD */
const SAMPLE_SHARE = 0.2
/** A guard that the view has not held for this long leaves the sample. guard-spec: REMOVE_UNLISTED_GUARDS_AFTER */
const UNLISTED_LIMIT_MS = 20 * DAY
/** The drawing date is moved back by up to this part of the lifetime. */
const DATE_SPREAD = 0.1
/** First wait before a failed guard is tried again, doubled with every further failure, and the longest wait. A primary guard is missed more. */
const RETRY_MS = { primary: { first: 10_000, most: 30 * MINUTE }, other: { first: 5 * MINUTE, most: 12 * HOUR } } as const
/** Waits while it is not known whether the guard or the network is down. Short: nobody is blamed, and the network may be back any moment. */
const DOUBT_MS = { first: 1000, most: 15_000 } as const
/** The network counts as up this long after anything succeeded. */
const NETWORK_PROOF_MS = 30_000
/** Draws that look for a guard unlike those sampled before one alike is accepted. */
const UNLIKE_DRAWS = 32

/** Path bias (path-spec §7): below these rates of success people are told. Less than MIN_TRIED tells nothing. */
const BIAS_MIN_TRIED = 40
const BIAS_NOTICE = 0.7
const BIAS_WARN = 0.5
/** Tallies are halved here, so that the last hundreds count. */
const TALLY_LIMIT = 300

type GuardOptions = Pick<PathConfig, 'guardsPrimary' | 'guardSampleSize' | 'guardLifetimeDays'>

/** A guard that fails suspiciously often. A fact for people: whether to drop the guard is theirs to decide. */
export interface GuardWarning {
  readonly id: NodeId
  /** 'builds': circuits through it that were never finished. 'uses': finished circuits that broke before they carried anything. */
  readonly of: 'builds' | 'uses'
  readonly level: 'notice' | 'warn'
  readonly tried: number
  readonly succeeded: number
}

export interface GuardFacts {
  readonly id: NodeId
  /** 0 is preferred. Null: not usable now (gone from the view, or excluded). */
  readonly rank: number | null
  readonly primary: boolean
  readonly confirmed: boolean
  readonly state: 'untried' | 'reachable' | 'doubtful' | 'failed' | 'unusable'
  /** Monotonic ms; null when it may be tried now. */
  readonly retryAt: number | null
  readonly builds: Tally
  readonly uses: Tally
}

interface Guard {
  readonly id: NodeId
  readonly addedAt: number
  confirmedAt: number | null
  confirmedOrder: number | null
  unlistedSince: number | null
  builds: Tally
  uses: Tally
  /** In the view, in the role, not excluded: as of the last `sample`. */
  usable: boolean
  /** Monotonic, of this run only. */
  state: 'untried' | 'reachable' | 'doubtful' | 'failed'
  failures: number
  doubts: number
  retryAt: number
  /** Shares of failures that do not make a whole one yet. */
  share: { builds: number; uses: number }
}

/**
 * The guards of this node: an ordered, bounded sample drawn by weight and kept for months; after the pattern of Tor's guard-spec.
 *
 *   drawn ──noteSuccess──▶ confirmed (in the order of first success, before all that are not)
 *   untried/reachable ──noteFailure, network up──▶ failed ──retryAt──▶ tried in its place again
 *                     ──noteFailure, network not known to be up──▶ doubtful ──anything succeeds──▶ untried, nothing counted
 *   failed ──no other is left──▶ doubtful
 *
 * Failures only ever change when a guard is tried next; they never draw a new one. `wall` is wall-clock ms (dates on disk), `now` monotonic ms.
 */
export class GuardSample {
  #options: GuardOptions
  #guards: Guard[] = []
  #nextOrder = 0
  #lastSuccessAt: number | null = null

  constructor(options: GuardOptions) {
    this.#options = options
  }

  /** Other options from now on: guards that are too many by them stay until their time is over. */
  configure(options: GuardOptions): void {
    this.#options = options
  }

  /** @param value parsed JSON of what `toState` gave. @throws MalformedError when it is not exactly that */
  static restore(options: GuardOptions, value: unknown): GuardSample {
    const sample = new GuardSample(options)
    sample.#guards = parseGuardState(value).guards.map((guard) => ({ ...guard, ...fresh, share: { builds: 0, uses: 0 } }))
    sample.#nextOrder = Math.max(-1, ...sample.#guards.map((guard) => guard.confirmedOrder ?? -1)) + 1
    return sample
  }

  /** What the disk keeps: changes with `sample`, `noteSuccess`, `noteBuild` and `noteUse`. */
  toState(): GuardState {
    return {
      version: 1,
      guards: this.#guards.map(({ id, addedAt, confirmedAt, confirmedOrder, unlistedSince, builds, uses }) => ({
        id,
        addedAt,
        confirmedAt,
        confirmedOrder,
        unlistedSince,
        builds,
        uses,
      })),
    }
  }

  /** Holds the sample against the view: expires, notes who is gone, draws until the aim is reached. Returns whether anything to keep changed. */
  sample(view: PathView, random: Random, wall: number): boolean {
    const before = JSON.stringify(this.toState())
    if (view.relays.length > 0) this.#compareWith(view, wall)
    this.#guards = this.#guards.filter((guard) => !this.#expired(guard, wall))
    const aim = this.#aim(view)
    while (this.#guards.filter((guard) => guard.usable).length < aim && this.#guards.length < GUARD_SAMPLE_MAX) {
      const index = this.#drawNew(view, random)
      if (index === null) break
      const addedAt = Math.max(0, Math.floor(wall - random.unit() * DATE_SPREAD * this.#lifetimeMs))
      const none = { tried: 0, succeeded: 0 }
      const stored = { id: view.relays[index]!.id, addedAt, confirmedAt: null, confirmedOrder: null, unlistedSince: null }
      this.#guards.push({ ...stored, builds: none, uses: none, ...fresh, usable: true, share: { builds: 0, uses: 0 } })
    }
    return JSON.stringify(this.toState()) !== before
  }

  /** Guards to build through now, the preferred first. Empty when all wait for a retry: see `nextRetryAt`. */
  current(now: number): readonly NodeId[] {
    const ready = this.#ordered().filter((guard) => guard.retryAt <= now)
    return [...ready.filter((guard) => guard.state !== 'doubtful'), ...ready.filter((guard) => guard.state === 'doubtful')].map(
      (guard) => guard.id,
    )
  }

  /** When (monotonic ms) `current` gains a guard; null when none waits. */
  nextRetryAt(now: number): number | null {
    const waits = this.#ordered().flatMap((guard) => (guard.retryAt > now ? guard.retryAt : []))
    return waits.length > 0 ? Math.min(...waits) : null
  }

  /** A circuit is about to be built through the guard. A failed one is then not tried by others as well until this try has had its time. */
  noteAttempt(id: NodeId, now: number): void {
    const guard = this.#find(id)
    if (guard?.state === 'failed') guard.retryAt = now + this.#retryWait(guard)
  }

  /** The guard's link and first hop are up. Whatever was doubtful may be tried again: the network is there. */
  noteSuccess(id: NodeId, now: number, wall: number): void {
    this.#lastSuccessAt = now
    for (const guard of this.#guards) if (guard.state === 'doubtful') Object.assign(guard, { state: 'untried', doubts: 0, retryAt: 0 })
    const guard = this.#find(id)
    if (!guard) return
    Object.assign(guard, { state: 'reachable', failures: 0, doubts: 0, retryAt: 0 })
    if (guard.confirmedAt === null) {
      guard.confirmedAt = Math.floor(wall)
      guard.confirmedOrder = this.#nextOrder++
    }
  }

  /**
   * The guard could not be reached. `networkIsUp` says that the caller has proof of it (another guard answered lately, see
   * `networkProven`; or the guard's host itself refused). Without proof nothing is counted and the other guards are tried meanwhile.
   */
  noteFailure(id: NodeId, networkIsUp: boolean, now: number): void {
    const guard = this.#find(id)
    if (!guard) return
    if (networkIsUp) {
      guard.state = 'failed'
      guard.failures++
      guard.retryAt = now + this.#retryWait(guard)
    } else if (guard.state !== 'failed') {
      guard.state = 'doubtful'
      this.#wait(guard, now)
    }
    this.#doubtIfAllFailed(now)
  }

  /** When every guard has failed it can't be told from here whether they are down or the way to them is: all may be back any moment. */
  #doubtIfAllFailed(now: number): void {
    const usable = this.#guards.filter((guard) => guard.usable)
    if (usable.some(({ state }) => state === 'untried' || state === 'reachable')) return
    for (const guard of usable) {
      if (guard.state !== 'failed') continue
      guard.state = 'doubtful'
      const { retryAt } = guard
      this.#wait(guard, now)
      guard.retryAt = Math.min(retryAt, guard.retryAt)
    }
  }

  #wait(guard: Guard, now: number): void {
    guard.retryAt = now + Math.min(DOUBT_MS.most, DOUBT_MS.first * 2 ** guard.doubts)
    guard.doubts = Math.min(guard.doubts + 1, 30)
  }

  /** Whether a success a short time ago proves that the network is up. Success elsewhere (any link) may be told by `noteNetworkUp`. */
  networkProven(now: number): boolean {
    return this.#lastSuccessAt !== null && now - this.#lastSuccessAt <= NETWORK_PROOF_MS
  }

  /** Something other than a guard answered. */
  noteNetworkUp(now: number): void {
    this.#lastSuccessAt = now
  }

  /** The machine came back from sleep or changed its network: what failed before tells nothing any more. */
  noteNetworkChange(): void {
    this.#lastSuccessAt = null
    for (const guard of this.#guards) Object.assign(guard, { state: 'untried', failures: 0, doubts: 0, retryAt: 0 })
  }

  /**
   * A build whose first hop had been established ended: with all hops or without. For path bias.
   * @param share what a failure counts for: `GuardBlame.share`
   */
  noteBuild(id: NodeId, succeeded: boolean, share = 1): void {
    this.#tally(id, 'builds', succeeded, share)
  }

  /** A finished circuit was used for the first time: it carried something, or it broke before. For path bias. */
  noteUse(id: NodeId, succeeded: boolean, share = 1): void {
    this.#tally(id, 'uses', succeeded, share)
  }

  #tally(id: NodeId, of: 'builds' | 'uses', succeeded: boolean, share: number): void {
    const guard = this.#find(id)
    if (!guard) return
    if (!succeeded) {
      guard.share[of] += share
      if (guard.share[of] < 1) return
      guard.share[of]--
    }
    guard[of] = tallied(guard[of], succeeded)
  }

  warnings(): readonly GuardWarning[] {
    return this.#guards.flatMap((guard) =>
      (['builds', 'uses'] as const).flatMap((of): GuardWarning[] => {
        const { tried, succeeded } = guard[of]
        const rate = succeeded / tried
        if (tried < BIAS_MIN_TRIED || rate >= BIAS_NOTICE) return []
        return [{ id: guard.id, of, level: rate < BIAS_WARN ? 'warn' : 'notice', tried, succeeded }]
      }),
    )
  }

  /** The whole sample, preferred first, unusable ones last. */
  facts(now: number): readonly GuardFacts[] {
    const ordered = this.#ordered()
    const rest = this.#guards.filter((guard) => !guard.usable)
    return [...ordered, ...rest].map((guard, place) => ({
      id: guard.id,
      rank: guard.usable ? place : null,
      primary: guard.usable && place < this.#options.guardsPrimary,
      confirmed: guard.confirmedAt !== null,
      state: guard.usable ? guard.state : 'unusable',
      retryAt: guard.retryAt > now ? guard.retryAt : null,
      builds: guard.builds,
      uses: guard.uses,
    }))
  }

  get #lifetimeMs(): number {
    return this.#options.guardLifetimeDays * DAY
  }

  #find(id: NodeId): Guard | undefined {
    return this.#guards.find((guard) => guard.id === id)
  }

  /** Usable guards: the confirmed in the order of their confirmation, then the others as drawn. */
  #ordered(): Guard[] {
    const usable = this.#guards.filter((guard) => guard.usable)
    const confirmed = usable.filter((guard) => guard.confirmedOrder !== null).sort((a, b) => a.confirmedOrder! - b.confirmedOrder!)
    return [...confirmed, ...usable.filter((guard) => guard.confirmedOrder === null)]
  }

  #compareWith(view: PathView, wall: number): void {
    for (const guard of this.#guards) {
      const index = view.indexOf(guard.id)
      const refusal = index === null ? 'not-in-view' : view.refusal(index, 'guard')
      guard.usable = refusal === null
      const listed = refusal !== 'not-in-view' && refusal !== 'role'
      guard.unlistedSince = listed ? null : Math.min(guard.unlistedSince ?? Math.floor(wall), Math.floor(wall))
    }
  }

  #expired(guard: Guard, wall: number): boolean {
    if (guard.unlistedSince !== null && wall - guard.unlistedSince > UNLISTED_LIMIT_MS) return true
    if (wall - guard.addedAt <= this.#lifetimeMs) return false
    return guard.confirmedAt === null || wall - guard.confirmedAt > this.#lifetimeMs / 2
  }

  #aim(view: PathView): number {
    const all = view.candidates('guard').indexes.length
    const share = Math.max(this.#options.guardsPrimary, Math.ceil(all * SAMPLE_SHARE))
    return Math.min(this.#options.guardSampleSize, share)
  }

  /** A guard by weight that is not in the sample, and shares network or family with none that is where that can be had. */
  #drawNew(view: PathView, random: Random): number | null {
    const candidates = view.candidates('guard')
    const sampled = this.#guards.flatMap((guard) => view.indexOf(guard.id) ?? [])
    for (let i = 0; i < UNLIKE_DRAWS; i++) {
      const index = draw(candidates, random)
      if (index === null) return null
      if (sampled.every((other) => view.conflict(index, other) === null)) return index
    }
    const left = [...candidates.indexes].filter((index) => !sampled.includes(index))
    const unlike = left.filter((index) => sampled.every((other) => view.conflict(index, other) === null))
    const from = unlike.length > 0 ? unlike : left
    const cumulative: number[] = []
    let total = 0
    for (const index of from) {
      total += view.weight(index, 'guard')
      cumulative.push(total)
    }
    return draw({ indexes: Int32Array.from(from), cumulative: Float64Array.from(cumulative), total }, random)
  }

  #retryWait(guard: Guard): number {
    const { first, most } = this.#ordered().indexOf(guard) < this.#options.guardsPrimary ? RETRY_MS.primary : RETRY_MS.other
    return Math.min(most, first * 2 ** Math.min(guard.failures - 1, 30))
  }
}

const fresh = { usable: false, state: 'untried', failures: 0, doubts: 0, retryAt: 0 } as const

function tallied({ tried, succeeded }: Tally, success: boolean): Tally {
  const next = { tried: tried + 1, succeeded: succeeded + (success ? 1 : 0) }
  return next.tried < TALLY_LIMIT ? next : { tried: Math.ceil(next.tried / 2), succeeded: Math.floor(next.succeeded / 2) }
}
