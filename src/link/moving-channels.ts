import { randomBytes } from 'node:crypto'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Uint8ArrayList } from 'uint8arraylist'
import { type Logger, messageOf, type NodeId } from '../base/index.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { CellChannel, ChannelAcceptor } from './channel.ts'
import type { LinkLimits } from './config.ts'
import { TOKEN_BYTES } from './frames.ts'
import { MovingChannel } from './moving-channel.ts'
import { AGREED, MovingStream } from './moving-stream.ts'
import { hostOf } from './multiaddrs.ts'
import { CellAssembler } from './stream-cells.ts'
import type { TlsChannel } from './tls-channel.ts'
import type { TlsLinks } from './tls-links.ts'
import type { Turns } from './turns.ts'
import { type Asking, DirectWay, type Way, WayRank } from './way.ts'

/** A stream that carries a channel which may move on to another connection. docs/spec/link.md §7 */
export const MOVING_PROTOCOL = '/shallot/circuit-moving/1'

/** The preamble of a stream: what it is for, then the channel's token. */
const Purpose = { open: 0, move: 1 } as const
const PREAMBLE_BYTES = 1 + TOKEN_BYTES
/** Moves to one peer at the same time; the others wait for their turn. */
const MAX_MOVES_PER_PEER = 64
/** How often a channel is tried to be moved; a peer that always refuses is left in peace. */
const MAX_ATTEMPTS = 6
const RETRY_MS = 1000

export interface MovingChannelsOptions {
  readonly libp2p: Libp2p
  readonly links: TlsLinks
  readonly limits: LinkLimits
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly logger: Logger
  readonly acceptor: () => ChannelAcceptor | null
  /** Keeps a peer's libp2p connection while there is a stream on it: once for each stream, and once back. */
  readonly tag: (peer: NodeId) => void
  readonly untag: (peer: NodeId) => void
}

/** A channel that this node opened, and how often it has been tried to be moved. */
interface Opened {
  readonly channel: MovingChannel
  readonly token: Uint8Array
  attempts: number
  /** Monotonic ms: not tried again before. */
  retryAt: number
}

/** The channels that began on a connection which is not the best there could be, and move when there is a better one. */
export class MovingChannels {
  readonly #options: MovingChannelsOptions
  readonly #streams: Set<MovingStream> = new Set()
  readonly #channels: Set<MovingChannel> = new Set()
  readonly #opened: Map<NodeId, Set<Opened>> = new Map()
  /** Channels that peers opened, by peer and token: a peer can only name its own. */
  readonly #taken: Map<string, MovingChannel> = new Map()
  readonly #movesByPeer: Map<NodeId, number> = new Map()
  readonly #retries: Map<NodeId, NodeJS.Timeout> = new Map()
  readonly #stopListening: () => void
  readonly #takenListeners: Set<(peer: NodeId) => void> = new Set()
  #stopped = false

  constructor(options: MovingChannelsOptions) {
    this.#options = options
    const { libp2p, links } = options
    const onOpen = (event: CustomEvent<Connection>): void => this.#improve(peerOf(event.detail))
    libp2p.addEventListener('connection:open', onOpen)
    const stopTelling = links.onUp((link) => this.#improve(link.peer))
    this.#stopListening = () => {
      libp2p.removeEventListener('connection:open', onOpen)
      stopTelling()
    }
  }

  /** Opens a channel on a fresh stream of MOVING_PROTOCOL. */
  open(stream: Stream, connection: Connection): CellChannel {
    const token = randomBytes(TOKEN_BYTES)
    const peer = peerOf(connection)
    stream.send(Buffer.concat([Uint8Array.of(Purpose.open), token]))
    const all = this.#opened.get(peer) ?? new Set()
    this.#opened.set(peer, all)
    const channel = this.#channel(stream, connection, undefined, () => {
      all.delete(opened)
      if (all.size === 0 && this.#opened.get(peer) === all) this.#opened.delete(peer)
    })
    const opened: Opened = { channel, token, attempts: 0, retryAt: 0 }
    all.add(opened)
    // What came up while the stream was being opened has been told of already.
    queueMicrotask(() => this.#improve(peer))
    return channel
  }

