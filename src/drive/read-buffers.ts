import type { Duplex } from 'node:stream'

/** One read of a socket. */
export const READ_BYTES = 64 * 1024
/** Below this a read gets memory of its own size, so that a little data never holds a large buffer. */
const OWN_MEMORY_BYTES = 16 * 1024
/** Free buffers kept: 4 MiB. */
const MAX_FREE = 64

/**
 * Buffers for what is read from sockets, used again once their bytes have been packed into cells. Without it every 64 KiB read is fresh memory
 * outside the heap, and the garbage collector runs all the time.
 */
export class ReadBuffers {
  readonly #free: Uint8Array[] = []
  /** Buffers given out: nothing else is taken back, and each only once. */
  readonly #lent = new WeakSet<ArrayBufferLike>()

  /** The bytes (borrowed) in memory that may be handed on. */
  copy(bytes: Uint8Array): Uint8Array {
    if (bytes.length < OWN_MEMORY_BYTES || bytes.length > READ_BYTES) return new Uint8Array(bytes)
    const buffer = this.#free.pop() ?? new Uint8Array(Buffer.allocUnsafeSlow(READ_BYTES).buffer)
    buffer.set(bytes)
    this.#lent.add(buffer.buffer)
    return buffer.subarray(0, bytes.length)
  }

  /** Takes back what `copy` gave out, when nobody uses it any more. Anything else is left alone. */
  release(bytes: Uint8Array): void {
    if (this.#lent.delete(bytes.buffer) && this.#free.length < MAX_FREE) this.#free.push(new Uint8Array(bytes.buffer))
  }
}

interface ReadHandle {
  useUserBuffer?(buffer: Uint8Array): void
}

/** One for all sockets: what was read is copied on before anything else is read. */
let shared: Buffer | null = null

/**
 * Reads a stream; each chunk is handed on in memory that `release` may give back. Where the stream is a plain socket of Node's, all reads
 * go into one buffer of ours: Node offers that as the option `onread`, but only to whoever makes the socket, so we set what the
 * option sets. Where that is not to be found, the 'data' event does the same with a fresh buffer each. Pausing works as usual.
 */
export function readInto(stream: Duplex, buffers: ReadBuffers, received: (bytes: Uint8Array) => void): void {
  if (!readIntoShared(stream, (bytes) => received(buffers.copy(bytes)))) stream.on('data', received)
}

function readIntoShared(stream: Duplex, received: (bytes: Uint8Array) => void): boolean {
  const fields = stream as unknown as Record<symbol, unknown>
  const symbols = Object.getOwnPropertySymbols(stream)
  const bufferField = symbols.find((symbol) => symbol.description === 'kBuffer')
  const callbackField = symbols.find((symbol) => symbol.description === 'kBufferCb')
  const handle = (stream as unknown as { _handle?: ReadHandle | null })._handle
  if (bufferField === undefined || callbackField === undefined || typeof handle?.useUserBuffer !== 'function') return false
  shared ??= Buffer.allocUnsafeSlow(READ_BYTES)
  const buffer = shared
  // What was read before.
  for (let chunk = stream.read(); chunk !== null; chunk = stream.read()) received(chunk)
  handle.useUserBuffer(buffer)
  fields[bufferField] = buffer
  fields[callbackField] = (length: number, filled: Uint8Array): boolean => {
    received(filled.subarray(0, length))
    return !stream.isPaused()
  }
  stream.resume()
  return true
}
