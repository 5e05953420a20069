import { describe, expect, it } from 'vitest'
import { type CountryOf, parseIp, SeededRandom } from '../../../src/base/index.ts'
import {
  choosePath,
  constraintsOf,
  explain,
  explainChoices,
  GuardSample,
  type PathConfig,
  type PathConstraints,
  type PathRequest,
  pathConfig,
  type RelayFacts,
  type RuleCounts,
} from '../../../src/path/index.ts'
import { idOf, relay, viewOf } from './relays.ts'

/** Looks like a table: 10.N.0.1 is in the country N names. */
const byNumber: Readonly<Record<number, string>> = { 1: 'DE', 2: 'FR', 3: 'NL', 4: 'DE', 5: 'SE' }
const countryOf: CountryOf = ({ bytes }) => byNumber[bytes[1]!] ?? null

function constraints(wishes: Partial<PathConfig>): PathConstraints {
  return constraintsOf(pathConfig.parse(wishes), null, countryOf)
}

/** A relay at 10.COUNTRY.NUMBER.1, in a /16 of its own as far as diversity goes. */
function at(number: number, country: number, facts: Parameters<typeof relay>[1] = {}): RelayFacts {
  return { ...relay(number, facts), addresses: [parseIp(`10.${country}.${number}.1`)] }
}

const request: PathRequest = { guards: [idOf(0)], need: { ports: [443], family: null } }

function exits(all: readonly RelayFacts[], wishes: Partial<PathConfig>): Set<string> {
  const view = viewOf(all, constraints(wishes))
  const random = new SeededRandom(1)
  const found = new Set<string>()
  for (let i = 0; i < 60; i++) {
    const result = choosePath(view, request, random)
    if (result.kind === 'path') found.add(result.path[2])
  }
  return found
}

const mesh = [at(0, 3), at(1, 1), at(2, 2), at(3, 4), at(4, 5), at(5, 9)]

describe('exit_countries', () => {
  it('lets only exits there be drawn, and leaves guard and middle where they are', () => {
    expect(exits(mesh, {}).size).toBeGreaterThan(3)
    expect(exits(mesh, { exitCountries: ['DE'] })).toEqual(new Set([idOf(1), idOf(3)]))
    expect(exits(mesh, { exitCountries: ['FR', 'SE'] })).toEqual(new Set([idOf(2), idOf(4)]))
  })

  it('refuses an exit of which a second address is elsewhere, or of which nothing is known', () => {
    const twoPlaces = { ...at(1, 1), addresses: [parseIp('10.1.1.1'), parseIp('10.2.1.1')] }
    const oneUnknown = { ...at(3, 4), addresses: [parseIp('10.4.1.1'), parseIp('2001:db8::1')] }
    expect(exits([at(0, 3), at(2, 2), twoPlaces, oneUnknown, at(5, 9)], { exitCountries: ['DE'] })).toEqual(new Set([idOf(3)]))
    expect(exits([at(0, 3), at(2, 2), twoPlaces, at(5, 9)], { exitCountries: ['DE', 'FR'] })).toEqual(new Set([idOf(1), idOf(2)]))
  })

  it('says why there is no path', () => {
    const view = viewOf(mesh, constraints({ exitCountries: ['JP'] }))
    const result = choosePath(view, request, new SeededRandom(1))
    expect(explain(result)).toEqual([
      'no exit for port 443: the last were refused because they are not in path.exit_countries, or not only there (5 not-in-exit-countries, 1 country-unknown); to allow more, add countries to path.exit_countries, or empty it (any country)',
    ])
  })

  it('takes an exit that comes into the view later', () => {
    const wishes = constraints({ exitCountries: ['JP'] })
    expect(choosePath(viewOf(mesh, wishes), request, new SeededRandom(1)).kind).toBe('no-path')
    const japan: CountryOf = (address) => (address.bytes[1] === 200 ? 'JP' : countryOf(address))
    const later = viewOf([...mesh, at(7, 200)], constraintsOf(pathConfig.parse({ exitCountries: ['JP'] }), null, japan))
    const result = choosePath(later, request, new SeededRandom(1))
    expect(result.kind === 'path' && result.path[2]).toBe(idOf(7))
  })

  it('counts for an exit behind NAT too, by the address of its NAT', () => {
    const front = at(6, 2, { positions: [], canRelay: true })
    const behind = (country: number): RelayFacts => at(1, country, { via: [front.id] })
    expect(exits([at(0, 3), at(2, 2), at(5, 9), front, behind(1)], { exitCountries: ['DE'] })).toEqual(new Set([idOf(1)]))
    expect(exits([at(0, 3), at(2, 2), at(5, 9), front, behind(3)], { exitCountries: ['DE'] })).toEqual(new Set())
  })
})

