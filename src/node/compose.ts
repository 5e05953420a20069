import { formatIp, type IpAddress, MalformedError, messageOf, type NodeId, nodeKey, parseNodeId, ShallotError } from '../base/index.ts'
import { CircuitPool, Client, type PoolEvent } from '../client/index.ts'
import { chooseSuite, systemRandom } from '../crypto/index.ts'
import { dialAddresses, View } from '../directory/index.ts'
import type { Discovery, OwnFields } from '../discovery/index.ts'
import { createExitService, createResolver, type Exit, KernelBackend, ownAddressCheck } from '../egress/index.ts'
import { HttpProxy, SocksServer } from '../ingress/index.ts'
import { BatchPool, ByteMeter, type Host } from '../link/index.ts'
import type { NatService } from '../nat/index.ts'
import { OnionKeyring, PACKET_VERSION } from '../onion/index.ts'
import { addressOf, constraintsOf, GuardSample, PathViews } from '../path/index.ts'
import { RelayEngine } from '../relaying/index.ts'
import { Store } from '../store/index.ts'
import type { NodeConfig } from './config.ts'
import type { Clocks } from './facts.ts'
import type { Ground } from './ground.ts'
import { createIdentity, decodeIdentity, encodeIdentity, IDENTITY_FILE, type Identity } from './identity.ts'
import { watchNetwork } from './network-watch.ts'
import type { NodeEvent } from './node-control.ts'
import { appear, ClientPresence, type Presence } from './presence.ts'
import { createReach, type Reach, ReachParts, rolesWhenReached } from './reachable.ts'
import { modulesOf } from './roles.ts'
import { type ClientParts, RunningNode, type ServingParts } from './running-node.ts'
import type { StartOptions } from './start.ts'
import { VERSION } from './version.ts'
import { Warnings } from './warnings.ts'

