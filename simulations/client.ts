import { type NodeId, nodeIdFromKey } from '../src/base/index.ts'
import {
  choosePath,
  constraintsOf,
  GuardBlame,
  GuardSample,
  type PathChoice,
  PathViews,
  pathConfig,
  RelayHealth,
} from '../src/path/index.ts'
import { type BuildEnd, buildAsMessages, buildWithMachines } from './build.ts'
import { type Reachable, SimulatedNode } from './node.ts'
import type { Registry, SimulatedRelay } from './relay.ts'
import type { Traffic } from './traffic.ts'
import type { World } from './world.ts'

/** Builds tried for one request before it fails. */
const ATTEMPTS = 4
/** Ports that requests are for, and how many of a hundred. */
const PORTS: readonly (readonly [number, number])[] = [
  [80, 443],
  [12, 80],
  [8, 22],
]
/** Bytes of one circuit's traffic: exponential with this mean. */
const MEAN_BYTES = 2_000_000
/** A client's own line, bytes a second. */
const CLIENT_RATE = 4_000_000

export interface ClientOptions {
  /** Mean pause between requests, ms. */
  readonly requestEveryMs: number
  /** The part of builds that is done with the real circuit machines. */
  readonly machineShare: number
}

const config = pathConfig.parse({})
const constraints = constraintsOf(config)

/** A pure client: the real view, guards, path choice and relay health; its requests come at random and each takes a new circuit. */
export class SimulatedClient extends SimulatedNode {
  readonly kind = 'client'
  readonly id: NodeId
  readonly guards = new GuardSample(config)
  readonly #blame = new GuardBlame()
  readonly #health = new RelayHealth()
  readonly #paths: PathViews
  readonly #registry: Registry
  readonly #traffic: Traffic
  readonly #options: ClientOptions
  readonly #key: Uint8Array
  /** Requests have been scheduled: they go on for good, and come to nothing while the client is away. */
  #isAsking = false

  constructor(world: World, index: number, registry: Registry, traffic: Traffic, options: ClientOptions) {
    super(world, `client ${index}`)
    this.#key = this.random.bytes(32)
    this.id = nodeIdFromKey(this.#key)
    this.#registry = registry
    this.#traffic = traffic
    this.#options = options
    this.#paths = new PathViews(this.view, constraints)
  }

  override start(): void {
    super.start()
    if (this.#isAsking) return
    this.#isAsking = true
    this.#scheduleRequest()
  }

  /** Through a guard as soon as there is one; before that, a bootstrap node. */
  protected nextPeer(): Reachable | null {
    for (const id of this.guards.current(this.world.queue.now)) {
      const relay = this.#registry.relay(id)
      if (relay && this.world.network.reaches(this.place, relay.place)) return relay
    }
    const bootstrap = this.#registry.bootstrap()
    return bootstrap[this.random.int(bootstrap.length)] ?? null
  }

  protected handleNews(): void {}

  #scheduleRequest(): void {
    const pause = -Math.log(1 - this.random.unit()) * this.#options.requestEveryMs
    this.world.queue.after(pause, () => {
      if (this.place.up) this.#request(this.#drawPort(), ATTEMPTS)
      this.#scheduleRequest()
    })
  }

  #request(port: number, attempts: number): void {
    const { queue } = this.world
    const traffic = this.#traffic
    if (attempts === ATTEMPTS) traffic.requests++
    const view = this.#paths.current(this.world.wall())
    this.guards.sample(view, this.random, this.world.wall())
    const guards = this.guards.current(queue.now)
    const setAside = this.#health.setAside(queue.now)
    const result = choosePath(view, { guards, need: { ports: [port], family: null }, setAside }, this.random)
    if (result.kind === 'no-path') {
      traffic.noPath(result)
      return
    }
    const hops = result.path.flatMap((id) => this.#registry.relay(id) ?? [])
    const real = this.random.unit() < this.#options.machineShare
    traffic.chosen(hops, real)
    this.guards.noteAttempt(result.path[0], queue.now)
    const build = real ? buildWithMachines : buildAsMessages
    build(this.world, { place: this.place, key: this.#key }, hops, (end) => {
      this.#noteEnd(result, end)
      traffic.built(end, real, attempts === ATTEMPTS)
      if (end.failure === null) this.#use(hops)
      else if (attempts > 1 && this.place.up) this.#request(port, attempts - 1)
    })
  }

  #noteEnd({ path, relays }: PathChoice, { failure, established }: BuildEnd): void {
    const { now } = this.world.queue
    const behindNat = relays.flatMap(({ reach }, index) => (reach === 'direct' ? [] : [index]))
    if (established > 0) {
      this.guards.noteSuccess(path[0], now, this.world.wall())
      if (failure === null) this.#blame.noteBuilt(now)
      this.guards.noteBuild(path[0], failure === null, failure === null ? 1 : this.#blame.share(path, failure, now, behindNat))
    } else {
      this.guards.noteFailure(path[0], this.guards.networkProven(now), now)
    }
    if (failure === null) this.#health.noteSuccess(path, now)
    else this.#health.noteFailure(path, failure, now, behindNat)
  }

  /** Carries traffic for a while: each hop's capacity is shared by the circuits through it. What went through is what the client has measured. */
  #use(hops: readonly SimulatedRelay[]): void {
    const { queue } = this.world
    for (const hop of hops) hop.circuits++
    const rate = Math.min(CLIENT_RATE, ...hops.map((hop) => hop.profile.capacity / hop.circuits))
    const bytes = -Math.log(1 - this.random.unit()) * MEAN_BYTES
    this.#traffic.carried(hops, bytes)
    queue.after((bytes / rate) * 1000, () => {
      for (const hop of hops) {
        hop.circuits--
        this.view.noteMeasured(hop.id, rate)
      }
    })
  }

  #drawPort(): number {
    let left = this.random.int(100)
    for (const [share, port] of PORTS) {
      if (left < share) return port
      left -= share
    }
    return 443
  }
}
