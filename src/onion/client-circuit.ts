import { assert, MalformedError, ShallotError } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { PacketBatch } from '../packet/index.ts'
import { type BatchMemory, type CellBatch, newBatch, subBatch } from './cell.ts'
import { CellPacker } from './cell-packer.ts'
import type {
  ChannelEnd,
  CircuitCounts,
  CircuitOutput,
  ClientCircuitMachine,
  CloseReason,
  EndReason,
  HopTarget,
  Target,
} from './circuit.ts'
import { type CircuitLimits, circuitLimits } from './circuit-limits.ts'
import { type CircuitMessageHandler, Endpoint } from './endpoint.ts'
import { acceptsExtensions, encodeExtensions } from './extensions.ts'
import { beginHandshake, dropHandshake, finishHandshake, type HandshakeState, wipeHopKeys } from './handshake.ts'
import { ClientLayers, MAX_HOPS, NOT_RECOGNISED } from './layers.ts'
import { Command, decodeClosed, encodeClosed, isHost, isSayableTarget, PlainKind, putPlainCell, readPlainCell } from './messages.ts'
import { OutputQueue } from './outputs.ts'
import { LEAST_PACKET_MTU, MOST_PACKET_BYTES, type PacketTerms } from './packets.ts'

export interface ClientCircuitOptions {
  readonly suite: CryptoSuite
  /** What differs from `circuitLimits`. */
  readonly limits?: Partial<CircuitLimits>
  /** Where large batches get their memory. */
  readonly memory?: BatchMemory
  /** Told of offered bytes that are not used any more: what was packed, or dropped with its stream. */
  readonly release?: (bytes: Uint8Array) => void
}

/** A client's end of one circuit, before its first hop. */
export function createClientCircuit(options: ClientCircuitOptions): ClientCircuitMachine {
  return new ClientCircuit(options)
}

/**
 *     new --extend--> extending --CREATED/EXTENDED--> ready --extend--> extending ...
 *       \                 |                             |
 *        +----------------+------------ closed <--------+      docs/spec/circuit.md §3
 */
type State =
  | { readonly is: 'ready' } // nothing under way; with no hop yet: new
  | { readonly is: 'extending'; readonly handshake: HandshakeState; readonly since: number; readonly deadline: number }
  | { readonly is: 'closed' }

const READY: State = { is: 'ready' }
const CLOSED: State = { is: 'closed' }
// Shared by all circuits: calls are synchronous.
let recognised = new Uint8Array(64)

class ClientCircuit implements ClientCircuitMachine, CircuitMessageHandler {
  readonly #suite: CryptoSuite
  readonly #limits: CircuitLimits
  readonly #layers = new ClientLayers()
  readonly #outputs = new OutputQueue()
  readonly #endpoint: Endpoint
  readonly #seal = (batch: CellBatch, hop: number): void => this.#layers.sealForward(batch, hop)
  readonly #cellsFrom: number[] = []
  #state: State = READY

