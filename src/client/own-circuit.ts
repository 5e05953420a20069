import { type Logger, messageOf, nodeKey } from '../base/index.ts'
import { Deadline, flushCells } from '../drive/index.ts'
import type { CellChannel } from '../link/index.ts'
import type { BatchMemory, ChannelEnd, CircuitOutput, ClientCircuitMachine, CloseReason, ResolveAnswer, Target } from '../onion/index.ts'
import type { PacketBatch } from '../packet/index.ts'
import { CircuitDatagrams } from './circuit-datagrams.ts'
import { CircuitBuildError, type CircuitEnd, type CircuitHop, type StreamFacts } from './circuit-facts.ts'
import { CircuitPackets, PACKET_TERMS } from './circuit-packets.ts'
import type { CircuitStream } from './circuit-stream.ts'
import { CircuitStreams } from './circuit-streams.ts'
import { CircuitWatch } from './circuit-watch.ts'
import type { LivenessOptions } from './liveness.ts'
import type { StreamTold } from './open-streams.ts'
import type { DatagramAssociation, PacketLease } from './service.ts'
import { StreamError } from './stream-error.ts'
import { Waiting } from './waiting.ts'

interface Waiter<T> {
  readonly resolve: (value: T) => void
  readonly reject: (error: Error) => void
}

export interface OwnCircuitModules {
  readonly machine: ClientCircuitMachine
  readonly channel: CellChannel
  readonly memory: BatchMemory
  readonly liveness: LivenessOptions
  readonly now: () => number
  readonly logger: Logger
  /** A stream, a question or an association is over. */
  readonly streamEnded: () => void
  /** A stream, an association or a lease began or ended, for whoever shows them. */
  readonly streamTold?: StreamTold
  /** The circuit has become doubtful, or is no more. */
  readonly doubted: () => void
  readonly closed: (end: CircuitEnd) => void
}

/** The driver of one circuit of ours: carries between the machine, the channel to the guard, and the streams that applications hold. */
export class OwnCircuit {
  readonly #m: OwnCircuitModules
  readonly #machine: ClientCircuitMachine
  readonly #channel: CellChannel
  readonly #streams: CircuitStreams
  readonly #resolving = new Waiting<readonly ResolveAnswer[]>()
  readonly #datagrams: CircuitDatagrams
  readonly #leasing = new Waiting<PacketLease>()
  readonly #packets: CircuitPackets
  /** Packets are in an application's hands: what it does now is carried out after. */
  #isDelivering = false
  #extending: Waiter<number> | null = null
  #pinging: Waiter<number>[] = []
  readonly #deadline: Deadline
  readonly #watch: CircuitWatch
  #silent: number | null = null
  #scheduled = false
  #usedAt: number | null = null
  #end: CircuitEnd | null = null
  /** Of raw packets, from and to the exit. */
  readonly #packetBytes = { in: 0, out: 0 }

