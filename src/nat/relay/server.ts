import type { Connection, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import {
  type IpAddress,
  type Logger,
  MalformedError,
  messageOf,
  type NodeId,
  parseIp,
  parseNodeId,
  ShallotError,
  TokenBucket,
} from '../../base/index.ts'
import type { CryptoSuite } from '../../crypto/index.ts'
import { type Host, parseTcpAddress } from '../../link/index.ts'
import type { RelayServerConfig } from './config.ts'
import { ConnectionQuota } from './connection-quota.ts'
import { readMessage, writeMessage } from './handshake.ts'
import {
  decodeHop,
  decodeStop,
  encodeHop,
  encodeStop,
  HOP_PROTOCOL,
  type HopMessage,
  type RelayLimit,
  STATUS,
  STOP_PROTOCOL,
  type Status,
} from './messages.ts'
import { Pump, type PumpEnd } from './pump.ts'
import { RequestRates } from './request-rates.ts'
import { addressKeys, ReservationTable } from './reservation-table.ts'
import { type ConnectRefusal, RelayCounters, type RelayServerStats } from './server-stats.ts'
import { isOwnConnection } from './transport.ts'
import { sealVoucher } from './voucher.ts'

export interface RelayServerModules {
  readonly host: Pick<Host, 'id' | 'libp2p' | 'tag' | 'untag' | 'suspect'>
  readonly suite: CryptoSuite
  /** The identity's Ed25519 seed, 32 bytes, borrowed: vouchers are signed with it. */
  readonly seed: Uint8Array
  /** This relay's own addresses as its descriptor has them, libp2p ones (`/ip4/A/tcp/P`): what reservations are told. */
  readonly addresses: () => readonly string[]
  /** Whether a node is a relay of the view. */
  readonly isKnownRelay: (id: NodeId) => boolean
  /** Whether the view can be trusted to have everybody: false while the node joins. */
  readonly isViewReady: () => boolean
  readonly logger: Logger
  /** Monotonic ms, and wall-clock ms. */
  readonly now: () => number
  readonly wall: () => number
}

/** How often is looked for what is over, stuck or too much. */
const SWEEP_MS = 1000
/** The connection with the holder of a reservation that takes longer to answer is asked for a sign of life. */
const SLOW_HOLDER_MS = 1000
/** A second's worth may come at once. */
const BURST_SECONDS = 1
/** Streams of one peer beyond what the quotas allow: those that are only to be told so. */
const SPARE_STREAMS = 32

/**
 * The role `relay`: circuit-relay v2 (libp2p specs, relay/circuit-v2.md) with limits fit for an onion mesh. Wire compatible with other
 * implementations' clients. Everything a peer can make it keep has a limit in `RelayServerConfig`. docs/spec/relay.md
 */
export class RelayServer {
  readonly #config: RelayServerConfig
  readonly #modules: RelayServerModules
  readonly #reservations: ReservationTable
  readonly #quota: ConnectionQuota
  readonly #counters = new RelayCounters()
  readonly #peerRates: RequestRates
  readonly #addressRates: RequestRates
  readonly #total: TokenBucket
  readonly #pumps = new Set<Pump>()
  readonly #handshakes = new Map<NodeId, number>()
  #handshakeCount = 0
  #isLeaving = false
  #closing = new AbortController()
  #timer: NodeJS.Timeout | null = null
  readonly #onConnectionClose = (event: CustomEvent<Connection>): void => this.#disconnected(event.detail)

  constructor(config: RelayServerConfig, modules: RelayServerModules) {
    this.#config = config
    this.#modules = modules
    this.#reservations = new ReservationTable(config)
    this.#quota = new ConnectionQuota(config)
    this.#peerRates = new RequestRates(config.requestsPerSecondPerPeer)
    this.#addressRates = new RequestRates(config.requestsPerSecondPerAddress)
    this.#total = new TokenBucket(config.bytesPerSecond, config.bytesPerSecond * BURST_SECONDS, modules.now())
  }

  /** The rates are those of the configuration now; limits are looked at each time. */
  #followRates(): void {
    const { bytesPerSecond, requestsPerSecondPerPeer, requestsPerSecondPerAddress } = this.#config
    this.#total.configure(bytesPerSecond, bytesPerSecond * BURST_SECONDS, this.#modules.now())
    this.#peerRates.configure(requestsPerSecondPerPeer)
    this.#addressRates.configure(requestsPerSecondPerAddress)
  }

  /** What a relayed connection that begins now may be. */
  get #limit(): RelayLimit {
    return { seconds: Math.ceil(this.#config.connectionMs / 1000), bytes: this.#config.connectionBytes }
  }

  /** Begins to serve. */
  async start(): Promise<void> {
    const { libp2p } = this.#modules.host
    this.#closing = new AbortController()
    libp2p.addEventListener('connection:close', this.#onConnectionClose)
    await libp2p.handle(HOP_PROTOCOL, (stream, connection) => this.#hop(stream, connection), {
      maxInboundStreams: this.#config.connectionsPerDialler + this.#config.handshakesPerPeer + SPARE_STREAMS,
      // Asked for over a relayed connection, it answers that it is not done.
      runOnLimitedConnection: true,
    })
    this.#timer = setInterval(() => this.#sweep(), SWEEP_MS)
    this.#timer.unref()
  }

  /** Takes and renews no reservation from now on: who is behind it looks for another relay. What is relayed goes on. */
  leave(): void {
    this.#isLeaving = true
  }

  /** Ends every relayed connection and reservation. */
  async stop(): Promise<void> {
    const { host } = this.#modules
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    this.#closing.abort(stopping())
    host.libp2p.removeEventListener('connection:close', this.#onConnectionClose)
    await host.libp2p.unhandle(HOP_PROTOCOL)
    for (const pump of [...this.#pumps]) pump.close('stopping')
    for (const peer of this.#reservations.peers()) {
      this.#reservations.release(peer)
      host.untag(peer)
    }
  }

  /** Counts of nobody in particular. */
  stats(): RelayServerStats {
    const open = { up: 0, down: 0, held: 0 }
    for (const pump of this.#pumps) {
      open.up += pump.bytesUp
      open.down += pump.bytesDown
      open.held += pump.heldBytes
    }
    return this.#counters.stats({
      reservations: this.#reservations.size,
      strangers: this.#reservations.strangers,
      connections: this.#pumps.size,
      handshakes: this.#handshakeCount,
      bytesUp: open.up,
      bytesDown: open.down,
      heldBytes: open.held,
    })
  }

  // ---- requests

  async #hop(stream: Stream, connection: Connection): Promise<void> {
    const peer = nodeIdOf(connection)
    const running = peer === null ? 0 : (this.#handshakes.get(peer) ?? 0)
    const { maxHandshakes, handshakesPerPeer, handshakeTimeoutMs } = this.#config
    if (peer === null || this.#handshakeCount >= maxHandshakes || running >= handshakesPerPeer || this.#closing.signal.aborted) {
      this.#counters.dropped('too-many-requests')
      stream.abort(new Error('too many requests'))
      return
    }
    this.#handshakeCount++
    this.#handshakes.set(peer, running + 1)
    const gone = new AbortController()
    const onClose = (): void => gone.abort(new Error('the peer has gone'))
    stream.addEventListener('close', onClose)
    const signal = AbortSignal.any([this.#closing.signal, gone.signal, AbortSignal.timeout(handshakeTimeoutMs)])
    try {
      await this.#serve(stream, connection, peer, signal)
    } catch (error) {
      this.#counters.dropped(signal.aborted && !gone.signal.aborted ? 'timeout' : 'abandoned')
      stream.abort(error as Error)
    } finally {
      stream.removeEventListener('close', onClose)
      this.#handshakeCount--
      const left = (this.#handshakes.get(peer) ?? 1) - 1
      if (left === 0) this.#handshakes.delete(peer)
      else this.#handshakes.set(peer, left)
    }
  }

  async #serve(stream: Stream, connection: Connection, peer: NodeId, signal: AbortSignal): Promise<void> {
    let request: HopMessage
    try {
      request = decodeHop(await readMessage(stream, signal))
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      this.#counters.dropped('malformed')
      return this.#answer(stream, STATUS.malformedMessage)
    }
    const address = addressOf(connection)
    const now = this.#modules.now()
    // Both are charged: whoever goes over one of them does not save the other.
    const withinRates = [this.#peerRates.take(peer, now), this.#addressRates.take(addressKeys(address).address, now)].every(Boolean)
    if (request.type === 'reserve') {
      if (!withinRates) return this.#refuseReserve(stream, 'rate', STATUS.resourceLimitExceeded)
      if (!isOwnConnection(connection)) return this.#refuseReserve(stream, 'relayed', STATUS.permissionDenied)
      if (this.#isLeaving) return this.#refuseReserve(stream, 'leaving', STATUS.reservationRefused)
      this.#reserve(stream, peer, address)
    } else if (request.type === 'connect') {
      if (!withinRates) return this.#refuseConnect(stream, 'rate', STATUS.resourceLimitExceeded)
      if (!isOwnConnection(connection)) return this.#refuseConnect(stream, 'relayed', STATUS.permissionDenied)
      await this.#connect(stream, peer, request, signal)
    } else {
      this.#counters.dropped('unexpected')
      this.#answer(stream, STATUS.unexpectedMessage)
    }
  }

  #reserve(stream: Stream, peer: NodeId, address: IpAddress | null): void {
    const { host, suite, seed, addresses, isKnownRelay, wall } = this.#modules
    this.#expire()
    const verdict = this.#reservations.reserve(peer, address, isKnownRelay(peer), wall())
    if (verdict.type === 'refused') {
      const isDenied = verdict.reason === 'not-in-view'
      this.#refuseReserve(stream, verdict.reason, isDenied ? STATUS.permissionDenied : STATUS.reservationRefused)
      return
    }
    if (verdict.type === 'granted') host.tag(peer)
    this.#counters.reserved(verdict.type)
    const expiresAt = Math.floor(verdict.reservation.expiresAt / 1000)
    this.#send(stream, {
      type: 'status',
      status: STATUS.ok,
      limit: this.#limit,
      reservation: {
        expiresAt,
        addresses: addresses().map((text) => multiaddr(`${text}/p2p/${host.id}`).bytes),
        voucher: sealVoucher(suite, seed, { relay: host.id, peer, expiresAt }),
      },
    })
  }

  async #connect(stream: Stream, dialler: NodeId, request: HopMessage, signal: AbortSignal): Promise<void> {
    const { isKnownRelay, isViewReady, wall } = this.#modules
    const target = request.peer
    if (target === null) {
      this.#counters.dropped('malformed')
      return this.#answer(stream, STATUS.malformedMessage)
    }
    if (target === dialler) return this.#refuseConnect(stream, 'itself', STATUS.permissionDenied)
    // Nodes of the mesh, and newcomers that this relay serves already: it is nobody else's way to those behind it.
    const mayConnect = isKnownRelay(dialler) || !isViewReady() || this.#reservations.get(dialler, wall()) !== null
    if (!mayConnect) return this.#refuseConnect(stream, 'not-in-view', STATUS.permissionDenied)
    const way = this.#reservations.get(target, wall()) ? this.#wayTo(target) : null
    if (way === null) return this.#refuseConnect(stream, 'no-reservation', STATUS.noReservation)
    const full = this.#quota.take(dialler, target)
    if (full !== null) return this.#refuseConnect(stream, full, STATUS.resourceLimitExceeded)
    let isOpen = false
    try {
      const stop = await this.#stop(way, dialler, signal)
      if (stop === null) return this.#refuseConnect(stream, 'target-failed', STATUS.connectionFailed)
      try {
        signal.throwIfAborted()
        writeMessage(stream, encodeHop({ type: 'status', status: STATUS.ok, limit: this.#limit }))
      } catch (error) {
        stop.abort(error as Error)
        throw error
      }
      this.#open(stream, stop, dialler, target)
      isOpen = true
    } finally {
      if (!isOpen) this.#quota.release(dialler, target)
    }
  }

  /** Asks who has the reservation to take the connection. The stream to it, paused, or null when it does not. @throws the signal's reason */
  async #stop(way: Connection, dialler: NodeId, signal: AbortSignal): Promise<Stream | null> {
    let stream: Stream | null = null
    const slow = setTimeout(() => this.#modules.host.suspect(nodeIdOf(way) ?? undefined), SLOW_HOLDER_MS)
    try {
      const { connectionsPerReservation, maxHandshakes } = this.#config
      stream = await way.newStream(STOP_PROTOCOL, { signal, maxOutboundStreams: connectionsPerReservation + maxHandshakes })
      // Who the dialler is has been proven; where it is, is its own affair.
      writeMessage(stream, encodeStop({ type: 'connect', peer: dialler, limit: this.#limit }))
      const answer = decodeStop(await readMessage(stream, signal))
      if (answer.type === 'status' && answer.status === STATUS.ok) return stream
      stream.abort(new Error('not taken'))
      return null
    } catch (error) {
      stream?.abort(error as Error)
      signal.throwIfAborted()
      this.#modules.logger.debug('a node with a reservation did not answer', { why: messageOf(error) })
      return null
    } finally {
      clearTimeout(slow)
    }
  }

  #open(dialler: Stream, target: Stream, from: NodeId, to: NodeId): void {
    const { connectionBytes, connectionBufferBytes, connectionBytesPerSecond } = this.#config
    const own = new TokenBucket(connectionBytesPerSecond, connectionBytesPerSecond * BURST_SECONDS, this.#modules.now())
    const pump = new Pump({
      dialler,
      target,
      maxBytes: connectionBytes,
      maxHeldBytes: connectionBufferBytes,
      rates: [own, this.#total],
      now: this.#modules.now,
      over: (over, end) => {
        this.#pumps.delete(over)
        this.#quota.release(from, to)
        this.#counters.closed(end, over.bytesUp, over.bytesDown)
      },
    })
    this.#pumps.add(pump)
    this.#counters.opened()
    pump.start()
  }

  // ---- answers

  #refuseReserve(stream: Stream, reason: Parameters<RelayCounters['refusedReserve']>[0], status: Status): void {
    this.#counters.refusedReserve(reason)
    this.#answer(stream, status)
  }

  #refuseConnect(stream: Stream, reason: ConnectRefusal, status: Status): void {
    this.#counters.refusedConnect(reason)
    this.#answer(stream, status)
  }

  #answer(stream: Stream, status: Status): void {
    this.#send(stream, { type: 'status', status })
  }

  /** Sends the last message of a stream. */
  #send(stream: Stream, message: Parameters<typeof encodeHop>[0]): void {
    writeMessage(stream, encodeHop(message))
    // What a peer says after its request is not read. A stream that it does not close is aborted.
    if (stream.readStatus === 'readable') stream.pause()
    const timer = setTimeout(() => stream.abort(new Error('not closed')), this.#config.handshakeTimeoutMs)
    timer.unref()
    stream.addEventListener('close', () => clearTimeout(timer))
    stream.close({ signal: AbortSignal.timeout(this.#config.handshakeTimeoutMs) }).catch((error) => stream.abort(error))
  }

  // ---- what is over

  /** A connection of one's own with a peer, for STOP. */
  #wayTo(peer: NodeId): Connection | null {
    return this.#modules.host.libp2p.getConnections(peerIdFromString(peer)).findLast(isOwnConnection) ?? null
  }

  /** A reservation lasts no longer than the connection with its holder. */
  #disconnected(connection: Connection): void {
    const peer = nodeIdOf(connection)
    if (peer === null || this.#reservations.get(peer, this.#modules.wall()) === null) return
    const isLeft = this.#modules.host.libp2p
      .getConnections(connection.remotePeer)
      .some((other) => other.id !== connection.id && isOwnConnection(other))
    if (!isLeft) this.#endReservation(peer, 'disconnected')
  }

  #endReservation(peer: NodeId, why: 'disconnected' | 'expired'): void {
    this.#reservations.release(peer)
    this.#released(peer, why)
  }

  #expire(): void {
    for (const peer of this.#reservations.expire(this.#modules.wall())) this.#released(peer, 'expired')
  }

  #released(peer: NodeId, why: 'disconnected' | 'expired'): void {
    this.#modules.host.untag(peer)
    this.#counters.reservationEnded(why)
  }

  #sweep(): void {
    const { now } = this.#modules
    const { connectionMs, idleMs, stallMs, bufferBytes } = this.#config
    this.#followRates()
    this.#expire()
    const at = now()
    const stuck: { pump: Pump; since: number }[] = []
    let held = 0
    for (const pump of [...this.#pumps]) {
      const since = pump.stuckSince(at)
      const end = overdue(pump, since, at, { connectionMs, idleMs, stallMs })
      if (end !== null) {
        pump.close(end)
        continue
      }
      held += pump.heldBytes
      if (since !== null) stuck.push({ pump, since })
    }
    stuck.sort((a, b) => a.since - b.since)
    for (const { pump } of stuck) {
      if (held <= bufferBytes) return
      held -= pump.heldBytes
      pump.close('buffer')
    }
  }
}

function overdue(
  pump: Pump,
  stuckSince: number | null,
  now: number,
  limits: Pick<RelayServerConfig, 'connectionMs' | 'idleMs' | 'stallMs'>,
): PumpEnd | null {
  if (now - pump.openedAt >= limits.connectionMs) return 'time'
  if (stuckSince !== null && now - stuckSince >= limits.stallMs) return 'stalled'
  if (stuckSince === null && now - pump.lastByteAt >= limits.idleMs) return 'idle'
  return null
}

/** The identity of a connection's peer, or null when it is none of this network's. */
function nodeIdOf(connection: Connection): NodeId | null {
  try {
    return parseNodeId(connection.remotePeer.toString())
  } catch {
    return null
  }
}

function addressOf(connection: Connection): IpAddress | null {
  try {
    const tcp = parseTcpAddress(connection.remoteAddr.toString())
    return tcp === null ? null : parseIp(tcp.host)
  } catch {
    return null
  }
}

function stopping(): ShallotError {
  return new ShallotError('stopping', 'the relay stops', { kind: 'process', retry: 'elsewhere' })
}
