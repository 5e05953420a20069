import { nativeSuite } from '../../src/crypto/index.ts'
import { CellPacker } from '../../src/onion/cell-packer.ts'
import {
  answerExtensions,
  answerHandshake,
  BATCH_HEADROOM,
  batchOf,
  beginHandshake,
  CELL_BYTES,
  type CellBatch,
  type CircuitOutput,
  ClientLayers,
  createRelayCircuit,
  finishHandshake,
  newBatch,
  OnionKeyring,
  type RelayCircuitMachine,
  type RelayCircuitOptions,
  RelayLayers,
} from '../../src/onion/index.ts'
import { Command, MessageCursor, PlainKind, putPlainCell, readPlainCell } from '../../src/onion/messages.ts'

const suite = nativeSuite()
const noMessage = new Uint8Array(0)

/** One message of a cell that somebody makes up. */
export interface Forged {
  readonly command: number
  readonly stream: number
  readonly body?: Uint8Array
}

/** A batch with these messages, packed as an honest end would, and not yet encrypted. */
export function plainMessages(...messages: readonly Forged[]): CellBatch {
  const packer = new CellPacker(messages.length)
  for (const { command, stream, body = noMessage } of messages) packer.bytes.set(body, packer.take(0, command, stream, body.length))
  const batch = packer.finish(() => {})
  if (!batch) throw new Error('nothing to say')
  return batch
}

/**
 * A relay that follows the protocol of cells, and says whatever a test makes it say. It has the keys of its own hop and no others: what it
 * can do, any hostile relay can.
 */
export class HostileRelay {
  readonly #options: RelayCircuitOptions
  readonly #outputs: CircuitOutput[] = []
  #layers: RelayLayers | null = null
  #request: Uint8Array | null = null
  #hasNext = false
  /** Messages that the client said to this hop. */
  readonly heard: { command: number; stream: number; body: Uint8Array }[] = []
  readonly counts = { datagramsDropped: 0, packetsDropped: 0, openStreams: 0 }
  readonly queuedBytes = 0
  isClosed = false

  constructor(options: RelayCircuitOptions) {
    this.#options = options
  }

  /** A machine for a CircuitChain. What only an honest relay is asked for is not there. */
  get machine(): RelayCircuitMachine {
    return this as unknown as RelayCircuitMachine
  }

  /** Says these messages to the client, properly sealed. */
  say(...messages: readonly Forged[]): void {
    this.sayCells(plainMessages(...messages))
  }

  sayCells(batch: CellBatch): void {
    this.#layers!.sealBackward(batch)
    this.#outputs.push({ type: 'cells', to: 'client', batch })
  }

  handleCells(from: 'client' | 'next', batch: CellBatch): void {
    if (from === 'next') this.#fromNext(batch)
    else if (this.#layers) this.#fromClient(batch)
    else this.#create(batch)
  }

  handleNextOpen(): void {
    this.#outputs.push({ type: 'cells', to: 'next', batch: plainCell(PlainKind.create, this.#request!) })
  }

  handleNextFailed(): void {}
  handleTimeout(): void {}
  consume(): void {}
  accept(): void {}
  answer(): void {}

  handleChannelEnd(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.#outputs.push({ type: 'closed', reason: 'channel-lost', origin: 'remote', hop: null })
  }

  pollOutput(): CircuitOutput | null {
    return this.#outputs.shift() ?? null
  }

  pollTimeout(): null {
    return null
  }

  pollCells(): null {
    return null
  }

  #create(batch: CellBatch): void {
    const request = readPlainCell(batch.bytes, batch.start, PlainKind.create)
    const answered = answerHandshake(suite, this.#options.keyring, request, answerExtensions)
    if (!answered) throw new Error('the handshake failed')
    this.#layers = new RelayLayers(suite, answered.keys)
    this.#outputs.push({ type: 'cells', to: 'client', batch: plainCell(PlainKind.created, answered.reply) })
  }

  #fromClient(batch: CellBatch): void {
    for (let from = 0; from < batch.count; ) {
      const own = this.#layers!.openForward(batch, from)
      const to = own < 0 ? batch.count : own
      if (to > from) {
        const cells = batch.bytes.slice(batch.start + from * CELL_BYTES, batch.start + to * CELL_BYTES)
        this.#outputs.push({ type: 'cells', to: 'next', batch: batchOf(cells) })
      }
      if (own < 0) return
      const cursor = new MessageCursor()
      cursor.begin(batch.bytes, batch.start + own * CELL_BYTES)
      while (cursor.next()) {
        const { command, stream } = cursor
        const body = cursor.body().slice()
        this.heard.push({ command, stream, body })
        if (command === Command.extend) {
          this.#request = body
          this.#outputs.push({ type: 'extend', target: body.slice(0, 32) })
        }
      }
      from = own + 1
    }
  }

