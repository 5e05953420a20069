import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { allowsPort, type PolicySummary } from '../../../src/directory/index.ts'
import {
  type CircuitRequest,
  lifetimeEnd,
  type PoolCircuit,
  type PoolFacts,
  PortDemand,
  pathConfig,
  pickCircuit,
  planPool,
} from '../../../src/path/index.ts'
import { idOf } from './relays.ts'

const MINUTE = 60_000
const options = pathConfig.parse({})
const anyPort: PolicySummary = { ipv4: [{ from: 1, to: 65_535 }], ipv6: [{ from: 1, to: 65_535 }] }
const webOnly: PolicySummary = { ipv4: [{ from: 80, to: 80 }, { from: 443, to: 443 }], ipv6: [] } // biome-ignore format: one line

let nextId = 1
function circuit(facts: Partial<PoolCircuit> = {}): PoolCircuit {
  const id = facts.id ?? nextId++
  const clean = { purpose: null, isolation: null, firstUsedAt: null, streams: 0 }
  return {
    id,
    state: 'ready',
    exit: idOf(id),
    exitPolicy: anyPort,
    exitServesPackets: false,
    ...clean,
    createdAt: 0,
    spread: 0,
    rttMs: 50,
    doubtful: false,
    ...facts,
  }
}

function used(facts: Partial<PoolCircuit> = {}): PoolCircuit {
  return circuit({ purpose: 'streams', isolation: 'a', firstUsedAt: 0, streams: 1, ...facts })
}

const request: CircuitRequest = { purpose: 'streams', isolation: 'a', port: 443, family: null }

