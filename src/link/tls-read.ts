import type { TLSSocket } from 'node:tls'

/** TLS gives out one record at a time: at most 16 KiB (RFC 8446 §5.1). */
const READ_BYTES = 16 * 1024

/** One for all sockets: what was read is copied on before anything else is read. */
let shared: Buffer | null = null

interface ReadHandle {
  useUserBuffer?(buffer: Uint8Array): void
}

/**
 * Reads a TLS socket's data, each chunk borrowed for the call.
 *
 * Where Node allows it, every record is read into one buffer of ours. A fresh buffer a record makes the garbage collector mark the
 * heap every few dozen megabytes, which costs a relay half as much again as the whole rest of its link. Node offers this as the option
 * `onread`, but only to a socket that connects; for one that was accepted we set what the option sets. Where that is not to be
 * found, the 'data' event does the same more slowly.
 */
export function readTls(socket: TLSSocket, received: (chunk: Uint8Array) => void): void {
  if (!readIntoOwnBuffer(socket, received)) {
    socket.on('data', received)
    return
  }
  // What was read before.
  for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) received(chunk)
}

function readIntoOwnBuffer(socket: TLSSocket, received: (chunk: Uint8Array) => void): boolean {
  const fields = socket as unknown as Record<symbol, unknown>
  const symbols = Object.getOwnPropertySymbols(socket)
  const bufferField = symbols.find((symbol) => symbol.description === 'kBuffer')
  const callbackField = symbols.find((symbol) => symbol.description === 'kBufferCb')
  const handle = (socket as unknown as { _handle?: ReadHandle })._handle
  if (bufferField === undefined || callbackField === undefined || typeof handle?.useUserBuffer !== 'function') return false
  shared ??= Buffer.allocUnsafeSlow(READ_BYTES)
  const buffer = shared
  handle.useUserBuffer(buffer)
  fields[bufferField] = buffer
  fields[callbackField] = (length: number, filled: Uint8Array): boolean => {
    received(filled.subarray(0, length))
    return true
  }
  return true
}
