import { assert, concatBytes, equalBytes, MalformedError, NODE_KEY_BYTES, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'

/**
 * A libp2p signed envelope (libp2p RFC 0002) in the one form we write, and accept: Ed25519, fields in order, shortest varints.
 *
 *   0a 24 | 08 01 12 20 key (32) | 12 len payload type | 1a len payload | 2a 40 signature (64)
 *
 * The signature covers, each with its length as a varint before it: the domain, the payload type, the payload.
 */
export interface Envelope {
  /** The signer's Ed25519 key, 32 bytes. Borrowed. */
  readonly key: Uint8Array
  readonly payload: Uint8Array
  readonly signature: Uint8Array
}

/** What an envelope is for: a signature made for one purpose is worth nothing for another. */
export interface EnvelopePurpose {
  readonly domain: Uint8Array
  readonly payloadType: Uint8Array
}

export function envelopePurpose(domain: string, payloadType: string): EnvelopePurpose {
  return { domain: utf8Bytes(domain), payloadType: utf8Bytes(payloadType) }
}

/** @param seed the Ed25519 seed, 32 bytes */
export function sealEnvelope(suite: CryptoSuite, seed: Uint8Array, purpose: EnvelopePurpose, payload: Uint8Array): Uint8Array {
  const { publicKey } = suite.ed25519.keyPair(seed)
  const signature = suite.ed25519.sign(seed, signedBytes(purpose, payload))
  return concatBytes(
    keyField,
    publicKey,
    Uint8Array.of(0x12),
    varint(purpose.payloadType.length),
    purpose.payloadType,
    Uint8Array.of(0x1a),
    varint(payload.length),
    payload,
    Uint8Array.of(0x2a, SIGNATURE_BYTES),
    signature,
  )
}

/** Takes an envelope apart without looking at the signature. @throws MalformedError */
export function decodeEnvelope(purpose: EnvelopePurpose, bytes: Uint8Array): Envelope {
  let at = 0
  const expect = (wanted: Uint8Array, what: string): void => {
    if (!equalBytes(bytes.subarray(at, at + wanted.length), wanted)) throw new MalformedError('envelope', `${what} is not the expected one`)
    at += wanted.length
  }
  const take = (length: number): Uint8Array => {
    if (bytes.length - at < length) throw new MalformedError('envelope', 'is cut short')
    at += length
    return bytes.subarray(at - length, at)
  }
  expect(keyField, 'key type')
  const key = take(NODE_KEY_BYTES)
  expect(concatBytes(Uint8Array.of(0x12), varint(purpose.payloadType.length), purpose.payloadType), 'payload type')
  expect(Uint8Array.of(0x1a), 'payload field')
  const first = take(1)[0]!
  let length = first
  if (first >= 0x80) {
    const second = take(1)[0]!
    if (second >= 0x80 || second === 0) throw new MalformedError('envelope', 'payload length is not a short varint')
    length = (first & 0x7f) | (second << 7)
  }
  const payload = take(length)
  expect(Uint8Array.of(0x2a, SIGNATURE_BYTES), 'signature field')
  const signature = take(SIGNATURE_BYTES)
  if (at !== bytes.length) throw new MalformedError('envelope', `${bytes.length - at} bytes too many`)
  return { key, payload, signature }
}

export function verifyEnvelope(suite: CryptoSuite, purpose: EnvelopePurpose, envelope: Envelope): boolean {
  return suite.ed25519.verify(envelope.key, signedBytes(purpose, envelope.payload), envelope.signature)
}

const SIGNATURE_BYTES = 64

/** Field 1, 36 bytes: the protobuf public key, type Ed25519, 32 bytes. libp2p peer-ids specification. */
const keyField = Uint8Array.of(0x0a, 0x24, 0x08, 0x01, 0x12, 0x20)

function signedBytes(purpose: EnvelopePurpose, payload: Uint8Array): Uint8Array {
  return concatBytes(
    varint(purpose.domain.length),
    purpose.domain,
    varint(purpose.payloadType.length),
    purpose.payloadType,
    varint(payload.length),
    payload,
  )
}

/** An unsigned varint of at most two bytes: nothing here is longer than 16383. */
function varint(value: number): Uint8Array {
  assert(value < 0x4000, 'an envelope holds at most 16383 bytes')
  return value < 0x80 ? Uint8Array.of(value) : Uint8Array.of((value & 0x7f) | 0x80, value >> 7)
}
