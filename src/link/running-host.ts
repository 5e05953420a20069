import type { Connection, Libp2p, ServiceMap } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, messageOf, type NodeId, ShallotError } from '../base/index.ts'
import type { BatchMemory } from '../onion/index.ts'
import type { ByteMeter } from './byte-meter.ts'
import { identityMismatch } from './certificate.ts'
import type { CellChannel, ChannelAcceptor, ChannelDialer } from './channel.ts'
import type { LinkLimits } from './config.ts'
import type { Host, LinkStatus, ObservedEndpoint, PunchTarget } from './host-types.ts'
import { CIRCUIT_PROTOCOL, Libp2pChannel } from './libp2p-channel.ts'
import type { Link } from './link.ts'
import type { Listeners } from './listeners.ts'
import { formatTcpAddress, relayOf, type TcpAddress, tryTcpAddress } from './multiaddrs.ts'
import type { ObservedEndpoints } from './observed-endpoints.ts'
import type { Punching } from './punching.ts'
import type { TlsLinks } from './tls-links.ts'
import { aborted, connectFailed } from './tls-sockets.ts'
import { Turns } from './turns.ts'

const TAG = 'shallot-circuit'
const MEASURE_MS = 1000

/** What a running host is made of. */
export interface HostParts<Services extends ServiceMap> {
  readonly id: NodeId
  readonly mode: 'client' | 'server'
  readonly libp2p: Libp2p<Services>
  readonly links: TlsLinks
  readonly listeners: Listeners
  readonly punching: Punching
  readonly observed: ObservedEndpoints
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly limits: LinkLimits
  readonly logger: Logger
  readonly dialling: Map<string, number>
  readonly state: { acceptor: ChannelAcceptor | null }
}

