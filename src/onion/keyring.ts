import { assert, equalBytes, MalformedError, Reader, utf8Bytes, Writer } from '../base/index.ts'
import type { CryptoSuite, KeyPair } from '../crypto/index.ts'
import type { OnionPublicKey } from './circuit.ts'

/** How long keys are used. Milliseconds. */
export interface OnionKeyTimes {
  /** A key is published for this long, then replaced. */
  readonly lifetimeMs: number
  /** A replaced key still answers for this long: at least as long as a descriptor that names it is valid. */
  readonly graceMs: number
}

const dayMs = 86_400_000
/** A stolen key reads at most a week of clients' first messages; the grace outlasts any descriptor that names the old key. */
export const ONION_KEY_TIMES: OnionKeyTimes = { lifetimeMs: 7 * dayMs, graceMs: 7 * dayMs }
/** A key made further in the future than this comes from a clock that was wrong, and is replaced. */
const CLOCK_SLACK_MS = 3_600_000

/** One X25519 onion key: b, B, and when it was made (wall-clock milliseconds). */
export interface OnionKey {
  readonly pair: KeyPair
  readonly createdAt: number
}

interface PreviousKey extends OnionKey {
  readonly replacedAt: number
}

/** The state of a keyring. */
interface Keys {
  readonly current: OnionKey
  readonly previous: PreviousKey | null
}

const magic = utf8Bytes('shallot onion keys 1\n')

/**
 * What a relay answers handshakes with: its identity (32 bytes, public), the current onion key, and the one before it while that is
 * still accepted. Which keys it holds is a function of the wall-clock times given to `rotate`.
 */
export class OnionKeyring {
  readonly identity: Uint8Array
  readonly times: OnionKeyTimes
  #keys: Keys

  private constructor(identity: Uint8Array, keys: Keys, times: OnionKeyTimes) {
    assert(identity.length === 32, 'an identity has 32 bytes')
    this.identity = identity.slice()
    this.times = times
    this.#keys = keys
  }

  /** A keyring with one fresh key. @param identity Ed25519 public key, copied; @param now wall-clock milliseconds */
  static create(suite: CryptoSuite, identity: Uint8Array, now: number, times: OnionKeyTimes = ONION_KEY_TIMES): OnionKeyring {
    return new OnionKeyring(identity, { current: freshKey(suite, now), previous: null }, times)
  }

  /** The published key. */
  get current(): OnionPublicKey {
    return { x25519: this.#keys.current.pair.publicKey }
  }

  /** When the current key was made (wall-clock milliseconds): changes exactly when `current` does. */
  get createdAt(): number {
    return this.#keys.current.createdAt
  }

  /** When the current key is replaced (wall-clock milliseconds). */
  get replacedAt(): number {
    return this.#keys.current.createdAt + this.times.lifetimeMs
  }

  /** Until when the key before the current one is accepted (wall-clock milliseconds); null when there is none. */
  get previousUntil(): number | null {
    const { previous } = this.#keys
    return previous === null ? null : previous.replacedAt + this.times.graceMs
  }

  /** When `rotate` next has something to do (wall-clock milliseconds). */
  get nextRotationAt(): number {
    const { current, previous } = this.#keys
    const due = current.createdAt + this.times.lifetimeMs
    return previous === null ? due : Math.min(due, previous.replacedAt + this.times.graceMs)
  }

  /** Replaces the current key when its time is over, and forgets the previous one when its grace is. True when `current` changed. */
  rotate(suite: CryptoSuite, now: number): boolean {
    const { current, previous } = this.#keys
    const kept = previous !== null && isInTime(previous.replacedAt, now, this.times.graceMs) ? previous : null
    if (previous !== null && kept === null) previous.pair.secret.fill(0)
    const due = !isInTime(current.createdAt, now, this.times.lifetimeMs)
    if (!due) {
      this.#keys = { current, previous: kept }
      return false
    }
    kept?.pair.secret.fill(0)
    // A node that was off for long past the lifetime does not answer with a key older than lifetime and grace together.
    const late = !isInTime(current.createdAt, now, this.times.lifetimeMs + this.times.graceMs)
    if (late) current.pair.secret.fill(0)
    this.#keys = { current: freshKey(suite, now), previous: late ? null : { ...current, replacedAt: now } }
    return true
  }

  /** The key pair of a B that is current or still accepted, else null. */
  find(x25519: Uint8Array): KeyPair | null {
    const { current, previous } = this.#keys
    if (equalBytes(current.pair.publicKey, x25519)) return current.pair
    if (previous !== null && equalBytes(previous.pair.publicKey, x25519)) return previous.pair
    return null
  }

  /**
   * The secret keys as bytes for a private file: magic, identity 32, current (createdAt u64, b 32), count of previous u8 (0 or 1),
   * previous (createdAt u64, replacedAt u64, b 32).
   */
  serialise(): Uint8Array {
    const { current, previous } = this.#keys
    const writer = new Writer(160).bytes(magic).bytes(this.identity).u64(current.createdAt).bytes(current.pair.secret)
    if (previous === null) return writer.u8(0).finish()
    return writer.u8(1).u64(previous.createdAt).u64(previous.replacedAt).bytes(previous.pair.secret).finish()
  }

  /** @throws MalformedError when the bytes are not a keyring, or another identity's */
  static restore(suite: CryptoSuite, identity: Uint8Array, bytes: Uint8Array, times: OnionKeyTimes = ONION_KEY_TIMES): OnionKeyring {
    const reader = new Reader('onion keys', bytes)
    if (!equalBytes(reader.bytes(magic.length), magic)) throw new MalformedError('onion keys', 'not a file of onion keys of this version')
    if (!equalBytes(reader.bytes(32), identity)) throw new MalformedError('onion keys', 'they belong to another identity')
    const current: OnionKey = { createdAt: reader.u53(), pair: suite.x25519.keyPair(reader.bytes(32)) }
    const count = reader.u8()
    if (count > 1) throw new MalformedError('onion keys', 'more than one previous key')
    const previous: PreviousKey | null =
      count === 0 ? null : { createdAt: reader.u53(), replacedAt: reader.u53(), pair: suite.x25519.keyPair(reader.bytes(32)) }
    reader.end()
    return new OnionKeyring(identity, { current, previous }, times)
  }
}

function freshKey(suite: CryptoSuite, now: number): OnionKey {
  return { createdAt: now, pair: suite.x25519.keyPair() }
}

function isInTime(since: number, now: number, lengthMs: number): boolean {
  return now < since + lengthMs && since <= now + CLOCK_SLACK_MS
}