describe('pickCircuit', () => {
  it('takes the best measured round trip, unmeasured ones last', () => {
    const circuits = [circuit({ id: 1, rttMs: null }), circuit({ id: 2, rttMs: 80 }), circuit({ id: 3, rttMs: 20 })]
    expect(pickCircuit(request, circuits, 0, options)).toMatchObject({ kind: 'use', circuit: 3, clean: true })
  })

  it("keeps to its isolation's own circuit, and never takes another's", () => {
    const own = used({ id: 1, rttMs: 90 })
    const other = used({ id: 2, rttMs: 1, isolation: 'b' })
    expect(pickCircuit(request, [own, other, circuit({ rttMs: 5 })], 0, options)).toMatchObject({ kind: 'use', circuit: 1, clean: false })
    expect(pickCircuit(request, [other], 0, options)).toMatchObject({ kind: 'build', why: expect.stringContaining('1 isolation') })
  })

  it('begins nothing on a circuit that owes a sign of life', () => {
    const late = used({ doubtful: true })
    expect(pickCircuit(request, [late], 0, options)).toMatchObject({ kind: 'build', why: expect.stringContaining('1 doubtful') })
    expect(pickCircuit(request, [late, circuit({ id: 70 })], 0, options)).toMatchObject({ kind: 'use', circuit: 70 })
  })

  it('keeps datagrams on circuits of their own', () => {
    expect(pickCircuit({ ...request, purpose: 'datagrams', port: null }, [used()], 0, options).kind).toBe('build')
    expect(pickCircuit(request, [used({ purpose: 'datagrams' })], 0, options).kind).toBe('build')
  })

  it('puts raw packets on circuits of their own, at exits that serve them, and no more leases than a machine takes', () => {
    const packets: CircuitRequest = { ...request, purpose: 'packets', port: null }
    expect(pickCircuit(packets, [], 0, options)).toMatchObject({ kind: 'build', need: { ports: [], family: null, packets: true } })
    expect(pickCircuit(packets, [circuit()], 0, options)).toMatchObject({ kind: 'build', why: expect.stringContaining('1 packets') })
    expect(pickCircuit(packets, [used({ exitServesPackets: true })], 0, options).kind).toBe('build')
    expect(pickCircuit(packets, [circuit({ id: 60, exitServesPackets: true })], 0, options)).toMatchObject({ circuit: 60, clean: true })
    const own = used({ id: 61, purpose: 'packets', exitServesPackets: true })
    expect(pickCircuit(packets, [own], 0, options)).toMatchObject({ circuit: 61 })
    expect(pickCircuit(request, [own], 0, options).kind).toBe('build')
    expect(pickCircuit(packets, [{ ...own, streams: 4 }], 0, options)).toMatchObject({ why: expect.stringContaining('1 full') })
    const datagrams: CircuitRequest = { ...request, purpose: 'datagrams', port: null }
    expect(pickCircuit(datagrams, [used({ purpose: 'datagrams', streams: 64 })], 0, options).kind).toBe('build')
  })

  it('does not use a circuit past its lifetime, a little sooner by its spread', () => {
    const early = used({ id: 1, spread: 1 - 1e-9 })
    expect(lifetimeEnd(early, options)).toBeCloseTo(9 * MINUTE, -1)
    expect(pickCircuit(request, [early], 9 * MINUTE - 1, options).kind).toBe('use')
    expect(pickCircuit(request, [early], 9 * MINUTE + 1, options).kind).toBe('build')
    expect(pickCircuit(request, [used({ spread: 0 })], 10 * MINUTE - 1, options).kind).toBe('use')
    expect(pickCircuit(request, [used({ spread: 0 })], 10 * MINUTE, options).kind).toBe('build')
  })

  it('passes over full circuits, exits that refuse the port or family, and exits that refused this request', () => {
    const full = used({ id: 1, streams: options.streamsPerCircuit })
    const web = used({ id: 2, exitPolicy: webOnly })
    expect(pickCircuit(request, [full, web], 0, options)).toMatchObject({ circuit: 2 })
    expect(pickCircuit({ ...request, port: 22 }, [full, web], 0, options).kind).toBe('build')
    expect(pickCircuit({ ...request, family: 6 }, [web], 0, options).kind).toBe('build')
    expect(pickCircuit({ ...request, excludeExits: new Set([web.exit]) }, [web], 0, options).kind).toBe('build')
  })

  it('waits for one that is being built, and builds when there is none, for the port that is needed', () => {
    expect(pickCircuit(request, [circuit({ id: 7, state: 'building' })], 0, options)).toMatchObject({ kind: 'wait', circuit: 7 })
    expect(pickCircuit({ ...request, port: 22, family: 4 }, [], 0, options)).toMatchObject({
      kind: 'build',
      need: { ports: [22], family: 4 },
    })
    expect(pickCircuit({ ...request, port: null, family: 4 }, [], 0, options)).toMatchObject({ need: { ports: [], family: null } })
  })

  it('never breaks a rule over random pools', () => {
    const random = new SeededRandom(11)
    for (let i = 0; i < 3000; i++) {
      const now = random.int(40) * MINUTE
      const circuits = Array.from({ length: random.int(12) }, (_, n) => {
        const clean = random.unit() < 0.4
        const facts: Partial<PoolCircuit> = {
          id: n,
          state: random.unit() < 0.7 ? 'ready' : 'building',
          exitPolicy: random.unit() < 0.5 ? webOnly : anyPort,
          createdAt: now - random.int(30) * MINUTE,
          spread: random.unit(),
          rttMs: random.unit() < 0.8 ? random.int(300) : null,
        }
        if (clean) return circuit(facts)
        const own = { isolation: random.unit() < 0.5 ? 'a' : 'b', purpose: random.unit() < 0.7 ? 'streams' : 'datagrams' } as const
        return circuit({ ...facts, ...own, firstUsedAt: now - random.int(15) * MINUTE, streams: random.int(2) * random.int(200) })
      })
      const asked: CircuitRequest = { ...request, port: [443, 22, null][random.int(3)]!, excludeExits: new Set([idOf(random.int(12))]) }
      const pick = pickCircuit(asked, circuits, now, options)
      if (pick.kind === 'build') continue
      const chosen = circuits[pick.circuit]!
      expect(chosen.state).toBe(pick.kind === 'use' ? 'ready' : 'building')
      if (chosen.purpose !== null) expect([chosen.isolation, chosen.purpose]).toEqual(['a', 'streams'])
      if (chosen.firstUsedAt !== null) expect(now - chosen.firstUsedAt).toBeLessThan(10 * MINUTE)
      expect(chosen.streams).toBeLessThan(options.streamsPerCircuit)
      if (asked.port !== null) expect(allowsPort(chosen.exitPolicy, asked.port, null)).toBe(true)
      expect(asked.excludeExits!.has(chosen.exit)).toBe(false)
    }
  })
})