const ONION_KEYS_FILE = 'keys/onion'
const GUARDS_FILE = 'guards.json'
/** Guard tallies change with every circuit; they are written this long after a change. */
const GUARDS_SAVE_MS = 1_000
/** How often it is looked at whether the onion key's time is over. */
const KEY_CHECK_MS = 60_000
/** What an exit may connect to besides public addresses where the network's rules allow private destinations. */
const PRIVATE_NETWORKS = ['127.0.0.0/8', '::1/128', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']
/** The versions this program speaks. */
const PROTOCOLS = { circuit: [1], link: [1] }

/**
 * Builds a node from its configuration and starts it. The one place that knows every module.
 * @throws ShallotError of whatever could not start; everything started before it has been stopped then
 */
export async function startNode(config: NodeConfig, options: StartOptions): Promise<RunningNode> {
  const { logger } = options
  const clocks: Clocks = { now: () => performance.now(), wall: () => Date.now() }
  const listeners = new Set<(event: NodeEvent) => void>()
  const emit = (event: NodeEvent): void => {
    for (const listener of listeners) listener(event)
  }
  const warnings = new Warnings(clocks.wall, emit)
  const stops: Ground['stops'] = []
  try {
    const store = await Store.open(config.dir, {
      logger: logger.child('store'),
      warn: ({ code, message }) => warnings.raise(code, message, message),
    })
    stops.push(() => store.close())
    const chosen = chooseSuite(config.node.crypto)
    if (chosen.suite.name === 'portable' && config.node.crypto === 'auto') warnings.raise('crypto-portable', chosen.reason)
    const modules = modulesOf(config.node.roles)
    const ground: Ground = {
      config,
      modules,
      logger,
      store,
      suite: chosen.suite,
      clocks,
      warnings,
      meter: new ByteMeter(),
      memory: new BatchPool(),
      view: new View({ suite: chosen.suite, rules: config.network }),
      stops,
    }
    const node = await startParts(ground, listeners, options)
    options.signal.addEventListener('abort', () => void node.stop(), { once: true })
    if (options.signal.aborted) await node.stop()
    logger.info('node started', { roles: config.node.roles.join(' '), network: config.network.name })
    return node
  } catch (error) {
    for (const stop of stops.reverse()) await Promise.resolve(stop()).catch(() => {})
    throw error
  }
}

async function startParts(ground: Ground, listeners: Set<(event: NodeEvent) => void>, options: StartOptions): Promise<RunningNode> {
  return ground.modules.has('listening') ? startServingNode(ground, listeners, options) : startClientNode(ground, listeners, options)
}

/** A node that others connect to: one identity for good. It may carry its own traffic as well. */
async function startServingNode(
  ground: Ground,
  listeners: Set<(event: NodeEvent) => void>,
  { signal, place }: StartOptions,
): Promise<RunningNode> {
  const { config, modules, stops, logger } = ground
  const identity = await loadIdentity(ground)
  const keyring = await loadKeyring(ground, identity)
  const reachParts = config.nat.enabled ? new ReachParts() : null
  let made: { readonly serving: ServingParts | null; readonly reach: Reach } | null = null
  let discovery: Discovery | null = null
  const presence = await appear(
    ground,
    identity,
    async (host) => {
      const isJoined = (): boolean => discovery?.status.state === 'joined'
      const reach = await createReach(ground, identity, host, reachParts, isJoined, () => discovery?.changed())
      const serving = modules.has('relaying') ? startServing(ground, host, keyring, identity) : null
      made = { serving, reach }
      return { serving: { seed: identity.seed, fields: () => ownFields(ground, reach, keyring, serving?.exit ?? null) } }
    },
    reachParts,
  )
  discovery = presence.discovery
  const { serving: parts, reach } = made!
  stops.push(() => presence.host.stop())
  if (parts?.exit) stops.push(() => parts.exit?.close())
  if (parts) stops.push(() => parts.engine.stop())
  stops.push(() => presence.discovery.stop())
  signal.throwIfAborted()
  const { service } = reach
  if (service !== null) stops.push(() => service.stop())
  await service?.start()
  await presence.discovery.start()
  stops.push(rotateKeys(ground, keyring, () => presence.discovery.changed()))
  return finish(
    ground,
    listeners,
    () => presence,
    parts,
    service,
    async (event) => {
      const client = modules.has('client') ? await startClient(ground, presence.host, identity.id, event) : null
      stops.push(
        watchNetwork(async (why) => {
          logger.info('the network has changed', { why })
          service?.networkChanged()
          client?.guards.noteNetworkChange()
          client?.pool.plan()
        }, place),
      )
      return client
    },
  )
}

/** A node that only carries its own traffic: nobody in particular, and somebody new wherever it is. */
async function startClientNode(
  ground: Ground,
  listeners: Set<(event: NodeEvent) => void>,
  { signal, place }: StartOptions,
): Promise<RunningNode> {
  const { stops, suite, clocks, logger } = ground
  let guards: () => readonly NodeId[] = () => []
  const presence = await ClientPresence.start(ground, createIdentity(suite), () => guards())
  stops.push(() => presence.stop())
  signal.throwIfAborted()
  return finish(
    ground,
    listeners,
    () => presence.current,
    null,
    null,
    async (event) => {
      const client = await startClient(ground, presence, null, event)
      guards = () => client.guards.current(clocks.now())
      const renew = async (why: 'addresses' | 'sleep'): Promise<void> => {
        logger.info('the network has changed: appearing anew', { why })
        client.guards.noteNetworkChange()
        client.pool.closeAll()
        await presence.renew().catch((error) => logger.error('the host could not be started anew', { error: messageOf(error) }))
        client.pool.plan()
      }
      stops.push(watchNetwork(renew, place))
      return client
    },
  )
}

async function finish(
  ground: Ground,
  listeners: Set<(event: NodeEvent) => void>,
  presence: () => Presence,
  serving: ServingParts | null,
  nat: NatService | null,
  startClientParts: (event: (event: PoolEvent) => void) => Promise<ClientParts | null>,
): Promise<RunningNode> {
  let poolEvent: (event: PoolEvent) => void = () => {}
  const client = await startClientParts((event) => poolEvent(event))
  const { config, suite, view, warnings, clocks, logger, stops } = ground
  const crypto = { name: suite.name, description: suite.description }
  const joined = presence().discovery.whenJoined()
  const stopsLastFirst = stops.reverse()
  const node = new RunningNode(
    { config, presence, crypto, view, client, serving, nat, vpn: null, warnings, clocks, logger, joined, stops: stopsLastFirst },
    listeners,
  )
  poolEvent = (event) => node.poolEvent(event)
  return node
}

/** What this node says of itself in its descriptor; null while there is nothing true to say. */
function ownFields({ config }: Ground, { announce }: Reach, keyring: OnionKeyring, exit: Exit | null): OwnFields | null {
  const { roles, bandwidthBytesPerSecond, family } = config.node
  const announced = announce()
  if (announced === null) return null
  const possible = rolesWhenReached(
    roles.filter((role) => role !== 'client'),
    announced.reach,
  )
  if (possible.length === 0) return null
  return {
    onionKey: keyring.current,
    addresses: announced.addresses,
    reach: announced.reach,
    roles: possible,
    exitPolicy: possible.includes('exit') ? (exit?.summary() ?? null) : null,
    bandwidth: bandwidthBytesPerSecond,
    family: family.map(parseNodeId),
    protocols: { ...PROTOCOLS, packet: possible.includes('exit') && exit?.servesPackets ? [PACKET_VERSION] : [] },
    software: `shallot ${VERSION}`,
  }
}

/** A serving node keeps who it is. */
async function loadIdentity({ store, suite }: Ground): Promise<Identity> {
  const kept = await store.loadKey(IDENTITY_FILE, (bytes) => decodeIdentity(suite, bytes))
  if (kept) return kept
  const fresh = createIdentity(suite)
  await store.write(IDENTITY_FILE, encodeIdentity(fresh))
  return fresh
}

async function loadKeyring({ store, suite, clocks }: Ground, identity: Identity): Promise<OnionKeyring> {
  const key = nodeKey(identity.id)
  const kept = await store.loadState(ONION_KEYS_FILE, (bytes) => OnionKeyring.restore(suite, key, bytes))
  const keyring = kept ?? OnionKeyring.create(suite, key, clocks.wall())
  if (keyring.rotate(suite, clocks.wall()) || !kept) await store.write(ONION_KEYS_FILE, keyring.serialise())
  return keyring
}

/** Replaces the onion key when its time is over. Returns how to stop. */
function rotateKeys({ suite, store, clocks, logger }: Ground, keyring: OnionKeyring, changed: () => void): () => void {
  const timer = setInterval(() => {
    if (!keyring.rotate(suite, clocks.wall())) return
    store
      .write(ONION_KEYS_FILE, keyring.serialise())
      .catch((error) => logger.error('the onion keys were not written', { error: messageOf(error) }))
    logger.info('the onion key was replaced')
    changed()
  }, KEY_CHECK_MS)
  timer.unref()
  return () => clearInterval(timer)
}

function startServing(ground: Ground, host: Host, keyring: OnionKeyring, identity: Identity): ServingParts {
  const { config, modules, suite, view, clocks, meter, memory, logger } = ground
  const exit = modules.has('exit') ? createExit(ground, host) : null
  const engine = new RelayEngine({
    config: config.relaying,
    self: identity.id,
    suite,
    keyring,
    directory: { addressesOf: (id) => (view.isKnown(id) ? dialAddresses(view, view.get(id)!.descriptor) : null) },
    dialer: host.dialer,
    memory,
    meter,
    exit,
    servesClients: config.node.roles.includes('guard'),
    now: clocks.now,
    logger: logger.child('relay'),
  })
  host.onChannel((channel) => engine.accept(channel))
  return { engine, exit }
}

function createExit({ config, view, clocks, logger }: Ground, host: Host): Exit {
  const resolver = createResolver({ config: config.exit, now: clocks.now })
  const relayAddresses = new RelayAddresses(view)
  return createExitService({
    config: config.exit,
    backend: new KernelBackend(config.exit),
    resolver,
    privateDestinations: config.network.privateDestinations ? PRIVATE_NETWORKS : [],
    isRelayAddress: (ip) => relayAddresses.has(ip),
    isOwnAddress: ownAddressCheck(clocks.now, () => host.addresses().flatMap((address) => ipText(address) ?? [])),
    now: clocks.now,
    logger: logger.child('exit'),
  })
}

/** The addresses of all known relays, made anew when the view has changed. */
class RelayAddresses {
  readonly #view: View
  #version = -1
  #texts: ReadonlySet<string> = new Set()

  constructor(view: View) {
    this.#view = view
  }

  has(ip: IpAddress): boolean {
    if (this.#version !== this.#view.version) {
      this.#texts = new Set(
        this.#view.relays().flatMap(({ descriptor }) => descriptor.addresses.flatMap((address) => ipText(address) ?? [])),
      )
      this.#version = this.#view.version
    }
    return this.#texts.has(formatIp(ip))
  }
}

