import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ClientStream } from '../client/index.ts'

/** What an application may send before its stream is open; more waits in the kernel. */
export const EARLY_BYTES = 65_536

/**
 * Reads an application's socket while there is no stream for its bytes yet: so its going away is noticed, and nothing is lost.
 * Takes the socket's 'data' over from whoever had it.
 */
export class EarlyBytes {
  readonly socket: Socket
  readonly #chunks: Uint8Array[] = []
  #length = 0
  readonly #keep = (chunk: Uint8Array): void => {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length >= EARLY_BYTES) this.socket.pause()
  }

  /** @param first what has been read already (ownership passes) */
  constructor(socket: Socket, first: Uint8Array) {
    this.socket = socket
    socket.removeAllListeners('data')
    if (first.length > 0) this.#keep(first)
    socket.on('data', this.#keep)
  }

  /** Hands the bytes and the reading over to a stream. */
  flowInto(stream: Duplex): void {
    this.socket.off('data', this.#keep)
    for (const chunk of this.#chunks) stream.write(chunk)
    this.#chunks.length = 0
    this.socket.pipe(stream)
  }
}

/**
 * Joins an application's socket to its stream until both are over. Each direction flows and ends by itself (half-close). The application's socket
 * ends in order only after the stream's in-band end; when the stream is lost before, it is reset: a cut transfer never looks complete.
 * `pipe` was measured against a data/drain pump of our own: no difference (both near 3 GB/s), so the library's it is.
 */
export function splice(early: EarlyBytes, stream: ClientStream): void {
  const { socket } = early
  if (socket.destroyed) {
    stream.on('error', () => {})
    stream.destroy()
    return
  }
  stream.on('error', () => {}) // 'close' follows and does the work
  stream.on('close', () => {
    if (socket.destroyed) return
    if (stream.readableEnded) socket.destroySoon()
    else socket.resetAndDestroy()
  })
  socket.on('close', (hadError) => {
    // After an orderly end of both directions the stream may still be sending the last bytes: it ends by itself.
    const complete = !hadError && socket.readableEnded && socket.writableFinished
    if (!complete && !stream.destroyed) stream.destroy()
  })
  early.flowInto(stream)
  deliver(stream, socket)
}

/** `pipe`, which gives the stream its memory back: what a chunk was held in is used again once the system has taken the chunk. */
function deliver(stream: ClientStream, socket: Socket): void {
  stream.on('data', (chunk: Uint8Array) => {
    if (!socket.write(chunk, () => stream.release?.(chunk))) stream.pause()
  })
  socket.on('drain', () => stream.resume())
  stream.on('end', () => socket.end())
}
