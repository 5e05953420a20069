import type { Connection, Stream } from '@libp2p/interface'
import { type Logger, type NodeId, sensitive } from '../../base/index.ts'
import { type Host, type LinkStatus, parseTcpAddress } from '../../link/index.ts'
import type { NatBehaviour } from '../behaviour.ts'
import type { ReachFacts } from '../facts.ts'
import { acceptAddresses, addressesFor, type OwnEndpoints, type PeerPlace } from './candidates.ts'
import type { PunchingConfig } from './config.ts'
import { currentLink, isRelayed, isWebRtc } from './current-link.ts'
import { Failures } from './failures.ts'
import { PUNCH_PROTOCOL } from './hole-punch.ts'
import { IceRules } from './ice-rules.ts'
import { InitiatorMeeting, type MeetingEnd, type MeetingModules, ResponderMeeting } from './meetings.ts'
import { ownEndpoints } from './own-endpoints.ts'
import { type ReachTiming, type ReachWatch, reach } from './reach.ts'
import { Reversals } from './reversals.ts'
import { type WebRtcComponents, WebRtcPath } from './webrtc.ts'
import { Witnesses } from './witnesses.ts'

/** What the view says of a peer. */
export interface PunchPeer {
  /** The addresses of its descriptor, as its place. */
  readonly place: PeerPlace
  /** Multiaddrs at which it can be dialled from anywhere; none when it is reached through relays. */
  readonly directAddresses: readonly string[]
}

/** How a relayed link became a direct one. `direct`: one of the two dialled the other on its own account. */
export interface Upgrade {
  readonly peer: NodeId
  readonly how: 'direct' | 'reversed' | 'punched-tcp' | 'punched-udp'
  /** Since the relayed connection came up. */
  readonly ms: number
  readonly steps: readonly string[]
}

export interface PuncherOptions {
  readonly config: PunchingConfig
  /** `network.admission.privateAddresses`. */
  readonly privateAllowed: boolean
  /** From the view; null for a node that is not in it, which is not punched. */
  readonly peer: (id: NodeId) => PunchPeer | null
  /** What STUN found out; empty before it has. */
  readonly behaviours: () => readonly NatBehaviour[]
  /** STUN servers for ICE, "ADDRESS:PORT". */
  readonly stunServers: () => readonly string[]
  /**
   * libp2p multiaddrs (`/ip4/A/tcp/P/p2p/ID`) of nodes with public addresses, such as relays and bootstrap nodes: two of them are kept connected from
   * the listening port, because they can say how the NAT shows it.
   */
  readonly witnesses: () => readonly string[]
  readonly timing?: PuncherTiming
}

/** Milliseconds. */
export interface PuncherTiming {
  /** How often relayed connections are looked through for one that may be tried again. */
  readonly sweepMs: number
  /**
   * A relayed connection whose peer is linked directly, and on which nothing runs, is kept this long: what has moved away from it here may still be
   * on its way to the peer.
   */
  readonly relayGraceMs: number
  readonly reach: ReachTiming
}

export interface PuncherModules {
  readonly host: Host
  /** From `webRtc`, whose service the host was made with; null leaves UDP out. */
  readonly webRtc: WebRtcSlot | null
  readonly logger: Logger
  /** Monotonic ms. */
  readonly now?: () => number
}

/** Made before the host, which wants its service, and given to the puncher, which wants the host. */
export class WebRtcSlot {
  components: unknown = null
  /** For `createHost({ services: { webRtc: slot.service } })`. */
  readonly service = (components: unknown): object => {
    this.components = components
    return {}
  }
}

/** A relayed connection, and what has been tried on it. */
interface Relayed {
  readonly connection: Connection
  readonly peer: NodeId
  readonly since: number
  steps: readonly string[]
  isHopeless: boolean
  /** Since when nothing runs on it and the peer is linked directly; null while that is not so. */
  idleSince: number | null
}

const defaultTiming: PuncherTiming = { sweepMs: 2_000, relayGraceMs: 15_000, reach: { beginWaitMs: 12_000, quietMs: 2_500 } }

