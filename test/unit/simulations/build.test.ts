import { describe, expect, it } from 'vitest'
import { type Build, type BuildEnd, buildAsMessages, buildWithMachines } from '../../../simulations/build.ts'
import { randomPlace } from '../../../simulations/network.ts'
import { BOOTSTRAP_RELAYS } from '../../../simulations/population.ts'
import { scenarioOf } from '../../../simulations/scenarios.ts'
import { DEFAULTS, Simulation } from '../../../simulations/simulation.ts'
import { SeededRandom } from '../../../src/base/index.ts'
import { nativeSuite } from '../../../src/crypto/index.ts'

const suite = nativeSuite()

/** One build over the first three relays of a small network, after `prepare` has broken something. */
function buildOnce(build: Build, prepare: (simulation: Simulation) => void): BuildEnd {
  const options = { ...DEFAULTS, nodes: 20, hours: 1, scenario: scenarioOf('steady')! }
  const simulation = new Simulation(options, suite)
  prepare(simulation)
  const random = new SeededRandom(5)
  const ends: BuildEnd[] = []
  const builder = { place: { ...randomPlace(random), up: true }, key: random.bytes(32) }
  build(simulation.world, builder, simulation.relays.slice(BOOTSTRAP_RELAYS, BOOTSTRAP_RELAYS + 3), (end) => ends.push(end))
  simulation.queue.runUntil(60_000)
  expect(ends).toHaveLength(1)
  return ends[0]!
}

const relay = (simulation: Simulation, hop: number) => simulation.relays[BOOTSTRAP_RELAYS + hop]!

describe('builds as messages and with the real machines', () => {
  it.each<[string, (simulation: Simulation) => void, Partial<BuildEnd>]>([
    ['are whole when all is well', () => {}, { failure: null, established: 3 }],
    [
      'fail at a guard that is gone',
      (s) => relay(s, 0).stop(),
      { established: 0, failure: expect.objectContaining({ reason: 'channel-lost', origin: 'local' }) },
    ],
    [
      'fail at a middle that is gone, and the guard says so',
      (s) => relay(s, 1).stop(),
      { established: 1, failure: expect.objectContaining({ reason: 'connect-failed', origin: 'remote', hop: 0 }) },
    ],
    [
      'fail at an exit that is gone, and the middle says so',
      (s) => relay(s, 2).stop(),
      { established: 2, failure: expect.objectContaining({ reason: 'connect-failed', origin: 'remote', hop: 1 }) },
    ],
    [
      'are not extended to a relay that is not in the view of the one before',
      (s) => relay(s, 1).view.expire(Number.MAX_SAFE_INTEGER),
      { established: 2, failure: expect.objectContaining({ reason: 'unknown-relay', origin: 'remote', hop: 1 }) },
    ],
  ])('%s', (_, prepare, expected) => {
    for (const build of [buildAsMessages, buildWithMachines]) expect(buildOnce(build, prepare)).toMatchObject(expected)
  })

  it('take about the same time', () => {
    const messages = buildOnce(buildAsMessages, () => {}).tookMs
    const machines = buildOnce(buildWithMachines, () => {}).tookMs
    expect(Math.abs(messages - machines) / machines).toBeLessThan(0.2)
  })
})
