import { assert, type IpAddress, ipFromBytes, type Random, type ShallotError, TokenBucket } from '../../base/index.ts'
import { Deadline, type ReadBuffers } from '../../drive/index.ts'
import { type Datagram, Stack, type StackEvent } from '../../netstack/index.ts'
import {
  type IcmpErrorKind,
  IcmpHeader,
  IpHeader,
  newPortStats,
  type PacketBatch,
  type PacketPort,
  type PacketPortHandlers,
  Protocol,
  transportChecksumHolds,
} from '../../packet/index.ts'
import type { PacketUse } from '../packet-backend.ts'
import type { LeaseAddress } from './lease-addresses.ts'
import { LeaseEchoes } from './lease-echoes.ts'
import { leaseStackLimits, leaseTcpSettings, netstackLimits } from './limits.ts'
import { OwnPackets } from './own-packets.ts'
import type { Pings } from './pings.ts'
import { TcpFlow } from './tcp-flow.ts'
import { UdpPorts } from './udp-ports.ts'

/** Counts of all leases of a backend; see PacketCounts. */
export interface LeaseTally {
  packetsIn: number
  packetsOut: number
  bytesIn: number
  bytesOut: number
  /** Of the stacks that are over; `addStackTo` has those of the others. */
  retransmissions: number
  readonly dropped: Record<string, number>
}

export interface NetstackLeaseModules {
  readonly address: LeaseAddress
  readonly gateway: (family: 4 | 6) => IpAddress
  /** Whether an address is of the lease networks. */
  readonly isLease: (address: IpAddress) => boolean
  readonly mtu: number
  readonly use: PacketUse
  readonly pings: Pings
  readonly buffers: ReadBuffers
  /** What is delivered, of one lease at a time: shared by all. */
  readonly batch: PacketBatch
  readonly udpIdleTimeoutMs: number
  readonly random: Random
  /** Keyed; 32 bits. */
  readonly hash: (bytes: Uint8Array) => number
  readonly tally: LeaseTally
  /** Monotonic ms. */
  readonly now: () => number
  /** Runs a task in a later turn, in order: `setImmediate`, or a test's own. */
  readonly soon: (task: () => void) => void
  /** The memory of its connections has changed. */
  readonly memoryChanged: (lease: NetstackLease, before: number, after: number) => void
  /** Called once when it is over. */
  readonly closed: (lease: NetstackLease) => void
}

const FRAGMENTED_HOP_LIMIT = 63

/**
 * A client's raw packets, ended in userspace. What the client sends is looked at first (source, hop limit, protocol); TCP and UDP then go to a stack
 * of the lease's own that takes every address for its own, echo requests to the exit's ping sockets. What can't go on is answered with ICMP.
 *
 * Packets are worked on within `send`, where they lie; answers are delivered in a later turn, many together. A client that takes nothing holds its
 * stack back: TCP waits, the rest is dropped when its small queues are full.
 */
export class NetstackLease implements PacketPort {
  readonly name = 'netstack lease'
  readonly medium = 'ip'
  readonly mtu: number
  readonly stats = newPortStats()
  lastActive: number
  readonly #m: NetstackLeaseModules
  readonly #ip = new IpHeader()
  readonly #icmp = new IcmpHeader()
  readonly #own: OwnPackets
  readonly #udp: UdpPorts
  readonly #deadline: Deadline
  readonly #errors: TokenBucket
  readonly #echoes: LeaseEchoes
  /** Made with the first packet that needs it: a lease that only pings has none. */
  #stack: Stack | null = null
  /** Packets given to the stack as packets of no version, since they were not its: it takes them for malformed. */
  #neutralised = 0
  #memory = 0
  #handlers: PacketPortHandlers | null = null
  #scheduled = false
  #isRunning = false
  #paused = false
  #ended = false

