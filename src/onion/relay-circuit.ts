import { assert, equalBytes, MalformedError } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { PacketBatch } from '../packet/index.ts'
import { type BatchMemory, batchOf, CELL_BYTES, type CellBatch, newBatch, subBatch } from './cell.ts'
import { CellPacker } from './cell-packer.ts'
import type {
  ChannelEnd,
  CircuitCounts,
  CircuitOutput,
  CloseReason,
  EndReason,
  RelayCircuitMachine,
  ResolveAnswer,
  Target,
} from './circuit.ts'
import { type CircuitLimits, circuitLimits } from './circuit-limits.ts'
import { type CircuitMessageHandler, Endpoint } from './endpoint.ts'
import { answerExtensions } from './extensions.ts'
import {
  answerHandshake,
  MAX_REPLY_BYTES,
  MAX_REQUEST_BYTES,
  MIN_REPLY_BYTES,
  MIN_REQUEST_BYTES,
  requestTarget,
  wipeHopKeys,
} from './handshake.ts'
import type { OnionKeyring } from './keyring.ts'
import { RelayLayers } from './layers.ts'
import { Command, decodeClosed, encodeClosed, PlainKind, putPlainCell, readPlainCell } from './messages.ts'
import { OutputQueue } from './outputs.ts'
import type { PacketGrant } from './packets.ts'

export interface RelayCircuitOptions {
  readonly suite: CryptoSuite
  readonly keyring: OnionKeyring
  /** This relay's identity, 32 bytes. */
  readonly self: Uint8Array
  /** The identity of whoever opened the channel: a circuit is not extended back to it. */
  readonly previous: Uint8Array | null
  /** Whether streams are served to this circuit. */
  readonly servesExit: boolean
  /** When the channel was opened (monotonic ms): CREATE must come within `createTimeoutMs`. Without it the driver minds that. */
  readonly openedAt?: number
  /** What differs from `circuitLimits`. */
  readonly limits?: Partial<CircuitLimits>
  /** Where large batches get their memory. */
  readonly memory?: BatchMemory
  /** Told of offered bytes that are not used any more: what was packed, or dropped with its stream. */
  readonly release?: (bytes: Uint8Array) => void
}

/** A relay's part of one circuit, from the opening of its channel. */
export function createRelayCircuit(options: RelayCircuitOptions): RelayCircuitMachine {
  return new RelayCircuit(options)
}

/**
 *     awaiting-create --CREATE--> open --EXTEND--> extending --CREATED--> extended
 *            |                     |                   |                     |
 *            +---------------------+----- closed <-----+---------------------+     docs/spec/circuit.md §4
 */
type State =
  | { readonly is: 'awaiting-create'; readonly deadline: number | null }
  | { readonly is: 'open' }
  | { readonly is: 'extending'; readonly request: Uint8Array; readonly deadline: number; readonly isSent: boolean }
  | { readonly is: 'extended' }
  | { readonly is: 'closed' }

const OPEN: State = { is: 'open' }
const EXTENDED: State = { is: 'extended' }
const CLOSED: State = { is: 'closed' }
/** The client, as an endpoint of streams. */
const CLIENT = 0

class RelayCircuit implements RelayCircuitMachine, CircuitMessageHandler {
  readonly #o: RelayCircuitOptions
  readonly #limits: CircuitLimits
  readonly #outputs = new OutputQueue()
  #state: State
  #layers: RelayLayers | null = null
  /** Some of the batch at hand went on to the next hop. */
  #passedOn = false
  /** Only there while the client has something with this hop itself: most relays of most circuits never need it for long. */
  #endpoint: Endpoint | null = null

  constructor(options: RelayCircuitOptions) {
    this.#o = options
    this.#limits = options.limits ? { ...circuitLimits, ...options.limits } : circuitLimits
    const deadline = options.openedAt === undefined ? null : options.openedAt + this.#limits.createTimeoutMs
    this.#state = { is: 'awaiting-create', deadline }
  }

  get state(): RelayCircuitMachine['state'] {
    return this.#state.is
  }

  get isClosed(): boolean {
    return this.#state.is === 'closed'
  }

  get queuedBytes(): number {
    return this.#endpoint?.queuedBytes ?? 0
  }

  get counts(): CircuitCounts {
    const { datagramsDropped = 0, packetsDropped = 0, openStreams = 0 } = this.#endpoint ?? {}
    return { datagramsDropped, packetsDropped, openStreams }
  }

  pollOutput(): CircuitOutput | null {
    return this.#outputs.poll()
  }