  constructor(modules: OwnCircuitModules) {
    this.#m = modules
    this.#machine = modules.machine
    this.#channel = modules.channel
    this.#deadline = new Deadline(modules.machine, modules.now, () => {
      this.#machine.handleTimeout(this.#m.now())
      this.#flush()
    })
    const told: StreamTold = modules.streamTold ?? (() => {})
    this.#streams = new CircuitStreams({
      machine: modules.machine,
      memory: modules.memory,
      now: modules.now,
      told,
      isOver: () => this.#end !== null,
      sent: () => this.#watch.sent(),
      flushSoon: () => this.#schedule(),
      streamEnded: modules.streamEnded,
    })
    this.#datagrams = new CircuitDatagrams(modules.now, told)
    this.#packets = new CircuitPackets({
      send: (stream, batch, from, to) => this.#sendPackets(stream, batch, from, to),
      close: (stream) => this.#closePackets(stream),
      now: modules.now,
      told,
    })
    this.#watch = new CircuitWatch({
      machine: modules.machine,
      options: modules.liveness,
      now: modules.now,
      flush: () => this.#flush(),
      doubted: modules.doubted,
      dead: (silent) => {
        this.#silent = silent
        this.close('timeout')
      },
    })
    modules.channel.attach({
      cells: (batch) => {
        if (this.#end) return
        this.#machine.handleCells(batch, this.#m.now())
        this.#watch.received()
        this.#flush()
      },
      drained: () => this.#flush(),
      ended: (how: ChannelEnd) => {
        if (this.#end) return
        this.#machine.handleChannelEnd(how, this.#m.now())
        this.#flush()
      },
    })
  }

  get hops(): number {
    return this.#machine.hops
  }

  get ended(): CircuitEnd | null {
    return this.#end
  }

  /** Payload bytes of all that was on it, from and to the exit. */
  get bytesIn(): number {
    return this.#streams.bytesIn + this.#packetBytes.in
  }
  get bytesOut(): number {
    return this.#streams.bytesOut + this.#packetBytes.out
  }

  get openStreams(): number {
    return this.#streams.size + this.#resolving.size + this.#datagrams.size + this.#packets.count
  }

  /** The last hop owes a sign of life, and is late: nothing new should be begun here. */
  get isDoubtful(): boolean {
    return this.#watch.isDoubtful
  }

  /** Monotonic ms of the last cell of the last hop; -Infinity before the first. */
  get heardAt(): number {
    return this.#watch.heardAt
  }

  /** Something else has made a relay of this circuit doubtful: every hop is asked at once, and the circuit is closed when the last does not answer. */
  suspect(): void {
    if (!this.#end) this.#watch.suspect()
  }

  get queuedBytes(): number {
    return this.#channel.queuedBytes + this.#machine.queuedBytes
  }

  get channelKind(): CellChannel['kind'] {
    return this.#channel.kind
  }

  get rttMs(): number | null {
    return this.#machine.rttMs
  }

  /** When the last stream began here, monotonic ms; null before the first. */
  get usedAt(): number | null {
    return this.#usedAt
  }

  get minRttMs(): number | null {
    return this.#machine.minRttMs
  }

  /** The round trip to each hop that stands, the least of the last few; null where none was measured. */
  hopRttsMs(): (number | null)[] {
    return Array.from({ length: this.hops }, (_, hop) => this.#machine.hopRttMs(hop))
  }

  streams(): StreamFacts[] {
    return [...this.#streams.facts(), ...this.#datagrams.facts(), ...this.#packets.facts()]
  }

  /** Ends the stream, association or lease with this number: whoever holds it sees a reset. False when there is none here. */
  closeStream(number: number): boolean {
    if (this.#streams.reset(number)) return true
    const association = this.#datagrams.numbered(number)
    if (association !== undefined) {
      this.#machine.closeDatagrams(association)
      this.#datagrams.closed(association, 'aborted')
      this.#schedule()
      this.#m.streamEnded()
      return true
    }
    return this.#packets.cut(number)
  }

  /** Adds the next hop. Resolves with the round trip of its handshake, ms. @throws CircuitBuildError */
  extend(hop: CircuitHop): Promise<number> {
    if (this.#end) return Promise.reject(new CircuitBuildError(this.#end))
    return new Promise((resolve, reject) => {
      this.#extending = { resolve, reject }
      this.#machine.extend({ id: nodeKey(hop.id), onionKey: hop.onionKey }, this.#m.now())
      this.#flush()
    })
  }

  /** Opens a stream at the last hop; resolves when the exit is connected. @throws StreamError */
  connect(target: Target, signal?: AbortSignal): Promise<{ stream: CircuitStream; address: string | null }> {
    return this.#openStream(target, () => this.#machine.open(target, this.#m.now()), signal)
  }

  /** Opens a stream to the exit's own resolver. @throws StreamError */
  connectResolver(signal?: AbortSignal): Promise<{ stream: CircuitStream }> {
    return this.#openStream(null, () => this.#machine.openResolver(this.#m.now()), signal)
  }

  #openStream(target: Target | null, open: () => number, signal: AbortSignal | undefined) {
    let id = 0
    return this.#ask(
      this.#streams.connecting,
      () => {
        id = open()
        this.#streams.add(id, target)
        this.#usedAt = this.#m.now()
        return id
      },
      () => this.#streams.cancel(id),
      signal,
    )
  }

  /** Asks the exit for addresses of a name, or names of an address. @throws StreamError */
  resolve(name: string, signal?: AbortSignal): Promise<readonly ResolveAnswer[]> {
    return this.#ask(
      this.#resolving,
      () => this.#machine.resolve(name, this.#m.now()),
      () => {},
      signal,
    )
  }

  /** @throws StreamError */
  openDatagrams(receive: (from: Target, bytes: Uint8Array) => void, closed: () => void): DatagramAssociation {
    if (this.#end) throw new StreamError('circuit-lost')
    const id = this.#machine.openDatagrams(this.#m.now())
    this.#datagrams.add(id, receive, closed)
    this.#schedule()
    return {
      send: (to, bytes) => {
        if (this.#end || !this.#datagrams.sent(id, bytes.length)) return
        this.#machine.sendDatagram(id, to, bytes, this.#m.now())
        this.#watch.sent()
        this.#schedule()
      },
      close: () => {
        if (!this.#datagrams.delete(id) || this.#end) return
        this.#machine.closeDatagrams(id)
        this.#schedule()
        this.#m.streamEnded()
      },
    }
  }

  /** Leases addresses at the exit for raw packets. @throws StreamError */
  openPackets(signal?: AbortSignal): Promise<PacketLease> {
    let id = 0
    return this.#ask(
      this.#leasing,
      () => {
        id = this.#machine.openPackets(PACKET_TERMS, this.#m.now())
        this.#packets.asked(id)
        return id
      },
      () => this.#packets.close(id),
      signal,
    )
  }

  /** Measures the round trip to every hop. Resolves with the last hop's answer. @throws StreamError when the circuit ends first */
  pingHops(): Promise<number> {
    for (let hop = 0; !this.#end && hop < this.hops - 1; hop++) this.#machine.ping(this.#m.now(), hop)
    return this.ping()
  }

  /** The round trip to the last hop, ms. @throws StreamError when the circuit ends first */
  ping(): Promise<number> {
    if (this.#end) return Promise.reject(new StreamError('circuit-lost'))
    return new Promise((resolve, reject) => {
      this.#pinging.push({ resolve, reject })
      this.#machine.ping(this.#m.now())
      this.#flush()
    })
  }

  close(reason: CloseReason): void {
    if (this.#end) return
    this.#machine.close(reason, this.#m.now())
    this.#flush()
  }

  /** @param begin says it to the machine and returns the stream */
  async #ask<T>(waiting: Waiting<T>, begin: () => number, cancel: () => void, signal: AbortSignal | undefined): Promise<T> {
    if (this.#end) throw new StreamError('circuit-lost')
    if (signal?.aborted) throw new StreamError('aborted')
    let id: number
    try {
      id = begin()
    } catch (error) {
      this.#m.logger.debug('stream not begun', { error: messageOf(error) })
      throw new StreamError('resource-limit')
    }
    this.#watch.sent()
    this.#schedule()
    return waiting.add(id, cancel, signal)
  }

  #sendPackets(id: number, batch: PacketBatch, from: number, to: number): number {
    if (this.#end) return to - from
    const taken = this.#machine.sendPackets(id, batch, from, to, this.#m.now())
    for (let i = from; i < from + taken; i++) this.#packetBytes.out += batch.end(i) - batch.start(i)
    this.#watch.sent()
    this.#schedule()
    return taken
  }

  #closePackets(id: number): void {
    if (this.#end) return
    this.#machine.closePackets(id, 'done')
    this.#schedule()
    this.#m.streamEnded()
  }

  /** Flushes once at the end of this turn of the event loop, for all that happens in it. */
  #schedule(): void {
    if (this.#scheduled || this.#end) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#end) return
    if (this.#isDelivering) {
      this.#schedule()
      return
    }
    const drain = (): boolean => this.#drain()
    if (!flushCells(this.#machine, this.#channel, this.#m.now(), drain, () => {})) return
    this.#deadline.update()
    this.#watch.follow(this.openStreams > 0)
  }

  /** False once the circuit has ended. */
  #drain(): boolean {
    for (;;) {
      const output = this.#machine.pollOutput()
      if (!output) return this.#end === null
      this.#handle(output)
    }
  }

  #handle(output: CircuitOutput): void {
    switch (output.type) {
      case 'cells':
        this.#channel.send(output.batch)
        return
      case 'hop':
        this.#extending?.resolve(output.rttMs)
        this.#extending = null
        return
      case 'connected':
        this.#streams.handleConnected(output.stream, output.address)
        return
      case 'data':
        this.#streams.handleData(output.stream, output.bytes, output.memory)
        return
      case 'writable':
        this.#streams.handleWritable(output.stream)
        this.#packets.writable(output.stream)
        return
      case 'end':
        // What is no stream may be a question.
        if (!this.#streams.handleEnd(output.stream, output.reason)) this.#resolving.reject(output.stream, new StreamError(output.reason))
        return
      case 'resolved':
        if (output.error !== null) this.#resolving.reject(output.stream, new StreamError(output.error))
        else this.#resolving.resolve(output.stream, output.answers)
        this.#m.streamEnded()
        return
      case 'rtt': {
        if (output.hop !== this.hops - 1) return
        const waiting = this.#pinging
        this.#pinging = []
        for (const waiter of waiting) waiter.resolve(output.rttMs)
        return
      }
      case 'datagram':
        this.#datagrams.receive(output.stream, output.peer, output.bytes)
        return
      case 'datagrams-closed':
        this.#datagrams.closed(output.stream)
        this.#m.streamEnded()
        return
      case 'packets':
        this.#packetBytes.in += output.batch.totalBytes
        this.#deliver(output.stream, output.batch)
        return
      case 'packets-opened': {
        const lease = this.#packets.opened(output.stream, output.grant)
        if (lease) this.#leasing.resolve(output.stream, lease)
        return
      }
      case 'packets-closed':
        this.#leasing.reject(output.stream, new StreamError(output.reason === 'done' ? 'internal' : output.reason))
        if (this.#packets.closed(output.stream, output.reason)) this.#m.streamEnded()
        return
      case 'closed':
        this.#finish({ reason: output.reason, origin: output.origin, hop: output.hop, hops: this.#machine.hops, silent: this.#silent })
        return
      default: // a relay's outputs, which a client's machine never gives
        return
    }
  }

  /** The batch is the machine's again with its next output, so nothing may be drained meanwhile. */
  #deliver(id: number, batch: PacketBatch): void {
    this.#isDelivering = true
    try {
      this.#packets.deliver(id, batch)
    } finally {
      this.#isDelivering = false
    }
  }

  #finish(end: CircuitEnd): void {
    if (this.#end) return
    this.#end = end
    this.#deadline.stop()
    this.#watch.stop()
    this.#channel.close()
    this.#extending?.reject(new CircuitBuildError(end))
    this.#extending = null
    const lost = new StreamError('circuit-lost')
    for (const waiting of [this.#resolving, this.#leasing]) waiting.rejectAll(lost)
    for (const waiter of this.#pinging) waiter.reject(lost)
    this.#pinging = []
    this.#streams.lost()
    this.#datagrams.lost()
    this.#packets.lost()
    this.#m.closed(end)
  }
}
