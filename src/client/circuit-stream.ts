import { Duplex } from 'node:stream'
import type { CellBatch, EndReason } from '../onion/index.ts'
import { StreamError } from './stream-error.ts'

/** What a stream needs of the circuit it runs on. */
export interface StreamCircuit {
  /** Ownership passes; false: wait for `writable`. */
  offer(stream: number, bytes: Uint8Array): boolean
  end(stream: number, reason: EndReason): void
  consume(stream: number, length: number): void
  /** The batch's memory is free. */
  recycle(memory: CellBatch): void
}

/** How much may wait in the Duplex for its reader; the rest is held back by credit. */
const READ_BUFFER_BYTES = 256 * 1024

/**
 * A stream of a circuit as a Node Duplex. Bytes written pass into the circuit's ownership: a writer must not change them later.
 * A lost circuit or a reset destroys it with a StreamError; only the other side's END 'done' ends the readable side in order.
 */
export class CircuitStream extends Duplex {
  readonly id: number
  /** Bytes received and sent so far. */
  bytesIn = 0
  bytesOut = 0
  readonly #circuit: StreamCircuit
  /** Bytes that came while nobody wanted them; bounded by the credit given. */
  #waiting: Uint8Array[] = []
  #wanted = false
  #ended = false
  #writeDone: (() => void) | null = null
  /** Batches that nothing but a chunk of this stream is a view of. */
  readonly #memory = new WeakMap<ArrayBufferLike, CellBatch>()
  /** The machine knows no such stream any more: nothing to say to it. */
  #over = false

  constructor(id: number, circuit: StreamCircuit) {
    super({ allowHalfOpen: true, readableHighWaterMark: READ_BUFFER_BYTES, decodeStrings: true, emitClose: true })
    this.id = id
    this.#circuit = circuit
  }

  /** The circuit delivers bytes (ownership passes). */
  receive(bytes: Uint8Array, memory: CellBatch | null): void {
    if (this.destroyed) return
    if (memory) this.#memory.set(bytes.buffer, memory)
    this.bytesIn += bytes.length
    if (this.#wanted) this.#give(bytes)
    else this.#waiting.push(bytes)
  }

  /**
   * A reader that took a whole chunk (by 'data') and holds it no more may say so: its memory is used again. Optional; `chunk` must not
   * be looked at afterwards.
   */
  release(chunk: Uint8Array): void {
    const memory = this.#memory.get(chunk.buffer)
    if (!memory) return
    this.#memory.delete(chunk.buffer)
    this.#circuit.recycle(memory)
  }

  /** The other side has ended. */
  receiveEnd(reason: EndReason): void {
    if (reason !== 'done') {
      this.#over = true
      this.destroy(new StreamError(reason))
      return
    }
    this.#ended = true
    if (this.#waiting.length === 0) this.push(null)
  }

  /** The circuit takes bytes again. */
  writableAgain(): void {
    const done = this.#writeDone
    this.#writeDone = null
    done?.()
  }

  override _read(): void {
    this.#wanted = true
    while (this.#wanted) {
      const bytes = this.#waiting.shift()
      if (!bytes) break
      this.#give(bytes)
    }
    if (this.#ended && this.#waiting.length === 0 && this.#wanted) {
      this.#wanted = false
      this.push(null)
    }
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    this.bytesOut += chunk.length
    if (this.#circuit.offer(this.id, chunk)) done()
    else this.#writeDone = done
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#circuit.end(this.id, 'done')
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#waiting = []
    this.#writeDone = null
    const complete = this.readableEnded && this.writableFinished
    if (!this.#over && !complete) this.#circuit.end(this.id, 'reset')
    done(error)
  }

  #give(bytes: Uint8Array): void {
    this.#wanted = this.push(bytes)
    this.#circuit.consume(this.id, bytes.length)
  }
}
