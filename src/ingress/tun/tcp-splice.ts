import type { ClientStream } from '../../client/index.ts'
import type { TcpConnection } from '../../netstack/index.ts'
import type { TcpUser } from './tcp-flows.ts'

/** Bytes handed to a stream at once, at most. */
const WRITE_BYTES = 65_536

/**
 * Joins a connection of the machine to its stream until both are over. Each direction flows and ends by itself (half-close), and is held back while
 * the other side takes no more. The connection ends in order only after the stream's in-band end; when the stream is lost before, it is reset: a
 * cut transfer never looks complete.
 */
export class TcpSplice implements TcpUser {
  readonly #connection: TcpConnection
  readonly #stream: ClientStream
  readonly #touch: () => void
  /** The stream takes no more for now. */
  #blocked = false
  #inputEnded = false
  /** What the connection had no room for: a whole chunk of the stream, and how much of it has been taken. */
  #pending: Uint8Array | null = null
  #pendingFrom = 0
  #streamEnded = false
  #over = false

  constructor(connection: TcpConnection, stream: ClientStream, touch: () => void) {
    this.#connection = connection
    this.#stream = stream
    this.#touch = touch
    stream.on('error', () => {}) // 'close' follows and does the work
    stream.on('data', (chunk: Uint8Array) => this.#deliver(chunk))
    stream.on('end', () => {
      this.#streamEnded = true
      this.#finish()
    })
    stream.on('drain', () => {
      this.#blocked = false
      this.readable()
      this.#touch()
    })
    stream.on('close', () => this.#streamClosed())
  }

  // --- from the machine to the stream

  readable(): void {
    const connection = this.#connection
    const stream = this.#stream
    while (!this.#blocked && !this.#over && connection.readable > 0) {
      const piece = connection.peek()
      // Written bytes pass into the stream's ownership, and the stack's memory is the stack's.
      const bytes = Buffer.from(piece.length > WRITE_BYTES ? piece.subarray(0, WRITE_BYTES) : piece)
      connection.consume(bytes.length)
      this.#blocked = !stream.write(bytes)
    }
    if (connection.remoteEnded && !this.#inputEnded && !this.#over) {
      this.#inputEnded = true
      stream.end()
    }
  }

  remoteEnded(): void {
    this.readable()
  }

  // --- from the stream to the machine

  #deliver(chunk: Uint8Array): void {
    if (this.#over) return
    const taken = this.#connection.write(chunk)
    this.#touch()
    if (taken === chunk.length) {
      this.#stream.release?.(chunk)
      return
    }
    this.#pending = chunk
    this.#pendingFrom = taken
    this.#stream.pause()
  }

  drained(): void {
    const pending = this.#pending
    if (pending === null) return
    this.#pendingFrom += this.#connection.write(pending.subarray(this.#pendingFrom))
    if (this.#pendingFrom < pending.length) return
    this.#pending = null
    this.#stream.release?.(pending)
    if (this.#streamEnded) this.#finish()
    else this.#stream.resume()
  }

  #finish(): void {
    if (this.#over || this.#pending !== null) return
    this.#connection.end()
    this.#touch()
  }

  // --- the end of both

  #streamClosed(): void {
    if (this.#over || (this.#streamEnded && this.#inputEnded)) return
    // Lost, or reset by the other side.
    this.#over = true
    this.#connection.abort()
    this.#touch()
  }

  closed(done: boolean): void {
    if (this.#over) return
    this.#over = true
    this.#pending = null
    // After an orderly end of both directions the stream may still be sending the last bytes: it ends by itself.
    if (!done) this.#stream.destroy()
  }
}
