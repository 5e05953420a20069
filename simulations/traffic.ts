import { emptyingRule, type PathFailure, POSITIONS, type Position } from '../src/path/index.ts'
import type { BuildEnd } from './build.ts'
import type { RelayProfile } from './population.ts'
import { quantile } from './quantiles.ts'
import type { SimulatedRelay } from './relay.ts'

export interface BuildReport {
  readonly requests: number
  /** Share of requests that got a circuit, with up to four paths tried. */
  readonly served: number
  readonly builds: number
  readonly buildSuccess: number
  readonly firstTrySuccess: number
  readonly buildMsHalf: number
  readonly buildMsMost: number
  readonly withMachines: number
  readonly withMachinesSuccess: number
  /** Failed builds by reason, and requests for which there was no path, by position and rule. */
  readonly failures: Readonly<Record<string, number>>
}

export interface LoadReport {
  /** Share of a position's circuits that a relay carries, against its share of the capacity of all relays with that role. */
  readonly position: Position | 'all'
  readonly relays: number
  readonly low: number
  readonly half: number
  readonly high: number
  readonly most: number
}

export interface EndsReport {
  readonly hostileRelays: number
  /** Share of all capacity. */
  readonly hostileCapacity: number
  readonly circuits: number
  readonly guardHostile: number
  readonly exitHostile: number
  /** Measured share of circuits with both. */
  readonly both: number
  /** What independent ends would give: share of hostile guards times share of hostile exits. */
  readonly expected: number
  /** Capacity share squared. */
  readonly squared: number
}

/** Relays behind NAT, and what they carried. Shares are of circuits, but for the capacity. */
export interface HomesReport {
  readonly punchable: number
  readonly notPunchable: number
  /** Share of the capacity of all relays that have the role middle. */
  readonly capacity: number
  readonly middlesPunchable: number
  /** Middles of last resort. */
  readonly middlesNotPunchable: number
  readonly exits: number
}

/** What a run notes of circuits. */
export class Traffic {
  requests = 0
  #served = 0
  #builds = 0
  #built = 0
  #firstTries = 0
  #firstBuilt = 0
  #machines = 0
  #machinesBuilt = 0
  readonly #times: number[] = []
  readonly #failures = new Map<string, number>()
  readonly #bytes = new Map<SimulatedRelay, number>()
  readonly #chosen: Record<Position, Map<SimulatedRelay, number>> = { guard: new Map(), middle: new Map(), exit: new Map() }
  #both = 0

  noPath(failure: PathFailure): void {
    this.#fail(`no ${failure.position}: ${failure.rule ?? emptyingRule(failure.counts) ?? 'none known'}`)
  }

  chosen(hops: readonly SimulatedRelay[], real: boolean): void {
    this.#builds++
    if (real) this.#machines++
    for (const [index, position] of POSITIONS.entries()) add(this.#chosen[position], hops[index]!, 1)
    if (hops[0]!.profile.hostile && hops[2]!.profile.hostile) this.#both++
  }

  built(end: BuildEnd, real: boolean, first: boolean): void {
    if (first) this.#firstTries++
    if (end.failure) {
      this.#fail(`${end.failure.reason} at hop ${end.established + 1}`)
      return
    }
    this.#built++
    this.#served++
    if (first) this.#firstBuilt++
    if (real) this.#machinesBuilt++
    this.#times.push(end.tookMs)
  }

  carried(hops: readonly SimulatedRelay[], bytes: number): void {
    for (const hop of hops) add(this.#bytes, hop, bytes)
  }

  builds(): BuildReport {
    return {
      requests: this.requests,
      served: this.#served / this.requests,
      builds: this.#builds,
      buildSuccess: this.#built / this.#builds,
      firstTrySuccess: this.#firstBuilt / this.#firstTries,
      buildMsHalf: quantile(this.#times, 0.5),
      buildMsMost: quantile(this.#times, 0.95),
      withMachines: this.#machines,
      withMachinesSuccess: this.#machinesBuilt / this.#machines,
      failures: Object.fromEntries([...this.#failures].sort(([a], [b]) => (a < b ? -1 : 1))),
    }
  }

  /** @param relays all relays of the network */
  load(relays: readonly SimulatedRelay[]): LoadReport[] {
    const perPosition = POSITIONS.map((position) => {
      const serving = relays.filter(({ profile }) => profile.roles.includes(position))
      return loadOf(position, serving, (relay) => this.#chosen[position].get(relay) ?? 0)
    })
    return [...perPosition, loadOf('all', relays, (relay) => this.#bytes.get(relay) ?? 0)]
  }

  homes(relays: readonly RelayProfile[]): HomesReport | null {
    const homes = relays.filter(({ reach }) => reach.kind === 'relayed')
    if (homes.length === 0) return null
    const isPunchable = ({ reach }: RelayProfile): boolean => reach.kind === 'relayed' && reach.punchable
    const isNot = ({ reach }: RelayProfile): boolean => reach.kind === 'relayed' && !reach.punchable
    const share = (position: Position, counts: (profile: RelayProfile) => boolean): number => {
      let circuits = 0
      for (const [relay, count] of this.#chosen[position]) if (counts(relay.profile)) circuits += count
      return circuits / this.#builds
    }
    const capacity = (some: readonly RelayProfile[]): number =>
      some.filter(({ roles }) => roles.includes('middle')).reduce((sum, relay) => sum + relay.capacity, 0)
    return {
      punchable: homes.filter(isPunchable).length,
      notPunchable: homes.filter(isNot).length,
      capacity: capacity(homes) / capacity(relays),
      middlesPunchable: share('middle', isPunchable),
      middlesNotPunchable: share('middle', isNot),
      exits: share('exit', isPunchable),
    }
  }

  ends(relays: readonly RelayProfile[]): EndsReport {
    const share = (position: Position): number => {
      let hostile = 0
      for (const [relay, count] of this.#chosen[position]) if (relay.profile.hostile) hostile += count
      return hostile / this.#builds
    }
    const hostile = relays.filter((relay) => relay.hostile)
    const capacity = (some: readonly RelayProfile[]): number => some.reduce((sum, relay) => sum + relay.capacity, 0)
    const hostileCapacity = capacity(hostile) / capacity(relays)
    const guardHostile = share('guard')
    const exitHostile = share('exit')
    return {
      hostileRelays: hostile.length,
      hostileCapacity,
      circuits: this.#builds,
      guardHostile,
      exitHostile,
      both: this.#both / this.#builds,
      expected: guardHostile * exitHostile,
      squared: hostileCapacity ** 2,
    }
  }

  #fail(what: string): void {
    this.#failures.set(what, (this.#failures.get(what) ?? 0) + 1)
  }
}

/** Ratio of load share to capacity share: 1 is a relay that carries exactly its part. */
function loadOf(position: Position | 'all', relays: readonly SimulatedRelay[], load: (relay: SimulatedRelay) => number): LoadReport {
  const capacity = relays.reduce((sum, relay) => sum + relay.profile.capacity, 0)
  const total = relays.reduce((sum, relay) => sum + load(relay), 0)
  const ratios = total > 0 ? relays.map((relay) => load(relay) / total / (relay.profile.capacity / capacity)) : []
  return {
    position,
    relays: relays.length,
    low: quantile(ratios, 0.05),
    half: quantile(ratios, 0.5),
    high: quantile(ratios, 0.95),
    most: quantile(ratios, 1),
  }
}

function add<K>(map: Map<K, number>, key: K, by: number): void {
  map.set(key, (map.get(key) ?? 0) + by)
}