  constructor(options: ClientCircuitOptions) {
    const { suite, memory = null, release = null } = options
    this.#suite = suite
    this.#limits = { ...circuitLimits, ...options.limits }
    this.#endpoint = new Endpoint({
      role: 'client',
      suite,
      limits: this.#limits,
      outputs: this.#outputs,
      servesExit: false,
      memory,
      release,
    })
  }

  get hops(): number {
    return this.#layers.hops
  }

  get isClosed(): boolean {
    return this.#state.is === 'closed'
  }

  get queuedBytes(): number {
    return this.#endpoint.queuedBytes
  }

  get counts(): CircuitCounts {
    const { datagramsDropped, packetsDropped, openStreams } = this.#endpoint
    return { datagramsDropped, packetsDropped, openStreams }
  }

  get rttMs(): number | null {
    return this.#endpoint.roundTrips.smoothedMs(this.hops - 1)
  }

  get minRttMs(): number | null {
    return this.#endpoint.roundTrips.minMs(this.hops - 1)
  }

  hopRttMs(hop: number): number | null {
    return this.#endpoint.roundTrips.recentMs(hop)
  }

  cellsFrom(hop: number): number {
    return this.#cellsFrom[hop] ?? 0
  }

  pollOutput(): CircuitOutput | null {
    return this.#outputs.poll()
  }

  pollTimeout(): number | null {
    const streams = this.#endpoint.timeout
    if (this.#state.is !== 'extending') return streams
    return streams === null ? this.#state.deadline : Math.min(streams, this.#state.deadline)
  }

  handleTimeout(now: number): void {
    if (this.isClosed) return
    if (this.#state.is === 'extending' && now >= this.#state.deadline) this.#end('timeout', 'local', this.hops)
    else this.#endpoint.handleTimeout(now)
  }

  pollCells(most: number, now: number): CellBatch | null {
    if (this.isClosed || this.hops === 0) return null
    assert(!this.#outputs.holdsCells, 'outputs are drained before more cells are encrypted')
    return this.#endpoint.pollCells(most, now, this.#seal)
  }

  extend(target: HopTarget, now: number): void {
    if (this.isClosed) return
    assert(this.#state.is === 'ready', 'one hop is added at a time')
    assert(this.hops < MAX_HOPS, 'a circuit has at most MAX_HOPS hops')
    const handshake = beginHandshake(this.#suite, target, encodeExtensions([]))
    this.#state = { is: 'extending', handshake, since: now, deadline: now + this.#limits.extendTimeoutMs }
    if (this.hops > 0) {
      this.#endpoint.say(this.hops - 1, Command.extend, 0, handshake.request)
      return
    }
    const batch = newBatch(1)
    putPlainCell(batch.bytes, batch.start, PlainKind.create, handshake.request)
    this.#outputs.push({ type: 'cells', to: 'next', batch })
  }

  open(target: Target, now: number, hop = this.hops - 1): number {
    this.#checkHop(hop)
    if (!isSayableTarget(target))
      throw new ShallotError('bad-target', 'a target has a host of 1 to 255 visible characters and a port', usage)
    return this.#endpoint.open(hop, target, now)
  }

  resolve(name: string, now: number): number {
    this.#checkHop(this.hops - 1)
    if (!isHost(name)) throw new ShallotError('bad-target', 'a name has 1 to 255 visible characters', usage)
    return this.#endpoint.resolve(this.hops - 1, name, now)
  }

  openResolver(now: number): number {
    this.#checkHop(this.hops - 1)
    return this.#endpoint.openResolver(this.hops - 1, now)
  }

  openPackets(terms: PacketTerms, now: number): number {
    this.#checkHop(this.hops - 1)
    assert(terms.families.length > 0 && terms.mtu >= LEAST_PACKET_MTU && terms.mtu <= MOST_PACKET_BYTES, 'packets have a family and an MTU')
    return this.#endpoint.openPackets(this.hops - 1, terms, now)
  }

  openDatagrams(_now: number): number {
    this.#checkHop(this.hops - 1)
    return this.#endpoint.openDatagrams(this.hops - 1)
  }

  ping(now: number, hop = this.hops - 1): void {
    if (!this.isClosed && hop >= 0 && hop < this.hops) this.#endpoint.ping(hop, now)
  }

  offer(stream: number, bytes: Uint8Array): boolean {
    return this.#endpoint.offer(stream, bytes)
  }

  end(stream: number, reason: EndReason): void {
    this.#endpoint.end(stream, reason)
  }

  consume(stream: number, length: number, now: number): void {
    this.#endpoint.consume(stream, length, now)
  }

  sendDatagram(stream: number, peer: Target, bytes: Uint8Array, now: number): boolean {
    return this.#endpoint.sendDatagram(stream, peer, bytes, now)
  }

  closeDatagrams(stream: number): void {
    this.#endpoint.closeDatagrams(stream)
  }

  sendPackets(stream: number, batch: PacketBatch, from: number, to: number, now: number): number {
    return this.#endpoint.sendPackets(stream, batch, from, to, now)
  }

  hasPacketRoom(stream: number): boolean {
    return this.#endpoint.hasPacketRoom(stream)
  }

  closePackets(stream: number, reason: EndReason): void {
    this.#endpoint.closePackets(stream, reason)
  }

  close(reason: CloseReason, _now: number): void {
    this.#end(reason, 'local', null)
  }

  handleCells(batch: CellBatch, now: number): void {
    if (this.isClosed) return
    try {
      const failure = this.#read(batch, now)
      if (failure) this.#end(failure, 'local', null)
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      this.#end('protocol', 'local', null)
    }
    this.#endpoint.finishBatch(batch, true)
  }

  handleChannelEnd(how: ChannelEnd, _now: number): void {
    // A first hop that refuses CREATE has no key to say so with: it ends the channel in order.
    const isRefusal = how === 'fin' && this.#state.is === 'extending' && this.hops === 0
    const reason = how === 'violation' ? 'protocol' : isRefusal ? 'handshake-failed' : 'channel-lost'
    this.#end(reason, 'remote', isRefusal ? 0 : null, false)
  }

  circuitMessage(command: number, hop: number, body: Uint8Array, now: number): CloseReason | null {
    if (command === Command.extended) {
      if (this.#state.is !== 'extending' || hop !== this.hops - 1) return 'protocol'
      this.#finish(this.#state.handshake, this.#state.since, body, now)
      return null
    }
    if (command !== Command.closed) return 'protocol'
    this.#end(decodeClosed(body), 'remote', hop, false)
    return null
  }

  #read(batch: CellBatch, now: number): CloseReason | null {
    let from = 0
    if (this.hops === 0) {
      if (this.#state.is !== 'extending') return 'protocol'
      const reply = readPlainCell(batch.bytes, batch.start, PlainKind.created)
      this.#finish(this.#state.handshake, this.#state.since, reply, now)
      from = 1
    }
    while (from < batch.count && !this.isClosed) {
      // A cell behind EXTENDED may be the new hop's: until then one is opened at a time.
      const to = this.#state.is === 'extending' ? from + 1 : batch.count
      const failure = this.#readCells(from === 0 && to === batch.count ? batch : subBatch(batch, from, to), now)
      if (failure) return failure
      from = to
    }
    return null
  }

  #readCells(batch: CellBatch, now: number): CloseReason | null {
    const { count } = batch
    if (recognised.length < count) recognised = new Uint8Array(count)
    this.#layers.openBackward(batch, recognised)
    for (let i = 0; i < count; i++) {
      const hop = recognised[i]!
      if (hop === NOT_RECOGNISED) return 'protocol'
      this.#cellsFrom[hop]!++
      const failure = this.#endpoint.receive(batch, i, hop, now, this)
      if (failure) return failure
      if (this.isClosed) return null
    }
    return null
  }

  /** The answer to CREATE or EXTEND. */
  #finish(handshake: HandshakeState, since: number, reply: Uint8Array, now: number): void {
    const index = this.hops
    const result = finishHandshake(this.#suite, handshake, reply)
    if (!result || !acceptsExtensions(result.message)) {
      this.#end('handshake-failed', 'local', index)
      return
    }
    this.#layers.addHop(this.#suite, result.keys)
    this.#cellsFrom.push(0)
    wipeHopKeys(result.keys)
    this.#state = READY
    const rttMs = Math.max(0, now - since)
    this.#endpoint.roundTrips.bound(index, rttMs)
    this.#outputs.push({ type: 'hop', index, rttMs })
  }

  #end(reason: CloseReason, origin: 'local' | 'remote', hop: number | null, saysClosed = true): void {
    if (this.#state.is === 'closed') return
    if (this.#state.is === 'extending') dropHandshake(this.#state.handshake)
    this.#state = CLOSED
    if (saysClosed && this.hops > 0) {
      const packer = new CellPacker(1)
      const at = packer.take(0, Command.closed, 0, 1)
      packer.bytes.set(encodeClosed(reason), at)
      const batch = packer.finish(this.#seal)
      if (batch) this.#outputs.push({ type: 'cells', to: 'next', batch })
    }
    this.#endpoint.close()
    this.#outputs.push({ type: 'closed', reason, origin, hop })
    this.#layers.destroy()
  }

  #checkHop(hop: number): void {
    if (this.isClosed) throw new ShallotError('circuit-closed', 'the circuit is closed', { kind: 'relay', retry: 'elsewhere' })
    assert(hop >= 0 && hop < this.hops, 'streams are opened at an established hop')
  }
}

const usage = { kind: 'usage', retry: 'never' } as const
