import type { BatchMemory, CellBatch, ClientCircuitMachine, EndReason, Target } from '../onion/index.ts'
import type { StreamEnd, StreamFacts } from './circuit-facts.ts'
import { CircuitStream } from './circuit-stream.ts'
import { OpenStreams, type StreamTold } from './open-streams.ts'
import { StreamError } from './stream-error.ts'
import { Waiting } from './waiting.ts'

export interface CircuitStreamsModules {
  readonly machine: Pick<ClientCircuitMachine, 'offer' | 'end' | 'consume'>
  readonly memory: BatchMemory
  readonly now: () => number
  readonly told: StreamTold
  /** The circuit has ended: nothing is said to the machine any more. */
  readonly isOver: () => boolean
  /** Bytes have been handed to the machine. */
  readonly sent: () => void
  /** Something may wait in the machine. */
  readonly flushSoon: () => void
  /** A stream is over. */
  readonly streamEnded: () => void
}

/** The streams of one circuit: carries between the Duplexes that applications hold and the machine. */
export class CircuitStreams {
  readonly #m: CircuitStreamsModules
  readonly #open: OpenStreams
  /** Streams whose exit has not said yet that it is connected. */
  readonly connecting = new Waiting<{ stream: CircuitStream; address: string | null }>()
  /** Payload bytes of all of them, from and to the exit. */
  bytesIn = 0
  bytesOut = 0

  constructor(modules: CircuitStreamsModules) {
    this.#m = modules
    this.#open = new OpenStreams(modules.now, modules.told)
  }

  get size(): number {
    return this.#open.size
  }

  facts(): StreamFacts[] {
    return this.#open.facts()
  }

  /** One that the machine has begun. @param target null: the exit's own resolver */
  add(id: number, target: Target | null): void {
    const duplex = new CircuitStream(id, {
      offer: (stream, bytes) => this.#offer(stream, bytes),
      end: (stream, reason) => this.#end(stream, reason),
      consume: (stream, length) => this.#consume(stream, length),
      recycle: (memory) => this.#m.memory.recycle(memory),
    })
    // A stream nobody holds yet may be destroyed with an error: that is told through the promise.
    duplex.on('error', () => {})
    this.#open.add(id, duplex, target)
  }

  /** Whoever asked for it has given up. */
  cancel(id: number): void {
    this.#open.get(id)?.duplex.destroy()
  }

  /** Resets the stream that people see under this number; false when there is none. */
  reset(number: number): boolean {
    const stream = this.#open.numbered(number)
    stream?.duplex.destroy(new StreamError('aborted'))
    return stream !== undefined
  }

  handleConnected(id: number, address: string | null): void {
    const stream = this.#open.get(id)
    if (!stream) return
    stream.isConnected = true
    this.connecting.resolve(id, { stream: stream.duplex, address })
  }

  handleData(id: number, bytes: Uint8Array, memory: CellBatch | null): void {
    this.bytesIn += bytes.length
    this.#open.get(id)?.duplex.receive(bytes, memory)
  }

  handleWritable(id: number): void {
    this.#open.get(id)?.duplex.writableAgain()
  }

  /** The exit has ended it. False when there is no such stream. */
  handleEnd(id: number, reason: EndReason): boolean {
    const stream = this.#open.get(id)
    if (!stream) return false
    if (reason === 'done') stream.remoteDone = true
    if (reason !== 'done' || stream.localDone) this.#forget(id, reason === 'done' && !stream.isConnected ? 'reset' : reason)
    this.connecting.reject(id, new StreamError(reason === 'done' ? 'reset' : reason))
    stream.duplex.receiveEnd(reason)
    return true
  }

  /** The circuit is over, and every stream with it. */
  lost(): void {
    this.connecting.rejectAll(new StreamError('circuit-lost'))
    for (const { duplex } of this.#open.clear('circuit-lost')) duplex.receiveEnd('circuit-lost')
  }

  #offer(id: number, bytes: Uint8Array): boolean {
    if (this.#m.isOver() || !this.#open.has(id)) return false
    this.bytesOut += bytes.length
    const more = this.#m.machine.offer(id, bytes)
    this.#m.sent()
    this.#m.flushSoon()
    return more
  }

  #end(id: number, reason: EndReason): void {
    const stream = this.#open.get(id)
    if (!stream || this.#m.isOver()) return
    if (reason === 'done') stream.localDone = true
    this.#m.machine.end(id, reason)
    if (reason !== 'done' || stream.remoteDone) this.#forget(id, reason === 'done' ? 'done' : 'aborted')
    this.#m.flushSoon()
  }

  #consume(id: number, length: number): void {
    if (this.#m.isOver()) return
    this.#m.machine.consume(id, length, this.#m.now())
    this.#m.flushSoon()
  }

  #forget(id: number, end: StreamEnd): void {
    if (this.#open.delete(id, end)) this.#m.streamEnded()
  }
}
