import { assert, concatBytes, equalBytes, equalSecret, Reader, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { HopTarget } from './circuit.ts'
import { encap, H, type HopKeys, KDF, label, MAC, PROTOID, VER } from './kdf.ts'
import type { OnionKeyring } from './keyring.ts'

/**
 * The hybrid handshake with one hop: ntor-v3's pattern with ML-KEM-768 beside X25519. docs/spec/handshake.md has every byte;
 * the names here are its symbols: ID, B, b of the relay; X, x, ek, dk of the client; Y, y, ct of the answer.
 */

const KEY = 32
const EK = 1184
const CT = 1088
const MAC_BYTES = 32
/** Where the parts of a request lie: ID 32, B 32, X 32, ek 1184, encrypted message, MAC 32. */
const REQUEST_HEAD = 3 * KEY + EK
/** Where the parts of a reply lie: Y 32, ct 1088, AUTH 32, encrypted message. */
const REPLY_HEAD = KEY + CT + MAC_BYTES

/** The most bytes of either message. */
export const HANDSHAKE_MESSAGE_BYTES = 192
/** A request with an empty message. */
export const MIN_REQUEST_BYTES: number = REQUEST_HEAD + MAC_BYTES
export const MAX_REQUEST_BYTES: number = MIN_REQUEST_BYTES + HANDSHAKE_MESSAGE_BYTES
/** A reply with an empty message. */
export const MIN_REPLY_BYTES: number = REPLY_HEAD
export const MAX_REPLY_BYTES: number = MIN_REPLY_BYTES + HANDSHAKE_MESSAGE_BYTES

const phase1Label = label('kdf_phase1')
const messageMacLabel = label('msg_mac')
const seedLabel = label('key_seed')
const verifyLabel = label('verify')
const finalLabel = label('kdf_final')
const authLabel = label('auth_final')
const encapVer = encap(VER)
const server = utf8Bytes('Server')
/** The message keys are used once each, so the nonce is zero. */
const zeroNonce = new Uint8Array(24)

/** Secrets of one side, for vectors and tests: never given in a node. */
export interface ClientEphemeral {
  /** x, 32 bytes. */
  readonly x25519: Uint8Array
  /** d || z, 64 bytes. */
  readonly mlkem768: Uint8Array
}

export interface RelayEphemeral {
  /** y, 32 bytes. */
  readonly x25519: Uint8Array
  /** m, 32 bytes. */
  readonly mlkem768: Uint8Array
}

/** What a client keeps between request and reply. Good for one reply; `finishHandshake` or `dropHandshake` overwrites it. */
export interface HandshakeState {
  /** To be put into CREATE or EXTEND. */
  readonly request: Uint8Array
  readonly secrets: HandshakeSecrets
}

export interface HandshakeSecrets {
  readonly x: Uint8Array
  /** dk, as its seed. */
  readonly dk: Uint8Array
  /** X25519(x, B). */
  readonly bx: Uint8Array
  /** False when B was a point of small order (no reply can be accepted) or the state is used up. */
  usable: boolean
}

/**
 * Begins a handshake with a relay.
 * @param message at most HANDSHAKE_MESSAGE_BYTES; encrypted to the onion key: neither forward secret nor post-quantum, and replayable
 */
export function beginHandshake(suite: CryptoSuite, target: HopTarget, message: Uint8Array, ephemeral?: ClientEphemeral): HandshakeState {
  assert(target.id.length === KEY && target.onionKey.x25519.length === KEY, 'an identity and an onion key have 32 bytes')
  assert(message.length <= HANDSHAKE_MESSAGE_BYTES, 'a handshake message has at most 192 bytes')
  const ID = target.id
  const B = target.onionKey.x25519
  const x = suite.x25519.keyPair(ephemeral?.x25519)
  const dk = suite.mlkem768.keyPair(ephemeral?.mlkem768)
  const shared = suite.x25519.shared(x.secret, B)
  // A B of small order is the relay's fault, not ours: it gets a request under a random key, which it must refuse.
  const bx = shared ?? suite.random(KEY)
  const keys = phase1(suite, bx, ID, B, x.publicKey, dk.publicKey)
  const encrypted = suite.xchacha20(keys.enc, zeroNonce, message)
  const mac = MAC(suite, messageMacLabel, keys.mac, ID, B, x.publicKey, dk.publicKey, encrypted)
  keys.wipe()
  return {
    request: concatBytes(ID, B, x.publicKey, dk.publicKey, encrypted, mac),
    secrets: { x: x.secret, dk: dk.secret, bx, usable: shared !== null },
  }
}

/** The relay that a request is for: its leading 32-byte identity (a view). @throws MalformedError when it is shorter */
export function requestTarget(request: Uint8Array): Uint8Array {
  return new Reader('handshake request', request).bytes(KEY)
}

/**
 * Answers a request. Null on any failure: wrong lengths, another identity, an unknown onion key, a wrong MAC, a refused message, an
 * invalid ek, an all-zero X25519 result.
 * @param respond given the client's message, returns the relay's (at most HANDSHAKE_MESSAGE_BYTES), or null to refuse
 */
export function answerHandshake(
  suite: CryptoSuite,
  keyring: OnionKeyring,
  request: Uint8Array,
  respond: (clientMessage: Uint8Array) => Uint8Array | null,
  ephemeral?: RelayEphemeral,
): { reply: Uint8Array; keys: HopKeys; clientMessage: Uint8Array } | null {
  if (request.length < MIN_REQUEST_BYTES || request.length > MAX_REQUEST_BYTES) return null
  const parts = new Reader('handshake request', request)
  const ID = parts.bytes(KEY)
  const B = parts.bytes(KEY)
  const X = parts.bytes(KEY)
  const ek = parts.bytes(EK)
  const encrypted = parts.bytes(parts.left - MAC_BYTES)
  const mac = parts.rest()
  if (!equalBytes(ID, keyring.identity)) return null
  const onion = keyring.find(B)
  if (onion === null) return null

  const xb = suite.x25519.shared(onion.secret, X)
  if (xb === null) return null
  const first = phase1(suite, xb, ID, B, X, ek)
  const expected = MAC(suite, messageMacLabel, first.mac, ID, B, X, ek, encrypted)
  const clientMessage = equalSecret(mac, expected) ? suite.xchacha20(first.enc, zeroNonce, encrypted) : null
  first.wipe()
  const answer = clientMessage === null ? null : respond(clientMessage)
  if (clientMessage === null || answer === null) {
    xb.fill(0)
    return null
  }
  assert(answer.length <= HANDSHAKE_MESSAGE_BYTES, 'a handshake message has at most 192 bytes')

  const y = suite.x25519.keyPair(ephemeral?.x25519)
  const xy = suite.x25519.shared(y.secret, X)
  const kem = suite.mlkem768.encapsulate(ek, ephemeral?.mlkem768)
  y.secret.fill(0)
  if (xy === null || kem === null) {
    xb.fill(0)
    return null
  }
  const transcript: Transcript = { ID, B, X, ek, Y: y.publicKey, ct: kem.ciphertext, mac }
  const schedule = agree(suite, xy, xb, kem.shared, transcript)
  const encryptedAnswer = suite.xchacha20(schedule.enc, zeroNonce, answer)
  const auth = authenticate(suite, schedule.verify, transcript, encryptedAnswer)
  wipe(xb, xy, kem.shared, schedule.enc, schedule.verify)
  return { reply: concatBytes(y.publicKey, kem.ciphertext, auth, encryptedAnswer), keys: schedule.keys, clientMessage }
}

/** Accepts the relay's reply, or null: wrong length, an all-zero X25519 result, or an AUTH that does not prove the relay. Uses the state up. */
export function finishHandshake(
  suite: CryptoSuite,
  state: HandshakeState,
  reply: Uint8Array,
): { keys: HopKeys; message: Uint8Array } | null {
  const { request, secrets } = state
  const result =
    secrets.usable && reply.length >= MIN_REPLY_BYTES && reply.length <= MAX_REPLY_BYTES ? accept(suite, request, secrets, reply) : null
  dropHandshake(state)
  return result
}

/** Overwrites the secrets of a handshake that gets no reply any more. */
export function dropHandshake(state: HandshakeState): void {
  state.secrets.usable = false
  wipe(state.secrets.x, state.secrets.dk, state.secrets.bx)
}

function accept(
  suite: CryptoSuite,
  request: Uint8Array,
  secrets: HandshakeSecrets,
  reply: Uint8Array,
): { keys: HopKeys; message: Uint8Array } | null {
  const sent = new Reader('handshake request', request)
  const [ID, B, X, ek] = [sent.bytes(KEY), sent.bytes(KEY), sent.bytes(KEY), sent.bytes(EK)]
  const mac = request.subarray(request.length - MAC_BYTES)
  const parts = new Reader('handshake reply', reply)
  const [Y, ct, auth, encrypted] = [parts.bytes(KEY), parts.bytes(CT), parts.bytes(MAC_BYTES), parts.rest()]
  const yx = suite.x25519.shared(secrets.x, Y)
  if (yx === null) return null
  const kem = suite.mlkem768.decapsulate(secrets.dk, ct)
  const transcript: Transcript = { ID, B, X, ek, Y, ct, mac }
  const schedule = agree(suite, yx, secrets.bx, kem, transcript)
  const proven = equalSecret(auth, authenticate(suite, schedule.verify, transcript, encrypted))
  const message = proven ? suite.xchacha20(schedule.enc, zeroNonce, encrypted) : null
  wipe(yx, kem, schedule.enc, schedule.verify)
  if (message !== null) return { keys: schedule.keys, message }
  wipeHopKeys(schedule.keys)
  return null
}

interface Transcript {
  readonly ID: Uint8Array
  readonly B: Uint8Array
  readonly X: Uint8Array
  readonly ek: Uint8Array
  readonly Y: Uint8Array
  readonly ct: Uint8Array
  readonly mac: Uint8Array
}

/** The keys of the client's message. docs/spec/handshake.md §3 */
function phase1(
  suite: CryptoSuite,
  bx: Uint8Array,
  ID: Uint8Array,
  B: Uint8Array,
  X: Uint8Array,
  ek: Uint8Array,
): { enc: Uint8Array; mac: Uint8Array; wipe(): void } {
  const keys = KDF(suite, phase1Label, 64, bx, ID, B, X, ek, PROTOID, encapVer)
  return { enc: keys.subarray(0, 32), mac: keys.subarray(32), wipe: () => wipe(keys) }
}

/** The key schedule after both sides have spoken. docs/spec/handshake.md §4 */
function agree(
  suite: CryptoSuite,
  xy: Uint8Array,
  xb: Uint8Array,
  kem: Uint8Array,
  { ID, B, X, ek, Y, ct }: Transcript,
): { enc: Uint8Array; verify: Uint8Array; keys: HopKeys } {
  const secretInput = concatBytes(xy, xb, kem, ID, B, X, ek, Y, ct, PROTOID, encapVer)
  const keySeed = H(suite, seedLabel, secretInput)
  const verify = H(suite, verifyLabel, secretInput)
  const stream = KDF(suite, finalLabel, 128, keySeed)
  const keys: HopKeys = {
    forwardSeed: stream.slice(32, 64),
    backwardSeed: stream.slice(64, 96),
    forwardChain: stream.slice(96, 112),
    backwardChain: stream.slice(112, 128),
  }
  const enc = stream.slice(0, 32)
  wipe(secretInput, keySeed, stream)
  return { enc, verify, keys }
}

function authenticate(suite: CryptoSuite, verify: Uint8Array, { ID, B, X, ek, Y, ct, mac }: Transcript, encrypted: Uint8Array): Uint8Array {
  return H(suite, authLabel, verify, ID, B, Y, ct, X, ek, mac, encap(encrypted), PROTOID, server)
}

/** Overwrites the keys of a hop, once its layers have copied them. */
export function wipeHopKeys(keys: HopKeys): void {
  wipe(keys.forwardSeed, keys.forwardChain, keys.backwardSeed, keys.backwardChain)
}

function wipe(...secrets: readonly Uint8Array[]): void {
  for (const secret of secrets) secret.fill(0)
}
