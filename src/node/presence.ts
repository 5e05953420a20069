import type { KadDHT } from '@libp2p/kad-dht'
import { type Ping, ping } from '@libp2p/ping'
import type { ServiceFactoryMap } from 'libp2p'
import type { NodeId } from '../base/index.ts'
import { systemRandom } from '../crypto/index.ts'
import { Discovery, type DiscoveryOptions, dhtService } from '../discovery/index.ts'
import { type ChannelDialer, createHost, type Host } from '../link/index.ts'
import type { Ground } from './ground.ts'
import { createIdentity, type Identity } from './identity.ts'
import type { ReachParts } from './reachable.ts'

/** How a node appears in the network: an identity, its host, and the search for others. Inert until `discovery.start()`. */
export interface Presence {
  readonly id: NodeId
  readonly host: Host
  readonly discovery: Discovery
}

/**
 * @param options what discovery is told besides the rules and its configuration, once the host listens
 * @param reach what a serving node's host needs for relays
 */
export async function appear(
  ground: Ground,
  identity: Identity,
  options: (host: Host) => Promise<Pick<DiscoveryOptions, 'serving' | 'peers'>>,
  reach: ReachParts | null = null,
): Promise<Presence> {
  const { config, clocks, view, suite } = ground
  const serves = ground.modules.has('listening')
  let received: (bytes: Uint8Array) => void = () => {}
  const services = serves && config.discovery.dht ? dhtServices(ground, (bytes) => received(bytes)) : {}
  const host = await createHost({
    key: identity.seed,
    mode: serves ? 'server' : 'client',
    listen: config.link.listen,
    outboundAddress: config.link.outboundAddress,
    limits: ground.live.section('link', 'limits'),
    meter: ground.meter,
    memory: ground.memory,
    logger: ground.logger.child('link'),
    services: { ...services, ...reach?.services } as ServiceFactoryMap<{ dht?: KadDHT }>,
    ...(reach === null ? {} : { transports: reach.transports }),
  })
  try {
    const discovery = new Discovery(
      { rules: config.network, config: config.discovery, bootstrap: config.bootstrap, ...(await options(host)) },
      {
        host: host.libp2p,
        dht: host.libp2p.services.dht ?? null,
        view,
        suite,
        random: systemRandom(suite),
        store: ground.store,
        logger: ground.logger.child('discovery'),
        now: clocks.wall,
        noWayIn: (why) => sayWhetherThereIsAWay(ground, why),
      },
    )
    received = (bytes) => discovery.received(bytes)
    return { id: identity.id, host, discovery }
  } catch (error) {
    await host.stop()
    throw error
  }
}

function sayWhetherThereIsAWay({ warnings }: Ground, why: string | null): void {
  if (why === null) {
    warnings.over('no-way-in')
    return
  }
  const advice =
    "it goes on trying; see that this machine is online, that its clock is right (shallot doctor), and ask the network's publisher for a newer network file"
  warnings.raise('no-way-in', `no way into the network: ${why}; ${advice}`)
}

/** The presence of a pure client: somebody new at every start and at every change of network (design: a client has no lasting identity). */
export class ClientPresence {
  readonly #ground: Ground
  readonly #guards: () => readonly NodeId[]
  #current: Presence
  #renewing: Promise<void> = Promise.resolve()
  #stopped = false

  private constructor(ground: Ground, first: Presence, guards: () => readonly NodeId[]) {
    this.#ground = ground
    this.#current = first
    this.#guards = guards
  }

  /** @param guards the only relays that are asked for the view, once there are any */
  static async start(ground: Ground, identity: Identity, guards: () => readonly NodeId[]): Promise<ClientPresence> {
    const first = await appear(ground, identity, async () => ({ serving: null, peers: guards }))
    await first.discovery.start()
    return new ClientPresence(ground, first, guards)
  }

  get current(): Presence {
    return this.#current
  }

  /** Always dials as whoever the client is at the moment. */
  get dialer(): ChannelDialer {
    return { openChannel: (id, addresses, signal) => this.#current.host.dialer.openChannel(id, addresses, signal) }
  }

  /** As `Host.suspect`. */
  suspect(id?: NodeId): void {
    this.#current.host.suspect(id)
  }

  /** Leaves, and appears as somebody new. Every link and channel of the old presence ends. */
  renew(): Promise<void> {
    this.#renewing = this.#renewing.then(async () => {
      if (this.#stopped) return
      await leave(this.#current)
      this.#current = await appear(this.#ground, createIdentity(this.#ground.suite), async () => ({ serving: null, peers: this.#guards }))
      await this.#current.discovery.start()
    })
    return this.#renewing
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#renewing.catch(() => {})
    await leave(this.#current)
  }
}

export async function leave({ discovery, host }: Presence): Promise<void> {
  await discovery.stop()
  await host.stop()
}

function dhtServices(
  { config, view, clocks }: Ground,
  received: (bytes: Uint8Array) => void,
): ServiceFactoryMap<{ dht: KadDHT; ping: Ping }> {
  const dht = dhtService({ rules: config.network, view, now: clocks.wall, records: config.discovery.dhtRecords, received })
  return { ping: ping({ protocolPrefix: 'shallot' }), dht }
}
