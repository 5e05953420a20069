import { describe, expect, it } from 'vitest'
import { type CountryOf, type NodeId, networkContains, parseNetwork, SeededRandom } from '../../../src/base/index.ts'
import { allowsPort } from '../../../src/directory/index.ts'
import {
  choosePath,
  constraintsOf,
  type ExitNeed,
  explain,
  type PathConstraints,
  type PathRequest,
  POSITIONS,
  pathConfig,
  type RelayFacts,
} from '../../../src/path/index.ts'
import { idOf, randomRelays, relay, relays, viewOf } from './relays.ts'

const web: ExitNeed = { ports: [443], family: null }

/** Four countries and the unknown one, by the second byte of an address. */
const country: CountryOf = ({ bytes }) => ['AA', 'BB', 'CC', 'DD', null][bytes[1]! % 5]!

/** The rules in the plainest words, reckoned from the facts alone: what `choosePath` is held against. */
function violations(path: readonly NodeId[], all: readonly RelayFacts[], request: PathRequest, constraints: PathConstraints): string[] {
  const byId = new Map(all.map((facts) => [facts.id, facts]))
  const found: string[] = []
  const hops = path.map((id) => byId.get(id)!)
  if (new Set(path).size !== 3) found.push('a node twice')
  const places = hops.map((hop) => [hop, ...hop.via.flatMap((id) => byId.get(id) ?? [])])
  hops.forEach((hop, index) => {
    const position = POSITIONS[index]!
    if (!hop.positions.includes(position)) found.push(`${position} without the role`)
    if (!hop.eligible) found.push('not eligible')
    if (!hop.circuitVersions.includes(1)) found.push('version')
    if (hop.weight <= 0) found.push('no weight')
    if (hop.id === constraints.self) found.push('itself')
    if (hop.reach !== 'direct' && position === 'guard') found.push('guard behind NAT')
    if (hop.reach === 'relayed' && position === 'exit') found.push('exit that is not punchable')
    if (hop.reach !== 'direct' && !places[index]!.some((place) => place.id !== hop.id && place.canRelay)) found.push('no NAT relay')
    if (places[index]!.some((place) => constraints.excludeNodes.has(place.id))) found.push('excluded node')
    for (const place of places[index]!) {
      if (place.addresses.some((address) => constraints.excludeNetworks.some((network) => networkContains(network, address)))) {
        found.push('excluded network')
      }
    }
  })
  const countries = ({ addresses }: RelayFacts) => addresses.map(country).filter((code) => code !== null)
  const exit = hops[2]!
  if (constraints.excludeCountries.size > 0) {
    for (const place of places.flat()) {
      if (countries(place).some((code) => constraints.excludeCountries.has(code))) found.push('excluded country')
      if (countries(place).length === 0) found.push('may be in an excluded country')
    }
  }
  if (constraints.exitCountries.size > 0) {
    if (countries(exit).length === 0) found.push('exit somewhere')
    if (countries(exit).some((code) => !constraints.exitCountries.has(code))) found.push('exit elsewhere')
  }
  if (constraints.exitNodes.size > 0 && !constraints.exitNodes.has(exit.id)) found.push('exit not listed')
  if (!exit.exitPolicy || !request.need.ports.every((port) => allowsPort(exit.exitPolicy!, port, request.need.family))) found.push('port')
  if (request.excludeExits?.has(exit.id)) found.push('exit excluded')
  for (let a = 0; a < 3; a++) {
    for (let b = a + 1; b < 3; b++) {
      for (const one of places[a]!) {
        for (const other of places[b]!) {
          if (one.id === other.id) found.push('shared place')
          if (one.networks.some((network) => other.networks.includes(network))) found.push('shared network')
          if (one.family.includes(other.id) && other.family.includes(one.id)) found.push('family')
        }
      }
      if (hops[a]!.via.some((id) => hops[b]!.via.includes(id))) found.push('shared NAT relay')
    }
  }
  return found
}

