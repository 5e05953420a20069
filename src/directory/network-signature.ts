import { fromHex, MalformedError, toHex, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'

/**
 * A publisher's signature at the end of a network file (docs/spec/network-file.md):
 *
 *   …TOML…
 *   # issued: 2026-11-21T10:00:00Z
 *   # signature: ed25519 PUBLICKEY SIGNATURE
 *
 * Key and signature in lower-case hex; signed is DOMAIN and all bytes before the last line.
 */
const DOMAIN = utf8Bytes('shallot network file 1\0')
const KEY_HEX = 64
const SIGNATURE_HEX = 128
const LAST = new RegExp(`^# signature: ed25519 ([0-9a-f]{${KEY_HEX}}) ([0-9a-f]{${SIGNATURE_HEX}})$`)
const ISSUED = /^# issued: (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$/
/** A line that a person would take for a signature, whatever is wrong with it: never passed over as a comment. */
const LIKE_A_SIGNATURE = /^\s*#\s*signature\s*:/i

/** Ed25519 public key of a publisher, as 64 digits of lower-case hex. */
export type PublisherKey = string

export interface NetworkSignature {
  readonly publisher: PublisherKey
  /** ISO 8601 time, to the second; null when the file does not say. */
  readonly issued: string | null
}

/** Whether the text is of the form of a publisher's key. */
export function isPublisherKey(text: string): text is PublisherKey {
  return text.length === KEY_HEX && /^[0-9a-f]+$/.test(text)
}

/** The publisher's key of a secret. @param seed Ed25519 seed, 32 bytes */
export function publisherKey(suite: CryptoSuite, seed: Uint8Array): PublisherKey {
  return toHex(suite.ed25519.keyPair(seed).publicKey)
}

/** Who signed a network file; null when it is not signed. Whether the rest is right is not looked at. @throws MalformedError when it is signed wrongly */
export function readNetworkSignature(suite: CryptoSuite, text: string): NetworkSignature | null {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  if (!lines.some((line) => LIKE_A_SIGNATURE.test(line))) return null
  const last = lines.pop()!
  if (lines.some((line) => LIKE_A_SIGNATURE.test(line))) fail('its signature is not the last line: something was added after it was signed')
  const [, key, signature] = LAST.exec(last) ?? fail('its last line is no signature of a known form: # signature: ed25519 KEY SIGNATURE')
  const body = `${lines.join('\n')}\n`
  const isRight = suite.ed25519.verify(fromHex(key!), message(body), fromHex(signature!))
  if (!isRight) fail('its signature does not fit what it says: it was changed after it was signed, or damaged')
  return { publisher: key!, issued: ISSUED.exec(lines.at(-1) ?? '')?.[1] ?? null }
}

/**
 * The text with the publisher's signature, in place of an earlier one.
 * @param seed Ed25519 seed, 32 bytes
 * @param now wall-clock ms
 */
export function signNetworkFile(suite: CryptoSuite, seed: Uint8Array, text: string, now: number): string {
  const issued = new Date(now).toISOString().replace(/\.\d+Z$/, 'Z')
  const body = `${withoutSignature(text)}# issued: ${issued}\n`
  const signature = suite.ed25519.sign(seed, message(body))
  return `${body}# signature: ed25519 ${publisherKey(suite, seed)} ${toHex(signature)}\n`
}

/** The text before its signature, with a newline at its end. */
export function withoutSignature(text: string): string {
  const lines = text.split('\n')
  while (lines.length > 0 && (lines.at(-1)!.trim() === '' || LIKE_A_SIGNATURE.test(lines.at(-1)!) || ISSUED.test(lines.at(-1)!)))
    lines.pop()
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`
}

function message(body: string): Uint8Array {
  const bytes = utf8Bytes(body)
  const all = new Uint8Array(DOMAIN.length + bytes.length)
  all.set(DOMAIN)
  all.set(bytes, DOMAIN.length)
  return all
}

function fail(problem: string): never {
  throw new MalformedError('network file', problem)
}
