import { assert, MalformedError, ShallotError } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { PacketBatch } from '../packet/index.ts'
import { type BatchMemory, CELL_BYTES, type CellBatch } from './cell.ts'
import type { CircuitOutput, CloseReason, EndReason, ResolveAnswer, Target } from './circuit.ts'
import type { CircuitLimits } from './circuit-limits.ts'
import { Reassembler } from './datagrams.ts'
import {
  COOKIE_BYTES,
  Command,
  decodeConnected,
  decodeCookie,
  decodeEmpty,
  decodeEnd,
  decodeName,
  decodeResolved,
  decodeTarget,
  decodeWindow,
  encodeConnected,
  encodeEnd,
  encodeName,
  encodeResolved,
  encodeTarget,
  MessageCursor,
  MOST_CREDIT_BYTES,
} from './messages.ts'
import { Outbox, type OutboxHandler } from './outbox.ts'
import type { OutputQueue } from './outputs.ts'
import {
  copyBytes,
  decodePacketOpen,
  decodePacketOpened,
  encodePacketOpen,
  encodePacketOpened,
  LEAST_PACKET_BYTES,
  type PacketGrant,
  type PacketTerms,
  takeArrivalBatch,
} from './packets.ts'
import { RoundTrips } from './round-trips.ts'
import { ReceiveWindow, type StreamKind, StreamState, type WindowBudget, windowLimits } from './streams.ts'

/** 'writable' is said when this share of the limit is left. */
const WRITABLE_SHARE = 4
const HIGHEST_ID = 0xffff
const empty = new Uint8Array(0)
// Shared by all circuits: calls are synchronous, and a cell is read to its end before another is begun.
const cursor = new MessageCursor()

/** What a machine does with the messages of its circuit itself (stream 0). Null, or why the circuit must close. */
export interface CircuitMessageHandler {
  readonly isClosed: boolean
  circuitMessage(command: number, hop: number, body: Uint8Array, now: number): CloseReason | null
}

export interface EndpointOptions {
  readonly role: 'client' | 'relay'
  readonly suite: CryptoSuite
  readonly limits: CircuitLimits
  readonly outputs: OutputQueue
  /** Relay: whether streams are served here. */
  readonly servesExit: boolean
  readonly memory?: BatchMemory | null
  /** Told of offered bytes that are not used any more. */
  readonly release?: ((bytes: Uint8Array) => void) | null
}

/**
 * One end of a circuit's streams: the same for the client (which speaks with each hop) and for a relay (which speaks with the client: hop 0).
 * Packing is the outbox's. Longer than 500 lines because every transition of an id's life stands in one place.
 */
export class Endpoint implements OutboxHandler {
  readonly roundTrips: RoundTrips
  readonly #o: EndpointOptions
  readonly #isClient: boolean
  readonly #streams = new Map<number, StreamState>()
  readonly #budget: WindowBudget = { free: windowLimits.circuitBytes }
  #refused = 0
  #associations = 0
  #leases = 0
  #lastId = 0
  /** Hops that streams were ever opened at, a bit each: late WINDOW and END may come from these. */
  #hopsUsed = 0

  #owedPongs = 0
  readonly #outbox: Outbox

  /** Client: streams and leases that wait for CONNECTED or PACKET_OPENED, and questions; each in the order of their deadlines. */
  readonly #connecting = new Set<StreamState>()
  readonly #asking = new Set<StreamState>()

  /** The run of data that is being put together in the batch at hand. */
  #run: StreamState | null = null
  #runBytes: Uint8Array = empty
  /** The output that holds a view of the batch at hand; all others of it are copies. */
  #view: { memory: CellBatch | null } | null = null
  #runFrom = 0
  #runTo = 0
  /** Leases that packets came for with the batch at hand. */
  readonly #arrived: StreamState[] = []
  /** Leases that are owed 'writable'. */
  readonly #waitingLeases = new Set<StreamState>()

  constructor(options: EndpointOptions) {
    this.#o = options
    this.#isClient = options.role === 'client'
    this.roundTrips = new RoundTrips(options.limits.pendingPings)
    this.#outbox = new Outbox(this, options.memory ?? null, options.release ?? null)
  }

  get queuedBytes(): number {
    return this.#outbox.queuedBytes
  }

