import { type NodeId, shuffle } from '../src/base/index.ts'
import type { CryptoSuite } from '../src/crypto/index.ts'
import { relayTag } from '../src/directory/index.ts'
import { SimulatedClient } from './client.ts'
import type { EventQueue } from './event-queue.ts'
import { Exposure, type ExposureReport } from './exposure.ts'
import type { SimulatedNode } from './node.ts'
import type { Convergence, NodeKind, Spread } from './observations.ts'
import { BOOTSTRAP_RELAYS, drawPopulation, type RelayProfile } from './population.ts'
import { mean } from './quantiles.ts'
import { SimulatedRelay } from './relay.ts'
import type { Scenario } from './scenarios.ts'
import { type BuildReport, type EndsReport, type HomesReport, type LoadReport, Traffic } from './traffic.ts'
import { createWorld, type World } from './world.ts'

export interface SimulationOptions {
  readonly scenario: Scenario
  readonly seed: number
  readonly nodes: number
  readonly hours: number
  /** Share of the nodes that are relays; the others are clients. */
  readonly relayShare: number
  /** Mean pause between a client's requests, minutes. */
  readonly requestMinutes: number
  readonly machineShare: number
  /** Clients whose months are followed where there are hostile relays. */
  readonly monthClients: number
}

export const DEFAULTS = {
  seed: 1,
  nodes: 1000,
  hours: 2,
  relayShare: 0.4,
  requestMinutes: 6,
  machineShare: 0.05,
  monthClients: 200,
} as const

export interface Report {
  readonly scenario: string
  readonly seed: number
  readonly nodes: number
  readonly relays: number
  readonly clients: number
  readonly hours: number
  readonly builds: BuildReport
  readonly spread: Readonly<Record<NodeKind, Spread>>
  readonly convergence: readonly Convergence[]
  readonly load: readonly LoadReport[]
  readonly ends: EndsReport
  /** Null where no relay is behind NAT. */
  readonly homes: HomesReport | null
  readonly exposure: ExposureReport | null
  readonly view: {
    /** Means over the clients at the end. */
    readonly known: number
    readonly eligible: number
    readonly hostileKnown: number
  }
  readonly network: {
    readonly messages: number
    readonly megabytes: number
    readonly pulls: number
    readonly pullsSame: number
    readonly events: number
  }
}

/** Views are compared this often. */
const COMPARE_EVERY_MS = 5 * 60_000
/** A node that joins publishes itself once it has had time to find others. */
const PUBLISH_AFTER_MS = 10_000
/** Editions of the last part of a run had no time to spread. */
const SPREAD_TAIL_MS = 15 * 60_000

/** A whole network in virtual time: relays, clients, a scenario. The same options give the same report, bit for bit. */
export class Simulation {
  readonly world: World
  readonly durationMs: number
  readonly relays: readonly SimulatedRelay[]
  readonly clients: readonly SimulatedClient[]
  readonly nodes: readonly SimulatedNode[]
  readonly latecomers: readonly SimulatedNode[]
  readonly #options: SimulationOptions
  readonly #profiles: readonly RelayProfile[]
  readonly #traffic = new Traffic()
  readonly #byId: ReadonlyMap<NodeId, SimulatedRelay>

