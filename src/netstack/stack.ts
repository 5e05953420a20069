import { assert, equalBytes, type IpAddress, ipFromBytes, type Random, ShallotError, TokenBucket } from '../base/index.ts'
import {
  ICMP_HEADER_BYTES,
  type IcmpErrorKind,
  IcmpHeader,
  IPV6_HEADER_BYTES,
  IpHeader,
  ipHeaderBytes,
  MAX_IP_PACKET_BYTES,
  type PacketBatch,
  Protocol,
  transportChecksumHolds,
  UDP_HEADER_BYTES,
  UdpHeader,
  writeIp,
  writeUdp,
} from '../packet/index.ts'
import type { Endpoint } from './endpoint.ts'
import { EventQueue } from './event-queue.ts'
import type { Datagram, Echo, StackEvent } from './events.ts'
import { readIcmpError } from './icmp-errors.ts'
import { defaultLimits, defaultTcpSettings, type StackLimits, type TcpSettings } from './limits.ts'
import type { Listener, ListenOn } from './listeners.ts'
import { Outbox } from './outbox.ts'
import { PathMtus } from './path-mtus.ts'
import { Reassembly } from './reassembly.ts'
import { Replies } from './replies.ts'
import { SMALLEST_PATH_MTU, type TcpConnection } from './tcp/connection.ts'
import { TcpEngine } from './tcp-engine.ts'

export interface StackOptions {
  /** Our own addresses: what is sent to them is for us, what we open comes from the first of its family. */
  readonly addresses: readonly IpAddress[]
  /** Of the link; packets that go out are no larger. 1280 to 65535. */
  readonly mtu: number
  /** Takes packets to any address as its own: what a TUN that carries a whole machine needs. Default false. */
  readonly promiscuous?: boolean
  /** What becomes of echo requests: answered here (default), given to the application, or dropped. */
  readonly echo?: 'answer' | 'tell' | 'drop'
  /** What becomes of datagrams: given to the application (default), or answered with "port unreachable". */
  readonly datagrams?: 'tell' | 'refuse'
  readonly random: Random
  /** A keyed hash of 32 bits that nobody else can compute: initial sequence numbers and timestamps come from it (RFC 6528). */
  readonly hash: (bytes: Uint8Array) => number
  readonly limits?: Partial<StackLimits>
  readonly tcp?: Partial<TcpSettings>
}

/** What a stack did with packets that it did not take. */
export interface StackCounters {
  packets: number
  /** Not well formed, or with a wrong checksum. */
  malformed: number
  /** To an address that is not ours, from one that nobody can have, or of an unknown protocol. */
  ignored: number
  fragments: number
  reassembled: number
}

/**
 * A TCP/IP stack as a function of its inputs: packets, calls and the time go in; packets, events and a deadline come out. It has no clock, no
 * socket and no timer. `now` is monotonic milliseconds and never goes back.
 *
 * After any call (of the stack or of a connection): take `nextEvent()` until null, then `output()` while the port has room and it gives packets,
 * then wait for packets, for the application, or until `deadline` and call `poll()`.
 */
export class Stack {
  readonly counters: StackCounters = { packets: 0, malformed: 0, ignored: 0, fragments: 0, reassembled: 0 }
  readonly #options: StackOptions
  readonly #limits: StackLimits
  readonly #tcp: TcpEngine
  readonly #outbox: Outbox
  readonly #replies: Replies
  readonly #reassembly: Reassembly
  readonly #pathMtus: PathMtus
  readonly #events: EventQueue
  readonly #icmpErrors: TokenBucket
  readonly #ip = new IpHeader()
  readonly #udp = new UdpHeader()
  readonly #icmp = new IcmpHeader()