  /** Nothing is open, owed or awaited: a fresh endpoint would do as well. */
  get isBlank(): boolean {
    return this.#streams.size === 0 && this.#outbox.queuedBytes === 0 && this.roundTrips.isBlank
  }

  get openStreams(): number {
    return this.#streams.size - this.#refused
  }

  get datagramsDropped(): number {
    return this.#outbox.datagramsDropped
  }

  get packetsDropped(): number {
    return this.#outbox.packetsDropped
  }

  get timeout(): number | null {
    const connect = this.#connecting.size > 0 ? first(this.#connecting)!.deadline : Number.POSITIVE_INFINITY
    const ask = this.#asking.size > 0 ? first(this.#asking)!.deadline : Number.POSITIVE_INFINITY
    const at = Math.min(connect, ask)
    return at === Number.POSITIVE_INFINITY ? null : at
  }

  handleTimeout(now: number): void {
    for (const stream of this.#connecting) {
      if (stream.deadline > now) break
      const type = stream.kind === 'packets' ? 'packets-closed' : 'end'
      this.#o.outputs.push({ type, stream: stream.id, reason: 'timeout' })
      this.end(stream.id, 'timeout')
    }
    for (const stream of this.#asking) {
      if (stream.deadline > now) break
      this.#o.outputs.push({ type: 'resolved', stream: stream.id, answers: [], error: 'timeout' })
      this.#forget(stream)
    }
  }

  // --- what the driver asks for

  open(hop: number, target: Target, now: number): number {
    return this.#begin(this.#create(hop, 'stream'), Command.begin, encodeTarget(target), now)
  }

  openResolver(hop: number, now: number): number {
    return this.#begin(this.#create(hop, 'stream'), Command.dns, empty, now)
  }

  openPackets(hop: number, terms: PacketTerms, now: number): number {
    if (this.#leases >= this.#o.limits.packetStreams) throw limitReached('packet leases')
    const stream = this.#create(hop, 'packets')
    stream.terms = terms
    return this.#begin(stream, Command.packetOpen, encodePacketOpen(terms), now)
  }

  #begin(stream: StreamState, command: number, body: Uint8Array, now: number): number {
    stream.deadline = now + this.#o.limits.connectTimeoutMs
    this.#connecting.add(stream)
    this.say(stream.hop, command, stream.id, body)
    if (this.roundTrips.isUnmeasured(stream.hop)) this.ping(stream.hop, now)
    return stream.id
  }

  resolve(hop: number, name: string, now: number): number {
    const stream = this.#create(hop, 'resolve')
    stream.deadline = now + this.#o.limits.resolveTimeoutMs
    this.#asking.add(stream)
    this.say(hop, Command.resolve, stream.id, encodeName(name))
    return stream.id
  }

  openDatagrams(hop: number): number {
    if (this.#associations >= this.#o.limits.datagramStreams) throw limitReached('datagram associations')
    const stream = this.#create(hop, 'datagrams')
    this.say(hop, Command.udpOpen, stream.id, empty)
    return stream.id
  }

  accept(id: number, address: string | null): void {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'stream' || stream.connected || stream.silent) return
    stream.connected = true
    this.say(stream.hop, Command.connected, id, address === null ? empty : encodeConnected(address))
    if (this.roundTrips.isUnmeasured(stream.hop)) this.ping(stream.hop, Number.NEGATIVE_INFINITY)
    this.#touch(stream)
  }