  constructor(options: SimulationOptions, suite: CryptoSuite) {
    this.#options = options
    this.durationMs = options.hours * 3_600_000
    this.world = createWorld(options.seed, suite, options.scenario.believesClaims)
    const relays = Math.round(options.nodes * options.relayShare)
    const { hostile, homeShare } = options.scenario
    const population = { relays, ...hostile, ...(homeShare === undefined ? {} : { homeShare }) }
    this.#profiles = drawPopulation(population, this.world.suite, this.world.random('population'))
    const registry = {
      relay: (id: NodeId) => this.#byId.get(id),
      bootstrap: () => this.relays.slice(0, BOOTSTRAP_RELAYS),
      up: () => this.#up(),
    }
    this.relays = this.#profiles.map((profile) => new SimulatedRelay(this.world, profile, registry))
    this.#byId = new Map(this.relays.map((relay) => [relay.id, relay]))
    const client = { requestEveryMs: options.requestMinutes * 60_000, machineShare: options.machineShare }
    this.clients = Array.from(
      { length: options.nodes - relays },
      (_, index) => new SimulatedClient(this.world, index, registry, this.#traffic, client),
    )
    this.nodes = [...this.relays, ...this.clients]
    const random = this.world.random('scenario')
    const late = (nodes: readonly SimulatedNode[]): SimulatedNode[] =>
      shuffle([...nodes], random).slice(0, Math.round(nodes.length * options.scenario.latecomers))
    this.latecomers = [...late(this.relays.slice(BOOTSTRAP_RELAYS)), ...late(this.clients)]
    this.#settle()
    options.scenario.arrange(this, random)
  }

  get queue(): EventQueue {
    return this.world.queue
  }

  isBootstrap(node: SimulatedNode): boolean {
    return this.nodes.indexOf(node) < BOOTSTRAP_RELAYS
  }

  /** Nodes that may come and go. */
  movable(): readonly SimulatedNode[] {
    return this.nodes.slice(BOOTSTRAP_RELAYS)
  }

  /** Relays behind NAT, and the guards that carry them. */
  homes(): readonly SimulatedRelay[] {
    return this.relays.filter(({ profile }) => profile.reach.kind === 'relayed' || profile.roles.includes('relay'))
  }

  /** A node comes up; a relay publishes itself when it has found others. */
  join(node: SimulatedNode): void {
    node.start()
    if (node instanceof SimulatedRelay) this.queue.after(PUBLISH_AFTER_MS, () => node.place.up && node.publish())
  }

  run(progress: (done: number) => void = () => {}): Report {
    for (let at = COMPARE_EVERY_MS; at <= this.durationMs; at += COMPARE_EVERY_MS) {
      this.queue.runUntil(at)
      this.#compareViews()
      progress(at / this.durationMs)
    }
    this.queue.runUntil(this.durationMs)
    return this.#report()
  }

  /** Those that are there at the start have known each other for long. */
  #settle(): void {
    const late = new Set(this.latecomers)
    const random = this.world.random('settle')
    const settled = this.relays.filter((relay) => !late.has(relay))
    const known = settled.map((relay) => ({
      signed: relay.makeEdition(random.unit() * this.world.rules.descriptors.republishMs),
      tag: relayTag(this.world.suite, relay.id),
      ageMs: relay.profile.ageMs,
    }))
    for (const node of this.nodes) {
      if (late.has(node)) continue
      node.settle(known)
      node.start()
    }
  }

  #up(): Record<NodeKind, number> {
    const count = (nodes: readonly SimulatedNode[]): number => nodes.reduce((sum, node) => sum + (node.place.up ? 1 : 0), 0)
    return { relay: count(this.relays), client: count(this.clients) }
  }

  #compareViews(): void {
    const up = this.nodes.filter((node) => node.place.up)
    const roots = new Map<string, number>()
    for (const node of up) {
      const root = Buffer.from(node.view.buckets.root()).toString('hex')
      roots.set(root, (roots.get(root) ?? 0) + 1)
    }
    const newest = this.relays.filter((relay) => relay.place.up).map((relay) => relay.signed.descriptor)
    const current = up.map((node) => {
      const has = newest.filter(({ id, sequence }) => node.view.get(id)?.descriptor.sequence === sequence)
      return has.length / newest.length
    })
    this.world.observations.convergence.push({
      atMinutes: this.queue.now / 60_000,
      nodesUp: up.length,
      identical: Math.max(...roots.values()) / up.length,
      current: mean(current),
    })
  }

  #report(): Report {
    const { observations, network, queue } = this.world
    const { scenario, seed, nodes, hours } = this.#options
    const until = this.durationMs - SPREAD_TAIL_MS
    const clients = this.clients.filter((client) => client.place.up)
    const wall = this.world.wall()
    const hostile = this.#profiles.filter((profile) => profile.hostile)
    return {
      scenario: scenario.name,
      seed,
      nodes,
      relays: this.relays.length,
      clients: this.clients.length,
      hours,
      builds: this.#traffic.builds(),
      spread: { relay: observations.spread('relay', 0, until), client: observations.spread('client', 0, until) },
      convergence: observations.convergence,
      load: this.#traffic.load(this.relays),
      ends: this.#traffic.ends(this.#profiles),
      homes: this.#traffic.homes(this.#profiles),
      exposure: hostile.length > 0 ? new Exposure(this.world, this.relays).run(this.#options.monthClients) : null,
      view: {
        known: mean(clients.map(({ view }) => view.size)),
        eligible: mean(clients.map(({ view }) => view.eligible(wall).length)),
        hostileKnown: mean(clients.map(({ view }) => hostile.filter(({ id }) => view.isKnown(id)).length)),
      },
      network: {
        messages: network.messages,
        megabytes: Math.round(network.bytes / 1e6),
        pulls: observations.pulls,
        pullsSame: observations.pullsSame,
        events: queue.ran,
      },
    }
  }
}