  #fromNext(batch: CellBatch): void {
    if (this.#hasNext) this.sayCells(batch)
    else {
      this.#hasNext = true
      this.say({ command: Command.extended, stream: 0, body: readPlainCell(batch.bytes, batch.start, PlainKind.created).slice() })
    }
  }
}

/** A client with the keys of one relay's machine, which says whatever a test makes it say. */
export class HostileClient {
  readonly relay: RelayCircuitMachine
  readonly identity: Uint8Array
  readonly #layers = new ClientLayers()
  /** What the relay's driver would be told, but cells. */
  readonly outputs: CircuitOutput[] = []
  /** Cells for the next relay. */
  readonly passed: CellBatch[] = []
  /** Messages that the relay said. */
  readonly heard: { command: number; stream: number; body: Uint8Array }[] = []
  now = 0

  constructor(options: Partial<RelayCircuitOptions> = {}) {
    this.identity = new Uint8Array(32).fill(1)
    const keyring = OnionKeyring.create(suite, this.identity, 0)
    this.relay = createRelayCircuit({
      suite,
      keyring,
      self: this.identity,
      previous: new Uint8Array(32).fill(2),
      servesExit: true,
      ...options,
    })
    const state = beginHandshake(suite, { id: this.identity, onionKey: keyring.current }, noMessage)
    this.relay.handleCells('client', plainCell(PlainKind.create, state.request), 0)
    const created = this.relay.pollOutput()
    if (created?.type !== 'cells') throw new Error('no CREATED')
    const finished = finishHandshake(suite, state, readPlainCell(created.batch.bytes, created.batch.start, PlainKind.created))
    if (!finished) throw new Error('the handshake failed')
    this.#layers.addHop(suite, finished.keys)
  }

  say(...messages: readonly Forged[]): void {
    this.sayCells(plainMessages(...messages))
  }

  /** Cells that begin with the tag. */
  sayCells(batch: CellBatch): void {
    this.#layers.sealForward(batch, 0)
    this.relay.handleCells('client', batch, this.now)
    this.listen()
  }

  /** Takes what the relay has to say. */
  listen(): void {
    for (;;) {
      for (let output = this.relay.pollOutput(); output; output = this.relay.pollOutput()) {
        if (output.type !== 'cells') this.outputs.push(output)
        else if (output.to === 'next') this.passed.push(output.batch)
        else this.#hear(output.batch)
      }
      const batch = this.relay.pollCells(40, this.now)
      if (!batch) return
      this.#hear(batch)
    }
  }

  #hear(batch: CellBatch): void {
    const recognised = new Uint8Array(batch.count)
    this.#layers.openBackward(batch, recognised)
    for (let i = 0; i < batch.count; i++) {
      if (recognised[i] !== 0) continue
      const cursor = new MessageCursor()
      cursor.begin(batch.bytes, batch.start + i * CELL_BYTES)
      while (cursor.next()) this.heard.push({ command: cursor.command, stream: cursor.stream, body: cursor.body().slice() })
    }
  }
}

/** A cell whose messages are these bytes, as they stand. */
export function rawCell(bytes: Uint8Array): CellBatch {
  const batch = newBatch(1)
  batch.bytes.set(bytes, BATCH_HEADROOM + 16)
  return batch
}

function plainCell(kind: number, handshake: Uint8Array): CellBatch {
  const batch = newBatch(1)
  putPlainCell(batch.bytes, batch.start, kind, handshake)
  return batch
}
