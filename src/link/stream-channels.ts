import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { type Logger, messageOf, type NodeId, ShallotError } from '../base/index.ts'
import type { ByteMeter } from './byte-meter.ts'
import { identityMismatch } from './certificate.ts'
import type { CellChannel, ChannelAcceptor } from './channel.ts'
import type { LinkLimits } from './config.ts'
import type { ConnectionProbes } from './connection-probes.ts'
import { CIRCUIT_PROTOCOL, Libp2pChannel } from './libp2p-channel.ts'
import { MOVING_PROTOCOL, MovingChannels, movingStreamOptions, unlimitedConnection } from './moving-channels.ts'
import { hostOf, relayOf } from './multiaddrs.ts'
import { dialRelayed } from './relayed-dial.ts'
import type { TlsLinks } from './tls-links.ts'
import { aborted, connectFailed } from './tls-sockets.ts'
import { Turns } from './turns.ts'

const TAG = 'shallot-circuit'
const TAG_VALUE = 100
/** How long direct addresses are tried when there is a relay too. */
const DIRECT_BEFORE_RELAY_MS = 2500
/** A connection that was there, and on which a stream takes longer, is asked for a sign of life. */
const SLOW_STREAM_MS = 1000

export interface StreamChannelsOptions {
  readonly libp2p: Libp2p
  readonly links: TlsLinks
  readonly probes: ConnectionProbes
  readonly limits: LinkLimits
  readonly meter: ByteMeter
  readonly logger: Logger
  readonly acceptor: () => ChannelAcceptor | null
  /** Whom `open` is dialling just now, and how often: they may be dialled whatever `mayDial` says. */
  readonly dialling: Map<string, number>
}

/** All channels of a node that run over libp2p streams, those that move included. */
export class StreamChannels {
  readonly moving: MovingChannels
  readonly #options: StreamChannelsOptions
  readonly #turns = new Turns()
  readonly #channels: Set<Libp2pChannel> = new Set()
  readonly #tags: Map<NodeId, number> = new Map()

  constructor(options: StreamChannelsOptions) {
    this.#options = options
    const { libp2p, links, limits, meter, logger, acceptor } = options
    this.moving = new MovingChannels({
      libp2p,
      links,
      limits,
      meter,
      turns: this.#turns,
      logger,
      acceptor,
      tag: (peer) => this.tag(peer),
      untag: (peer) => this.untag(peer),
    })
  }