  /** Takes a stream of MOVING_PROTOCOL that a peer opened. */
  accept(stream: Stream, connection: Connection): void {
    const received = new CellAssembler()
    const timer = setTimeout(() => stream.abort(new Error('no preamble')), this.#options.limits.handshakeTimeoutMs)
    const onClose = (): void => clearTimeout(timer)
    const onMessage = (event: { data: Uint8Array | Uint8ArrayList }): void => {
      received.append(event.data)
      const preamble = received.take(PREAMBLE_BYTES)
      if (preamble === null) return
      clearTimeout(timer)
      stream.removeEventListener('message', onMessage)
      stream.removeEventListener('close', onClose)
      const isTaken = this.#begin(stream, connection, preamble, received.take(received.bytes) ?? undefined)
      if (!isTaken) stream.abort(new Error('refused'))
    }
    stream.addEventListener('message', onMessage)
    stream.addEventListener('close', onClose)
  }

  /** Told of the peer whenever one of its channels has been taken. Returns what ends the telling. */
  onTaken(listener: (peer: NodeId) => void): () => void {
    this.#takenListeners.add(listener)
    return () => this.#takenListeners.delete(listener)
  }

  /** A channel of a direct link that the peer wants one of its channels to move to; null refuses. */
  acceptMove(way: TlsChannel, token: Uint8Array): (() => void) | null {
    const channel = this.#movable(way.peer, token, WayRank.direct)
    return channel === null ? null : () => channel.move(new DirectWay(way))
  }

  measure(): void {
    for (const stream of this.#streams) stream.measure()
  }

  stop(): void {
    this.#stopped = true
    this.#stopListening()
    for (const timer of this.#retries.values()) clearTimeout(timer)
    for (const channel of [...this.#channels]) channel.abort()
    for (const stream of [...this.#streams]) stream.abort()
  }

  // ---- as the side that is asked

  #begin(stream: Stream, connection: Connection, preamble: Uint8Array, initial: Uint8Array | undefined): boolean {
    const acceptor = this.#options.acceptor()
    const peer = peerOf(connection)
    const token = preamble.subarray(1)
    if (this.#stopped || acceptor === null || stream.status !== 'open') return false
    if (preamble[0] === Purpose.move) {
      const channel = this.#movable(peer, token, rankOf(connection))
      if (channel === null) return false
      stream.send(Uint8Array.of(AGREED))
      channel.move(this.#stream(stream, connection, initial))
      return true
    }
    const key = keyOf(peer, token)
    if (preamble[0] !== Purpose.open || this.#taken.has(key)) return false
    const channel = this.#channel(stream, connection, initial, () => this.#taken.delete(key))
    this.#taken.set(key, channel)
    if (acceptor(channel)) for (const listener of this.#takenListeners) listener(peer)
    else channel.abort()
    return true
  }

  #movable(peer: NodeId, token: Uint8Array, rank: number): MovingChannel | null {
    const channel = this.#taken.get(keyOf(peer, token))
    return channel?.isResting === true && channel.rank < rank ? channel : null
  }

  // ---- as the opener

  /** Begins moves to the best way there is to the peer. */
  #improve(peer: NodeId): void {
    const opened = this.#opened.get(peer)
    if (opened === undefined || this.#stopped) return
    const now = performance.now()
    for (const one of opened) {
      if ((this.#movesByPeer.get(peer) ?? 0) >= MAX_MOVES_PER_PEER) return
      if (!one.channel.isResting || one.attempts >= MAX_ATTEMPTS) continue
      if (now >= one.retryAt) this.#improveOne(peer, one)
      else this.#improveLater(peer)
    }
  }

  #improveOne(peer: NodeId, opened: Opened): void {
    const { channel, token } = opened
    const link = channel.rank < WayRank.direct ? this.#options.links.usable(peer) : null
    if (link !== null) {
      this.#move(peer, opened, (asking) => new DirectWay(link.openForMove(token, asking)))
      return
    }
    const connection = channel.rank < WayRank.stream ? unlimitedConnection(this.#options.libp2p, peer) : null
    if (connection === null) return
    // Counted, and not tried a second time, while the stream is being opened.
    opened.retryAt = Number.POSITIVE_INFINITY
    this.#count(peer, 1)
    this.#openStream(connection, opened)
      .catch((error) => {
        opened.attempts++
        this.#options.logger.debug('a channel could not be moved', { why: messageOf(error) })
      })
      .finally(() => {
        opened.retryAt = performance.now() + RETRY_MS
        this.#count(peer, -1)
        this.#improve(peer)
      })
  }

  async #openStream(connection: Connection, opened: Opened): Promise<void> {
    const { channel, token } = opened
    const stream = await connection.newStream(MOVING_PROTOCOL, movingStreamOptions(this.#options.limits))
    if (stream.status !== 'open') throw new Error('the peer refused the stream')
    if (this.#stopped || !channel.isResting || channel.rank >= rankOf(connection)) {
      stream.abort(new Error('not needed any more'))
      return
    }
    stream.send(Buffer.concat([Uint8Array.of(Purpose.move), token]))
    this.#move(channel.peer, opened, (asking) => this.#stream(stream, connection, undefined, asking))
  }

  #move(peer: NodeId, opened: Opened, make: (asking: Asking) => Way): void {
    this.#count(peer, 1)
    opened.channel.ask(make, (moves) => {
      this.#count(peer, -1)
      opened.attempts = moves ? 0 : opened.attempts + 1
      opened.retryAt = moves ? 0 : performance.now() + RETRY_MS
      queueMicrotask(() => this.#improve(peer))
    })
  }

  #improveLater(peer: NodeId): void {
    if (this.#retries.has(peer)) return
    const timer = setTimeout(() => {
      this.#retries.delete(peer)
      this.#improve(peer)
    }, RETRY_MS)
    timer.unref()
    this.#retries.set(peer, timer)
  }

  #count(peer: NodeId, change: 1 | -1): void {
    const count = (this.#movesByPeer.get(peer) ?? 0) + change
    if (count === 0) this.#movesByPeer.delete(peer)
    else this.#movesByPeer.set(peer, count)
  }

  // ----

  #channel(stream: Stream, connection: Connection, initial: Uint8Array | undefined, over: () => void): MovingChannel {
    const { meter, turns, limits } = this.#options
    const channel = new MovingChannel({
      peer: peerOf(connection),
      remoteAddress: hostOf(connection.remoteAddr.toString()),
      way: this.#stream(stream, connection, initial),
      meter,
      turns,
      closeTimeoutMs: limits.closeTimeoutMs,
      now: () => performance.now(),
      rested: ({ peer }) => queueMicrotask(() => this.#improve(peer)),
      over: () => {
        this.#channels.delete(channel)
        over()
      },
    })
    this.#channels.add(channel)
    return channel
  }

  #stream(stream: Stream, connection: Connection, initial: Uint8Array | undefined, asking?: Asking): MovingStream {
    const { meter, turns, limits, tag, untag } = this.#options
    const peer = peerOf(connection)
    tag(peer)
    const way = new MovingStream({
      stream,
      rank: rankOf(connection),
      meter,
      turns,
      closeTimeoutMs: limits.closeTimeoutMs,
      now: () => performance.now(),
      initial,
      asking,
      over: (over) => {
        if (this.#streams.delete(over)) untag(peer)
      },
    })
    this.#streams.add(way)
    return way
  }
}

/** The best open libp2p connection to the peer without limits, or null. */
export function unlimitedConnection(libp2p: Libp2p, peer: NodeId): Connection | null {
  const open = libp2p.getConnections(peerIdFromString(peer)).filter(({ status, limits }) => status === 'open' && limits == null)
  return open.find((connection) => connection.direct) ?? open[0] ?? null
}

/** How a stream that carries a channel is opened. */
export function movingStreamOptions(limits: LinkLimits): {
  signal: AbortSignal
  maxOutboundStreams: number
  runOnLimitedConnection: true
  negotiateFully: true
} {
  return {
    signal: AbortSignal.timeout(limits.connectTimeoutMs),
    maxOutboundStreams: limits.maxChannelsPerPeer,
    runOnLimitedConnection: true,
    negotiateFully: true,
  }
}

function rankOf(connection: Connection): number {
  return connection.limits == null ? WayRank.stream : WayRank.limited
}

function peerOf(connection: Connection): NodeId {
  return connection.remotePeer.toString() as NodeId
}

function keyOf(peer: NodeId, token: Uint8Array): string {
  return `${peer} ${Buffer.from(token).toString('base64')}`
}
