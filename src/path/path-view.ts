import type { NodeId, Random } from '../base/index.ts'
import { allowsPort } from '../directory/index.ts'
import { balanceRoles, POSITION_BIT, ROLE_SETS } from './balance.ts'
import { networkRule, type PathConstraints, type Rule, userRule } from './constraints.ts'
import { POSITIONS, type Position, type RelayFacts } from './relay-facts.ts'

/** Tables of exits by wanted ports that are kept; beyond it the oldest is dropped. */
const MAX_EXIT_TABLES = 64

/**
 * What the capacity of a relay behind NAT counts for, by position. A circuit through it first waits for its NAT relay and the punching, and breaks
 * when its router restarts: half as a middle, a quarter as an exit, whose loss an application notices. Not less, or homes would carry nothing. One
 * that is only ever reached through its NAT relay is drawn by no weight at all: see `isLastResort`.
 */
export const NAT_WEIGHT: Readonly<Record<RelayFacts['reach'], Readonly<Record<Position, number>>>> = {
  direct: { guard: 1, middle: 1, exit: 1 },
  punchable: { guard: 0, middle: 0.5, exit: 0.25 },
  relayed: { guard: 0, middle: 0, exit: 0 },
}

/** Candidates of one position with their weights, to draw from in the time of a binary search. */
export interface Candidates {
  /** Indexes into the view's relays, ascending. */
  readonly indexes: Int32Array
  /** Running sums of the weights. */
  readonly cumulative: Float64Array
  readonly total: number
}

/** What a circuit's exit must do. No ports and no packets: any exit. */
export interface ExitNeed {
  /** The ports it must let through, all of them. */
  readonly ports: readonly number[]
  /** Null while a name is not resolved. */
  readonly family: 4 | 6 | null
  /** Given where it must serve raw packets. */
  readonly packets?: true
}

/**
 * One version of the view, prepared for drawing paths: relays by index, what each position refuses and why, cumulative weights,
 * and which pairs may not meet. Immutable but for its cache of exit tables. Relays are held sorted by id, so
 * that the same view and the same randomness give the same paths however the view was ordered.
 */
export class PathView {
  readonly relays: readonly RelayFacts[]
  readonly constraints: PathConstraints
  readonly #indexes = new Map<NodeId, number>()
  /** Per relay: itself and the relays of the view in front of it, whether they work as such or not. */
  readonly #places: readonly (readonly number[])[]
  /** Per relay: its own and its front's networks, interned. */
  readonly #networks: readonly (readonly number[])[]
  /** Per relay: NAT relays (interned ids, in the view or not). Shared ones are refused too. */
  readonly #fronts: readonly (readonly number[])[]
  /** Per relay: those with whom it, or one in front of it, has a mutual family. */
  readonly #families: readonly (ReadonlySet<number> | null)[]
  /** Per position and relay: why not, or null. */
  readonly #refusals: Readonly<Record<Position, readonly (Rule | null)[]>>
  /** Per position and relay: the weight to draw with; 0 where refused or where the capacity is needed elsewhere. */
  readonly #weights: Readonly<Record<Position, Float64Array>>
  readonly #tables: Readonly<Record<Position, Candidates>>
  readonly #exitTables = new Map<string, Candidates>()

  /** @param relays the known relays, each id once */
  constructor(relays: readonly RelayFacts[], constraints: PathConstraints) {
    const sorted = [...relays].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
    this.relays = sorted
    this.constraints = constraints
    sorted.forEach((relay, index) => {
      this.#indexes.set(relay.id, index)
    })
    this.#places = sorted.map((relay, index) => [index, ...this.#known(relay.via)])
    this.#fronts = internEach(sorted, (relay) => relay.via)
    const ownNetworks = internEach(sorted, (relay) => relay.networks)
    this.#networks = this.#places.map((places) => union(places.map((place) => ownNetworks[place]!)))
    this.#families = this.#mutualFamilies()
    const network = byPosition((position) =>
      sorted.map((relay, index) => networkRule(relay, position, constraints, this.fronts(index).length > 0)),
    )
    this.#weights = balancedWeights(sorted, network)
    this.#refusals = byPosition((position) => sorted.map((_, index) => network[position][index] ?? this.#ownRule(index, position)))
    this.#tables = byPosition((position) => this.#candidates(position, () => true))
  }

  indexOf(id: NodeId): number | null {
    return this.#indexes.get(id) ?? null
  }

  /** Why the relay can't be at the position of any path, or null. */
  refusal(index: number, position: Position): Rule | null {
    return this.#refusals[position][index]!
  }

  /** The weight a relay is drawn with. 0 also where its capacity is all needed at scarcer positions. Bytes a second. */
  weight(index: number, position: Position): number {
    return this.#weights[position][index]!
  }

  /** The NAT relays in front of a relay that are in the view and can relay; none for one that is reached directly. */
  fronts(index: number): readonly number[] {
    return this.#places[index]!.slice(1).filter((place) => this.relays[place]!.canRelay)
  }

  /** Whether a relay is a middle only where no other is left: its NAT relay would see, and pay for, every byte. */
  isLastResort(index: number): boolean {
    return this.relays[index]!.reach === 'relayed'
  }

  /** Those drawn by weight: without the middles of last resort. */
  candidates(position: 'guard' | 'middle'): Candidates {
    return this.#tables[position]
  }