  acceptPackets(id: number, grant: PacketGrant): void {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'packets' || stream.connected || stream.silent) return
    assert(stream.terms !== null && isWithin(grant, stream.terms), 'no more is leased than was asked for')
    stream.connected = true
    stream.packetMtu = grant.mtu
    this.say(stream.hop, Command.packetOpened, id, encodePacketOpened(grant))
  }

  answer(id: number, answers: readonly ResolveAnswer[] | EndReason): void {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'resolve' || stream.silent) return
    stream.silent = true
    this.say(stream.hop, Command.resolved, id, encodeResolved(answers))
  }

  offer(id: number, bytes: Uint8Array): boolean {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'stream' || stream.silent || stream.finishing || stream.sentEnd !== 'none') return false
    const limit = this.#o.limits.offerBytes
    if (stream.queue && stream.queue.length >= limit) {
      // The driver did not wait for 'writable': the stream fails, and memory stays bounded.
      this.#o.outputs.push({ type: 'end', stream: id, reason: 'internal' })
      this.end(id, 'internal')
      return false
    }
    this.#outbox.queue(stream, bytes)
    this.#touch(stream)
    if (stream.queue!.length * 2 <= limit) return true
    stream.wantsWritable = true
    return false
  }

  end(id: number, reason: EndReason): void {
    const stream = this.#streams.get(id)
    if (!stream || stream.silent) return
    if (stream.kind === 'resolve') {
      if (this.#isClient) this.#forget(stream)
      else this.answer(id, reason === 'done' ? 'internal' : reason)
    } else if (stream.kind === 'datagrams') this.closeDatagrams(id)
    else if (stream.kind === 'packets') this.closePackets(id, reason)
    else if (reason !== 'done') this.#abandon(stream, reason)
    else if (!this.#isClient && !stream.connected) this.#abandon(stream, 'internal')
    else if (stream.sentEnd === 'none') {
      stream.finishing = true
      this.#touch(stream)
    }
  }

  consume(id: number, length: number, now: number): void {
    const stream = this.#streams.get(id)
    if (!stream?.receive || stream.silent || stream.receivedEnd !== 'none') return
    const { receive, hop } = stream
    receive.consume(length)
    receive.tune(length, now, this.roundTrips.tuningMs(hop))
    if (receive.grant > 0) this.#outbox.grant(stream)
    if (this.roundTrips.isDue(hop, length, now)) this.ping(hop, now)
  }

  sendDatagram(id: number, peer: Target, bytes: Uint8Array, now: number): boolean {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'datagrams' || stream.silent) return false
    return this.#outbox.sendDatagram(stream, peer, bytes, now)
  }

  closeDatagrams(id: number): void {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'datagrams' || stream.silent) return
    this.#sayEnd(stream, Command.udpClose, empty)
    stream.silent = true
  }

  sendPackets(id: number, batch: PacketBatch, from: number, to: number, now: number): number {
    const stream = this.#streams.get(id)
    // After the end all are taken, and go nowhere.
    if (stream?.kind !== 'packets' || stream.silent || !stream.connected) return to - from
    const queue = this.#outbox.packets
    let index = from
    for (; index < to; index++) {
      const length = batch.end(index) - batch.start(index)
      if (length < LEAST_PACKET_BYTES || length > stream.packetMtu) queue.dropped++
      else if (!queue.push(id, stream.hop, batch, index, now)) break
    }
    if (index < to || queue.isHalfFull) {
      stream.wantsWritable = true
      this.#waitingLeases.add(stream)
    }
    return index - from
  }

  hasPacketRoom(id: number): boolean {
    return this.#streams.get(id)?.wantsWritable !== true
  }

  closePackets(id: number, reason: EndReason): void {
    const stream = this.#streams.get(id)
    if (stream?.kind !== 'packets' || stream.silent) return
    this.#dropQueue(stream)
    this.#sayEnd(stream, Command.packetClose, encodeEnd(reason))
    stream.silent = true
  }

  ping(hop: number, now: number): void {
    const cookie = this.#o.suite.random(COOKIE_BYTES)
    if (this.roundTrips.begin(hop, cookie, now)) this.say(hop, Command.ping, 0, cookie)
  }

  /** Queues a control message (body is owned). */
  say(hop: number, command: number, stream: number, body: Uint8Array): void {
    this.#outbox.say(hop, command, stream, body)
  }

  // --- what comes in

  /**
   * Reads the messages of one recognised cell. Data stays in the batch's buffer, where a run of it is moved together; call `flush` after
   * the last cell of the batch. Returns why the circuit must close, or null.
   * @throws MalformedError
   */
  receive(batch: CellBatch, cell: number, hop: number, now: number, handler: CircuitMessageHandler): CloseReason | null {
    cursor.begin(batch.bytes, batch.start + cell * CELL_BYTES)
    while (cursor.next()) {
      const { command, stream } = cursor
      let failure: CloseReason | null
      if (command === Command.data) failure = this.#data(batch.bytes, hop)
      else if (command === Command.packet) failure = this.#packet(batch.bytes, hop)
      else if (stream === 0) {
        failure = this.#circuitMessage(command, hop, now, handler)
        if (handler.isClosed) return null
      } else failure = this.#streamMessage(command, hop)
      if (failure) return failure
    }
    return null
  }

  /** Gives out what is being put together: a run of data, and packets. */
  flush(): void {
    this.#flushRun()
    for (const stream of this.#arrived) this.#giveArrived(stream)
    this.#arrived.length = 0
  }

  #giveArrived(stream: StreamState): void {
    if (stream.arrived) this.#o.outputs.push({ type: 'packets', stream: stream.id, batch: stream.arrived })
    stream.arrived = null
  }

  #flushRun(): void {
    const stream = this.#run
    if (!stream) return
    this.#run = null
    const view = this.#runBytes.subarray(this.#runFrom, this.#runTo)
    this.#runBytes = empty
    // A little data must not hold a large buffer. So at most one output of a batch holds it.
    const isLittle = view.length * 2 < view.buffer.byteLength
    const output = { type: 'data' as const, stream: stream.id, bytes: isLittle ? new Uint8Array(view) : view, memory: null }
    if (!isLittle) this.#view = output
    this.#o.outputs.push(output)
  }

  /**
   * After the last cell of a batch: gives out what there is.
   * @param isWhole nothing of the batch was passed on, so that its memory is free once the data in it has been taken
   */
  finishBatch(batch: CellBatch, isWhole: boolean): void {
    this.flush()
    if (this.#view && isWhole) this.#view.memory = batch
    this.#view = null
  }

  #data(bytes: Uint8Array, hop: number): CloseReason | null {
    const { from, to } = cursor
    const length = to - from
    const run = this.#run
    const stream = run !== null && run.id === cursor.stream ? run : this.#streams.get(cursor.stream)
    if (!stream || stream.hop !== hop || stream.kind !== 'stream' || stream.receivedEnd !== 'none' || length === 0) return 'protocol'
    if (this.#isClient && !stream.connected) return 'protocol'
    stream.receive ??= new ReceiveWindow(this.#budget)
    if (!stream.receive.receive(length)) return 'protocol'
    if (stream.silent) return null
    if (run === stream) {
      if (this.#runTo !== from) bytes.copyWithin(this.#runTo, from, to)
      this.#runTo += length
      return null
    }
    this.#flushRun()
    this.#run = stream
    this.#runBytes = bytes
    this.#runFrom = from
    this.#runTo = to
    return null
  }

  #packet(bytes: Uint8Array, hop: number): CloseReason | null {
    const { from, to } = cursor
    const length = to - from
    const stream = this.#streams.get(cursor.stream)
    if (!stream || stream.hop !== hop || stream.kind !== 'packets') return 'protocol'
    if (!stream.connected || stream.receivedEnd !== 'none') return 'protocol'
    if (length < LEAST_PACKET_BYTES || length > stream.packetMtu) return 'protocol'
    if (stream.silent) return null
    let batch = stream.arrived
    let at = batch === null ? -1 : batch.reserve(length)
    if (batch === null || at < 0) {
      if (batch === null) this.#arrived.push(stream)
      else this.#giveArrived(stream)
      batch = takeArrivalBatch()
      stream.arrived = batch
      at = batch.reserve(length)
    }
    copyBytes(bytes, from, to, batch.bytes, at)
    batch.commit(length)
    return null
  }

  #circuitMessage(command: number, hop: number, now: number, handler: CircuitMessageHandler): CloseReason | null {
    switch (command) {
      case Command.ping:
        if (this.#owedPongs >= this.#o.limits.owedPongs) return 'resource-limit'
        this.#owedPongs++
        this.say(hop, Command.pong, 0, decodeCookie(cursor.body()))
        return null
      case Command.pong: {
        const ms = this.roundTrips.finish(hop, decodeCookie(cursor.body()), now)
        if (ms === null) return 'protocol'
        if (this.#isClient) this.#o.outputs.push({ type: 'rtt', hop, rttMs: ms })
        return null
      }
      case Command.pad:
        return null
      default:
        return handler.circuitMessage(command, hop, cursor.body(), now)
    }
  }

  #streamMessage(command: number, hop: number): CloseReason | null {
    const id = cursor.stream
    const stream = this.#streams.get(id)
    if (!stream) {
      // A stream is over once each side has said END: the other's WINDOW, or a second END, may have been on its way.
      if (command === Command.window || command === Command.end) return this.#late(command, hop)
      return this.#isClient ? 'protocol' : this.#opened(command, id)
    }
    if (stream.hop !== hop) return 'protocol'
    switch (stream.kind) {
      case 'stream':
        return this.#byteStreamMessage(stream, command)
      case 'resolve':
        if (command !== Command.resolved || !this.#isClient) return 'protocol'
        return this.#resolved(stream)
      case 'packets':
        return this.#packetsMessage(stream, command)
      default:
        return this.#datagramMessage(stream, command)
    }
  }

  #late(command: number, hop: number): CloseReason | null {
    if (this.#isClient && (this.#hopsUsed & (1 << hop)) === 0) return 'protocol'
    if (command === Command.window) decodeWindow(cursor.body())
    else decodeEnd(cursor.body())
    return null
  }

  /** Relay: the client opens something. */
  #opened(command: number, id: number): CloseReason | null {
    const { outputs, limits, servesExit } = this.#o
    const kind = openings.get(command)
    if (kind === undefined) return 'protocol'
    // Parsed before it is refused: what is malformed closes the circuit, whoever it is said to.
    const output = openingOf(command, id, cursor.body())
    const isFull =
      this.openStreams >= limits.streams ||
      (kind === 'datagrams' && this.#associations >= limits.datagramStreams) ||
      (kind === 'packets' && this.#leases >= limits.packetStreams)
    const stream = new StreamState(id, 0, kind)
    if (!servesExit || isFull) {
      if (this.#refused >= limits.refusedStreams) return 'resource-limit'
      this.#refuse(stream, servesExit ? 'resource-limit' : 'not-exit')
      return null
    }
    if (output.type === 'packets-open') stream.terms = output.terms
    this.#add(stream)
    outputs.push(output)
    return null
  }

  #refuse(stream: StreamState, reason: EndReason): void {
    stream.refused = true
    stream.silent = true
    this.#refused++
    this.#add(stream)
    if (stream.kind === 'stream') this.#sayEnd(stream, Command.end, encodeEnd(reason))
    else if (stream.kind === 'resolve') this.say(0, Command.resolved, stream.id, encodeResolved(reason))
    else if (stream.kind === 'packets') this.#sayEnd(stream, Command.packetClose, encodeEnd(reason))
    else this.#sayEnd(stream, Command.udpClose, empty)
  }

  #byteStreamMessage(stream: StreamState, command: number): CloseReason | null {
    if (command === Command.window) {
      const grant = decodeWindow(cursor.body())
      if (stream.sendCredit + grant > MOST_CREDIT_BYTES) return 'protocol'
      stream.sendCredit += grant
      this.#touch(stream)
      return null
    }
    if (command === Command.end) return this.#ended(stream, decodeEnd(cursor.body()))
    if (command !== Command.connected || !this.#isClient || stream.connected || stream.receivedEnd !== 'none') return 'protocol'
    const address = decodeConnected(cursor.body())
    stream.connected = true
    this.#connecting.delete(stream)
    if (!stream.silent) this.#o.outputs.push({ type: 'connected', stream: stream.id, address })
    return null
  }

  #ended(stream: StreamState, reason: EndReason): CloseReason | null {
    const isDone = reason === 'done'
    // After its 'done' a side may still give up with another reason; nothing follows that.
    if (stream.receivedEnd === 'reset' || (stream.receivedEnd === 'done' && isDone)) return 'protocol'
    const isAnswer = stream.silent
    if (isDone && this.#isClient && !stream.connected && !isAnswer) return 'protocol'
    if (this.#run === stream) this.#flushRun()
    stream.receivedEnd = isDone ? 'done' : 'reset'
    if (!isAnswer) this.#o.outputs.push({ type: 'end', stream: stream.id, reason })
    if (!isDone) {
      stream.silent = true
      this.#dropQueue(stream)
      if (stream.sentEnd === 'none') this.#sayEnd(stream, Command.end, encodeEnd('done'))
    }
    this.#removeIfOver(stream)
    return null
  }

  #resolved(stream: StreamState): CloseReason | null {
    const { answers, error } = decodeResolved(cursor.body())
    if (!stream.silent) this.#o.outputs.push({ type: 'resolved', stream: stream.id, answers, error })
    this.#remove(stream)
    return null
  }

  #datagramMessage(stream: StreamState, command: number): CloseReason | null {
    if (command === Command.udpDatagram) {
      if (stream.receivedEnd !== 'none') return 'protocol'
      if (stream.silent) return null
      stream.reassembler ??= new Reassembler()
      const datagram = stream.reassembler.add(cursor.body())
      if (datagram) this.#o.outputs.push({ type: 'datagram', stream: stream.id, peer: datagram.peer, bytes: datagram.bytes })
      return null
    }
    if (command !== Command.udpClose || stream.receivedEnd !== 'none') return 'protocol'
    decodeEmpty('UDP_CLOSE', cursor.body())
    stream.receivedEnd = 'done'
    if (!stream.silent) this.#o.outputs.push({ type: 'datagrams-closed', stream: stream.id })
    this.#sayEnd(stream, Command.udpClose, empty)
    stream.silent = true
    this.#removeIfOver(stream)
    return null
  }

  #packetsMessage(stream: StreamState, command: number): CloseReason | null {
    if (stream.receivedEnd !== 'none') return 'protocol'
    if (command === Command.packetOpened) {
      if (!this.#isClient || stream.connected || stream.terms === null) return 'protocol'
      const grant = decodePacketOpened(cursor.body())
      if (!isWithin(grant, stream.terms)) throw new MalformedError('PACKET_OPENED', 'leases what was not asked for')
      stream.connected = true
      stream.packetMtu = grant.mtu
      this.#connecting.delete(stream)
      if (!stream.silent) this.#o.outputs.push({ type: 'packets-opened', stream: stream.id, grant })
      return null
    }
    if (command !== Command.packetClose) return 'protocol'
    const reason = decodeEnd(cursor.body())
    this.#giveArrived(stream)
    stream.receivedEnd = 'done'
    if (!stream.silent) this.#o.outputs.push({ type: 'packets-closed', stream: stream.id, reason })
    this.closePackets(stream.id, 'done')
    this.#removeIfOver(stream)
    return null
  }

  /** The circuit is over: whatever is open ends as 'circuit-lost', and nothing is kept. */
  close(): void {
    this.flush()
    const { outputs } = this.#o
    for (const { id, kind, silent } of this.#streams.values()) {
      if (silent) continue
      if (kind === 'stream') outputs.push({ type: 'end', stream: id, reason: 'circuit-lost' })
      else if (kind === 'datagrams') outputs.push({ type: 'datagrams-closed', stream: id })
      else if (kind === 'packets') outputs.push({ type: 'packets-closed', stream: id, reason: 'circuit-lost' })
      else if (this.#isClient) outputs.push({ type: 'resolved', stream: id, answers: [], error: 'circuit-lost' })
    }
    for (const table of [this.#streams, this.#connecting, this.#asking, this.#waitingLeases]) table.clear()
    this.#outbox.clear()
    this.#refused = 0
  }

  // --- what goes out

  /** At most `most` cells with what waits, sealed; null when nothing does. */
  pollCells(most: number, now: number, seal: (batch: CellBatch, hop: number) => void): CellBatch | null {
    return this.#outbox.pollCells(most, now, seal)
  }

  isOpen(id: number): boolean {
    return this.#streams.get(id)?.silent === false
  }

  said(command: number, id: number, body: Uint8Array, now: number): void {
    if (command === Command.ping) this.roundTrips.sent(body, now)
    else if (command === Command.pong) this.#owedPongs--
    else if (command === Command.resolved) this.#remove(this.#streams.get(id)!)
    else if (command === Command.end || command === Command.udpClose || command === Command.packetClose) {
      const stream = this.#streams.get(id)!
      stream.sentEnd = 'reset'
      this.#removeIfOver(stream)
    }
  }

  finished(stream: StreamState): void {
    this.#removeIfOver(stream)
  }

  drained(stream: StreamState): void {
    const queued = stream.queue?.length ?? 0
    if (!stream.wantsWritable || stream.finishing || stream.sentEnd !== 'none' || queued * WRITABLE_SHARE > this.#o.limits.offerBytes)
      return
    stream.wantsWritable = false
    this.#o.outputs.push({ type: 'writable', stream: stream.id })
  }

  packetsDrained(): void {
    if (this.#waitingLeases.size === 0) return
    for (const stream of this.#waitingLeases) {
      stream.wantsWritable = false
      if (!stream.silent) this.#o.outputs.push({ type: 'writable', stream: stream.id })
    }
    this.#waitingLeases.clear()
  }

  // --- tables

  #create(hop: number, kind: StreamKind): StreamState {
    if (this.#streams.size >= this.#o.limits.streams) throw limitReached('streams')
    // Ids go round, so that one is used again as late as can be.
    let id = this.#lastId
    do id = id === HIGHEST_ID ? 1 : id + 1
    while (this.#streams.has(id))
    this.#lastId = id
    this.#hopsUsed |= 1 << hop
    const stream = new StreamState(id, hop, kind)
    this.#add(stream)
    return stream
  }

  #add(stream: StreamState): void {
    this.#streams.set(stream.id, stream)
    if (stream.kind === 'datagrams') this.#associations++
    else if (stream.kind === 'packets') this.#leases++
  }

  #touch(stream: StreamState): void {
    if (this.#isClient || stream.connected) this.#outbox.touch(stream)
  }

  #dropQueue(stream: StreamState): void {
    this.#outbox.drop(stream)
    this.#connecting.delete(stream)
    this.#waitingLeases.delete(stream)
    stream.receive?.release()
  }

  /** Ends both directions of a byte stream from this side. */
  #abandon(stream: StreamState, reason: EndReason): void {
    this.#dropQueue(stream)
    stream.silent = true
    this.#sayEnd(stream, Command.end, encodeEnd(reason))
  }

  #sayEnd(stream: StreamState, command: number, body: Uint8Array): void {
    if (stream.ending) return
    stream.ending = true
    this.say(stream.hop, command, stream.id, body)
  }

  /** Client: a question is not waited for any more; its id is free once the answer has come. */
  #forget(stream: StreamState): void {
    stream.silent = true
    this.#asking.delete(stream)
  }

  #removeIfOver(stream: StreamState): void {
    if (stream.isOver && !(stream.ending && stream.sentEnd !== 'reset')) this.#remove(stream)
  }

  #remove(stream: StreamState): void {
    this.#dropQueue(stream)
    this.#asking.delete(stream)
    this.#streams.delete(stream.id)
    if (stream.refused) this.#refused--
    if (stream.kind === 'datagrams') this.#associations--
    else if (stream.kind === 'packets') this.#leases--
  }
}

/** What the client opens by which command. */
const openings: ReadonlyMap<number, StreamKind> = new Map<number, StreamKind>([
  [Command.begin, 'stream'],
  [Command.dns, 'stream'],
  [Command.resolve, 'resolve'],
  [Command.udpOpen, 'datagrams'],
  [Command.packetOpen, 'packets'],
])

/** What a relay tells its driver of a command of `openings`. @throws MalformedError */
function openingOf(command: number, stream: number, body: Uint8Array): CircuitOutput {
  switch (command) {
    case Command.begin:
      return { type: 'begin', stream, target: decodeTarget(body) }
    case Command.resolve:
      return { type: 'resolve', stream, name: decodeName(body) }
    case Command.packetOpen:
      return { type: 'packets-open', stream, terms: decodePacketOpen(body) }
    case Command.dns:
      decodeEmpty('DNS', body)
      return { type: 'dns-open', stream }
    default:
      decodeEmpty('UDP_OPEN', body)
      return { type: 'datagrams-open', stream }
  }
}

/** Whether a lease is no more than what was asked for. */
function isWithin({ address4, address6, mtu }: PacketGrant, { families, mtu: most }: PacketTerms): boolean {
  if (address4 === null && address6 === null) return false
  return (address4 === null || families.includes(4)) && (address6 === null || families.includes(6)) && mtu <= most
}

function first<Item>(items: Set<Item>): Item | undefined {
  for (const item of items) return item
  return undefined
}

function limitReached(what: string): ShallotError {
  return new ShallotError('resource-limit', `the circuit's limit of ${what} is reached`, { kind: 'process', retry: 'elsewhere' })
}
