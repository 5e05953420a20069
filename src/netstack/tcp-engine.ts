import { type IpAddress, ipFromBytes, type Random, ShallotError, TokenBucket } from '../base/index.ts'
import {
  type IcmpErrorKind,
  type IpHeader,
  ipHeaderBytes,
  type PacketBatch,
  Protocol,
  TcpFlag,
  TcpHeader,
  writeIp,
} from '../packet/index.ts'
import { addressWords, type Endpoint } from './endpoint.ts'
import type { StackEvent } from './events.ts'
import { type Flow, FlowTable } from './flow-table.ts'
import type { StackLimits, TcpSettings } from './limits.ts'
import { type Listener, Listeners } from './listeners.ts'
import { MemoryBudget } from './memory-budget.ts'
import type { PathMtus } from './path-mtus.ts'
import type { Replies } from './replies.ts'
import { TcpConnection } from './tcp/connection.ts'
import { type ConnectionHost, Notice } from './tcp/host.ts'
import { before } from './tcp/sequence.ts'
import { TimeWait } from './time-wait.ts'
import { TimerHeap } from './timers.ts'

/** RFC 6056 §3.2 and what Linux uses. */
const FIRST_EPHEMERAL_PORT = 32_768
const LAST_EPHEMERAL_PORT = 60_999
const PORT_TRIES = 64
/** Between two answers of one TIME-WAIT entry to what is not its FIN (Linux's tcp_invalid_ratelimit). */
const TIME_WAIT_ANSWER_MS = 500
/** Memory that has run out is looked for at most so often: it means a look at every connection. */
const RELIEF_PERIOD_MS = 250
/** What relief aims at, as a share of the memory. */
const RELIEVED_SHARE = 7 / 8

export interface TcpEngineModules {
  readonly settings: TcpSettings
  readonly limits: StackLimits
  readonly random: Random
  /** Keyed; 32 bits. */
  readonly hash: (bytes: Uint8Array) => number
  readonly replies: Replies
  readonly pathMtus: PathMtus
}

/** All TCP of a stack: which segment belongs to whom, who has something to send, whose time has come. */
export class TcpEngine implements ConnectionHost {
  readonly settings: TcpSettings
  readonly random: Random
  readonly budget: MemoryBudget
  readonly listeners = new Listeners()
  readonly timers = new TimerHeap()
  /** Segments with data that were sent again. */
  retransmissions = 0
  readonly #modules: TcpEngineModules
  readonly #limits: StackLimits
  readonly #table: FlowTable
  readonly #segment = new TcpHeader()
  /** In order of age. */
  readonly #halfOpen = new Map<TcpConnection, Listener | null>()
  readonly #timeWaits = new Set<TimeWait>()
  #ready: TcpConnection[] = []
  #readyFrom = 0
  readonly #noticed: TcpConnection[] = []
  #noticedFrom = 0
  readonly #resets: TokenBucket
  #relievedAt = Number.NEGATIVE_INFINITY

  constructor(modules: TcpEngineModules) {
    this.#modules = modules
    this.settings = modules.settings
    this.random = modules.random
    this.#limits = modules.limits
    this.budget = new MemoryBudget(modules.limits.bufferBytes)
    this.#table = new FlowTable(modules.random.int(2 ** 32))
    this.#resets = new TokenBucket(modules.limits.resetsPerSecond, modules.limits.resetsPerSecond, 0)
  }

  get connections(): number {
    return this.#table.size - this.#timeWaits.size
  }

  get halfOpen(): number {
    return this.#halfOpen.size
  }

  get timeWaits(): number {
    return this.#timeWaits.size
  }

  *all(): Generator<TcpConnection> {
    for (const flow of this.#table) if (flow instanceof TcpConnection) yield flow
  }

  // --- opening

  /** @throws ShallotError 'netstack-limit', 'netstack-no-port', 'netstack-address-in-use' */
  dial(local: { readonly address: IpAddress; readonly port: number | null }, remote: Endpoint, now: number): TcpConnection {
    if (this.connections >= this.#limits.connections) {
      throw new ShallotError('netstack-limit', 'as many connections as the stack may have', { kind: 'host', retry: 'later' })
    }
    const words = addressWords(remote.address.bytes, local.address.bytes)
    const port = local.port ?? this.#freePort(words, remote.port)
    if (port === null) {
      throw new ShallotError('netstack-no-port', 'no free port for this destination', { kind: 'host', retry: 'later' })
    }
    const existing = this.#find(words, remote.port, port)
    if (existing !== null) {
      throw new ShallotError('netstack-address-in-use', 'there is a connection between these endpoints', { kind: 'host', retry: 'later' })
    }
    const connection = this.#newConnection({ address: local.address, port }, remote, now)
    connection.dial(now)
    this.#enterHalfOpen(connection, null)
    this.touch(connection)
    return connection
  }

  #freePort(words: Int32Array, remotePort: number): number | null {
    const span = LAST_EPHEMERAL_PORT - FIRST_EPHEMERAL_PORT + 1
    for (let tries = 0; tries < PORT_TRIES; tries++) {
      const port = FIRST_EPHEMERAL_PORT + this.random.int(span)
      if (this.#find(words, remotePort, port) === null) return port
    }
    return null
  }

  #find(words: Int32Array, remotePort: number, localPort: number): Flow | null {
    return this.#table.findKey(words, remotePort, localPort)
  }

