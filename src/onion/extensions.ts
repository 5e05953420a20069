import { assert, MalformedError, Reader, Writer } from '../base/index.ts'
import { HANDSHAKE_MESSAGE_BYTES } from './handshake.ts'

/**
 * What the two encrypted messages of a handshake hold, to the last byte. docs/spec/handshake.md §6
 *
 *   extension = type u8, length u8, value          types ascend, each at most once
 *
 * A type of 128 or more is critical: who does not know it refuses the handshake. Others are skipped by who does not know them.
 */
export interface Extension {
  readonly type: number
  readonly value: Uint8Array
}

const CRITICAL = 0x80

/** @param extensions in ascending order of their types; together at most HANDSHAKE_MESSAGE_BYTES */
export function encodeExtensions(extensions: readonly Extension[]): Uint8Array {
  const writer = new Writer(HANDSHAKE_MESSAGE_BYTES)
  let last = -1
  for (const { type, value } of extensions) {
    assert(type > last && type <= 0xff && value.length <= 0xff, 'extensions ascend and have at most 255 bytes')
    writer.u8(type).u8(value.length).bytes(value)
    last = type
  }
  const message = writer.finish()
  assert(message.length <= HANDSHAKE_MESSAGE_BYTES, 'a handshake message has at most 192 bytes')
  return message
}

/**
 * All extensions of a message; values are views.
 * @param known the types the caller understands
 * @throws MalformedError also for an unknown critical extension
 */
export function decodeExtensions(message: Uint8Array, known: ReadonlySet<number>): Extension[] {
  const reader = new Reader('handshake extensions', message)
  const extensions: Extension[] = []
  let last = -1
  while (reader.left > 0) {
    const type = reader.u8()
    if (type <= last) throw new MalformedError('handshake extensions', 'types do not ascend')
    if (type >= CRITICAL && !known.has(type)) throw new MalformedError('handshake extensions', `unknown critical extension ${type}`)
    extensions.push({ type, value: reader.bytes(reader.u8()) })
    last = type
  }
  return extensions
}

const noneKnown: ReadonlySet<number> = new Set()

/**
 * A relay's answer to a client's message in this version, which defines no extension: an empty message, or null (refuse) when the
 * client's is malformed or has a critical extension.
 */
export function answerExtensions(clientMessage: Uint8Array): Uint8Array | null {
  return acceptsExtensions(clientMessage) ? new Uint8Array() : null
}

/** Whether this version can take a message: well-formed and without an unknown critical extension. The client's check of a relay's. */
export function acceptsExtensions(message: Uint8Array): boolean {
  try {
    decodeExtensions(message, noneKnown)
    return true
  } catch (error) {
    if (error instanceof MalformedError) return false
    throw error
  }
}