  /** The exits that serve the need. Made once per need and version of the view. */
  exits(need: ExitNeed): Candidates {
    if (need.ports.length === 0 && !need.packets) return this.#tables.exit
    const key = `${need.packets ? 'packets:' : ''}${need.family ?? 'any'}:${[...need.ports].sort((a, b) => a - b).join(',')}`
    const known = this.#exitTables.get(key)
    if (known) return known
    const table = this.#candidates('exit', (relay) => exitServes(relay, need))
    if (this.#exitTables.size >= MAX_EXIT_TABLES) this.#exitTables.delete(this.#exitTables.keys().next().value!)
    this.#exitTables.set(key, table)
    return table
  }

  /** Which rule keeps two relays from sharing a path, or null. */
  conflict(a: number, b: number): Rule | null {
    if (a === b) return 'same-node'
    const placesA = this.#places[a]!
    const placesB = this.#places[b]!
    if (placesA.some((place) => placesB.includes(place)) || shares(this.#fronts[a]!, this.#fronts[b]!)) return 'same-nat-relay'
    if (shares(this.#networks[a]!, this.#networks[b]!)) return 'same-network'
    const family = this.#families[a]
    if (family && placesB.some((place) => family.has(place))) return 'same-family'
    return null
  }

  /** What the user's constraints, and they alone, say against a relay at a position. @param facts of a relay that the view may not hold any more */
  objection(facts: RelayFacts, position: Position): Rule | null {
    const front = this.#known(facts.via).map((place) => this.relays[place]!)
    return userRule(facts, front, position, this.constraints)
  }

  #known(ids: readonly NodeId[]): number[] {
    return ids.flatMap((id) => this.#indexes.get(id) ?? [])
  }

  #mutualFamilies(): (ReadonlySet<number> | null)[] {
    const declared = this.relays.map((relay) => (relay.family.length > 0 ? new Set(relay.family) : null))
    const mutual = this.relays.map((relay, index) =>
      this.#known(relay.family).filter((other) => other !== index && declared[other]?.has(relay.id)),
    )
    return this.#places.map((places) => {
      const all = union(places.map((place) => mutual[place]!))
      return all.length > 0 ? new Set(all) : null
    })
  }

  #ownRule(index: number, position: Position): Rule | null {
    const relay = this.relays[index]!
    const front = this.#places[index]!.slice(1).map((place) => this.relays[place]!)
    const rule = userRule(relay, front, position, this.constraints)
    if (rule) return rule
    const { self } = this.constraints
    if (self !== null) {
      const own = this.#indexes.get(self)
      if (relay.id === self || relay.via.includes(self) || (own !== undefined && this.conflict(own, index))) return 'own-node'
    }
    return relay.weight > 0 ? null : 'no-weight'
  }

  #candidates(position: Position, serves: (relay: RelayFacts) => boolean): Candidates {
    const indexes: number[] = []
    const cumulative: number[] = []
    let total = 0
    for (let index = 0; index < this.relays.length; index++) {
      const weight = this.#weights[position][index]!
      if (weight <= 0 || this.#refusals[position][index] !== null || !serves(this.relays[index]!)) continue
      total += weight
      indexes.push(index)
      cumulative.push(total)
    }
    return { indexes: Int32Array.from(indexes), cumulative: Float64Array.from(cumulative), total }
  }
}

/** Draws one candidate by weight; null when there is none. */
export function draw(candidates: Candidates, random: Random): number | null {
  const { indexes, cumulative, total } = candidates
  if (indexes.length === 0) return null
  const wanted = random.unit() * total
  let low = 0
  let high = indexes.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (cumulative[middle]! > wanted) high = middle
    else low = middle + 1
  }
  return indexes[low]!
}

/** Whether an exit serves raw packets where they are wanted, and its policy lets all the wanted ports through. */
export function exitServes(relay: RelayFacts, need: ExitNeed): boolean {
  return exitMisses(relay, need) === null
}

/** What an exit lacks for the need, or null. */
export function exitMisses(relay: RelayFacts, need: ExitNeed): 'packets' | 'port' | null {
  if (need.packets && !relay.servesPackets) return 'packets'
  const policy = relay.exitPolicy
  return policy !== null && need.ports.every((port) => allowsPort(policy, port, need.family)) ? null : 'port'
}

/** Weight by position: the capacity that the balance of all fitting relays (before anyone's own wishes) gives to the position. */
function balancedWeights(
  relays: readonly RelayFacts[],
  refusals: Record<Position, readonly (Rule | null)[]>,
): Record<Position, Float64Array> {
  const capacity = new Array<number>(ROLE_SETS).fill(0)
  const roleSets = relays.map((relay, index) => {
    let roles = 0
    for (const position of POSITIONS) if (refusals[position][index] === null) roles |= POSITION_BIT[position]
    capacity[roles]! += relay.weight * NAT_WEIGHT[relay.reach].middle
    return roles
  })
  const share = balanceRoles(capacity)
  return byPosition((position) =>
    Float64Array.from(relays, (relay, index) => relay.weight * NAT_WEIGHT[relay.reach][position] * share(roleSets[index]!, position)),
  )
}

function byPosition<T>(make: (position: Position) => T): Record<Position, T> {
  return { guard: make('guard'), middle: make('middle'), exit: make('exit') }
}

/** Names as small numbers, so that comparing two relays compares numbers. */
function internEach(relays: readonly RelayFacts[], names: (relay: RelayFacts) => readonly string[]): number[][] {
  const numbers = new Map<string, number>()
  return relays.map((relay) =>
    names(relay).map((name) => {
      const known = numbers.get(name) ?? numbers.size
      numbers.set(name, known)
      return known
    }),
  )
}

function union(lists: readonly (readonly number[])[]): readonly number[] {
  return lists.length === 1 ? lists[0]! : [...new Set(lists.flat())]
}

function shares(a: readonly number[], b: readonly number[]): boolean {
  for (const x of a) for (const y of b) if (x === y) return true
  return false
}