/** A host whose libp2p node has started. */
export class RunningHost<Services extends ServiceMap> implements Host<Services> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly dialer: ChannelDialer
  readonly #parts: HostParts<Services>
  readonly #turns = new Turns()
  readonly #channels: Set<Libp2pChannel> = new Set()
  readonly #tags: Map<NodeId, number> = new Map()
  readonly #stopping = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(parts: HostParts<Services>) {
    this.#parts = parts
    this.id = parts.id
    this.libp2p = parts.libp2p
    this.meter = parts.meter
    this.memory = parts.memory
    this.dialer = { openChannel: (id, addresses, signal) => this.#open(id, addresses, signal) }
    this.#timer = setInterval(() => this.#measure(), MEASURE_MS)
    this.#timer.unref()
  }

  async started(): Promise<this> {
    const { mode, libp2p, limits } = this.#parts
    if (mode === 'server') {
      await libp2p.handle(CIRCUIT_PROTOCOL, (stream, connection) => this.#accept(stream, connection), {
        maxInboundStreams: limits.maxChannelsPerPeer,
        maxOutboundStreams: limits.maxChannelsPerPeer,
        runOnLimitedConnection: true,
      })
    }
    return this
  }

  onChannel(acceptor: ChannelAcceptor | null): void {
    this.#parts.state.acceptor = acceptor
  }

  addresses(): string[] {
    return this.#parts.listeners
      .addresses()
      .flatMap(({ host, port }) => [formatTcpAddress(host, port, false), formatTcpAddress(host, port, true)])
  }

  links(): LinkStatus[] {
    const now = performance.now()
    const wall = Date.now()
    const status: LinkStatus[] = [...this.#parts.links.links].map((link) => linkStatus(link, now, wall))
    for (const connection of this.libp2p.getConnections()) {
      status.push({
        peer: connection.remotePeer.toString() as NodeId,
        kind: 'libp2p',
        direction: connection.direction,
        origin: connection.direction === 'inbound' ? 'accepted' : 'dialed',
        via: relayOf(connection.remoteAddr.toString()),
        remoteAddress: connection.remoteAddr.toString(),
        channels: connection.streams.filter((stream) => stream.protocol === CIRCUIT_PROTOCOL).length,
        bytesIn: null,
        bytesOut: null,
        since: connection.timeline.open,
        rttMs: connection.rtt ?? null,
      })
    }
    return status
  }

  tag(peer: NodeId): void {
    const count = this.#tags.get(peer) ?? 0
    this.#tags.set(peer, count + 1)
    if (count === 0) this.#setTag(peer, true)
  }

  untag(peer: NodeId): void {
    const count = this.#tags.get(peer) ?? 0
    if (count > 1) {
      this.#tags.set(peer, count - 1)
    } else if (count === 1) {
      this.#tags.delete(peer)
      this.#setTag(peer, false)
    }
  }

  get punching(): { readonly unavailable: string | null } {
    return { unavailable: this.#parts.punching.unavailable }
  }

  preparePunching(): Promise<void> {
    return this.#parts.punching.prepare()
  }

  observed(): readonly ObservedEndpoint[] {
    return this.#parts.observed.endpoints
  }

  async connectDirect(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#parts.links.connect(id, directTargets(id, addresses), signal)
  }

  punch(target: PunchTarget, signal: AbortSignal): Promise<void> {
    return this.#parts.punching.punch(target, AbortSignal.any([signal, this.#stopping.signal]))
  }

  directLink(id: NodeId): LinkStatus | null {
    const link = this.#parts.links.usable(id)
    return link === null ? null : linkStatus(link, performance.now(), Date.now())
  }

  onDirectLink(listener: (link: LinkStatus) => void): () => void {
    return this.#parts.links.onUp((link) => listener(linkStatus(link, performance.now(), Date.now())))
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#stopping.abort()
    this.#parts.observed.stop()
    this.#parts.state.acceptor = null
    for (const channel of [...this.#channels]) channel.abort()
    await this.#parts.links.stop()
    await this.libp2p.stop()
  }

  async #open(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    if (signal.aborted) throw aborted()
    const { links } = this.#parts
    const known = addresses.map(tryTcpAddress).filter((address): address is TcpAddress => address !== null && (address.id ?? id) === id)
    const direct = known.filter((address) => address.isDirect)
    let failure: ShallotError | null = null
    if (direct.length > 0 || links.usable(id) !== null) {
      try {
        return await links.openChannel(id, direct, signal)
      } catch (error) {
        if (!(error instanceof ShallotError)) throw error
        failure = error
        if (error.code === 'aborted' || error.code === 'link-limit') throw error
      }
    }
    // Where TCP itself gave no answer, asking the same port again by libp2p gives none either.
    const tried = new Set(failure === null ? [] : direct.map((address) => `${address.host} ${address.port}`))
    const others = addresses.filter((text) => {
      const tcp = tryTcpAddress(text)
      return tcp === null ? isDialable(text) : !tcp.isDirect && !tried.has(`${tcp.host} ${tcp.port}`)
    })
    if (others.length === 0 && failure !== null) throw failure
    try {
      return await this.#openStream(id, others, signal)
    } catch (error) {
      throw failure?.code === 'identity-mismatch' ? failure : error
    }
  }

  async #openStream(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    const { dialling, limits } = this.#parts
    const peer = peerIdFromString(id)
    const patience = AbortSignal.any([signal, AbortSignal.timeout(limits.connectTimeoutMs)])
    dialling.set(id, (dialling.get(id) ?? 0) + 1)
    this.tag(id)
    try {
      const targets = addresses.map((text) => multiaddr(text.endsWith(`/p2p/${id}`) ? text : `${text}/p2p/${id}`))
      const connection = await this.libp2p.dial(targets.length > 0 ? targets : peer, { signal: patience })
      const stream = await connection.newStream(CIRCUIT_PROTOCOL, {
        signal: patience,
        maxOutboundStreams: limits.maxChannelsPerPeer,
        runOnLimitedConnection: true,
        negotiateFully: true,
      })
      // Over the peer's limit a stream comes that is reset already.
      if (stream.status !== 'open') throw connectFailed('the peer refused the stream')
      this.tag(id)
      return this.#channel(stream, connection)
    } catch (error) {
      if (signal.aborted) throw aborted()
      if (error instanceof ShallotError) throw error
      if (isUnexpectedPeer(error)) throw identityMismatch()
      throw connectFailed(messageOf(error), error)
    } finally {
      this.untag(id)
      const count = (dialling.get(id) ?? 1) - 1
      if (count === 0) dialling.delete(id)
      else dialling.set(id, count)
    }
  }

  #accept(stream: Parameters<Parameters<Libp2p['handle']>[1]>[0], connection: Connection): void {
    const { acceptor } = this.#parts.state
    if (acceptor === null) {
      stream.abort(new Error('no channels are taken'))
      return
    }
    this.tag(connection.remotePeer.toString() as NodeId)
    const channel = this.#channel(stream, connection)
    if (!acceptor(channel)) channel.abort()
  }

  /** The peer must have been tagged once for it. */
  #channel(stream: Parameters<Parameters<Libp2p['handle']>[1]>[0], connection: Connection): Libp2pChannel {
    const { meter, limits } = this.#parts
    const peer = connection.remotePeer.toString() as NodeId
    const channel = new Libp2pChannel({
      stream,
      peer,
      remoteAddress: tryTcpAddress(connection.remoteAddr.toString())?.host ?? connection.remoteAddr.toString(),
      meter,
      turns: this.#turns,
      closeTimeoutMs: limits.closeTimeoutMs,
      now: () => performance.now(),
      over: (over) => {
        if (this.#channels.delete(over)) this.untag(peer)
      },
    })
    this.#channels.add(channel)
    return channel
  }

  #measure(): void {
    for (const channel of this.#channels) channel.measure()
  }

  #setTag(peer: NodeId, isWanted: boolean): void {
    const tags = { [TAG]: isWanted ? { value: 100 } : undefined }
    this.libp2p.peerStore.merge(peerIdFromString(peer), { tags }).catch((error) => {
      this.#parts.logger.debug('a peer could not be tagged', { why: messageOf(error) })
    })
  }
}

function linkStatus(link: Link, now: number, wall: number): LinkStatus {
  return {
    peer: link.peer,
    kind: 'tls',
    direction: link.isDialer ? 'outbound' : 'inbound',
    origin: link.origin,
    via: null,
    remoteAddress: link.remoteAddress,
    channels: link.channels,
    bytesIn: link.bytesIn,
    bytesOut: link.bytesOut,
    since: wall - (now - link.openedAt),
    rttMs: link.rttMs,
  }
}

/** Where the addresses of a peer say that a direct link could be had, each once. */
function directTargets(id: NodeId, addresses: readonly string[]): TcpAddress[] {
  const found = new Map<string, TcpAddress>()
  for (const text of addresses) {
    const tcp = tryTcpAddress(text)
    if (tcp !== null && (tcp.id ?? id) === id) found.set(`${tcp.host} ${tcp.port}`, tcp)
  }
  return [...found.values()]
}

function isDialable(text: string): boolean {
  try {
    multiaddr(text)
    return true
  } catch {
    return false
  }
}

function isUnexpectedPeer(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // libp2p wraps it as an EncryptionFailedError that keeps only the message.
  if (error.name === 'UnexpectedPeerError' || error.message === 'Unexpected Peer') return true
  return error instanceof AggregateError && error.errors.some(isUnexpectedPeer)
}