  pollTimeout(): number | null {
    return this.#state.is === 'extending' || this.#state.is === 'awaiting-create' ? this.#state.deadline : null
  }

  handleTimeout(now: number): void {
    const deadline = this.pollTimeout()
    if (deadline !== null && now >= deadline) this.#end('timeout', 'local')
  }

  pollCells(most: number, now: number): CellBatch | null {
    if (this.#endpoint === null || this.isClosed) return null
    assert(!this.#outputs.holdsCells, 'outputs are drained before more cells are encrypted')
    return this.#endpoint.pollCells(most, now, this.#seal)
  }

  offer(stream: number, bytes: Uint8Array): boolean {
    return this.#endpoint?.offer(stream, bytes) ?? false
  }

  end(stream: number, reason: EndReason): void {
    this.#endpoint?.end(stream, reason)
  }

  consume(stream: number, length: number, now: number): void {
    this.#endpoint?.consume(stream, length, now)
  }

  sendDatagram(stream: number, peer: Target, bytes: Uint8Array, now: number): boolean {
    return this.#endpoint?.sendDatagram(stream, peer, bytes, now) ?? false
  }

  closeDatagrams(stream: number): void {
    this.#endpoint?.closeDatagrams(stream)
  }

  sendPackets(stream: number, batch: PacketBatch, from: number, to: number, now: number): number {
    return this.#endpoint?.sendPackets(stream, batch, from, to, now) ?? to - from
  }

  hasPacketRoom(stream: number): boolean {
    return this.#endpoint?.hasPacketRoom(stream) ?? true
  }

  closePackets(stream: number, reason: EndReason): void {
    this.#endpoint?.closePackets(stream, reason)
  }

  accept(stream: number, address: string | null): void {
    this.#endpoint?.accept(stream, address)
  }

  acceptPackets(stream: number, grant: PacketGrant): void {
    this.#endpoint?.acceptPackets(stream, grant)
  }

  answer(stream: number, answers: readonly ResolveAnswer[] | EndReason): void {
    this.#endpoint?.answer(stream, answers)
  }

  close(reason: CloseReason, _now: number): void {
    this.#end(reason, 'local')
  }

  handleCells(from: 'client' | 'next', batch: CellBatch, now: number): void {
    if (this.isClosed || batch.count === 0) return
    try {
      const failure = from === 'client' ? this.#fromClient(batch, now) : this.#fromNext(batch)
      if (failure) this.#end(failure, 'local')
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      this.#end('protocol', 'local')
    }
    this.#endpoint?.finishBatch(batch, !this.#passedOn)
    this.#passedOn = false
    if (this.#endpoint?.isBlank) this.#endpoint = null
  }

  handleNextOpen(_now: number): void {
    if (this.#state.is !== 'extending' || this.#state.isSent) return
    const { request, deadline } = this.#state
    const batch = newBatch(1)
    putPlainCell(batch.bytes, batch.start, PlainKind.create, request)
    this.#state = { is: 'extending', request: nothing, deadline, isSent: true }
    this.#outputs.push({ type: 'cells', to: 'next', batch })
  }

  handleNextFailed(reason: CloseReason, _now: number): void {
    if (this.#state.is === 'extending') this.#end(reason, 'local')
  }

  handleChannelEnd(side: 'client' | 'next', how: ChannelEnd, _now: number): void {
    if (side === 'client') {
      this.#end(how === 'violation' ? 'protocol' : 'channel-lost', 'remote', false)
      return
    }
    // A relay that refuses CREATE has no key to say so with: it ends the channel in order.
    const isRefusal = how === 'fin' && this.#state.is === 'extending'
    this.#end(how === 'violation' ? 'protocol' : isRefusal ? 'handshake-failed' : 'channel-lost', 'remote')
  }

  circuitMessage(command: number, _hop: number, body: Uint8Array, now: number): CloseReason | null {
    if (command === Command.extend) return this.#extend(body, now)
    if (command !== Command.closed) return 'protocol'
    this.#end(decodeClosed(body), 'remote', false)
    return null
  }

  #fromClient(batch: CellBatch, now: number): CloseReason | null {
    let from = 0
    if (this.#layers === null) {
      const failure = this.#create(batch)
      if (failure) return failure
      from = 1
    }
    while (from < batch.count) {
      const own = this.#layers!.openForward(batch, from)
      const to = own < 0 ? batch.count : own
      if (to > from) {
        if (this.#state.is !== 'extended') return 'protocol'
        this.#passOn(batch, from, to)
      }
      if (own < 0) return null
      const failure = this.#speaking().receive(batch, own, CLIENT, now, this)
      if (failure) return failure
      if (this.isClosed) return null
      from = own + 1
    }
    return null
  }

  #passOn(batch: CellBatch, from: number, to: number): void {
    let passed = batch
    this.#passedOn = true
    // Behind a cell of this hop's own the headroom is that cell's end, which may be data in the driver's hands: those are copied.
    if (from > 0) passed = batchOf(batch.bytes.subarray(batch.start + from * CELL_BYTES, batch.start + to * CELL_BYTES))
    else if (to < batch.count) passed = subBatch(batch, 0, to)
    this.#outputs.push({ type: 'cells', to: 'next', batch: passed })
  }

  #fromNext(batch: CellBatch): CloseReason | null {
    if (this.#state.is === 'extended') {
      this.#layers!.sealBackward(batch)
      this.#outputs.push({ type: 'cells', to: 'client', batch })
      return null
    }
    if (this.#state.is !== 'extending' || !this.#state.isSent) return 'protocol'
    const reply = readCreated(batch)
    if (!reply) return 'handshake-failed'
    this.#state = EXTENDED
    // At once, not queued: cells of the next hop that come behind it must reach the client after it.
    this.#send(Command.extended, reply)
    if (batch.count === 1) return null
    const rest = batchOf(batch.bytes.subarray(batch.start + CELL_BYTES, batch.start + batch.count * CELL_BYTES))
    this.#layers!.sealBackward(rest)
    this.#outputs.push({ type: 'cells', to: 'client', batch: rest })
    return null
  }

  #create(batch: CellBatch): CloseReason | null {
    const { suite, keyring } = this.#o
    const request = readPlainCell(batch.bytes, batch.start, PlainKind.create)
    const answered = answerHandshake(suite, keyring, request, answerExtensions)
    if (!answered) return 'handshake-failed'
    this.#layers = new RelayLayers(suite, answered.keys)
    wipeHopKeys(answered.keys)
    this.#state = OPEN
    const reply = newBatch(1)
    putPlainCell(reply.bytes, reply.start, PlainKind.created, answered.reply)
    this.#outputs.push({ type: 'cells', to: 'client', batch: reply })
    return null
  }

  #extend(request: Uint8Array, now: number): CloseReason | null {
    if (request.length < MIN_REQUEST_BYTES || request.length > MAX_REQUEST_BYTES) return 'protocol'
    const { self, previous } = this.#o
    const target = requestTarget(request).slice()
    if (this.#state.is !== 'open' || equalBytes(target, self) || (previous && equalBytes(target, previous))) return 'not-allowed'
    this.#state = { is: 'extending', request: request.slice(), deadline: now + this.#limits.nextHopTimeoutMs, isSent: false }
    this.#outputs.push({ type: 'extend', target })
    return null
  }

  readonly #seal = (batch: CellBatch): void => this.#layers!.sealBackward(batch)

  /** One message to the client, in a cell of its own, at once. */
  #send(command: number, body: Uint8Array): void {
    const packer = new CellPacker(1)
    const at = packer.take(CLIENT, command, 0, body.length)
    packer.bytes.set(body, at)
    const batch = packer.finish(this.#seal)
    if (batch) this.#outputs.push({ type: 'cells', to: 'client', batch })
  }

  #end(reason: CloseReason, origin: 'local' | 'remote', saysClosed = true): void {
    if (this.#state.is === 'closed') return
    this.#state = CLOSED
    if (saysClosed && this.#layers) this.#send(Command.closed, encodeClosed(reason))
    this.#endpoint?.close()
    this.#endpoint = null
    this.#outputs.push({ type: 'closed', reason, origin, hop: null })
    this.#layers?.destroy()
  }

  #speaking(): Endpoint {
    if (this.#endpoint) return this.#endpoint
    const { suite, servesExit, memory = null, release = null } = this.#o
    this.#endpoint = new Endpoint({ role: 'relay', suite, limits: this.#limits, outputs: this.#outputs, servesExit, memory, release })
    return this.#endpoint
  }
}

const nothing = new Uint8Array(0)

/** The handshake reply in CREATED, a view; null when the cell is no CREATED. Whether it proves the relay only the client can tell. */
function readCreated(batch: CellBatch): Uint8Array | null {
  try {
    const reply = readPlainCell(batch.bytes, batch.start, PlainKind.created)
    return reply.length >= MIN_REPLY_BYTES && reply.length <= MAX_REPLY_BYTES ? reply : null
  } catch {
    return null
  }
}
