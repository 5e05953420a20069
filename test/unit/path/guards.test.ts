import { describe, expect, it } from 'vitest'
import { MalformedError, SeededRandom } from '../../../src/base/index.ts'
import { GUARD_SAMPLE_MAX, GuardSample, type PathView, pathConfig } from '../../../src/path/index.ts'
import { idOf, relays, viewOf } from './relays.ts'

const DAY = 86_400_000
const WALL = 1_800_000_000_000
const options = pathConfig.parse({})
const guardsOnly = (count: number): PathView => viewOf(relays(count))

function sampled(view: PathView, seed = 1): GuardSample {
  const sample = new GuardSample(options)
  sample.sample(view, new SeededRandom(seed), WALL)
  return sample
}

describe('GuardSample: drawing', () => {
  it('aims at a fifth of all guards, at least the primary ones, at most the configured size', () => {
    expect(sampled(guardsOnly(4)).current(0)).toHaveLength(3)
    expect(sampled(guardsOnly(2)).current(0)).toHaveLength(2)
    expect(sampled(guardsOnly(50)).current(0)).toHaveLength(10)
    expect(sampled(guardsOnly(500)).current(0)).toHaveLength(20)
  })

  it('draws by weight, and guards of different networks where there are any', () => {
    const all = relays(40, (n) => ({ address: `8.${n % 8}.${n}.1`, weight: n === 7 ? 100_000 : 1 }))
    for (let seed = 0; seed < 20; seed++) {
      const sample = sampled(viewOf(all), seed)
      expect(sample.current(0), `seed ${seed}`).toContain(idOf(7))
      const numbers = sample.current(0).map((id) => all.findIndex((one) => one.id === id))
      expect(new Set(numbers.map((n) => n % 8)).size, `seed ${seed}`).toBe(8)
    }
  })

  it('stays the same while the view does', () => {
    const view = guardsOnly(100)
    const sample = sampled(view)
    const before = sample.toState()
    expect(sample.sample(view, new SeededRandom(9), WALL + DAY)).toBe(false)
    expect(sample.toState()).toEqual(before)
  })

  it('keeps one that left the view for twenty days, replaces it meanwhile, and never grows beyond its bound', () => {
    const sample = sampled(guardsOnly(100))
    const first = sample.current(0)[0]!
    const without = viewOf(relays(100).filter(({ id }) => id !== first))
    expect(sample.sample(without, new SeededRandom(2), WALL + DAY)).toBe(true)
    expect(sample.current(0)).not.toContain(first)
    expect(sample.current(0)).toHaveLength(20)
    sample.sample(guardsOnly(100), new SeededRandom(2), WALL + 2 * DAY)
    expect(sample.current(0)[0]).toBe(first)
    sample.sample(without, new SeededRandom(2), WALL + 3 * DAY)
    sample.sample(without, new SeededRandom(2), WALL + 24 * DAY)
    expect(sample.toState().guards.map(({ id }) => id)).not.toContain(first)

    let wall = WALL + 25 * DAY
    for (let i = 0; i < 20; i++) {
      // Each time a wholly other network: somebody tries to run through our sample.
      const others = relays(100, () => ({})).map((relay, n) => ({ ...relay, id: idOf(1000 + i * 100 + n) }))
      wall += 60_000
      sample.sample(viewOf(others), new SeededRandom(i), wall)
    }
    expect(sample.toState().guards.length).toBe(GUARD_SAMPLE_MAX)
  })

  it('lets a guard expire after its months, and a confirmed one not before half of them since its first use', () => {
    const view = guardsOnly(100)
    const sample = sampled(view)
    const [first, second] = sample.current(0)
    sample.noteSuccess(second!, 0, WALL + 100 * DAY)
    sample.sample(view, new SeededRandom(4), WALL + 121 * DAY)
    const left = sample.toState().guards.map(({ id }) => id)
    expect(left).toContain(second)
    expect(left).not.toContain(first)
    sample.sample(view, new SeededRandom(5), WALL + 161 * DAY)
    expect(sample.toState().guards.map(({ id }) => id)).not.toContain(second)
  })

  it('does not take an empty view for the end of all guards', () => {
    const sample = sampled(guardsOnly(100))
    sample.sample(viewOf([]), new SeededRandom(1), WALL + DAY)
    expect(sample.toState().guards.every(({ unlistedSince }) => unlistedSince === null)).toBe(true)
  })
})