  constructor(options: StackOptions) {
    assert(options.mtu >= 1280 && options.mtu <= 65_535, 'the MTU is 1280 to 65535')
    this.#options = options
    this.#limits = { ...defaultLimits, ...options.limits }
    this.#outbox = new Outbox(this.#limits.outboxPackets, this.#limits.outboxBytes)
    this.#replies = new Replies(this.#outbox, options.random)
    this.#reassembly = new Reassembly(this.#limits)
    this.#pathMtus = new PathMtus(options.mtu, this.#limits.pathMtus)
    this.#events = new EventQueue(this.#limits.queuedEvents, this.#limits.queuedEventBytes)
    this.#icmpErrors = new TokenBucket(this.#limits.icmpErrorsPerSecond, this.#limits.icmpErrorsPerSecond, 0)
    this.#tcp = new TcpEngine({
      settings: { ...defaultTcpSettings, ...options.tcp },
      limits: this.#limits,
      random: options.random,
      hash: options.hash,
      replies: this.#replies,
      pathMtus: this.#pathMtus,
    })
  }

  // --- the application's side

  /** Opens a connection: 'connected' or 'closed' follows. @throws ShallotError 'netstack-limit', 'netstack-no-address', 'netstack-no-port', 'netstack-address-in-use' */
  dial(to: Endpoint, now: number, from?: { readonly address: IpAddress; readonly port?: number }): TcpConnection {
    const address = from?.address ?? this.#options.addresses.find(({ family }) => family === to.address.family)
    if (address === undefined || address.family !== to.address.family) {
      throw new ShallotError('netstack-no-address', 'the stack has no address of that family', { kind: 'host', retry: 'never' })
    }
    return this.#tcp.dial({ address, port: from?.port ?? null }, to, now)
  }

  /** Takes connections to an address and port; null is any of them. @throws ShallotError 'netstack-limit', 'netstack-address-in-use' */
  listen(on: ListenOn): Listener {
    const { listeners } = this.#tcp
    if (listeners.size >= this.#limits.listeners) {
      throw new ShallotError('netstack-limit', 'as many listeners as the stack may have', { kind: 'host', retry: 'later' })
    }
    const listener = listeners.add(on)
    if (listener === null) {
      throw new ShallotError('netstack-address-in-use', 'there is a listener on this address and port', { kind: 'host', retry: 'never' })
    }
    return listener
  }

  /** Sends a datagram, in fragments if it must be. False: no room now, or it is longer than a datagram can be. */
  sendDatagram(datagram: Datagram, now: number): boolean {
    if (datagram.data.length > 65_535 - UDP_HEADER_BYTES - (datagram.from.address.family === 4 ? 20 : 0)) return false
    return this.#replies.datagram(datagram, this.#pathMtus.get(datagram.to.address, now))
  }

  /** Sends an echo request or reply, in fragments if it must be. False: no room now, or it is longer than a packet can be. */
  sendEcho(kind: 'echo-request' | 'echo-reply', echo: Echo): boolean {
    if (echo.data.length > 65_535 - ICMP_HEADER_BYTES - (echo.from.family === 4 ? 20 : 0)) return false
    return this.#replies.echo(kind, echo, this.#options.mtu)
  }

  /** Says that a datagram did not arrive, in the name of where it went (or of `reporter`). At most `icmpErrorsPerSecond`. */
  refuseDatagram(datagram: Datagram, kind: IcmpErrorKind, now: number, reporter = datagram.to.address, mtu = 0): boolean {
    if (!this.#icmpErrors.take(1, now)) return false
    const { from, to, data } = datagram
    const headers = ipHeaderBytes(from.address.bytes.length) + UDP_HEADER_BYTES
    const quoted = new Uint8Array(headers + Math.min(data.length, 512))
    const view = new DataView(quoted.buffer)
    const fields = { source: from.address.bytes, destination: to.address.bytes, protocol: Protocol.udp, hopLimit: 1 }
    const at = writeIp(quoted, view, 0, fields, UDP_HEADER_BYTES + data.length)
    quoted.set(data.subarray(0, quoted.length - headers), writeUdp(view, at, from.port, to.port, data.length))
    return this.#replies.error(kind, reporter, from.address, quoted, mtu)
  }

  /** The next thing to tell; null when there is none. */
  nextEvent(): StackEvent | null {
    return this.#tcp.nextEvent() ?? this.#events.take()
  }

  /** Resets all connections; TIME-WAITs stay until their time. */
  stop(now: number): void {
    for (const connection of [...this.#tcp.all()]) connection.drop('aborted', now)
  }

  /** For people, limits and tests. */
  get facts() {
    return {
      connections: this.#tcp.connections,
      halfOpen: this.#tcp.halfOpen,
      timeWaits: this.#tcp.timeWaits,
      timers: this.#tcp.timers.size,
      bufferBytes: this.#tcp.budget.used,
      reassemblies: this.#reassembly.size,
      reassemblyBytes: this.#reassembly.memory,
      droppedEvents: this.#events.dropped,
      droppedPackets: this.#outbox.dropped,
      retransmissions: this.#tcp.retransmissions,
      ...this.counters,
    }
  }

  // --- the link's side

  /** Packets that came in; the batch is only read, and not kept. */
  input(batch: PacketBatch, now: number): void {
    const { bytes, view } = batch
    for (let i = 0; i < batch.count; i++) this.#packet(bytes, view, batch.start(i), batch.end(i), now)
    this.#tcp.relieve(now)
  }

  /** Does what is due. */
  poll(now: number): void {
    this.#tcp.timers.run(now)
    this.#tcp.relieve(now)
    if (this.#reassembly.deadline <= now) {
      this.#reassembly.expire(now, (header) => this.#tellExpired(header, now))
    }
  }

  /** Appends packets that are to be sent, while the batch has room; returns how many. */
  output(batch: PacketBatch, now: number): number {
    const before = batch.count
    if (this.#outbox.moveTo(batch)) this.#tcp.output(batch, now)
    return batch.count - before
  }

  /** Whether `output` would give something (perhaps: a connection may find that it has nothing to say). */
  get hasOutput(): boolean {
    return !this.#outbox.isEmpty || this.#tcp.hasOutput
  }

  /** When `poll` is to be called at the latest; null: not before something happens. */
  get deadline(): number | null {
    const reassembly = this.#reassembly.deadline
    const timers = this.#tcp.timers.deadline ?? Number.POSITIVE_INFINITY
    const at = Math.min(reassembly, timers)
    return at === Number.POSITIVE_INFINITY ? null : at
  }

  #packet(bytes: Uint8Array, view: DataView, start: number, end: number, now: number): void {
    const ip = this.#ip
    this.counters.packets++
    if (ip.parse(view, start, end) !== null) {
      this.counters.malformed++
      return
    }
    if (!this.#isForUs(ip, bytes)) {
      this.counters.ignored++
      return
    }
    if (ip.refusedOption) {
      this.counters.malformed++
      return
    }
    if (ip.isFragment) {
      this.counters.fragments++
      const whole = this.#reassembly.add(ip, bytes, now)
      if (whole === null || whole.length > MAX_IP_PACKET_BYTES) return
      this.counters.reassembled++
      this.#packet(whole, new DataView(whole.buffer), 0, whole.length, now)
      return
    }
    switch (ip.protocol) {
      case Protocol.tcp:
        if (!transportChecksumHolds(view, ip) || !this.#tcp.input(ip, view, bytes, now)) this.counters.malformed++
        return
      case Protocol.udp:
        this.#datagram(ip, view, bytes, now)
        return
      case Protocol.icmp:
      case Protocol.icmp6:
        if ((ip.protocol === Protocol.icmp) === (ip.version === 4)) this.#icmpMessage(ip, view, bytes, now)
        else this.counters.ignored++
        return
      default:
        this.counters.ignored++
        this.#unknownProtocol(ip, bytes, now)
    }
  }

  /** Source and destination are such that one may talk to the other: unicast, and the destination ours. */
  #isForUs(ip: IpHeader, bytes: Uint8Array): boolean {
    if (!isUnicast(bytes, ip.sourceAt, ip.addressBytes) || !isUnicast(bytes, ip.destinationAt, ip.addressBytes)) return false
    if (equalAt(bytes, ip.sourceAt, ip.destinationAt, ip.addressBytes)) return false
    if (this.#options.promiscuous === true) return true
    for (const { bytes: own } of this.#options.addresses) {
      if (own.length !== ip.addressBytes) continue
      let i = 0
      while (i < own.length && own[i] === bytes[ip.destinationAt + i]) i++
      if (i === own.length) return true
    }
    return false
  }

  #datagram(ip: IpHeader, view: DataView, bytes: Uint8Array, now: number): void {
    const udp = this.#udp
    if (udp.parse(view, ip.payloadStart, ip.end, ip.version) !== null || (udp.hasChecksum && !transportChecksumHolds(view, ip))) {
      this.counters.malformed++
      return
    }
    if (udp.destinationPort === 0) return
    if (this.#options.datagrams === 'refuse') {
      this.#error('port-unreachable', ip, bytes, now)
      return
    }
    const length = udp.end - udp.payloadStart
    if (!this.#events.hasRoom(length)) return
    this.#events.push(
      {
        type: 'datagram',
        from: { address: sourceOf(ip, bytes), port: udp.sourcePort },
        to: { address: destinationOf(ip, bytes), port: udp.destinationPort },
        data: bytes.slice(udp.payloadStart, udp.end),
      },
      length,
    )
  }

  #icmpMessage(ip: IpHeader, view: DataView, bytes: Uint8Array, now: number): void {
    const icmp = this.#icmp
    if (icmp.parse(view, ip.payloadStart, ip.end, ip.version) !== null || (ip.version === 6 && !transportChecksumHolds(view, ip))) {
      this.counters.malformed++
      return
    }
    if (icmp.isError) {
      this.#icmpError(ip, view, bytes, now)
      return
    }
    if (icmp.kind === 'other' || (icmp.kind === 'echo-request' && this.#options.echo === 'drop')) return
    const length = icmp.end - icmp.bodyStart
    const answer = icmp.kind === 'echo-request' && (this.#options.echo ?? 'answer') === 'answer'
    if (!answer && !this.#events.hasRoom(length)) return
    const echo: Echo = {
      from: sourceOf(ip, bytes),
      to: destinationOf(ip, bytes),
      identifier: icmp.identifier,
      sequence: icmp.sequence,
      data: bytes.slice(icmp.bodyStart, icmp.end),
    }
    if (!answer) this.#events.push({ type: icmp.kind === 'echo-request' ? 'echo-request' : 'echo-reply', ...echo }, length)
    // All of it, in fragments if it came so (RFC 1122 §3.2.2.6).
    else this.sendEcho('echo-reply', { ...echo, from: echo.to, to: echo.from })
  }

  #icmpError(ip: IpHeader, view: DataView, bytes: Uint8Array, now: number): void {
    const icmp = this.#icmp
    const about = readIcmpError(view, bytes, icmp.bodyStart, icmp.end, ip.version)
    if (about === null || icmp.kind === 'other' || icmp.kind === 'echo-request' || icmp.kind === 'echo-reply') return
    // Only routers of IPv4 may be too old to say it (RFC 1191 §5).
    const mtu = icmp.kind === 'packet-too-big' ? (icmp.mtu === 0 && ip.version === 4 ? about.smallerMtu : icmp.mtu) : 0
    if (about.protocol === Protocol.tcp) {
      // RFC 8201 §4: an IPv6 path takes 1280 bytes, whoever says otherwise.
      if (icmp.kind === 'packet-too-big' && ip.version === 6 && mtu < SMALLEST_PATH_MTU[6]) return
      this.#tcp.icmp(icmp.kind, about.from, about.to, about.sequence, mtu, now)
      return
    }
    if (!this.#events.hasRoom(0)) return
    const protocol = about.protocol === Protocol.udp ? 'udp' : 'icmp'
    this.#events.push(
      { type: 'undelivered', kind: icmp.kind, protocol, from: about.from, to: about.to, reporter: sourceOf(ip, bytes), mtu },
      0,
    )
  }

  #unknownProtocol(ip: IpHeader, bytes: Uint8Array, now: number): void {
    // RFC 1122 §3.2.2.1. In promiscuous mode silence: the destination is not us.
    if (this.#options.promiscuous === true || ip.protocol === Protocol.noNext) return
    // RFC 4443 §3.4: where the number stands that we don't know.
    this.#error('protocol-unreachable', ip, bytes, now, ip.version === 6 ? ip.protocolAt - ip.start : 0)
  }

  #error(kind: IcmpErrorKind, ip: IpHeader, bytes: Uint8Array, now: number, rest = 0): void {
    if (!this.#icmpErrors.take(1, now)) return
    this.#replies.error(kind, destinationOf(ip, bytes), sourceOf(ip, bytes), bytes.subarray(ip.start, ip.end), rest)
  }

  #tellExpired(header: Uint8Array, now: number): void {
    if (!this.#icmpErrors.take(1, now)) return
    const is6 = header.length >= IPV6_HEADER_BYTES && header[0]! >> 4 === 6
    const [source, destination] = is6 ? [header.slice(8, 24), header.slice(24, 40)] : [header.slice(12, 16), header.slice(16, 20)]
    this.#replies.error('reassembly-time-exceeded', ipFromBytes(destination), ipFromBytes(source), header)
  }
}

function sourceOf(ip: IpHeader, bytes: Uint8Array): IpAddress {
  return ipFromBytes(bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes))
}

function destinationOf(ip: IpHeader, bytes: Uint8Array): IpAddress {
  return ipFromBytes(bytes.slice(ip.destinationAt, ip.destinationAt + ip.addressBytes))
}

function equalAt(bytes: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[a + i] !== bytes[b + i]) return false
  return true
}

/** Not multicast, broadcast, loopback, unspecified, or an IPv4 address in IPv6's clothes (RFC 4291 §2.5.5.2: never on the wire). */
function isUnicast(bytes: Uint8Array, at: number, length: number): boolean {
  const first = bytes[at]!
  if (length === 4) return first !== 0 && first !== 127 && first < 224
  if (first === 0xff) return false
  if (first !== 0) return true
  for (let i = 1; i < 10; i++) if (bytes[at + i] !== 0) return true
  return !(bytes[at + 10] === 0xff && bytes[at + 11] === 0xff) && !equalBytes(bytes.subarray(at, at + 16), UNSPECIFIED)
}

const UNSPECIFIED = new Uint8Array(16)
