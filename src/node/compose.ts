import { messageOf, type NodeId, nodeKey, parseNodeId } from '../base/index.ts'
import type { PoolEvent } from '../client/index.ts'
import { chooseSuite } from '../crypto/index.ts'
import { dialAddresses, View } from '../directory/index.ts'
import type { Discovery, OwnFields } from '../discovery/index.ts'
import type { Exit } from '../egress/index.ts'
import { Countries } from '../geo/index.ts'
import { BatchPool, ByteMeter, type Host } from '../link/index.ts'
import type { NatService } from '../nat/index.ts'
import { OnionKeyring, PACKET_VERSION } from '../onion/index.ts'
import { RelayEngine } from '../relaying/index.ts'
import { Store } from '../store/index.ts'
import type { NodeConfig } from './config.ts'
import type { Clocks } from './facts.ts'
import type { Ground } from './ground.ts'
import { createIdentity, decodeIdentity, encodeIdentity, IDENTITY_FILE, type Identity } from './identity.ts'
import { LiveConfig } from './live-config.ts'
import { noLogs } from './log-book.ts'
import { placeOfThisMachine, watchNetwork } from './network-watch.ts'
import type { NodeEvent } from './node-control.ts'
import type { ClientParts, ServingParts, Standing } from './node-parts.ts'
import { appear, ClientPresence, type Presence } from './presence.ts'
import { createReach, type Reach, ReachParts, rolesWhenReached } from './reachable.ts'
import { RelayCountries } from './relay-countries.ts'
import { modulesOf } from './roles.ts'
import { RunningNode } from './running-node.ts'
import type { StartOptions } from './start.ts'
import { VERSION } from './version.ts'
import type { NodeVpn } from './vpn-parts.ts'
import { Warnings } from './warnings.ts'