describe('GuardSample: success and failure', () => {
  it('puts confirmed guards first, in the order of their first success', () => {
    const sample = sampled(guardsOnly(100))
    const drawn = sample.current(0)
    sample.noteSuccess(drawn[2]!, 1, WALL)
    sample.noteSuccess(drawn[0]!, 2, WALL)
    sample.noteSuccess(drawn[2]!, 3, WALL)
    expect(sample.current(3)).toEqual([drawn[2], drawn[0], drawn[1], ...drawn.slice(3)])
  })

  it('counts a failure only when the network is known to be up, then retries with backoff in its place', () => {
    const sample = sampled(guardsOnly(100))
    const [a, b] = sample.current(0)
    sample.noteSuccess(a!, 0, WALL)
    expect(sample.networkProven(1000)).toBe(true)
    sample.noteFailure(a!, true, 1000)
    expect(sample.current(1000)[0]).toBe(b)
    expect(sample.current(10_999)[0]).toBe(b)
    expect(sample.nextRetryAt(1000)).toBe(11_000)
    expect(sample.current(11_000)[0]).toBe(a)
    sample.noteAttempt(a!, 11_000)
    expect(sample.current(11_001)[0]).toBe(b) // one try at a time
    sample.noteFailure(a!, true, 12_000)
    expect(sample.current(31_999)[0]).toBe(b)
    expect(sample.current(32_000)[0]).toBe(a)
    sample.noteSuccess(a!, 32_000, WALL)
    expect(sample.facts(32_000)[0]).toMatchObject({ id: a, state: 'reachable', confirmed: true, retryAt: null })
  })

  it('counts nothing while the network is down, tries all in turn, and begins again with the first when it is back', () => {
    const sample = sampled(guardsOnly(100))
    const all = sample.current(0)
    const before = sample.toState()
    for (const id of all) sample.noteFailure(id, sample.networkProven(0), 0)
    expect(sample.current(0)).toEqual([])
    expect(sample.nextRetryAt(0)).toBe(1000)
    expect(sample.current(1000)).toEqual(all)
    for (let i = 0; i < 50; i++) sample.noteFailure(all[0]!, false, 1000)
    expect(sample.nextRetryAt(1000)).toBe(16_000) // never waits long for a network that may be back
    sample.noteSuccess(all[3]!, 2000, WALL)
    expect(sample.current(2000)).toEqual([all[3], ...all.filter((id) => id !== all[3])])
    expect(sample.toState().guards).toHaveLength(before.guards.length)
  })

  it('waits briefly for any of them when every guard has failed, whatever proved that the network was up', () => {
    const sample = sampled(guardsOnly(3))
    const all = sample.current(0)
    expect(all).toHaveLength(3)
    sample.noteSuccess(all[0]!, 0, WALL)
    for (let round = 0; round < 12; round++) sample.noteFailure(all[2]!, true, round)
    expect(sample.facts(12)[2]!.retryAt).toBeGreaterThan(60_000)
    let now = 1000
    for (let round = 0; round < 12; round++) {
      for (const id of sample.current(now)) {
        sample.noteAttempt(id, now)
        sample.noteFailure(id, true, now)
      }
      expect(sample.current(now)).toEqual([])
      const next = sample.nextRetryAt(now)!
      expect(next - now).toBeLessThanOrEqual(15_000)
      now = next
    }
    // One is back: the others are not held to have failed, since nobody knows.
    sample.noteSuccess(all[1]!, now, WALL)
    expect(sample.current(now)).toEqual([all[0], all[1], all[2]])
  })

  it('keeps one that failed away for long while another is up', () => {
    const sample = sampled(guardsOnly(3))
    const all = sample.current(0)
    sample.noteSuccess(all[0]!, 0, WALL)
    for (let i = 0; i < 8; i++) for (const id of all.slice(1)) sample.noteFailure(id, true, i)
    expect(sample.facts(8).map(({ state }) => state)).toEqual(['reachable', 'failed', 'failed'])
    expect(sample.nextRetryAt(8)).toBeGreaterThan(1_000_000)
  })

  it('never draws a new guard because of failures', () => {
    const view = guardsOnly(100)
    const sample = sampled(view)
    const before = sample.toState()
    for (let round = 0; round < 30; round++) {
      for (const { id } of before.guards) sample.noteFailure(id, true, round * 1000)
      sample.sample(view, new SeededRandom(round), WALL)
    }
    expect(sample.toState()).toEqual(before)
    expect(sample.current(30_000)).toEqual([])
  })

  it('retries at once after a change of network', () => {
    const sample = sampled(guardsOnly(100))
    const all = sample.current(0)
    for (const id of all) sample.noteFailure(id, true, 0)
    sample.noteNetworkChange()
    expect(sample.current(0)).toEqual(all)
  })
})