/** Whether any path at all keeps the rules: every one is looked at. */
function anyPath(
  all: readonly RelayFacts[],
  request: Pick<PathRequest, 'guards' | 'need'>,
  constraints: PathConstraints,
  fits = (_: RelayFacts) => true,
): boolean {
  const fit = all.filter((facts) => facts.networks.length > 0)
  return request.guards.some((guard) =>
    fit.some(
      (exit) =>
        fit.some((g) => g.id === guard) &&
        fit.some((middle) => fits(middle) && violations([guard, middle.id, exit.id], all, request, constraints).length === 0),
    ),
  )
}

describe('choosePath', () => {
  it('never breaks a rule, and fails only where no path exists, over random views', () => {
    let paths = 0
    let failures = 0
    let resorts = 0
    for (let seed = 1; seed <= 200; seed++) {
      const random = new SeededRandom(seed)
      const drawn = randomRelays((seed % 3 === 0 ? 20 : 6) + random.int(24), random, seed % 3 === 0 ? 0.4 : 0.15)
      // In every third view middles are scarce but behind NATs that nothing can be punched through.
      const all =
        seed % 3 === 0
          ? drawn.filter((facts) => facts.reach !== 'direct' || !facts.positions.includes('middle') || random.unit() < 0.1)
          : drawn
      if (all.length === 0) continue
      const pick = (): NodeId => all[random.int(all.length)]!.id
      const constraints: PathConstraints = {
        ...constraintsOf(pathConfig.parse({}), null, country),
        excludeNodes: new Set(random.unit() < 0.3 ? [pick(), pick()] : []),
        excludeNetworks: random.unit() < 0.3 ? [parseNetwork('20.0.0.0/14')] : [],
        exitNodes: new Set(random.unit() < 0.3 ? [pick(), pick(), pick(), pick()] : []),
        ...(seed % 3 === 1 && random.unit() < 0.4 ? { excludeCountries: new Set(['BB']) } : {}),
        ...(seed % 3 === 2 && random.unit() < 0.4 ? { exitCountries: new Set(['AA', 'CC']) } : {}),
      }
      const view = viewOf(all, constraints)
      const request: PathRequest = {
        guards: [pick(), pick(), pick()],
        guardsInUse: 1 + random.int(2),
        need: { ports: [[443], [80], [22], []][random.int(4)]!, family: ([4, 6, null] as const)[random.int(3)]! },
        setAside: new Set(random.unit() < 0.3 ? [pick(), pick()] : []),
        excludeExits: new Set(random.unit() < 0.3 ? [pick()] : []),
      }
      for (let i = 0; i < 4; i++) {
        const result = choosePath(view, request, random)
        if (result.kind === 'path') {
          paths++
          expect(violations(result.path, all, request, constraints), `seed ${seed}`).toEqual([])
          expect(explain(result).length).toBeGreaterThanOrEqual(3)
          const guards = [result.path[0]]
          const { setAsideUsed, lastResortUsed } = result.reasons
          expect(lastResortUsed).toBe(result.relays[1].reach === 'relayed')
          if (lastResortUsed) {
            resorts++
            // Set aside: itself, or every NAT relay in front of it that could relay.
            const aside = (id: NodeId): boolean => !setAsideUsed && request.setAside!.has(id)
            const canRelay = (id: NodeId): boolean => all.some((facts) => facts.id === id && facts.canRelay)
            const isAside = (facts: RelayFacts): boolean =>
              aside(facts.id) || (facts.reach !== 'direct' && facts.via.every((id) => aside(id) || !canRelay(id)))
            const left = all.filter((facts) => facts.id === guards[0] || !isAside(facts))
            const better = anyPath(left, { ...request, guards }, constraints, (middle) => middle.reach !== 'relayed')
            expect(better, `seed ${seed}: a middle of last resort though there is another`).toBe(false)
          }
        } else {
          failures++
          expect(anyPath(all, request, constraints), `seed ${seed}: ${explain(result)}`).toBe(false)
          const refused = Object.values(result.counts).reduce((sum, count) => sum + count, 0)
          if (result.position !== 'guard') expect(refused, `seed ${seed}`).toBe(all.length)
        }
      }
    }
    expect(paths).toBeGreaterThan(100)
    expect(failures).toBeGreaterThan(100)
    expect(resorts).toBeGreaterThan(8)
  })

  it('gives the same path for the same randomness, however the view was ordered', () => {
    const all = relays(200)
    const guards = [idOf(3)]
    const forward = choosePath(viewOf(all), { guards, need: web }, new SeededRandom(5))
    const backward = choosePath(viewOf([...all].reverse()), { guards, need: web }, new SeededRandom(5))
    expect(forward).toEqual(backward)
  })

  it('draws exits and middles in proportion to their weights', () => {
    const weights = [100, 200, 300, 400]
    const all = [
      relay(0, { positions: ['guard'], weight: 2000 }),
      ...weights.map((weight, i) => relay(1 + i, { positions: ['middle'], weight })),
      ...weights.map((weight, i) => relay(11 + i, { positions: ['exit'], weight })),
    ]
    const view = viewOf(all)
    const random = new SeededRandom(7)
    const counts = new Map<NodeId, number>()
    const draws = 20_000
    for (let i = 0; i < draws; i++) {
      const result = choosePath(view, { guards: [idOf(0)], need: web }, random)
      if (result.kind === 'path') for (const id of result.path) counts.set(id, (counts.get(id) ?? 0) + 1)
    }
    for (const [i, weight] of weights.entries()) {
      for (const number of [1 + i, 11 + i])
        expect(counts.get(idOf(number))! / draws, `relay ${number}, seed 7`).toBeCloseTo(weight / 1000, 1.7)
    }
  })

  it('spends no scarce exit on a middle, but does where nothing else is left', () => {
    const all = [
      ...relays(10, () => ({ positions: ['guard', 'middle'] })),
      relay(20, { positions: ['middle', 'exit'] }),
      relay(21, { positions: ['middle', 'exit'] }),
    ]
    const view = viewOf(all)
    const random = new SeededRandom(1)
    for (let i = 0; i < 500; i++) {
      const result = choosePath(view, { guards: [idOf(0)], need: web }, random)
      expect(result.kind === 'path' && all[10]!.id !== result.path[1] && all[11]!.id !== result.path[1]).toBe(true)
    }
    const others = new Set(all.slice(1, 10).map(({ id }) => id))
    const left = choosePath(viewOf(all, { excludeNodes: others }), { guards: [idOf(0)], need: web }, random)
    expect(left.kind === 'path' && left.reasons.middle.how).toBe('exact')
  })

  it('keeps to the first guard while any path begins with it, and says why it passed one over', () => {
    const all = [relay(0, { address: '9.9.1.1' }), relay(1), relay(2), relay(3, { address: '9.9.2.2' })]
    const free = choosePath(viewOf(all), { guards: [idOf(0), idOf(1)], need: web }, new SeededRandom(1))
    expect(free.kind === 'path' && free.path[0]).toBe(idOf(0))
    const strict = choosePath(
      viewOf(all, { exitNodes: new Set([idOf(3)]) }),
      { guards: [idOf(0), idOf(1)], need: web },
      new SeededRandom(1),
    )
    expect(strict.kind === 'path' && strict.path).toEqual([idOf(1), idOf(2), idOf(3)])
    expect(strict.kind === 'path' && strict.reasons.guard.passedOver[0]?.failure).toMatchObject({ position: 'exit', rule: 'same-network' })
    expect(explain(strict)[0]).toContain('same /16')
  })

  it('shares the load among the guards in use', () => {
    const view = viewOf(relays(50))
    const random = new SeededRandom(2)
    const used = new Set<NodeId>()
    const guards = [idOf(0), idOf(1), idOf(2)]
    for (let i = 0; i < 100; i++) {
      const result = choosePath(view, { guards, guardsInUse: 2, need: web }, random)
      if (result.kind === 'path') used.add(result.path[0])
    }
    expect(used).toEqual(new Set([idOf(0), idOf(1)]))
  })

  it('uses set-aside relays only when nothing else is left, and says so', () => {
    const three = viewOf(relays(3))
    const request = { guards: [idOf(0)], need: web }
    const forced = choosePath(three, { ...request, setAside: new Set([idOf(2)]) }, new SeededRandom(1))
    expect(forced.kind === 'path' && forced.reasons.setAsideUsed).toBe(true)
    const four = viewOf(relays(4))
    for (let seed = 0; seed < 50; seed++) {
      const result = choosePath(four, { ...request, setAside: new Set([idOf(2)]) }, new SeededRandom(seed))
      expect(result.kind === 'path' && !result.path.includes(idOf(2)) && !result.reasons.setAsideUsed).toBe(true)
    }
  })

  it('names the rule that emptied the set, with counts', () => {
    const closed = { ipv4: [{ from: 80, to: 80 }], ipv6: [] }
    const all = relays(6, (n) => ({ exitPolicy: closed, eligible: n !== 5 }))
    const result = choosePath(viewOf(all), { guards: [idOf(0)], need: { ports: [25], family: 4 } }, new SeededRandom(1))
    expect(result).toMatchObject({ kind: 'no-path', position: 'exit', rule: 'port', counts: { port: 5, 'not-eligible': 1 } })
    expect(explain(result)[0]).toMatch(/no exit for port 25 over IPv4.*refuse the port/)
    expect(choosePath(viewOf(all), { guards: [], need: web }, new SeededRandom(1))).toMatchObject({ position: 'guard', rule: null })
  })

  it('takes an exit that serves raw packets where they are wanted', () => {
    const need: ExitNeed = { ports: [], family: null, packets: true }
    const view = viewOf(relays(8, (n) => ({ servesPackets: n === 3 || n === 4 })))
    const exits = new Set<unknown>()
    for (let seed = 0; seed < 50; seed++) {
      const result = choosePath(view, { guards: [idOf(0)], need }, new SeededRandom(seed))
      exits.add(result.kind === 'path' ? result.path[2] : result)
    }
    expect(exits).toEqual(new Set([idOf(3), idOf(4)]))
    const none = choosePath(viewOf(relays(6)), { guards: [idOf(0)], need }, new SeededRandom(1))
    expect(none).toMatchObject({ kind: 'no-path', position: 'exit', rule: 'packets' })
    expect(explain(none)[0]).toMatch(/no exit for raw packets.*serve no raw packets/)
  })

  it('keeps its own node, and what is near it, out of its paths', () => {
    const all = [...relays(4), relay(9, { address: '1.3.200.1' })]
    const view = viewOf(all, { self: idOf(9) })
    for (let seed = 0; seed < 50; seed++) {
      const result = choosePath(view, { guards: [idOf(0)], need: web }, new SeededRandom(seed))
      expect(result.kind === 'path' && result.path.some((id) => id === idOf(9) || id === idOf(3))).toBe(false)
    }
  })

  it('holds a one-sided family claim against nobody', () => {
    const all = relays(3, (n) => ({ family: n === 0 ? [idOf(1), idOf(2)] : [] }))
    expect(choosePath(viewOf(all), { guards: [idOf(0)], need: web }, new SeededRandom(1)).kind).toBe('path')
    const mutual = relays(3, (n) => ({ family: n === 0 ? [idOf(1)] : n === 1 ? [idOf(0)] : [] }))
    expect(choosePath(viewOf(mutual), { guards: [idOf(0)], need: web }, new SeededRandom(1))).toMatchObject({ rule: 'same-family' })
  })

  it('serves many builds over ten thousand relays', () => {
    const view = viewOf(relays(10_000, (n) => ({ address: `${20 + (n >> 8)}.${n & 255}.0.1`, weight: 1 + (n % 97) })))
    const random = new SeededRandom(3)
    for (let i = 0; i < 2000; i++) expect(choosePath(view, { guards: [idOf(17)], need: web }, random).kind).toBe('path')
  })
})