describe('planPool', () => {
  const facts = (some: Partial<PoolFacts> = {}): PoolFacts => ({
    circuits: [],
    waiting: [],
    ports: [80, 443],
    servable: () => true,
    ...some,
  })

  it('builds clean circuits ahead of need, each for all predicted ports', () => {
    const plan = planPool(facts(), 0, options)
    expect(plan.build).toEqual(Array.from({ length: 3 }, () => ({ need: { ports: [80, 443], family: null }, request: null })))
    const ready = [circuit(), circuit({ state: 'building' }), circuit()]
    expect(planPool(facts({ circuits: ready }), 0, options).build).toEqual([])
    expect(planPool(facts({ circuits: ready, ports: [22, 80, 443] }), 0, options).build).toEqual([])
    const web = ready.map((one) => ({ ...one, exitPolicy: webOnly }))
    expect(planPool(facts({ circuits: web, ports: [22, 80, 443] }), 0, options).build.map(({ need }) => need.ports)).toEqual([
      [22],
      [22],
      [22],
    ])
  })

  it('builds apart for ports that no one exit serves together, and not at all for those that none serves', () => {
    const servable: PoolFacts['servable'] = ({ ports }) => !ports.includes(25) && !(ports.includes(22) && ports.includes(80))
    const plan = planPool(facts({ ports: [22, 25, 80], servable }), 0, { ...options, cleanCircuits: 1 })
    expect(plan.build.map(({ need }) => need.ports)).toEqual([[22], [80]])
  })

  it('builds for who waits first: one build for all that share it, one each for those that do not', () => {
    const waiting = [request, request, { ...request, isolation: 'b' }, { ...request, purpose: 'datagrams' as const, port: null }]
    const plan = planPool(facts({ waiting }), 0, { ...options, cleanCircuits: 0 })
    expect(plan.build.map(({ request: one }) => [one?.isolation, one?.purpose])).toEqual([
      ['a', 'streams'],
      ['b', 'streams'],
      ['a', 'datagrams'],
    ])
  })

  it('gives a circuit that is being built to the first isolation that waits, and replaces it among the clean', () => {
    const building = circuit({ state: 'building' })
    const waiting = [request, { ...request, isolation: 'b' }, request]
    const plan = planPool(facts({ circuits: [building], waiting }), 0, { ...options, cleanCircuits: 1 })
    expect(plan.build.map(({ request: one }) => one?.isolation ?? 'clean')).toEqual(['b', 'clean'])
  })

  it('begins another beside a slow one that somebody waits for, one at a time, and none where nobody waits', () => {
    const { buildPatienceMs } = options
    const slow = circuit({ state: 'building', purpose: 'streams', isolation: 'a', createdAt: 0 })
    const builds = (now: number, circuits: PoolCircuit[], waiting = [request]) =>
      planPool(facts({ circuits, waiting, ports: [] }), now, { ...options, cleanCircuits: 0 }).build.length
    expect(builds(buildPatienceMs - 1, [slow])).toBe(0)
    expect(builds(buildPatienceMs, [slow])).toBe(1)
    const second = { ...slow, id: 99, createdAt: buildPatienceMs }
    expect(builds(2 * buildPatienceMs - 1, [slow, second])).toBe(0)
    expect(builds(2 * buildPatienceMs, [slow, second])).toBe(1)
    expect(builds(buildPatienceMs, [slow], [])).toBe(0)
  })

  it('replaces clean circuits that owe a sign of life', () => {
    const ready = [circuit(), circuit({ doubtful: true }), circuit({ doubtful: true })]
    expect(planPool(facts({ circuits: ready }), 0, options).build).toHaveLength(2)
  })

  it('builds more when so many wait that one circuit would be full', () => {
    const waiting = Array.from({ length: 5 }, () => request)
    const plan = planPool(facts({ waiting }), 0, { ...options, cleanCircuits: 0, streamsPerCircuit: 2 })
    expect(plan.build).toHaveLength(3)
  })

  it('retires what is too old and unused, never what is in use', () => {
    const circuits = [
      used({ id: 1, streams: 0, firstUsedAt: 0 }),
      used({ id: 2, streams: 1, firstUsedAt: 0 }),
      circuit({ id: 3, createdAt: -21 * MINUTE }),
      circuit({ id: 4, state: 'building', createdAt: 10 * MINUTE - options.buildTimeoutMs }),
      circuit({ id: 5, createdAt: 9 * MINUTE }),
    ]
    const plan = planPool(facts({ circuits }), 10 * MINUTE, options)
    expect(plan.retire).toEqual([
      { id: 1, reason: 'lifetime' },
      { id: 3, reason: 'unused' },
      { id: 4, reason: 'build-timeout' },
    ])
    expect(plan.wakeAt).toBe(39 * MINUTE)
  })

  it('keeps to its limits, and makes room for who waits by closing clean and idle circuits, the oldest first', () => {
    const small = { ...options, maxCircuits: 3, maxBuilding: 2 }
    expect(planPool(facts(), 0, small).build).toHaveLength(2)
    const circuits = [
      used({ id: 1, isolation: 'x' }),
      used({ id: 2, isolation: 'y', streams: 0, createdAt: 5 }),
      circuit({ id: 3, exitPolicy: webOnly }),
    ]
    const waiting = [{ ...request, port: 22 }, { ...request, port: 22, isolation: 'b' }, { ...request, port: 22, isolation: 'c' }] // biome-ignore format: one line
    const plan = planPool(facts({ circuits, waiting }), MINUTE, small)
    expect(plan.retire).toEqual([
      { id: 3, reason: 'surplus' },
      { id: 2, reason: 'surplus' },
    ])
    expect(plan.build.map(({ request: one }) => one?.isolation)).toEqual(['a', 'b'])
    const busy = circuits.map((one) => ({ ...one, streams: 1, purpose: 'streams' as const, isolation: 'z', firstUsedAt: 0 }))
    expect(planPool(facts({ circuits: busy, waiting }), MINUTE, small)).toMatchObject({ build: [], retire: [] })
  })
})

describe('PortDemand', () => {
  it('knows the ports of the web, learns others, forgets them, and stays bounded', () => {
    const demand = new PortDemand(1000)
    expect(demand.current(0)).toEqual([80, 443])
    demand.note(22, 0)
    demand.note(443, 0)
    expect(demand.current(1000)).toEqual([22, 80, 443])
    expect(demand.current(1001)).toEqual([80, 443])
    for (let port = 1000; port < 2000; port++) demand.note(port, 2000)
    expect(demand.current(2000)).toHaveLength(18)
  })
})
