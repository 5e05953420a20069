import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'
import { concatBytes, MalformedError, ShallotError } from '../../base/index.ts'
import { MESSAGE_BYTES_MAX } from './messages.ts'
import { varint } from './protobuf.ts'

/**
 * Reads one message behind its length (a varint) from a stream, and leaves the stream paused with whatever came after it unread.
 * Must be called in the turn the stream is obtained in. The bytes pass to the caller.
 * @throws MalformedError on a message that is too long, or cut short; ShallotError 'stream-lost'; the signal's reason
 */
export function readMessage(stream: Stream, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const received = new Uint8ArrayList()
    const settle = (then: () => void): void => {
      stream.removeEventListener('message', onMessage)
      stream.removeEventListener('end', onEnd)
      stream.removeEventListener('close', onClose)
      signal.removeEventListener('abort', onAbort)
      then()
    }
    const fail = (error: unknown): void => settle(() => reject(error))
    const onMessage = (event: { data: Uint8Array | Uint8ArrayList }): void => {
      received.append(event.data)
      let message: Uint8Array | null
      try {
        message = takeMessage(received)
      } catch (error) {
        fail(error)
        return
      }
      if (message === null) return
      settle(() => {
        if (stream.readStatus === 'readable') stream.pause()
        if (received.byteLength > 0 && stream.readStatus === 'paused') stream.unshift(received)
        resolve(message)
      })
    }
    const onEnd = (): void => fail(stream.status === 'open' ? new MalformedError('message', 'is cut short') : lost())
    const onClose = (): void => fail(lost())
    const onAbort = (): void => fail(signal.reason)
    if (signal.aborted) return reject(signal.reason)
    if (stream.status !== 'open' && stream.readBufferLength === 0) return reject(lost())
    signal.addEventListener('abort', onAbort, { once: true })
    stream.addEventListener('message', onMessage)
    stream.addEventListener('end', onEnd)
    stream.addEventListener('close', onClose)
    if (stream.readableEnded) onEnd()
  })
}

/** Sends one message behind its length. @throws ShallotError 'stream-lost' */
export function writeMessage(stream: Stream, message: Uint8Array): void {
  try {
    stream.send(concatBytes(varint(message.length), message))
  } catch (error) {
    throw lost(error)
  }
}

/** The first message in what was received, taken out of it; null while it is not whole. @throws MalformedError */
function takeMessage(received: Uint8ArrayList): Uint8Array | null {
  let length = 0
  let at = 0
  for (; ; at++) {
    if (at === received.byteLength) return null
    const byte = received.get(at)
    length |= (byte & 0x7f) << (7 * at)
    if (byte < 0x80) break
    // Two bytes hold 16383.
    if (at === 1) throw new MalformedError('message', `has more than ${MESSAGE_BYTES_MAX} bytes`)
  }
  const start = at + 1
  if (length > MESSAGE_BYTES_MAX) throw new MalformedError('message', `has ${length} bytes, more than ${MESSAGE_BYTES_MAX}`)
  if (received.byteLength < start + length) return null
  const message = received.slice(start, start + length)
  received.consume(start + length)
  return message
}

function lost(cause?: unknown): ShallotError {
  return new ShallotError('stream-lost', 'the stream to a peer was lost', { kind: 'link', retry: 'later', cause })
}