function ipText(multiaddr: string): string | null {
  const ip = addressOf(multiaddr)
  return ip && formatIp(ip)
}

/** @param self this node as a relay, which its own paths keep away from; null for a pure client */
async function startClient(
  ground: Ground,
  host: Pick<Host, 'dialer' | 'suspect'>,
  self: NodeId | null,
  event: (event: PoolEvent) => void,
): Promise<ClientParts> {
  const { config, modules, suite, view, clocks, logger, store, stops } = ground
  const guards = (await store.loadState(GUARDS_FILE, (bytes) => restoreGuards(config, bytes))) ?? new GuardSample(config.path)
  const saver = new GuardSaver(ground, guards)
  stops.push(() => saver.stop())
  const pool = new CircuitPool({
    config: config.path,
    buildAttempts: config.client.buildAttempts,
    liveness: config.client,
    suite,
    random: systemRandom(suite),
    view,
    paths: new PathViews(view, constraintsOf(config.path, self)),
    guards,
    dialer: host.dialer,
    suspectLink: (guard) => host.suspect(guard),
    memory: ground.memory,
    now: clocks.now,
    wall: clocks.wall,
    logger: logger.child('client'),
    guardsChanged: () => saver.changed(),
    event,
  })
  stops.push(() => pool.stop())
  const client = new Client({ config: config.client, pool, logger: logger.child('client') })
  stops.push(() => client.stop())
  const parts = { client, logger: logger.child('ingress') }
  const socks = modules.has('ingress') && config.ingress.socks.listen.length > 0 ? new SocksServer(config.ingress.socks, parts) : null
  if (socks) {
    await socks.start()
    stops.push(() => socks.stop())
  }
  const http = modules.has('ingress') && config.ingress.http.listen.length > 0 ? new HttpProxy(config.ingress.http, parts) : null
  if (http) {
    await http.start()
    stops.push(() => http.stop())
  }
  pool.plan()
  return { pool, client, guards, socks, http }
}

function restoreGuards(config: NodeConfig, bytes: Uint8Array): GuardSample {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    throw new MalformedError('guard file', 'not JSON')
  }
  return GuardSample.restore(config.path, value)
}

/** Writes the guard sample a little after it changed, and at the end. */
class GuardSaver {
  readonly #ground: Ground
  readonly #guards: GuardSample
  #timer: NodeJS.Timeout | null = null

  constructor(ground: Ground, guards: GuardSample) {
    this.#ground = ground
    this.#guards = guards
  }

  changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      void this.#save()
    }, GUARDS_SAVE_MS)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    if (!this.#timer) return
    clearTimeout(this.#timer)
    this.#timer = null
    await this.#save()
  }

  async #save(): Promise<void> {
    const { store, warnings } = this.#ground
    try {
      await store.write(GUARDS_FILE, Buffer.from(`${JSON.stringify(this.#guards.toState(), null, 1)}\n`))
      warnings.over('guards-not-written')
    } catch (error) {
      const message = `the guards were not written: ${messageOf(error)}`
      warnings.raise(error instanceof ShallotError ? error.code : 'write-failed', message, 'guards-not-written')
    }
  }
}
