import type { Random } from '../src/base/index.ts'
import type { PopulationOptions } from './population.ts'
import type { Simulation } from './simulation.ts'

export interface Scenario {
  readonly name: string
  /** The question it answers. */
  readonly asks: string
  readonly hostile: Pick<PopulationOptions, 'hostileShare' | 'hostileNetworks' | 'hostileAgeMs'>
  /** Share of relays and clients that are not there at the start. */
  readonly latecomers: number
  /** Share of the relays that are no guards that is behind NAT. */
  readonly homeShare?: number
  /** Relays count for what they claim, as if all had been measured: without the cap on the unmeasured. */
  readonly believesClaims?: boolean
  /** Schedules what happens. */
  readonly arrange: (simulation: Simulation, random: Random) => void
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const nobody = { hostileShare: 0, hostileNetworks: 'diverse', hostileAgeMs: 0 } as const
const nothing = (): void => {}

/** Means of exponential times: how long relays and clients stay, and how long they are away. */
const CHURN = { relay: { up: 4 * HOUR, down: 30 * MINUTE }, client: { up: 2 * HOUR, down: 30 * MINUTE } } as const
/** Half the network joins in this time. */
const FLASH_MS = 5 * MINUTE
/** Share of the nodes on the far side of the cut. */
const CUT_SHARE = 0.4
const HOSTILE_SHARE = 0.2

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'steady',
    asks: 'How good are builds, spread and balance of load when nothing special happens?',
    hostile: nobody,
    latecomers: 0,
    arrange: nothing,
  },
  {
    name: 'measured',
    asks: 'How well does load follow capacity once everybody has measured every relay (and all claims are honest)?',
    hostile: nobody,
    latecomers: 0,
    believesClaims: true,
    arrange: nothing,
  },
  {
    name: 'churn',
    asks: 'What do relays that come and go (four hours up, half an hour away) and clients that do so too cost?',
    hostile: nobody,
    latecomers: 0,
    arrange: (simulation, random) => {
      churn(simulation, simulation.movable(), random)
    },
  },
  {
    name: 'flash-join',
    asks: 'How soon do all agree again when half of the network joins within five minutes, and do paths keep away from it?',
    hostile: nobody,
    latecomers: 0.5,
    arrange: (simulation, random) => {
      const from = simulation.durationMs / 4
      for (const node of simulation.latecomers) simulation.queue.at(from + random.unit() * FLASH_MS, () => simulation.join(node))
    },
  },
  {
    name: 'partition',
    asks: 'What do two sides of a cut know of each other, and how soon are they one again after it?',
    hostile: nobody,
    latecomers: 0,
    arrange: (simulation, random) => {
      const sides = simulation.nodes.map((node) =>
        simulation.isBootstrap(node) ? simulation.nodes.indexOf(node) % 2 : random.unit() < CUT_SHARE ? 1 : 0,
      )
      simulation.queue.at(simulation.durationMs / 4, () => {
        for (const [index, node] of simulation.nodes.entries()) node.place.side = sides[index]!
      })
      simulation.queue.at(simulation.durationMs * 0.6, () => {
        for (const node of simulation.nodes) node.place.side = 0
      })
    },
  },
  {
    name: 'homes',
    asks: 'What do relays behind NAT carry (eight of ten that are no guards, half of them not punchable) while they and their NAT relays come and go?',
    hostile: nobody,
    latecomers: 0,
    homeShare: 0.8,
    arrange: (simulation, random) => churn(simulation, simulation.homes(), random),
  },
  {
    name: 'sybil',
    asks: 'How often does a fifth of all relays, hostile, in networks of their own and known for a month, hold both ends?',
    hostile: { hostileShare: HOSTILE_SHARE, hostileNetworks: 'diverse', hostileAgeMs: 30 * DAY },
    latecomers: 0,
    arrange: nothing,
  },
  {
    name: 'sybil-near',
    asks: 'The same, when all hostile relays are in three /24 networks.',
    hostile: { hostileShare: HOSTILE_SHARE, hostileNetworks: 'few', hostileAgeMs: 30 * DAY },
    latecomers: 0,
    arrange: nothing,
  },
  {
    name: 'sybil-fresh',
    asks: 'The same as sybil, when all hostile relays appeared together just now.',
    hostile: { hostileShare: HOSTILE_SHARE, hostileNetworks: 'diverse', hostileAgeMs: 0 },
    latecomers: 0,
    arrange: nothing,
  },
]

/** Nodes that come and go at random. */
function churn(simulation: Simulation, nodes: ReturnType<Simulation['movable']>, random: Random): void {
  for (const node of nodes) {
    const { up, down } = CHURN[node.kind]
    const leave = (): void => {
      node.stop()
      simulation.queue.after(exponential(down, random), arrive)
    }
    const arrive = (): void => {
      simulation.join(node)
      simulation.queue.after(exponential(up, random), leave)
    }
    simulation.queue.after(exponential(up, random), leave)
  }
}

export function scenarioOf(name: string): Scenario | null {
  return SCENARIOS.find((scenario) => scenario.name === name) ?? null
}

function exponential(mean: number, random: Random): number {
  return -Math.log(1 - random.unit()) * mean
}
