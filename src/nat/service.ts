import type { IdentifyResult } from '@libp2p/interface'
import {
  formatIp,
  type IpAddress,
  type Logger,
  messageOf,
  type NodeId,
  networkKey,
  parseIp,
  type Random,
  ShallotError,
  sensitive,
} from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { addressScope, dialAddresses, parseBootstrapAddress, type View } from '../directory/index.ts'
import { type Host, parseTcpAddress } from '../link/index.ts'
import type { NatBehaviour } from './behaviour.ts'
import type { NatConfig } from './config.ts'
import { DialBack, type DialBackHelper } from './dial-back/dial-back.ts'
import type { NatFacts, ReachFacts, StunServerFacts } from './facts.ts'
import { PortMapper } from './mapping/port-mapper.ts'
import { movedBehaviours } from './moved-behaviours.ts'
import { Puncher, punchPeerOf, type WebRtcSlot } from './punch/index.ts'
import { Reachability } from './reachability.ts'
import type { Announcement, ReachabilityEvent } from './reachability-types.ts'
import {
  RelayServer,
  type RelayServerConfig,
  type RelayServerStats,
  type RelayTransport,
  Reservations,
  relayCandidates,
} from './relay/index.ts'
import {
  type FamilyReport,
  probeNat,
  resolveStunServer,
  StunServer,
  type StunServerAddress,
  type StunServerStats,
  stunListen,
  stunServersOf,
} from './stun/index.ts'

export interface NatOptions {
  readonly config: NatConfig
  /** The role `relay`: others are reached through this node. Null without it. */
  readonly relay: RelayServerConfig | null
  /** The role `bootstrap`: others ask this node how they are seen. */
  readonly servesStun: boolean
  /** The identity's Ed25519 seed, borrowed. */
  readonly seed: Uint8Array
  /** `link.listen` and `node.advertise`. */
  readonly listen: readonly string[]
  readonly advertise: readonly string[]
  /** The network's bootstrap nodes, `/ip4/A/tcp/P/p2p/ID`. */
  readonly bootstrap: readonly string[]
  /** `network.admission.privateAddresses`. */
  readonly privateAddresses: boolean
}

export interface NatModules {
  readonly host: Host
  readonly transport: RelayTransport
  readonly webRtc: WebRtcSlot
  readonly view: View
  readonly suite: CryptoSuite
  readonly random: Random
  readonly logger: Logger
  /** The relays that were in front of this node in an earlier life, the best first. */
  readonly preferredRelays: readonly NodeId[]
  /** Told of the relays in front of it, to be kept for the next life. */
  readonly keepRelays: (relays: readonly NodeId[]) => void
  /** The local address to dial a host from, or the system's choice. */
  readonly outboundAddressFor: (host: string) => string | undefined
  /** Whether the view can be trusted to have everybody. */
  readonly isViewReady: () => boolean
  /** Monotonic ms, and wall-clock ms. */
  readonly now: () => number
  readonly wall: () => number
  /** What is announced has changed. */
  readonly changed: () => void
  /** A sentence for the operator, or null when it is over. */
  readonly warn: (code: string, message: string | null) => void
}

/** How often addresses of interfaces are looked at, and deadlines that lie far off. */
const LOOK_MS = 30_000
const SHORTEST_WAIT_MS = 50
/** Between two probes of STUN that a lost relay asked for. */
const REPROBE_MS = 2_000
/** Networks of this size have one vote about how this node is seen. */
const VOTE_BITS = { 4: 16, 6: 32 } as const

/**
 * Everything that makes a serving node reachable, joined: facts go into `Reachability`, what it wants is done. Built inert; what can be announced
 * without asking anybody is there at once.
 */
