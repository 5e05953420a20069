import type { NodeId } from '../base/index.ts'
import type { RelayEntry, ServingRole, View } from '../directory/index.ts'
import type { NetworkSummary, RelayBrief, RelayPage, RelayQuery, ViewCount } from './network-types.ts'
import type { RelayCountries } from './relay-countries.ts'

/** Where the country of a relay is not known. */
const NO_COUNTRY = '??'
/** Relays of a page when nothing is said. */
const USUAL_PAGE = 1_000
/** Versions that are told one by one; programs of the world could be of any number. */
const MAX_VERSIONS = 50
const ROLES: readonly ServingRole[] = ['guard', 'middle', 'exit', 'relay', 'bootstrap']

/** The relays of the view in short, in order of their id. */
export function relayPage(view: View, countries: RelayCountries, wall: number, query: RelayQuery): RelayPage {
  const { role, country, after, limit = USUAL_PAGE } = query
  const fitting = view
    .relays()
    .filter(({ descriptor }) => role === undefined || descriptor.roles.includes(role))
    .filter(({ descriptor }) => country === undefined || (countries.of(descriptor) ?? NO_COUNTRY) === country)
    .sort((a, b) => (a.id < b.id ? -1 : 1))
  const first = after === undefined ? 0 : fitting.findIndex(({ id }) => id > after)
  const page = first < 0 ? [] : fitting.slice(first, first + limit)
  const eligible = eligibleIds(view, wall)
  const more = first >= 0 && first + limit < fitting.length
  return {
    total: fitting.length,
    relays: page.map((entry) => briefOf(entry, view, countries, eligible, wall)),
    next: more ? page.at(-1)!.id : null,
  }
}

/** The view in counts. */
export function networkSummary(view: View, countries: RelayCountries, wall: number, history: readonly ViewCount[]): NetworkSummary {
  const eligible = eligibleIds(view, wall)
  const roles = new Tally()
  const versions = new Tally()
  const places = new Tally()
  for (const { id, descriptor } of view.relays()) {
    const isEligible = eligible.has(id)
    for (const role of descriptor.roles) roles.add(role, isEligible)
    versions.add(descriptor.software, isEligible)
    places.add(countries.of(descriptor) ?? NO_COUNTRY, isEligible, isEligible && descriptor.roles.includes('exit'))
  }
  return {
    roles: ROLES.map((key) => roles.of(key)).map(({ key, known, eligible }) => ({ key, known, eligible })),
    countries: places.all(),
    versions: versions
      .all()
      .slice(0, MAX_VERSIONS)
      .map(({ key, known, eligible }) => ({ key, known, eligible })),
    history,
  }
}

function briefOf(entry: RelayEntry, view: View, countries: RelayCountries, eligible: ReadonlySet<NodeId>, wall: number): RelayBrief {
  const { id, descriptor } = entry
  return {
    id,
    roles: descriptor.roles,
    country: countries.of(descriptor),
    eligible: eligible.has(id),
    weight: view.weight(id),
    software: descriptor.software,
    firstSeenAt: view.ages.since(id) ?? wall,
  }
}

function eligibleIds(view: View, wall: number): ReadonlySet<NodeId> {
  return new Set(view.eligible(wall).map(({ id }) => id))
}

class Tally {
  readonly #counts = new Map<string, { key: string; known: number; eligible: number; exits: number }>()

  add(key: string, isEligible: boolean, isExit = false): void {
    const count = this.of(key)
    count.known++
    if (isEligible) count.eligible++
    if (isExit) count.exits++
    this.#counts.set(key, count)
  }

  of(key: string): { key: string; known: number; eligible: number; exits: number } {
    return this.#counts.get(key) ?? { key, known: 0, eligible: 0, exits: 0 }
  }

  /** The most frequent first. */
  all(): { key: string; known: number; eligible: number; exits: number }[] {
    return [...this.#counts.values()].sort((a, b) => b.known - a.known || (a.key < b.key ? -1 : 1))
  }
}