const ONION_KEYS_FILE = 'keys/onion'
/** How often it is looked at whether the onion key's time is over. */
const KEY_CHECK_MS = 60_000
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
    for (const caution of config.cautions) {
      warnings.raise('configuration', caution, caution)
      logger.warn('a file that the configuration names cannot be read: the node starts without it')
    }
    const modules = modulesOf(config.node.roles)
    const countries = await Countries.open(config.geo.countriesFile, logger.child('geo'))
    const live = new LiveConfig(config)
    const logs = options.logs ?? noLogs()
    live.onChange('log', () => logs.setLevels(live.current.log))
    const ground: Ground = {
      config,
      live,
      modules,
      logger,
      logs,
      store,
      suite: chosen.suite,
      clocks,
      warnings,
      meter: new ByteMeter(),
      memory: new BatchPool(),
      view: new View({ suite: chosen.suite, rules: config.network }),
      countries,
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
  const exitStops: Ground['stops'] = []
  const vpn = await protect(ground)
  let leaving = false
  let made: { readonly serving: ServingParts | null; readonly reach: Reach } | null = null
  let discovery: Discovery | null = null
  const presence = await appear(
    ground,
    identity,
    async (host) => {
      const isJoined = (): boolean => discovery?.status.state === 'joined'
      const reach = await createReach(ground, identity, host, reachParts, isJoined, () => discovery?.changed())
      const serving = modules.has('relaying') ? await startServing(ground, host, keyring, identity, exitStops) : null
      vpn?.listensAt(() => host.addresses())
      made = { serving, reach }
      return { serving: { seed: identity.seed, fields: () => ownFields(ground, reach, keyring, serving?.exit ?? null, leaving) } }
    },
    reachParts,
  )
  discovery = presence.discovery
  const { serving: parts, reach } = made!
  stops.push(() => presence.host.stop())
  stops.push(...exitStops)
  if (parts) stops.push(() => parts.engine.stop())
  stops.push(() => presence.discovery.stop())
  signal.throwIfAborted()
  const { service } = reach
  if (service !== null) stops.push(() => service.stop())
  await service?.start()
  await presence.discovery.start()
  stops.push(rotateKeys(ground, keyring, () => presence.discovery.changed()))
  const { live } = ground
  live.onChange('exit', () => {
    parts?.exit?.reconfigure()
    presence.discovery.changed()
  })
  live.onChange('node', () => presence.discovery.changed())
  live.onChange('relaying', () => parts?.engine.reconfigure())
  return finish(
    ground,
    listeners,
    () => presence,
    parts,
    service,
    {
      keyring,
      leave: () => {
        leaving = true
        parts?.engine.leave()
        service?.leave()
        presence.discovery.changed()
      },
    },
    async (event) => {
      const client = modules.has('client') ? await (await loadClient()).startClient(ground, presence.host, identity.id, vpn, event) : null
      stops.push(
        watchNetwork(
          async (why) => {
            logger.info('the network has changed', { why })
            service?.networkChanged()
            vpn?.networkChanged()
            client?.guards.noteNetworkChange()
            client?.pool.plan()
          },
          place ?? (() => placeOfThisMachine(ownDevices(ground))),
        ),
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
  const vpn = await protect(ground)
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
    null,
    async (event) => {
      const client = await (await loadClient()).startClient(ground, presence, null, vpn, event)
      guards = () => client.guards.current(clocks.now())
      const renew = async (why: 'addresses' | 'sleep'): Promise<void> => {
        logger.info('the network has changed: appearing anew', { why })
        client.guards.noteNetworkChange()
        vpn?.networkChanged()
        client.pool.closeAll()
        await presence.renew().catch((error) => logger.error('the host could not be started anew', { error: messageOf(error) }))
        client.pool.plan()
      }
      stops.push(watchNetwork(renew, place ?? (() => placeOfThisMachine(ownDevices(ground)))))
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
  standing: Standing | null,
  startClientParts: (event: (event: PoolEvent) => void) => Promise<ClientParts | null>,
): Promise<RunningNode> {
  let poolEvent: (event: PoolEvent) => void = () => {}
  const client = await startClientParts((event) => poolEvent(event))
  const { live, suite, view, warnings, clocks, logger, logs, stops } = ground
  const crypto = { name: suite.name, description: suite.description }
  const joined = presence().discovery.whenJoined()
  const stopsLastFirst = stops.reverse()
  const countries = new RelayCountries(ground.countries.countryOf)
  const node = new RunningNode(
    {
      live,
      presence,
      crypto,
      view,
      countries,
      client,
      serving,
      nat,
      standing,
      warnings,
      clocks,
      logger,
      logs,
      joined,
      stops: stopsLastFirst,
    },
    listeners,
  )
  poolEvent = (event) => node.poolEvent(event)
  return node
}

/** What this node says of itself in its descriptor; null while there is nothing true to say. */
function ownFields({ live }: Ground, { announce }: Reach, keyring: OnionKeyring, exit: Exit | null, leaving: boolean): OwnFields | null {
  const { roles, bandwidthBytesPerSecond, family } = live.current.node
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
    leaving,
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

/** Devices that come and go with what this node does. */
function ownDevices({ config }: Ground): readonly string[] {
  return [config.ingress.tun.name, config.exit.tun.name]
}

/** What only clients need is loaded by clients alone: docs/decisions/2026-11-20-memory-of-a-node.md */
const loadClient = () => import('./client-parts.ts')

/** The VPN's block, where it is to stand, before anything is dialled; and whoever carries the traffic of whole devices later. Null without a client. */
async function protect(ground: Ground): Promise<NodeVpn | null> {
  if (!ground.modules.has('ingress')) return null
  // Few nodes are clients, and what it brings (a TCP/IP stack) is large.
  const { NodeVpn } = await import('./vpn-parts.ts')
  const vpn = new NodeVpn(ground)
  ground.stops.push(() => vpn.stop())
  await vpn.protect()
  return vpn
}

async function startServing(
  ground: Ground,
  host: Host,
  keyring: OnionKeyring,
  identity: Identity,
  exitStops: Ground['stops'],
): Promise<ServingParts> {
  const { config, live, modules, suite, view, clocks, meter, memory, logger } = ground
  const exit = modules.has('exit') ? await (await import('./exit-parts.ts')).startExit(ground, host, exitStops) : null
  const engine = new RelayEngine({
    config: live.section('relaying'),
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