export class NatService {
  readonly #options: NatOptions
  readonly #m: NatModules
  readonly #reachability: Reachability
  readonly #dialBack: DialBack
  readonly #mapper: PortMapper
  readonly #reservations: Reservations
  readonly #puncher: Puncher
  readonly #relay: RelayServer | null
  readonly #stunServer: StunServer | null
  readonly #stopping = new AbortController()
  readonly #undo: (() => void)[] = []
  readonly #checking = new Set<string>()
  readonly #running = new Set<Promise<void>>()
  #behaviours: readonly NatBehaviour[] = []
  /** By family. */
  #stunFacts: ReadonlyMap<4 | 6, readonly StunServerFacts[]> = new Map()
  #stunServers: readonly StunServerAddress[] = []
  #announced: Announcement | null
  #listening = ''
  #timer: NodeJS.Timeout | null = null
  #isProbing = false
  #isChecking = false
  #probedAt = Number.NEGATIVE_INFINITY
  #reprobe = false
  #isReserving = false
  /** One change after the other. */
  #reserving: Promise<void> = Promise.resolve()
  #isMapping = false
  #isPrepared = false
  #isStarted = false

  constructor(options: NatOptions, modules: NatModules) {
    this.#options = options
    this.#m = modules
    const { config, advertise, privateAddresses, seed, listen } = options
    const { host, view, random, logger, now, wall } = modules
    this.#reachability = new Reachability({
      privateAddresses,
      mapping: config.mapping.enabled,
      reservations: config.relays.relays,
      advertise,
      now: wall(),
    })
    this.#dialBack = new DialBack({
      libp2p: host.libp2p,
      config: config.dialBack,
      privateAddresses,
      helpers: () => this.#helpers(),
      ownAddresses: () => host.addresses(),
      outboundAddressFor: modules.outboundAddressFor,
      now,
      random,
      logger: logger.child('dial-back'),
    })
    this.#mapper = new PortMapper({ config: config.mapping, now: wall, random, logger: logger.child('mapping') })
    this.#reservations = new Reservations(config.relays, {
      host,
      transport: modules.transport,
      candidates: () => relayCandidates(view, wall(), host.id),
      preferred: modules.preferredRelays,
      isViewReady: modules.isViewReady,
      random,
      logger: logger.child('relays'),
      now,
      wall,
    })
    this.#puncher = new Puncher(
      {
        config: config.punching,
        privateAllowed: privateAddresses,
        peer: (id) => (view.isKnown(id) ? punchPeerOf(view.get(id)!.descriptor) : null),
        behaviours: () => this.#behaviours,
        witnesses: () => this.#helpers().flatMap(({ id, addresses: found }) => found.map((address) => `${address}/p2p/${id}`)),
        stunServers: () =>
          this.#stunServers.map(({ ip, port }) => (ip.family === 6 ? `[${formatIp(ip)}]:${port}` : `${formatIp(ip)}:${port}`)),
      },
      { host, webRtc: modules.webRtc, logger: logger.child('punching'), now },
    )
    this.#relay =
      options.relay === null
        ? null
        : new RelayServer(options.relay, {
            host,
            suite: modules.suite,
            seed,
            addresses: () => (this.#announced?.addresses ?? []).filter((address) => !address.endsWith('/tls')),
            isKnownRelay: (id) => view.isKnown(id),
            isViewReady: modules.isViewReady,
            logger: logger.child('relay'),
            now,
            wall,
          })
    const { server } = config.stun
    this.#stunServer =
      options.servesStun && server.enabled
        ? new StunServer({
            config: server,
            listen: stunListen(server, listen),
            ownAddresses: advertise.flatMap(ipOf),
            logger: logger.child('stun'),
            now,
          })
        : null
    this.#look()
    this.#announced = this.#reachability.announce
  }

  /** What the descriptor may say; null as long as there is nothing true to say. */
  get announce(): Announcement | null {
    return this.#announced
  }

  /** For status; null without the role. */
  get relayStats(): RelayServerStats | null {
    return this.#relay?.stats() ?? null
  }
  /** For status; null without the role. */
  get stunStats(): StunServerStats | null {
    return this.#stunServer?.stats() ?? null
  }
  /** The relay takes nobody new: the node is about to end. */
  leave(): void {
    this.#relay?.leave()
  }
  /** @throws ShallotError when the STUN server's ports are in use */
  async start(): Promise<void> {
    const { host } = this.#m
    await this.#stunServer?.start()
    await this.#dialBack.start()
    await this.#relay?.start()
    await this.#puncher.start()
    this.#undo.push(
      this.#reservations.onChange((relays) => this.#relaysChanged(relays)),
      this.#mapper.onChange((mapping, problem) => this.#handle({ type: 'mapping', mapping, problem })),
    )
    const onIdentify = (event: CustomEvent<IdentifyResult>): void => this.#identified(event.detail)
    host.libp2p.addEventListener('peer:identify', onIdentify)
    this.#undo.push(() => host.libp2p.removeEventListener('peer:identify', onIdentify))
    this.#isStarted = true
    this.#settle()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    if (this.#timer !== null) clearTimeout(this.#timer)
    for (const undo of this.#undo.splice(0)) undo()
    await this.#reserving.catch(() => {})
    await this.#puncher.stop()
    await Promise.all([
      this.#mapper.stop(),
      this.#reservations.stop(),
      this.#relay?.stop(),
      this.#dialBack.stop(),
      this.#stunServer?.stop(),
    ])
    await Promise.allSettled(this.#running)
  }

  /** The machine is somewhere else, or was asleep: everything is found out anew. */
  networkChanged(): void {
    this.#look()
    this.#handle({ type: 'network-changed' })
    this.#mapper.networkChanged()
    this.#reservations.networkChanged()
    this.#puncher.networkChanged()
  }

  facts(): NatFacts {
    return this.#reachability.facts({ stun: [...this.#stunFacts.values()].flat(), lost: this.#puncher.lost })
  }

  /** Reaches for a node of the view. @throws ShallotError 'unknown-relay' */
  reach(id: NodeId, signal: AbortSignal): Promise<ReachFacts> {
    const { view } = this.#m
    if (!view.isKnown(id)) {
      throw new ShallotError('unknown-relay', 'that node is not in the view of this one; `shallot relays` lists those that are', {
        kind: 'usage',
        retry: 'never',
      })
    }
    return this.#puncher.reach(id, dialAddresses(view, view.get(id)!.descriptor), signal)
  }

  /** The addresses listened on may have changed. */
  #look(): void {
    const addresses = this.#m.host.addresses().filter((address) => !address.endsWith('/tls'))
    const text = addresses.join(' ')
    if (text === this.#listening) return
    this.#listening = text
    this.#reachability.handle({ type: 'listening', addresses }, this.#m.wall())
  }

  #handle(event: ReachabilityEvent): void {
    if (this.#stopping.signal.aborted) return
    this.#reachability.handle(event, this.#m.wall())
    this.#settle()
  }

  /** Does what is wanted, tells what has changed, and waits for the next deadline. */
  #settle(): void {
    if (!this.#isStarted || this.#stopping.signal.aborted) return
    const { changed, warn, logger, wall } = this.#m
    const { wants, announce, state, warning } = this.#reachability
    if (announce !== this.#announced) {
      this.#announced = announce
      logger.info('how this node is reached', { state, relays: announce?.reach.kind === 'relayed' ? announce.reach.via.length : 0 })
      changed()
    }
    warn('not-reachable', warning)
    this.#run(this.#dialBack.serve(announce?.reach.kind === 'direct'))
    if (wants.mapping !== this.#isMapping) {
      this.#isMapping = wants.mapping
      const port = this.#port()
      if (wants.mapping && port !== null) this.#mapper.start(port)
      else this.#run(this.#mapper.stop())
    }
    if (wants.reservations > 0 !== this.#isReserving) {
      this.#isReserving = wants.reservations > 0
      this.#reserving = this.#reserving.then(() => this.#reserve())
      this.#run(this.#reserving)
    }
    for (const address of wants.dialBacks) this.#check(address)
    if ((wants.stun || this.#reprobe) && !this.#isProbing) this.#run(this.#probe())
    if (this.#timer !== null) clearTimeout(this.#timer)
    const { deadline } = this.#reachability
    const wait = Math.min(LOOK_MS, Math.max(SHORTEST_WAIT_MS, deadline === null ? LOOK_MS : deadline - wall()))
    this.#timer = setTimeout(() => {
      this.#look()
      this.#reachability.tick(wall())
      this.#settle()
    }, wait)
    this.#timer.unref()
  }

  /** Starts or stops reserving, as is wanted by now. A node behind NAT dials its relays from its listening port: they see how its NAT shows that. */
  async #reserve(): Promise<void> {
    if (!this.#isReserving) return this.#reservations.stop()
    if (!this.#isPrepared && this.#options.config.punching.enabled) {
      this.#isPrepared = true
      await this.#puncher.prepare()
      this.#handle({ type: 'punching', ...this.#puncher.ways })
    }
    if (this.#isReserving && !this.#stopping.signal.aborted) await this.#reservations.start()
  }

  #relaysChanged(relays: readonly NodeId[]): void {
    const before = this.#reachability.facts({ stun: [], lost: [] }).relays
    // A relay that is gone may be a router that has restarted, with another public address.
    if (before.some(({ relay }) => !relays.includes(relay))) {
      this.#reprobe = true
      this.#mapper.check()
      this.#m.host.suspect()
      this.#run(this.#checkAddress())
    }
    if (relays.length > 0) this.#m.keepRelays(relays)
    this.#handle({ type: 'reservations', reservations: this.#reservations.facts() })
  }

  /** A peer says where it sees this node. */
  #identified({ connection, observedAddr }: IdentifyResult): void {
    if (observedAddr === undefined || connection.limits !== undefined || !connection.direct) return
    const ip = ipOf(observedAddr.toString())[0]
    const peer = ipOf(connection.remoteAddr.toString())[0]
    if (ip === undefined || peer === undefined || addressScope(ip) === 'unusable') return
    this.#handle({ type: 'observed', ip, network: networkKey(peer, VOTE_BITS[peer.family]) })
  }

  #check(address: string): void {
    if (this.#checking.has(address)) return
    this.#checking.add(address)
    const check = async (): Promise<void> => {
      try {
        const round = await this.#dialBack.check(address, this.#stopping.signal)
        this.#checking.delete(address)
        this.#handle({ type: 'dial-back', address, available: round.available, verdicts: round.verdicts })
      } finally {
        this.#checking.delete(address)
      }
    }
    this.#run(check())
  }

  async #checkAddress(): Promise<void> {
    const servers = this.#stunServers
    if (this.#isChecking || servers.length === 0) return
    this.#isChecking = true
    const { random, now, logger } = this.#m
    const { timing } = this.#options.config.stun
    try {
      const moved = await movedBehaviours(this.#behaviours, { servers, timing, random, now, logger, signal: this.#stopping.signal })
      for (const behaviour of moved) this.#moved(behaviour)
    } finally {
      this.#isChecking = false
    }
  }

  /** The NAT has another public address: connections of before are dead, what was known of it is of no more use. */
  #moved(behaviour: NatBehaviour): void {
    const others = this.#behaviours.filter(({ family }) => family !== behaviour.family)
    this.#behaviours = [...others, behaviour]
    this.#m.logger.info('the public address has changed')
    this.#handle({ type: 'network-changed' })
    for (const one of this.#behaviours) this.#handle({ type: 'stun', family: one.family, behaviour: one })
    this.#mapper.networkChanged()
    this.#puncher.networkChanged()
    this.#m.host.suspect()
  }

  async #probe(): Promise<void> {
    const { random, now } = this.#m
    const { stun } = this.#options.config
    if (this.#reprobe && now() - this.#probedAt < REPROBE_MS) {
      setTimeout(() => this.#settle(), REPROBE_MS).unref()
      return
    }
    this.#isProbing = true
    this.#reprobe = false
    this.#probedAt = now()
    try {
      const own = await Promise.all(stun.servers.map((text) => resolveStunServer(text)))
      this.#stunServers = [...(stun.bootstrap ? stunServersOf(this.#otherBootstraps()) : []), ...own.flat()]
      if (this.#stunServers.length === 0) return
      const done = ({ behaviour }: FamilyReport, servers: readonly StunServerFacts[]): void => this.#probed(behaviour, servers)
      const { signal } = this.#stopping
      const { ipv4, ipv6 } = await probeNat({ servers: this.#stunServers, random, timing: stun.timing, now, signal, done })
      const asked = [ipv4, ipv6].map((one) => one?.behaviour.family)
      this.#stunFacts = new Map([...this.#stunFacts].filter(([family]) => asked.includes(family)))
      const isHeard = [ipv4, ipv6].some((one) => one?.behaviour.publicEndpoint)
      if (isHeard) this.#behaviours = this.#behaviours.filter(({ family }) => asked.includes(family))
    } finally {
      this.#isProbing = false
      if (this.#reprobe) setTimeout(() => this.#settle(), REPROBE_MS).unref()
    }
  }

  /** One family is through. What was known of it stays when nobody has answered: a few lost packets are no change of the network. */
  #probed(behaviour: NatBehaviour, servers: readonly StunServerFacts[]): void {
    if (this.#stopping.signal.aborted) return
    const { family, publicEndpoint } = behaviour
    this.#stunFacts = new Map([...this.#stunFacts, [family, servers]])
    if (publicEndpoint === null) {
      this.#handle({ type: 'stun', family, behaviour: null })
      return
    }
    const before = this.#behaviours.find((one) => one.family === family)?.publicEndpoint
    if (before != null && formatIp(before.ip) !== formatIp(publicEndpoint.ip)) {
      this.#moved(behaviour)
      return
    }
    this.#behaviours = [...this.#behaviours.filter((one) => one.family !== family), behaviour]
    this.#handle({ type: 'stun', family, behaviour })
  }

  /** Where the bootstrap nodes are, this one left out. */
  #otherBootstraps(): string[] {
    return this.#options.bootstrap.map(parseBootstrapAddress).flatMap(({ id, address }) => (id === this.#m.host.id ? [] : [address]))
  }

  #helpers(): DialBackHelper[] {
    const { view, host } = this.#m
    const relays = view
      .relays()
      .flatMap(({ id, descriptor: { reach, addresses } }) =>
        reach.kind === 'direct' && id !== host.id ? [{ id, addresses: addresses.filter((address) => !address.endsWith('/tls')) }] : [],
      )
    const bootstraps = this.#options.bootstrap
      .map(parseBootstrapAddress)
      .flatMap(({ id, address }) => (id === host.id || relays.some((relay) => relay.id === id) ? [] : [{ id, addresses: [address] }]))
    return [...relays, ...bootstraps]
  }

  #port(): number | null {
    for (const address of this.#m.host.addresses()) {
      const tcp = parseTcpAddress(address)
      if (tcp !== null && !tcp.host.includes(':')) return tcp.port
    }
    return null
  }

  /** What goes on beside, and is waited for at the end. */
  #run(work: Promise<void>): void {
    const { logger } = this.#m
    const done = work.catch((error) => {
      if (!this.#stopping.signal.aborted) logger.warn('making the node reachable: a part failed', { error: sensitive(messageOf(error)) })
    })
    this.#running.add(done)
    void done.finally(() => this.#running.delete(done))
  }
}

/** The IP address of a TCP multiaddr, as a list of one or none. */
function ipOf(text: string): IpAddress[] {
  const [, family, host] = text.split('/', 3)
  if ((family !== 'ip4' && family !== 'ip6') || host === undefined) return []
  try {
    return [parseIp(host)]
  } catch {
    return []
  }
}