describe('GuardSample: path bias', () => {
  it('tells people of a guard through which too many circuits fail', () => {
    const sample = sampled(guardsOnly(100))
    const [a, b] = sample.current(0)
    for (let i = 0; i < 100; i++) {
      sample.noteBuild(a!, i % 3 === 0)
      sample.noteBuild(b!, true)
      sample.noteUse(b!, i % 3 !== 0)
    }
    expect(sample.warnings()).toEqual([
      { id: a, of: 'builds', level: 'warn', tried: 100, succeeded: 34 },
      { id: b, of: 'uses', level: 'notice', tried: 100, succeeded: 66 },
    ])
  })

  it('says nothing after a few tries, and forgets old ones', () => {
    const sample = sampled(guardsOnly(100))
    const [a] = sample.current(0)
    for (let i = 0; i < 39; i++) sample.noteBuild(a!, false)
    expect(sample.warnings()).toEqual([])
    for (let i = 0; i < 2000; i++) sample.noteBuild(a!, true)
    expect(sample.warnings()).toEqual([])
    expect(sample.facts(0)[0]!.builds.tried).toBeLessThan(300)
  })
})

describe('GuardSample: on disk', () => {
  it('comes back as it was', () => {
    const view = guardsOnly(100)
    const sample = sampled(view)
    const drawn = sample.current(0)
    sample.noteSuccess(drawn[4]!, 0, WALL)
    sample.noteBuild(drawn[4]!, true)
    const restored = GuardSample.restore(options, JSON.parse(JSON.stringify(sample.toState())))
    expect(restored.toState()).toEqual(sample.toState())
    expect(restored.current(0)).toEqual([]) // nothing is usable before it has been held against a view
    restored.sample(view, new SeededRandom(8), WALL)
    expect(restored.current(0)).toEqual(sample.current(0))
    restored.noteSuccess(drawn[0]!, 1, WALL)
    expect(restored.current(1)[1]).toBe(drawn[0])
  })

  it('refuses what is not exactly a guard state', () => {
    const state = sampled(guardsOnly(100)).toState()
    const one = state.guards[0]!
    const bad: unknown[] = [
      null,
      [],
      {},
      { ...state, version: 2 },
      { ...state, extra: 1 },
      { version: 1, guards: [one, one] },
      { version: 1, guards: [{ ...one, id: 'x' }] },
      { version: 1, guards: [{ ...one, addedAt: -1 }] },
      { version: 1, guards: [{ ...one, confirmedAt: 5 }] },
      { version: 1, guards: [{ ...one, builds: { tried: 1, succeeded: 2 } }] },
      { version: 1, guards: Array.from({ length: GUARD_SAMPLE_MAX + 1 }, (_, n) => ({ ...one, id: idOf(n) })) },
      { version: 1, guards: state.guards.map((guard) => ({ ...guard, confirmedAt: 1, confirmedOrder: 0 })) },
    ]
    for (const [i, value] of bad.entries()) expect(() => GuardSample.restore(options, value), `case ${i}`).toThrow(MalformedError)
  })
})