  constructor(modules: NetstackLeaseModules) {
    const { mtu, use, pings, gateway, isLease, udpIdleTimeoutMs, now } = modules
    this.#m = modules
    this.mtu = mtu
    this.lastActive = now()
    this.#own = new OwnPackets(netstackLimits.ownPackets, mtu)
    this.#udp = new UdpPorts({
      use,
      idleTimeoutMs: udpIdleTimeoutMs,
      receive: (port, from, fromPort, data) => this.#datagramBack(port, from, fromPort, data),
    })
    this.#deadline = new Deadline({ pollTimeout: () => this.#stack?.deadline ?? null }, now, () => {
      this.#stack?.poll(now())
      this.#run()
    })
    this.#errors = new TokenBucket(netstackLimits.icmpErrorsPerSecond, netstackLimits.icmpErrorsPerSecond, now())
    this.#echoes = new LeaseEchoes({
      use,
      pings,
      own: this.#own,
      client: (family) => this.#client(family),
      gateway,
      isLease,
      mtu,
      sendLong: (reply) => {
        this.#stack ??= this.#makeStack()
        if (!this.#stack.sendEcho('echo-reply', reply)) this.#drop('limit')
      },
      drop: (reason) => this.#drop(reason),
      mayTell: () => this.#errors.take(1, now()),
      touch: this.#touch,
      now,
    })
  }

  // --- the port

  attach(handlers: PacketPortHandlers): void {
    assert(this.#handlers === null, 'a port is attached once')
    this.#handlers = handlers
    this.#touch()
  }

  send(batch: PacketBatch, from = 0): number {
    const count = batch.count - from
    if (this.#ended) return count
    const now = this.#m.now()
    const { tally } = this.#m
    this.lastActive = now
    let forStack = 0
    for (let i = from; i < batch.count; i++) {
      const length = batch.end(i) - batch.start(i)
      this.stats.sentPackets++
      this.stats.sentBytes += length
      tally.packetsIn++
      tally.bytesIn += length
      if (this.#takes(batch, batch.start(i), batch.end(i), now)) forStack++
      // What is not the stack's is nothing to it from now on: a packet of no version.
      else batch.bytes[batch.start(i)] = 0
    }
    if (forStack > 0) {
      for (let i = 0; i < from; i++) batch.bytes[batch.start(i)] = 0
      this.#stack ??= this.#makeStack()
      this.#neutralised += batch.count - forStack
      this.#stack.input(batch, now)
      this.#touch()
    }
    return count
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#touch()
  }

  close(): void {
    this.#end(null)
  }

  // --- for the backend

  /** Memory of its connections, in bytes. */
  get memory(): number {
    return this.#memory
  }

  /** Whether something is open that a closed lease would cut off. */
  get isInUse(): boolean {
    return this.udpPorts > 0 || this.tcpConnections > 0
  }

  get tcpConnections(): number {
    return this.#stack?.facts.connections ?? 0
  }

  get udpPorts(): number {
    return this.#udp.size
  }

  /** Adds what its parts count for themselves. */
  addStackTo(tally: LeaseTally): void {
    addDropped(tally, 'queue', this.#own.dropped)
    if (this.#stack === null) return
    const { retransmissions, malformed, ignored, droppedPackets, droppedEvents } = this.#stack.facts
    tally.retransmissions += retransmissions
    addDropped(tally, 'malformed', malformed - this.#neutralised)
    addDropped(tally, 'protocol', ignored)
    addDropped(tally, 'queue', droppedPackets + droppedEvents)
  }

  /** Resets every connection: the exit has no memory left. */
  shed(): void {
    this.#drop('memory')
    this.#stack?.stop(this.#m.now())
    this.#run()
  }

  sweep(now: number): void {
    this.#udp.sweep(now)
  }

  // --- what the client sends

  /** Whether the packet is the stack's; all else is dealt with here. */
  #takes(batch: PacketBatch, start: number, end: number, now: number): boolean {
    const ip = this.#ip
    const { bytes, view } = batch
    if (end - start > this.mtu || ip.parse(view, start, end) !== null) return this.#drop('malformed')
    if (!this.#isFromClient(bytes, ip)) return this.#drop('source')
    if (ip.hopLimit <= 1) return this.#expired(bytes, view, ip, now)
    switch (ip.protocol) {
      case Protocol.tcp:
      case Protocol.udp:
        return true
      case Protocol.icmp:
      case Protocol.icmp6:
        if ((ip.protocol === Protocol.icmp) !== (ip.version === 4)) break
        return this.#isForStack(bytes, view, ip)
    }
    this.#refuse('protocol-unreachable', bytes, ip, now)
    return this.#drop('protocol')
  }

  #isFromClient(bytes: Uint8Array, ip: IpHeader): boolean {
    const own = this.#client(ip.version)
    if (own === null) return false
    for (let i = 0; i < own.bytes.length; i++) if (own.bytes[i] !== bytes[ip.sourceAt + i]) return false
    return true
  }

  /** RFC 1812 §5.3.1: this is where a router would say so. */
  #expired(bytes: Uint8Array, view: DataView, ip: IpHeader, now: number): false {
    const isOurs = this.#echoes.isGateway(destinationOf(ip, bytes)) && (ip.protocol === Protocol.icmp || ip.protocol === Protocol.icmp6)
    if (isOurs && !ip.isFragment) {
      this.#isForStack(bytes, view, ip)
      return false
    }
    this.#refuse('time-exceeded', bytes, ip, now)
    return this.#drop('hop-limit')
  }

  /** ICMP errors and what comes in fragments are the stack's; whole echo requests are not, since it does not tell their hop limit. */
  #isForStack(bytes: Uint8Array, view: DataView, ip: IpHeader): boolean {
    if (ip.isFragment) return true
    const icmp = this.#icmp
    const isSound = icmp.parse(view, ip.payloadStart, ip.end, ip.version) === null && (ip.version === 4 || transportChecksumHolds(view, ip))
    if (!isSound) return this.#drop('malformed')
    if (icmp.kind !== 'echo-request') return icmp.isError || this.#drop('protocol')
    const to = destinationOf(ip, bytes)
    if (!isUnicast(to)) return this.#drop('protocol')
    const data = bytes.subarray(icmp.bodyStart, icmp.end)
    const { identifier, sequence } = icmp
    this.#echoes.send({ to, identifier, sequence, data, hopLimit: ip.hopLimit - 1 })
    return false
  }

  #drop(reason: string): false {
    addDropped(this.#m.tally, reason, 1)
    return false
  }

  /** Answers a packet with an ICMP error of the gateway's, as far as one may be (RFC 1122 §3.2.2, RFC 4443 §2.4 e). */
  #refuse(kind: IcmpErrorKind, bytes: Uint8Array, ip: IpHeader, now: number): void {
    const to = this.#client(ip.version)
    if (to === null) return
    if (ip.fragmentOffset !== 0 || !isUnicast(destinationOf(ip, bytes)) || isIcmpError(bytes, ip) || !this.#errors.take(1, now)) return
    this.#own.error(kind, this.#m.gateway(ip.version), to, bytes.subarray(ip.start, ip.end))
    this.#touch()
  }

  #client(family: 4 | 6): IpAddress | null {
    return family === 4 ? this.#m.address.address4 : this.#m.address.address6
  }

  // --- the stack

  #makeStack(): Stack {
    const { mtu, random, hash } = this.#m
    const stack = new Stack({
      addresses: [],
      mtu: Math.max(1280, mtu),
      promiscuous: true,
      echo: 'tell',
      random,
      hash,
      limits: leaseStackLimits,
      tcp: leaseTcpSettings,
    })
    stack.listen({ address: null, port: null })
    return stack
  }

  #handle(event: StackEvent, now: number): void {
    switch (event.type) {
      case 'incoming': {
        const { use, buffers, isLease } = this.#m
        if (isLease(event.connection.local.address)) {
          this.#drop('policy')
          event.connection.refuse('prohibited')
          return
        }
        const refused = (reason: string) => this.#drop(reason)
        const flow = new TcpFlow(event.connection, { use, buffers, touch: this.#touch, refused })
        event.connection.context = flow
        void flow.open()
        return
      }
      case 'readable':
      case 'remote-end':
        flowOf(event)?.pump()
        return
      case 'drained':
        flowOf(event)?.drained()
        return
      case 'closed':
        flowOf(event)?.closed(event.reason === 'done')
        return
      case 'datagram':
        this.#datagram(event, now)
        return
      case 'echo-request': {
        // It came in fragments; how far it may go is not known any more.
        const { to, identifier, sequence, data } = event
        this.#echoes.send({ to, identifier, sequence, data, hopLimit: FRAGMENTED_HOP_LIMIT })
        return
      }
      case 'undelivered':
        if (event.protocol === 'udp' && event.kind === 'port-unreachable') this.#udp.forget(event.to.port)
    }
  }

  #datagram(datagram: Datagram, now: number): void {
    const { use, isLease, gateway } = this.#m
    const { address, port } = datagram.to
    const isAllowed = !isLease(address) && use.allows(address, port)
    if (isAllowed && this.#udp.send(datagram, now)) return
    this.#drop(isAllowed ? 'limit' : 'policy')
    this.#stack?.refuseDatagram(datagram, 'prohibited', now, gateway(address.family))
  }

  #datagramBack(port: number, from: IpAddress, fromPort: number, data: Uint8Array): void {
    const client = this.#client(from.family)
    if (client === null) return
    const datagram = { from: { address: from, port: fromPort }, to: { address: client, port }, data }
    if (!this.#stack?.sendDatagram(datagram, this.#m.now())) {
      this.#run()
      if (!this.#stack?.sendDatagram(datagram, this.#m.now())) this.#drop('limit')
    }
    this.#touch()
  }

  // --- towards the client

  readonly #touch = (): void => {
    if (this.#scheduled || this.#ended || this.#handlers === null) return
    this.#scheduled = true
    this.#m.soon(() => {
      this.#scheduled = false
      this.#run()
    })
  }

  #run(): void {
    if (this.#isRunning || this.#ended || this.#handlers === null) return
    const stack = this.#stack
    const now = this.#m.now()
    this.#isRunning = true
    try {
      if (stack) for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) this.#handle(event, now)
      this.#deliver(stack, now)
    } finally {
      this.#isRunning = false
    }
    if (this.#ended || !stack) return
    const memory = stack.facts.bufferBytes
    if (memory !== this.#memory) {
      const before = this.#memory
      this.#memory = memory
      this.#m.memoryChanged(this, before, memory)
    }
    this.#deadline.update()
  }

  #deliver(stack: Stack | null, now: number): void {
    const { batch } = this.#m
    if (!this.#paused) this.#own.take((own) => this.#give(own))
    for (let given = 0; stack && !this.#paused && !this.#ended; given++) {
      if (given === netstackLimits.turnBatches) {
        this.#touch()
        return
      }
      batch.clear()
      if (stack.output(batch, now) === 0) return
      this.#give(batch)
    }
  }

  #give(batch: PacketBatch): void {
    const bytes = batch.totalBytes
    const { tally } = this.#m
    this.stats.receivedPackets += batch.count
    this.stats.receivedBytes += bytes
    tally.packetsOut += batch.count
    tally.bytesOut += bytes
    this.#handlers?.packets(batch)
  }

  #end(error: ShallotError | null): void {
    if (this.#ended) return
    const { now, memoryChanged, closed } = this.#m
    const stack = this.#stack
    this.#ended = true
    this.addStackTo(this.#m.tally)
    this.#stack = null
    this.#deadline.stop()
    this.#udp.close()
    this.#echoes.close()
    if (stack) {
      stack.stop(now())
      for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent())
        if (event.type === 'closed') flowOf(event)?.closed(false)
      memoryChanged(this, this.#memory, 0)
    }
    closed(this)
    this.#m.soon(() => this.#handlers?.ended(error))
  }
}

function addDropped({ dropped }: LeaseTally, reason: string, count: number): void {
  if (count > 0) dropped[reason] = (dropped[reason] ?? 0) + count
}

function flowOf(event: { readonly connection: { readonly context: unknown } }): TcpFlow | null {
  return event.connection.context as TcpFlow | null
}

function destinationOf(ip: IpHeader, bytes: Uint8Array): IpAddress {
  return ipFromBytes(bytes.slice(ip.destinationAt, ip.destinationAt + ip.addressBytes))
}

/** Not multicast, not broadcast, not unspecified: what may be answered. */
function isUnicast({ family, bytes }: IpAddress): boolean {
  if (family === 4) return bytes[0]! !== 0 && bytes[0]! < 224
  return bytes[0] !== 0xff && bytes.some((byte) => byte !== 0)
}

function isIcmpError(bytes: Uint8Array, ip: IpHeader): boolean {
  const type = bytes[ip.payloadStart]!
  if (ip.protocol === Protocol.icmp) return type !== 0 && type !== 8
  return ip.protocol === Protocol.icmp6 && type < 128
}
