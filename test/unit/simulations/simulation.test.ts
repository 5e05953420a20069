import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { drawPopulation } from '../../../simulations/population.ts'
import { SimulatedRelay } from '../../../simulations/relay.ts'
import { formatReport } from '../../../simulations/report.ts'
import { SCENARIOS, scenarioOf } from '../../../simulations/scenarios.ts'
import { DEFAULTS, type Report, Simulation, type SimulationOptions } from '../../../simulations/simulation.ts'
import { createWorld } from '../../../simulations/world.ts'
import { nativeSuite, portableSuite } from '../../../src/crypto/index.ts'
import { View } from '../../../src/directory/index.ts'

const suite = nativeSuite()

function run(scenario: string, options: Partial<SimulationOptions> = {}): Report {
  return new Simulation(
    { ...DEFAULTS, nodes: 50, hours: 1, machineShare: 0.2, monthClients: 30, ...options, scenario: scenarioOf(scenario)! },
    suite,
  ).run()
}

describe('Simulation', { timeout: 60_000 }, () => {
  it('gives the same table for the same seed, bit for bit, and another for another', () => {
    const text = (seed: number): string => formatReport(run('churn', { seed, nodes: 30 }), scenarioOf('churn')!)
    expect(text(3)).toBe(text(3))
    expect(text(3)).not.toBe(text(4))
  })

  it('does not depend on which implementation of the primitives runs', () => {
    const options = { ...DEFAULTS, nodes: 20, hours: 0.5, machineShare: 0.02, scenario: scenarioOf('steady')! }
    expect(new Simulation(options, portableSuite()).run()).toEqual(new Simulation(options, suite).run())
  })

  it('serves every request of a steady network, and brings every edition to everybody', () => {
    const report = run('steady')
    expect(report.builds.served).toBe(1)
    expect(report.builds.withMachines).toBeGreaterThan(10)
    expect(report.builds.withMachinesSuccess).toBe(1)
    expect(report.spread.relay.unfinished + report.spread.client.unfinished).toBe(0)
    expect(report.spread.relay.worst).toBeLessThan(5)
  })

  it('lets load follow capacity once all relays are measured', () => {
    const spreadOf = (scenario: string): number =>
      run(scenario, { nodes: 60, requestMinutes: 1, hours: 0.5, machineShare: 0 }).load.find(({ position }) => position === 'exit')!.high
    expect(spreadOf('measured')).toBeLessThan(spreadOf('steady'))
    expect(spreadOf('measured')).toBeLessThan(2)
  })

  it('serves requests through churn, by trying other paths', () => {
    const { builds } = run('churn', { hours: 2, nodes: 60 })
    expect(builds.firstTrySuccess).toBeLessThan(1)
    expect(builds.served).toBeGreaterThan(0.98)
  })

  it('comes to one view again after a flash of joins, and paths keep away from the newcomers', () => {
    const report = run('flash-join', { hours: 2 })
    expect(report.convergence.at(-1)!.current).toBeGreaterThan(0.9)
    expect(report.view.known).toBe(report.relays)
    expect(report.view.eligible).toBeLessThan(report.relays * 0.6)
  })

  it('comes to one view again after a cut', () => {
    const report = run('partition', { hours: 2 })
    const held = (minute: number): number => report.convergence.find(({ atMinutes }) => atMinutes === minute)!.current
    expect(held(70)).toBeLessThan(0.9)
    expect(held(100)).toBeGreaterThan(0.9)
  })

  it('measures how often hostile relays hold both ends, and how guards help', () => {
    const wide = run('sybil', { nodes: 100, hours: 0.5 })
    expect(wide.ends.both).toBeGreaterThan(0)
    expect(wide.view.hostileKnown).toBe(wide.ends.hostileRelays)
    const [first, last] = [wide.exposure!.days[0]!, wide.exposure!.days.at(-1)!]
    expect(first.exposed).toBeLessThan(first.withoutGuards)
    expect(last.hostileGuard).toBeGreaterThan(first.hostileGuard) // guards rotate in months
  })
})

describe('relays behind NAT', { timeout: 60_000 }, () => {
  it('carry circuits as middles and exits where they are punchable, and nothing where they are not and others are there', () => {
    const { homes, builds } = run('homes', { nodes: 120, hours: 1, requestMinutes: 2 })
    expect(homes!.punchable).toBeGreaterThan(3)
    expect(homes!.notPunchable).toBeGreaterThan(3)
    expect(homes!.middlesPunchable).toBeGreaterThan(0.02)
    expect(homes!.middlesPunchable).toBeLessThan(homes!.capacity)
    expect(homes!.middlesNotPunchable).toBe(0)
    expect(builds.served).toBeGreaterThan(0.97)
  })
})

describe('drawPopulation', () => {
  it('gives hostile relays few networks, of which the view then knows few relays', () => {
    const world = createWorld(1, suite)
    const hostile = { hostileShare: 0.3, hostileNetworks: 'few', hostileAgeMs: 0 } as const
    const profiles = drawPopulation({ relays: 150, ...hostile }, world.suite, world.random('population'))
    const registry = { relay: () => undefined, bootstrap: () => [], up: () => ({ relay: 0, client: 0 }) }
    const view = new View({ suite: world.suite, rules: world.rules, decode: world.decode })
    for (const profile of profiles) view.add(new SimulatedRelay(world, profile, registry).signed.bytes, world.wall())
    const known = profiles.filter(({ id }) => view.isKnown(id))
    expect(profiles.filter((profile) => profile.hostile)).toHaveLength(45)
    expect(known.filter((profile) => profile.hostile)).toHaveLength(3 * world.rules.admission.perNet24)
    expect(known.filter((profile) => !profile.hostile)).toHaveLength(105)
  })
})

describe('npm run simulate', () => {
  const main = fileURLToPath(new URL('../../../simulations/main.ts', import.meta.url))
  const command = (...args: string[]) => spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })

  it('teaches with --help', () => {
    const { status, stdout } = command('--help')
    expect(status).toBe(0)
    for (const { name } of SCENARIOS) expect(stdout).toContain(name)
  })

  it.each([['--nodes', 'many'], ['--nodes', '5'], ['--scenario', 'war'], ['--hours', ''], ['--speed', '1'], ['stray']])(
    'refuses %s %s with exit code 2 and says what would be right',
    (...args) => {
      const { status, stderr } = command(...args)
      expect(status).toBe(2)
      expect(stderr).toMatch(/should be|Unknown option|Unexpected argument/)
      expect(stderr).toContain('--help')
    },
  )

  it('prints JSON', () => {
    const { status, stdout } = command('--nodes', '20', '--hours', '0.5', '--json', '--seed', '9')
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ scenario: 'steady', seed: 9, nodes: 20, relays: 8 })
  })
})