  #newConnection(local: Endpoint, remote: Endpoint, now: number, leastIsn: number | null = null): TcpConnection {
    const tuple = tupleBytes(local, remote)
    // RFC 6528 §3: a clock of 4 us and a keyed hash of the tuple.
    let isn = (Math.floor((now * 250) % 2 ** 32) + this.#modules.hash(tuple)) | 0
    if (leastIsn !== null && before(isn, leastIsn)) isn = leastIsn
    tuple[0] = 0xff
    const timestampOffset = this.#modules.hash(tuple) | 0
    const mtu = this.#modules.pathMtus.get(remote.address, now)
    const connection = new TcpConnection(this, local, remote, isn, timestampOffset, mtu)
    this.#table.add(connection)
    return connection
  }

  #enterHalfOpen(connection: TcpConnection, listener: Listener | null): void {
    this.#halfOpen.set(connection, listener)
  }

  // --- what comes in

  /** A TCP segment; `ip` says where it lies. The checksum has been checked. */
  input(ip: IpHeader, view: DataView, bytes: Uint8Array, now: number): boolean {
    const segment = this.#segment
    if (segment.parse(view, ip.payloadStart, ip.end) !== null) return false
    const flow = this.#table.find(view, ip.sourceAt, ip.addressBytes, segment.sourcePort, segment.destinationPort)
    if (flow instanceof TcpConnection) flow.handleSegment(segment, bytes, now)
    else if (flow instanceof TimeWait) this.#inTimeWait(flow, segment, ip, bytes, now)
    else this.#noFlow(segment, ip, bytes, now, null)
    return true
  }

  #noFlow(segment: TcpHeader, ip: IpHeader, bytes: Uint8Array, now: number, leastIsn: number | null): void {
    const { flags } = segment
    if ((flags & TcpFlag.rst) !== 0 || segment.sourcePort === 0 || segment.destinationPort === 0) return
    const local = { address: ipFromBytes(bytes.slice(ip.destinationAt, ip.destinationAt + ip.addressBytes)), port: segment.destinationPort }
    if ((flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.fin)) === TcpFlag.syn) {
      const listener = this.listeners.find(() => local.address, local.port)
      if (listener !== null) {
        this.#ask(segment, ip, bytes, local, listener, now, leastIsn)
        return
      }
    }
    if (!this.#resets.take(1, now)) return
    const remote = { address: ipFromBytes(bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes)), port: segment.sourcePort }
    // RFC 9293 §3.10.7.1
    const length = segment.payloadBytes + ((flags & TcpFlag.syn) !== 0 ? 1 : 0) + ((flags & TcpFlag.fin) !== 0 ? 1 : 0)
    const hasAck = (flags & TcpFlag.ack) !== 0
    this.#modules.replies.segment({
      local,
      remote,
      sequence: hasAck ? segment.acknowledgment : 0,
      acknowledgment: hasAck ? null : (segment.sequence + length) | 0,
      reset: true,
      window: 0,
      timestamp: null,
      timestampEcho: 0,
    })
  }

  #ask(
    segment: TcpHeader,
    ip: IpHeader,
    bytes: Uint8Array,
    local: Endpoint,
    listener: Listener,
    now: number,
    leastIsn: number | null,
  ): void {
    // Silence makes the honest try again; a RST would end their attempt.
    if (this.connections >= this.#limits.connections) return
    if (this.#halfOpen.size >= this.#limits.halfOpen && !this.#dropOldestHalfOpen(now)) return
    const remote = { address: ipFromBytes(bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes)), port: segment.sourcePort }
    const connection = this.#newConnection(local, remote, now, leastIsn)
    this.#enterHalfOpen(connection, listener)
    connection.ask(segment, now)
    this.notify(connection, Notice.incoming)
  }

  /** Those that we dial do not give way. */
  #dropOldestHalfOpen(now: number): boolean {
    for (const [connection, listener] of this.#halfOpen) {
      if (listener === null) continue
      connection.drop('overloaded', now)
      return true
    }
    return false
  }

  #inTimeWait(entry: TimeWait, segment: TcpHeader, ip: IpHeader, bytes: Uint8Array, now: number): void {
    const { flags } = segment
    // RFC 1337: no RST ends TIME-WAIT.
    if ((flags & TcpFlag.rst) !== 0) return
    if ((flags & (TcpFlag.syn | TcpFlag.ack)) === TcpFlag.syn) {
      // RFC 9293 §3.6.1 and RFC 6191 §2: a new connection that can be told from the old one.
      const newer =
        segment.hasTimestamps && entry.timestampOffset !== null
          ? before(entry.timestampRecent, segment.timestamp)
          : before(entry.received, segment.sequence)
      if (newer) {
        this.#endTimeWait(entry)
        this.#noFlow(segment, ip, bytes, now, (entry.next + 0x10000) | 0)
        return
      }
    }
    const isFin = (flags & TcpFlag.fin) !== 0 && ((segment.sequence + segment.payloadBytes + 1) | 0) === entry.received
    if (isFin) {
      entry.deadline = now + this.settings.timeWaitMs
      this.timers.update(entry)
    } else {
      // A bare ACK in its place wants no answer: two ends in TIME-WAIT would answer each other's answers.
      const isBare = segment.payloadBytes === 0 && (flags & (TcpFlag.syn | TcpFlag.fin)) === 0
      if ((isBare && segment.sequence === entry.received) || now - entry.answeredAt < TIME_WAIT_ANSWER_MS) return
      entry.answeredAt = now
    }
    if (this.#resets.take(1, now)) this.#acknowledge(entry, now)
  }

  #acknowledge(entry: TimeWait, now: number): void {
    this.#modules.replies.segment({
      local: entry.local,
      remote: entry.remote,
      sequence: entry.next,
      acknowledgment: entry.received,
      reset: false,
      window: 0xffff,
      timestamp: entry.timestampOffset === null ? null : (Math.floor(now) + entry.timestampOffset) | 0,
      timestampEcho: entry.timestampRecent,
    })
  }

  #endTimeWait(entry: TimeWait): void {
    this.#timeWaits.delete(entry)
    this.#table.remove(entry)
    this.timers.remove(entry)
  }

  /** ICMP about a segment of ours: from `local` to `remote`, with that sequence number. */
  icmp(kind: IcmpErrorKind, local: Endpoint, remote: Endpoint, sequence: number, mtu: number, now: number): void {
    const flow = this.#find(addressWords(remote.address.bytes, local.address.bytes), remote.port, local.port)
    if (!(flow instanceof TcpConnection)) return
    if (kind === 'packet-too-big') {
      if (!flow.isInFlight(sequence)) return
      this.#modules.pathMtus.set(remote.address, mtu, now)
      flow.setPathMtu(mtu)
    } else
      flow.handleIcmp(
        kind === 'protocol-unreachable' || kind === 'port-unreachable' || kind === 'prohibited' ? 'hard' : 'soft',
        sequence,
        now,
      )
    this.touch(flow)
  }

  // --- memory

  /** Call now and then: makes room when a buffer was refused its memory. Peers that hold it without using it pay first (RFC 6429). */
  relieve(now: number): void {
    if (!this.budget.exhausted || now - this.#relievedAt < RELIEF_PERIOD_MS) return
    this.budget.exhausted = false
    this.#relievedAt = now
    const stalled: TcpConnection[] = []
    for (const connection of this.all()) {
      connection.prune()
      if (now - connection.stalledAt >= this.#limits.stalledMs) stalled.push(connection)
    }
    stalled.sort((a, b) => a.stalledAt - b.stalledAt)
    for (const connection of stalled) {
      if (this.budget.used <= this.budget.limit * RELIEVED_SHARE) return
      connection.drop('overloaded', now)
    }
  }

  // --- what goes out

  /** Lets each connection that has something to send have its turn, until the batch is full. */
  output(batch: PacketBatch, now: number): void {
    while (this.#readyFrom < this.#ready.length) {
      const connection = this.#ready[this.#readyFrom]!
      if (!connection.emit(batch, now)) {
        this.#readyFrom++
        connection.outputQueued = false
        continue
      }
      if (batch.reserve(this.#modules.pathMtus.linkMtu) < 0) break
      // It had its turn, and has more: the others first.
      this.#readyFrom++
      this.#ready.push(connection)
    }
    if (this.#readyFrom === this.#ready.length) {
      this.#ready.length = 0
      this.#readyFrom = 0
    } else if (this.#readyFrom > 256) {
      this.#ready = this.#ready.slice(this.#readyFrom)
      this.#readyFrom = 0
    }
  }

  get hasOutput(): boolean {
    return this.#readyFrom < this.#ready.length
  }

  // --- events

  nextEvent(): StackEvent | null {
    while (this.#noticedFrom < this.#noticed.length) {
      const connection = this.#noticed[this.#noticedFrom]!
      const event = this.#takeNotice(connection)
      if (connection.notices === 0) {
        this.#noticedFrom++
        if (this.#noticedFrom === this.#noticed.length) {
          this.#noticed.length = 0
          this.#noticedFrom = 0
        } else if (this.#noticedFrom > 1024) {
          this.#noticed.splice(0, this.#noticedFrom)
          this.#noticedFrom = 0
        }
      }
      if (event !== null) return event
    }
    return null
  }

  #takeNotice(connection: TcpConnection): StackEvent | null {
    const { notices } = connection
    const one = notices & -notices
    connection.notices = notices & ~one
    switch (one) {
      case Notice.incoming: {
        const listener = this.#halfOpen.get(connection)
        return listener ? { type: 'incoming', connection, listener } : null
      }
      case Notice.connected:
        return { type: 'connected', connection }
      case Notice.readable:
        return connection.readable > 0 ? { type: 'readable', connection } : null
      case Notice.drained:
        return connection.writable > 0 ? { type: 'drained', connection } : null
      case Notice.remoteEnd:
        return { type: 'remote-end', connection }
      case Notice.closed:
        return { type: 'closed', connection, reason: connection.closeReason! }
      default:
        return null
    }
  }

  // --- ConnectionHost

  wantsOutput(connection: TcpConnection): void {
    if (connection.outputQueued) return
    connection.outputQueued = true
    this.#ready.push(connection)
  }

  touch(connection: TcpConnection): void {
    this.timers.update(connection)
  }

  notify(connection: TcpConnection, notice: number): void {
    if (notice === Notice.closed && (connection.notices & Notice.incoming) !== 0) {
      // Nobody was told that it was there.
      connection.notices = 0
      return
    }
    if (connection.notices === 0) this.#noticed.push(connection)
    connection.notices |= notice
  }

  countRetransmission(): void {
    this.retransmissions++
  }

  leftHalfOpen(connection: TcpConnection): void {
    this.#halfOpen.delete(connection)
  }

  detach(connection: TcpConnection, timeWait: boolean, now: number): void {
    this.#table.remove(connection)
    this.timers.remove(connection)
    if (!timeWait) return
    const entry = new TimeWait(connection, now + this.settings.timeWaitMs, (expired) => this.#endTimeWait(expired))
    // Of the FIN that brought us here: the connection itself says nothing any more.
    this.#acknowledge(entry, now)
    if (this.settings.timeWaitMs <= 0 || this.#limits.timeWaits === 0) return
    if (this.#timeWaits.size >= this.#limits.timeWaits) this.#endTimeWait(this.#timeWaits.values().next().value!)
    this.#timeWaits.add(entry)
    this.#table.add(entry)
    this.timers.update(entry)
  }

  reset(connection: TcpConnection, sequence: number, acknowledgment: number | null): void {
    this.#modules.replies.segment({
      local: connection.local,
      remote: connection.remote,
      sequence,
      acknowledgment,
      reset: true,
      window: 0,
      timestamp: null,
      timestampEcho: 0,
    })
  }

  refuse(connection: TcpConnection, kind: IcmpErrorKind): void {
    const { local, remote } = connection
    // The SYN as its sender knows it: the IP header and the eight bytes that name the flow (RFC 792).
    const quoted = new Uint8Array(ipHeaderBytes(local.address.bytes.length) + 8)
    const view = new DataView(quoted.buffer)
    const fields = { source: remote.address.bytes, destination: local.address.bytes, protocol: Protocol.tcp, hopLimit: 1 }
    const at = writeIp(quoted, view, 0, fields, 20)
    view.setUint16(at, remote.port)
    view.setUint16(at + 2, local.port)
    view.setInt32(at + 4, connection.initialReceived)
    this.#modules.replies.error(kind, local.address, remote.address, quoted)
  }
}

function tupleBytes(local: Endpoint, remote: Endpoint): Uint8Array {
  const size = local.address.bytes.length
  const bytes = new Uint8Array(1 + 2 * size + 4)
  bytes[0] = size
  bytes.set(local.address.bytes, 1)
  bytes.set(remote.address.bytes, 1 + size)
  new DataView(bytes.buffer).setUint32(1 + 2 * size, (local.port << 16) | remote.port)
  return bytes
}