/**
 * Upgrades relayed connections to direct links, silently: the side that received one begins, the side that dialled it answers. Built inert; with
 * `enabled = false` it stays so. docs/spec/punching.md
 */
export class Puncher {
  readonly #options: PuncherOptions
  readonly #modules: PuncherModules
  readonly #now: () => number
  readonly #timing: PuncherTiming
  readonly #webRtc: WebRtcPath | null
  readonly #failures: Failures
  readonly #witnesses: Witnesses
  readonly #reversals: Reversals
  readonly #relayed: Map<Connection, Relayed> = new Map()
  readonly #meetings: Map<
    NodeId,
    { readonly role: 'initiator' | 'responder'; readonly abort: AbortController; readonly meeting: { noteUpgrade(): void } }
  > = new Map()
  readonly #waiting: Map<NodeId, Connection> = new Map()
  readonly #upgradeListeners: Set<(upgrade: Upgrade) => void> = new Set()
  readonly #watches: Set<ReachWatch> = new Set()
  readonly #stopping = new AbortController()
  readonly #undo: (() => void)[] = []
  #initiating = 0
  #isPrepared = false

  constructor(options: PuncherOptions, modules: PuncherModules) {
    this.#options = options
    this.#modules = modules
    this.#now = modules.now ?? (() => performance.now())
    this.#timing = options.timing ?? defaultTiming
    this.#failures = new Failures(options.config)
    const { host, logger } = modules
    this.#witnesses = new Witnesses({ host, addresses: options.witnesses, logger, now: this.#now })
    this.#reversals = new Reversals({
      host,
      config: options.config,
      directAddresses: (peer) => options.peer(peer)?.directAddresses ?? [],
      logger,
      now: this.#now,
    })
    this.#webRtc =
      modules.webRtc === null || !options.config.webrtc
        ? null
        : new WebRtcPath({
            components: modules.webRtc.components as WebRtcComponents,
            stunServers: options.stunServers,
            bindAddress: () => loopbackOf(modules.host.addresses()),
            timeoutMs: options.config.udpTimeoutMs,
            admit: (peer) => this.#admitUdp(peer),
            ended: (peer) => this.#tell(peer),
            logger: modules.logger,
          })
  }

  /** What this machine lacks for it, and what that costs. Known after `prepare`. */
  get lost(): readonly string[] {
    if (!this.#options.config.enabled) return []
    const unavailable = this.#isPrepared ? this.#modules.host.punching.unavailable : null
    const noUdp = this.#webRtc?.unavailable ?? null
    return [
      ...(unavailable === null
        ? []
        : [`no hole punching over TCP (${unavailable}): links between two nodes behind NAT are slower, or stay on a relay`]),
      ...(noUdp === null ? [] : [`no hole punching over UDP (${noUdp}): nodes behind a symmetric NAT are met only through a relay`]),
    ]
  }

  /** The ways this node can punch. Known after `prepare`. */
  get ways(): { readonly tcp: boolean; readonly udp: boolean } {
    const { enabled } = this.#options.config
    return {
      tcp: enabled && this.#isPrepared && this.#modules.host.punching.unavailable === null,
      udp: enabled && this.#webRtc !== null && this.#webRtc.unavailable === null,
    }
  }

  /** Loads what dialling from the listening port needs: only for a node behind NAT. */
  async prepare(): Promise<void> {
    if (!this.#options.config.enabled) return
    await this.#modules.host.preparePunching()
    this.#isPrepared = true
  }

  /** Begins to take part: a node that others reach directly needs no more than this, one behind NAT `prepare` too. */
  async start(): Promise<void> {
    if (!this.#options.config.enabled) return
    const { host } = this.#modules
    const onOpen = (event: CustomEvent<Connection>): void => this.#opened(event.detail)
    const onClose = (event: CustomEvent<Connection>): void => this.#closed(event.detail)
    host.libp2p.addEventListener('connection:open', onOpen)
    host.libp2p.addEventListener('connection:close', onClose)
    const sweep = setInterval(() => this.#sweep(), this.#timing.sweepMs)
    sweep.unref()
    this.#undo.push(
      () => host.libp2p.removeEventListener('connection:open', onOpen),
      () => host.libp2p.removeEventListener('connection:close', onClose),
      () => clearInterval(sweep),
      host.onDirectLink((link) => this.#linked(link)),
      host.onMovingChannel((peer) => this.#reversals.wanted(peer)),
    )
    await host.libp2p.handle(PUNCH_PROTOCOL, (stream, connection) => this.#asked(stream, connection), {
      maxInboundStreams: 1,
      maxOutboundStreams: 1,
      runOnLimitedConnection: true,
    })
    this.#undo.push(() => void host.libp2p.unhandle(PUNCH_PROTOCOL).catch(() => {}))
    await this.#webRtc?.serve()
    for (const connection of host.libp2p.getConnections()) this.#opened(connection)
  }

  async stop(): Promise<void> {
    for (const undo of this.#undo.splice(0)) undo()
    this.#stopping.abort()
    this.#witnesses.stop()
    this.#reversals.stop()
    await this.#webRtc?.stop()
  }

  /** Told of every upgrade. Returns what ends the telling. */
  onUpgrade(listener: (upgrade: Upgrade) => void): () => void {
    this.#upgradeListeners.add(listener)
    return () => this.#upgradeListeners.delete(listener)
  }

  /** This node is somewhere else: pairs that could not meet may try again at once. */
  networkChanged(): void {
    this.#failures.clear()
    this.#witnesses.forget()
    this.#reversals.forget()
    this.#sweep()
  }

  /**
   * Opens a channel to the peer and waits until its link is as direct as it gets. Never throws but for a wrong id; the signal ends the waiting.
   * @param addresses multiaddrs as for `openChannel`, those through relays among them
   */
  reach(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<ReachFacts> {
    const { host } = this.#modules
    return reach(id, addresses, signal, {
      host,
      now: this.#now,
      isEnabled: this.#options.config.enabled,
      timing: this.#timing.reach,
      isHidden: this.#isPrepared,
      isBusy: () => this.#meetings.has(id) || (this.#webRtc?.isBusyWith(id) ?? false),
      hasFailed: () => (this.#relayedTo(id)?.steps.length ?? 0) > 0,
      steps: () => this.#relayedTo(id)?.steps ?? [],
      watch: (watch) => {
        this.#watches.add(watch)
        return () => this.#watches.delete(watch)
      },
    })
  }

  #opened(connection: Connection): void {
    const peer = connection.remotePeer.toString() as NodeId
    if (!isRelayed(connection)) {
      if (isWebRtc(connection)) this.#upgraded(peer, 'punched-udp')
      else this.#tell(peer)
      return
    }
    if (this.#relayed.has(connection)) return
    this.#relayed.set(connection, { connection, peer, since: this.#now(), steps: [], isHopeless: false, idleSince: null })
    if (connection.direction === 'inbound') this.#consider(connection, peer)
  }

  #closed(connection: Connection): void {
    this.#relayed.delete(connection)
    const peer = connection.remotePeer.toString() as NodeId
    if (this.#waiting.get(peer) === connection) this.#waiting.delete(peer)
  }

  /** Begins, if this relayed connection is one to begin on, and it is time. */
  #consider(connection: Connection, peer: NodeId): void {
    if (this.#stopping.signal.aborted || connection.status !== 'open' || this.#isDirect(peer)) return
    if (this.#meetings.has(peer) || this.#waiting.has(peer) || !this.#failures.mayTry(peer, this.#now())) return
    // Both dialled each other through relays: the one that the smaller id dialled counts.
    const own = this.#modules.host.id
    if (own < peer && [...this.#relayed.values()].some((one) => one.peer === peer && one.connection.direction === 'outbound')) return
    const { maxConcurrent, maxWaiting } = this.#options.config
    if (this.#initiating < maxConcurrent) void this.#initiate(connection, peer)
    else if (this.#waiting.size < maxWaiting) this.#waiting.set(peer, connection)
  }

  async #initiate(connection: Connection, peer: NodeId): Promise<void> {
    const { host, logger } = this.#modules
    const known = this.#options.peer(peer)
    if (known === null) {
      // News of a young node take a few seconds: soon looked at again.
      logger.debug('a relayed peer is not in the view: it is not met', { peer: sensitive(peer) })
      return
    }
    const own = this.#own()
    const meeting = new InitiatorMeeting(
      connection,
      {
        isPeerDirect: known.directAddresses.length > 0,
        addresses: addressesFor(own, known.place),
        tcpUnavailable: host.punching.unavailable,
        udpUnavailable: this.#webRtc === null ? 'it is turned off' : this.#webRtc.unavailable,
        config: this.#options.config,
        accept: (addresses) => acceptAddresses(addresses, this.#own(), known.place, this.#options.privateAllowed),
      },
      known.directAddresses,
      this.#meetingModules(known),
    )
    this.#initiating++
    try {
      const end = await this.#met(connection, peer, 'initiator', meeting)
      if (end.outcome === 'upgraded') this.#failures.met(peer)
      else if (end.why !== SUPERSEDED && this.#relayed.has(connection))
        this.#failures.failed(peer, this.#now(), end.outcome === 'violation' ? 4 : 1)
    } finally {
      this.#initiating--
      this.#next()
    }
  }

  /** The peer begins, over a relayed connection that this node dialled. */
  #asked(stream: Stream, connection: Connection): void {
    const { host, logger } = this.#modules
    const peer = connection.remotePeer.toString() as NodeId
    const running = this.#meetings.get(peer)
    const known = this.#options.peer(peer)
    const why = this.#refusal(connection, peer, running?.role ?? null)
    if (why !== null || known === null) {
      logger.debug('a peer that wants to be met was refused', { why: why ?? 'it is not in the view', peer: sensitive(peer) })
      stream.abort(new Error('refused'))
      return
    }
    running?.abort.abort()
    const own = this.#own()
    const meeting = new ResponderMeeting(
      connection,
      stream,
      {
        addresses: host.punching.unavailable === null ? addressesFor(own, known.place) : [],
        config: this.#options.config,
        accept: (addresses) => acceptAddresses(addresses, this.#own(), known.place, this.#options.privateAllowed),
      },
      this.#meetingModules(known),
    )
    void this.#met(connection, peer, 'responder', meeting)
  }

  #refusal(connection: Connection, peer: NodeId, running: 'initiator' | 'responder' | null): string | null {
    if (!isRelayed(connection) || connection.direction !== 'outbound') return 'not over a relayed connection of ours'
    if (running === 'responder') return 'it is being met already'
    return running === 'initiator' && this.#modules.host.id > peer ? 'it is being met from here' : null
  }

  /** Runs an attempt to its end. */
  async #met(
    connection: Connection,
    peer: NodeId,
    role: 'initiator' | 'responder',
    meeting: { noteUpgrade(): void; run(signal: AbortSignal): Promise<MeetingEnd> },
  ): Promise<MeetingEnd> {
    const abort = new AbortController()
    const entry = { role, abort, meeting }
    this.#meetings.set(peer, entry)
    const end = await meeting.run(AbortSignal.any([abort.signal, this.#stopping.signal]))
    if (this.#meetings.get(peer) === entry) this.#meetings.delete(peer)
    const relayed = this.#relayed.get(connection)
    if (relayed !== undefined) Object.assign(relayed, { steps: end.steps, isHopeless: end.isHopeless })
    this.#modules.logger.debug('meeting a peer is over', { role, outcome: end.outcome, steps: end.steps, peer: sensitive(peer) })
    this.#tell(peer)
    return abort.signal.aborted ? { ...end, why: SUPERSEDED } : end
  }

  #next(): void {
    for (const [peer, connection] of this.#waiting) {
      if (this.#initiating >= this.#options.config.maxConcurrent) return
      this.#waiting.delete(peer)
      this.#consider(connection, peer)
    }
  }

  #sweep(): void {
    const now = this.#now()
    this.#witnesses.sweep()
    this.#reversals.sweep()
    for (const one of this.#relayed.values()) {
      const isDirect = this.#isDirect(one.peer)
      if (isDirect) this.#letGo(one, now)
      else one.idleSince = null
      if (!isDirect && one.connection.direction === 'inbound') this.#consider(one.connection, one.peer)
    }
  }

  /** A relay's place is for those who need it. */
  #letGo(one: Relayed, now: number): void {
    const isIdle = !this.#meetings.has(one.peer) && one.connection.streams.length === 0
    one.idleSince = isIdle ? (one.idleSince ?? now) : null
    if (one.idleSince === null || now - one.idleSince < this.#timing.relayGraceMs) return
    one.connection.close().catch((error: Error) => one.connection.abort(error))
  }

  #linked(link: LinkStatus): void {
    if (link.origin === 'punched') {
      this.#upgraded(link.peer, 'punched-tcp')
      return
    }
    const relayed = this.#relayedTo(link.peer)
    // Reversal: the side that received the relayed connection dials the other.
    const isReversed = relayed !== undefined && (relayed.connection.direction === 'inbound') === (link.direction === 'outbound')
    this.#upgraded(link.peer, isReversed ? 'reversed' : 'direct')
  }

  #upgraded(peer: NodeId, how: Upgrade['how']): void {
    this.#meetings.get(peer)?.meeting.noteUpgrade()
    const relayed = this.#relayedTo(peer)
    // The attempt's own words are there a turn later.
    setImmediate(() => {
      this.#tell(peer)
      if (relayed === undefined) return
      const upgrade = { peer, how, ms: this.#now() - relayed.since, steps: relayed.steps }
      for (const listener of this.#upgradeListeners) listener(upgrade)
    })
  }

  #tell(peer: NodeId): void {
    for (const watch of this.#watches) watch.changed(peer)
  }

  /** Whether cells can go to the peer without a relay. */
  #isDirect(peer: NodeId): boolean {
    const kind = currentLink(this.#modules.host, peer)?.kind
    return kind === 'direct' || kind === 'udp'
  }

  /** The relayed connection with the peer, the last one of several. */
  #relayedTo(peer: NodeId): Relayed | undefined {
    return [...this.#relayed.values()].findLast((one) => one.peer === peer)
  }

  #admitUdp(peer: NodeId): IceRules | null {
    const known = this.#options.peer(peer)
    const isHopeless = [...this.#relayed.values()].some((one) => one.peer === peer && one.isHopeless)
    if (known === null || isHopeless || this.#isDirect(peer)) return null
    return this.#iceRules(known)
  }

  #iceRules(known: PunchPeer): IceRules {
    return new IceRules(() => this.#own(), known.place, this.#options.privateAllowed)
  }

  #meetingModules(known: PunchPeer): MeetingModules {
    return {
      host: this.#modules.host,
      now: this.#now,
      udp: async (connection, signal) => {
        if (this.#webRtc === null) throw new Error('it is turned off')
        await this.#webRtc.connect(connection, this.#iceRules(known), signal)
      },
    }
  }

  #own(): OwnEndpoints {
    const { host } = this.#modules
    return ownEndpoints({
      listening: host.addresses(),
      behaviours: this.#options.behaviours(),
      observed: this.#witnesses.observed,
      privateAllowed: this.#options.privateAllowed,
    })
  }
}

/** On a network on one machine each node has a loopback address of its own, and ICE looks at none by itself. */
function loopbackOf(addresses: readonly string[]): string | null {
  const hosts = addresses.flatMap((address) => parseTcpAddress(address)?.host ?? [])
  return hosts.length > 0 && hosts.every((host) => host.startsWith('127.')) ? hosts[0]! : null
}

const SUPERSEDED = 'the peer meets this node instead'