describe('exclude_countries', () => {
  const paths = (all: readonly RelayFacts[], wishes: Partial<PathConfig>): Set<string> => {
    const view = viewOf(all, constraints(wishes))
    const random = new SeededRandom(1)
    const seen = new Set<string>()
    for (let i = 0; i < 60; i++) {
      const result = choosePath(view, request, random)
      if (result.kind === 'path') for (const id of result.path) seen.add(id)
    }
    return seen
  }

  it('keeps every position out of them, and out of where nobody knows', () => {
    expect(paths(mesh, { excludeCountries: ['DE'] })).toEqual(new Set([0, 2, 4].map(idOf)))
    expect(paths(mesh, { excludeCountries: ['NL'] }), 'the only guard is there').toEqual(new Set())
  })

  it('says that no guard is left where it leaves none for the sample', () => {
    const wishes = constraints({ excludeCountries: ['NL', 'SE', 'DE', 'FR'] })
    const without = choosePath(viewOf(mesh, wishes), { ...request, guards: [] }, new SeededRandom(1))
    expect(explain(without)).toEqual([
      'no guard: the last were refused because they are in a country that is not known, and countries were chosen (5 excluded-country, 1 country-unknown); to allow more, take countries out of path.exclude_countries',
    ])
    expect(without.kind === 'no-path' && explainChoices(without)).toMatchObject({
      message: 'the choices in path.exclude_countries leave no guard',
    })
  })

  it('is not blamed for guards that wait to be tried again', () => {
    const all = viewOf(mesh, constraints({ excludeCountries: ['DE'] }))
    const without = choosePath(all, { ...request, guards: [] }, new SeededRandom(1))
    expect(explain(without)).toEqual(['no guard: none is known, or all wait to be tried again'])
    expect(without.kind === 'no-path' && explainChoices(without)).toBeNull()
  })

  it('is named beside other choices, what refused most first', () => {
    const explained = (position: 'middle' | 'exit', counts: RuleCounts) => explainChoices({ position, counts })?.message
    expect(
      explained('exit', { role: 9, 'excluded-node': 1, 'excluded-country': 2, 'not-in-exit-countries': 5, 'country-unknown': 1 }),
    ).toBe('the choices in path.exit_countries and path.exclude_countries and path.exclude_nodes leave no exit')
    expect(explained('exit', { 'country-unknown': 3 })).toBe('the choices in path.exclude_countries and path.exit_countries leave no exit')
    expect(explained('middle', { 'excluded-network': 3, 'country-unknown': 1 })).toBe(
      'the choices in path.exclude_networks and path.exclude_countries leave no middle',
    )
    expect(explained('exit', { 'not-in-exit-nodes': 3, port: 1 })).toBe('the choices in path.exit_nodes leave no exit')
    expect(explained('exit', { role: 3, port: 1 })).toBeUndefined()
  })

  it('is about the NAT relay in front of a hop as well', () => {
    const front = at(6, 1, { positions: [], canRelay: true })
    const behind = at(2, 2, { via: [front.id] })
    const all = [at(0, 3), at(4, 5), at(8, 3), front, behind]
    expect(paths(all, {})).toContain(idOf(2))
    expect(paths(all, { excludeCountries: ['DE'] })).toEqual(new Set([0, 4, 8].map(idOf)))
  })

  it('takes a guard of the sample out of use, and gives it back, without drawing anew for it', () => {
    const guards = new GuardSample(pathConfig.parse({ guardSampleSize: 3, guardsPrimary: 3 }))
    const random = new SeededRandom(3)
    const all = mesh.slice(0, 3)
    guards.sample(viewOf(all), random, 0)
    expect(new Set(guards.current(0))).toEqual(new Set([0, 1, 2].map(idOf)))
    guards.sample(viewOf(all, constraints({ excludeCountries: ['DE'] })), random, 0)
    expect(new Set(guards.current(0))).toEqual(new Set([0, 2].map(idOf)))
    guards.sample(viewOf(all), random, 0)
    expect(new Set(guards.current(0))).toEqual(new Set([0, 1, 2].map(idOf)))
  })

  it('looks up every relay once for many versions of the view, and nothing when nobody chose', () => {
    let asked = 0
    const counting: CountryOf = (address) => {
      asked++
      return countryOf(address)
    }
    const chosen = constraintsOf(pathConfig.parse({ excludeCountries: ['DE'], exitCountries: ['FR'] }), null, counting)
    for (let i = 0; i < 5; i++) viewOf(mesh, chosen)
    expect(asked).toBe(mesh.length)
    viewOf(mesh, constraintsOf(pathConfig.parse({}), null, counting))
    expect(asked).toBe(mesh.length)
  })
})

describe('a path drawn before', () => {
  it('is objected to by the user’s wishes alone, and when a relay has left the view', () => {
    const path = [at(0, 3), at(4, 5), at(1, 1)] as const
    const view = (wishes: Partial<PathConfig>, all = mesh) => viewOf(all, constraints(wishes))
    const objection = (of: ReturnType<typeof view>) =>
      path.map((facts, hop) => of.objection(facts, (['guard', 'middle', 'exit'] as const)[hop]!))
    expect(objection(view({ exitCountries: ['DE'] }))).toEqual([null, null, null])
    expect(objection(view({ exitCountries: ['FR'] }))).toEqual([null, null, 'not-in-exit-countries'])
    expect(objection(view({ excludeCountries: ['SE'] }, []))).toEqual([null, 'excluded-country', null])
    expect(objection(view({ excludeNodes: [idOf(0)] }))).toEqual(['excluded-node', null, null])
    const noLongerEligible = mesh.map((facts) => ({ ...facts, eligible: false, eligibleAsGuard: false }))
    expect(objection(view({}, noLongerEligible))).toEqual([null, null, null])
  })
})

describe('pathConfig', () => {
  it('takes countries as ISO 3166-1 writes them, and says what was meant', () => {
    expect(pathConfig.safeParse({ exitCountries: ['DE', 'GB'], excludeCountries: ['US'] }).success).toBe(true)
    const problem = (text: string): string | undefined => pathConfig.safeParse({ exitCountries: [text] }).error?.issues[0]?.message
    expect(problem('de')).toMatch(/two capital letters/)
    expect(problem('Germany')).toMatch(/two capital letters/)
    expect(problem('UK')).toBe('not the code of a country: GB is meant (ISO 3166-1)')
  })
})