  /** Takes the channels that peers open. */
  async serve(): Promise<void> {
    const { libp2p, limits } = this.#options
    const options = {
      maxInboundStreams: limits.maxChannelsPerPeer,
      maxOutboundStreams: limits.maxChannelsPerPeer,
      runOnLimitedConnection: true,
    }
    await libp2p.handle(CIRCUIT_PROTOCOL, (stream, connection) => this.#accept(stream, connection), options)
    await libp2p.handle(MOVING_PROTOCOL, (stream, connection) => this.moving.accept(stream, connection), options)
  }

  /**
   * A fresh channel over libp2p: to one of the addresses, else over an unlimited connection that is up, else through a relay.
   * @throws ShallotError as `ChannelDialer.openChannel`
   */
  async open(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(this.#options.limits.connectTimeoutMs)])
    // Who is reached through relays may get a direct link to here all the same, by dialling itself.
    const isHidden = addresses.some((text) => relayOf(text) !== null)
    this.#expect(id)
    this.tag(id)
    try {
      return await this.#openOnLiving(id, addresses, isHidden, patience)
    } catch (error) {
      if (signal.aborted) throw aborted()
      if (error instanceof ShallotError) throw error
      if (isUnexpectedPeer(error)) throw identityMismatch()
      throw connectFailed(messageOf(error), error)
    } finally {
      this.untag(id)
      this.#unexpect(id)
    }
  }

  /** Brings the meter up to date. */
  measure(): void {
    for (const channel of this.#channels) channel.measure()
    this.moving.measure()
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

  /** Aborts all channels. */
  stop(): void {
    for (const channel of [...this.#channels]) channel.abort()
    this.moving.stop()
  }

  async #connection(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<Connection> {
    const { libp2p, limits } = this.#options
    const targets = addresses.map((text) => multiaddr(text.endsWith(`/p2p/${id}`) ? text : `${text}/p2p/${id}`))
    const direct = targets.filter((target) => relayOf(target.toString()) === null)
    const relayed = targets.filter((target) => relayOf(target.toString()) !== null)
    if (relayed.length === 0) return libp2p.dial(direct.length > 0 ? direct : peerIdFromString(id), { signal })
    const upgraded = unlimitedConnection(libp2p, id)
    if (upgraded !== null) return upgraded
    if (direct.length > 0) {
      try {
        return await libp2p.dial(direct, { signal: AbortSignal.any([signal, AbortSignal.timeout(DIRECT_BEFORE_RELAY_MS)]) })
      } catch (error) {
        if (signal.aborted) throw error
      }
    }
    const [limited] = libp2p.getConnections(peerIdFromString(id)).filter(({ status }) => status === 'open')
    return limited ?? this.#throughRelay(id, relayed, limits, signal)
  }

  async #throughRelay(id: NodeId, relayed: readonly Multiaddr[], limits: LinkLimits, signal: AbortSignal): Promise<Connection> {
    const relays = relayed.map((target) => relayOf(target.toString())!)
    for (const relay of relays) this.#expect(relay)
    try {
      return await dialRelayed(this.#options.libp2p, id, relayed, limits.dialStaggerMs, signal)
    } finally {
      for (const relay of relays) this.#unexpect(relay)
    }
  }

  /** A connection that was there may be dead: then it is found out, and another one is made. */
  async #openOnLiving(id: NodeId, addresses: readonly string[], isHidden: boolean, signal: AbortSignal): Promise<CellChannel> {
    const { libp2p, probes } = this.#options
    const before = libp2p.getConnections(peerIdFromString(id))
    const connection = await this.#connection(id, addresses, signal)
    if (!before.includes(connection)) return this.#openOn(connection, isHidden, signal)
    const timer = setTimeout(() => void probes.ask(connection), SLOW_STREAM_MS)
    try {
      return await this.#openOn(connection, isHidden, signal)
    } catch (error) {
      if (signal.aborted || connection.status === 'open') throw error
    } finally {
      clearTimeout(timer)
    }
    return this.#openOn(await this.#connection(id, addresses, signal), isHidden, signal)
  }

  async #openOn(connection: Connection, isHidden: boolean, signal: AbortSignal): Promise<CellChannel> {
    const { limits } = this.#options
    // Where there may be something better later, a channel that can move there.
    const protocols = isPlain(connection) && !isHidden ? CIRCUIT_PROTOCOL : [MOVING_PROTOCOL, CIRCUIT_PROTOCOL]
    const stream = await connection.newStream(protocols, { ...movingStreamOptions(limits), signal })
    // Over the peer's limit a stream comes that is reset already.
    if (stream.status !== 'open') throw connectFailed('the peer refused the stream')
    if (stream.protocol === MOVING_PROTOCOL) return this.moving.open(stream, connection)
    return this.#channel(stream, connection)
  }

  #accept(stream: Stream, connection: Connection): void {
    const acceptor = this.#options.acceptor()
    if (acceptor === null) {
      stream.abort(new Error('no channels are taken'))
      return
    }
    const channel = this.#channel(stream, connection)
    if (!acceptor(channel)) channel.abort()
  }

  #channel(stream: Stream, connection: Connection): Libp2pChannel {
    const { meter, limits } = this.#options
    const peer = connection.remotePeer.toString() as NodeId
    this.tag(peer)
    const channel = new Libp2pChannel({
      stream,
      peer,
      remoteAddress: hostOf(connection.remoteAddr.toString()),
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

  #expect(peer: NodeId): void {
    const { dialling } = this.#options
    dialling.set(peer, (dialling.get(peer) ?? 0) + 1)
  }

  #unexpect(peer: NodeId): void {
    const { dialling } = this.#options
    const count = (dialling.get(peer) ?? 1) - 1
    if (count === 0) dialling.delete(peer)
    else dialling.set(peer, count)
  }

  #setTag(peer: NodeId, isWanted: boolean): void {
    const tags = { [TAG]: isWanted ? { value: TAG_VALUE } : undefined }
    this.#options.libp2p.peerStore.merge(peerIdFromString(peer), { tags }).catch((error) => {
      this.#options.logger.debug('a peer could not be tagged', { why: messageOf(error) })
    })
  }
}

/** Whether there is no relay in it, and never was. */
function isPlain(connection: Connection): boolean {
  return connection.limits == null && !connection.remoteAddr.toString().includes('/p2p-circuit')
}

function isUnexpectedPeer(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // libp2p wraps it as an EncryptionFailedError that keeps only the message.
  if (error.name === 'UnexpectedPeerError' || error.message === 'Unexpected Peer') return true
  return error instanceof AggregateError && error.errors.some(isUnexpectedPeer)
}
