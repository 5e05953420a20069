import { poly1305 } from '@noble/ciphers/_poly1305.js'
import { ecb } from '@noble/ciphers/aes.js'
import { xchacha20 } from '@noble/ciphers/chacha.js'
import { x25519 } from '@noble/curves/ed25519.js'
import { sha3_256, shake256 } from '@noble/hashes/sha3.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'

/**
 * The simple twin of the onion core: docs/spec/cell.md and docs/spec/handshake.md read aloud, over noble, sharing no code with `src`.
 * Slow on purpose: every function returns fresh bytes, numbers are BigInts, one cell at a time. Vectors are generated from it.
 */
type Bytes = Uint8Array

export const bytes = (...parts: (Bytes | string | number[])[]): Bytes =>
  new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Uint8Array.from(part)))))

const u64 = (value: number): Bytes => {
  const out = new Uint8Array(8)
  new DataView(out.buffer).setBigUint64(0, BigInt(value))
  return out
}

// ---------------------------------------------------------------- HPolyC-XChaCha20-AES256

const little = (from: Bytes): bigint => [...from].reduceRight((value, byte) => value * 256n + BigInt(byte), 0n)
const sixteen = (value: bigint): Bytes => Uint8Array.from({ length: 16 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n))
const modulus = 1n << 128n

function hpolycParts(key: Bytes, tweak: Bytes) {
  const derived = xchacha20(key, bytes([1], new Uint8Array(23)), new Uint8Array(48))
  const bits = tweak.length * 8
  const head = bytes([bits & 255, bits >> 8, 0, 0], tweak)
  const padded = bytes(head, new Uint8Array((16 - (head.length % 16)) % 16))
  return {
    aes: ecb(derived.slice(0, 32), { disablePadding: true }),
    hash: (message: Bytes) => little(poly1305(bytes(padded, message), bytes(derived.slice(32), new Uint8Array(16)))),
    stream: (middle: Bytes, message: Bytes) => xchacha20(key, bytes(middle, [1], new Uint8Array(7)), message),
  }
}

export function hpolycEncrypt(key: Bytes, tweak: Bytes, plaintext: Bytes): Bytes {
  const { aes, hash, stream } = hpolycParts(key, tweak)
  const left = plaintext.slice(0, -16)
  const middle = aes.encrypt(sixteen((little(plaintext.slice(-16)) + hash(left)) % modulus))
  const sealed = stream(middle, left)
  return bytes(sealed, sixteen((little(middle) - hash(sealed) + modulus) % modulus))
}

export function hpolycDecrypt(key: Bytes, tweak: Bytes, ciphertext: Bytes): Bytes {
  const { aes, hash, stream } = hpolycParts(key, tweak)
  const left = ciphertext.slice(0, -16)
  const middle = sixteen((little(ciphertext.slice(-16)) + hash(left)) % modulus)
  const opened = stream(middle, left)
  return bytes(opened, sixteen((little(aes.decrypt(middle)) - hash(opened) + modulus) % modulus))
}

// ---------------------------------------------------------------- hashes

const PROTOID = bytes('shallot-ntor3-x25519-mlkem768-sha3-1')
const VER = bytes('circuit 1')
const encap = (s: Bytes): Bytes => bytes(u64(s.length), s)
const tag = (use: string): Bytes => encap(bytes(PROTOID, `:${use}`))
const H = (use: string, s: Bytes): Bytes => sha3_256(bytes(tag(use), s))
const MAC = (use: string, key: Bytes, s: Bytes): Bytes => sha3_256(bytes(tag(use), encap(key), s))
const KDF = (use: string, length: number, s: Bytes): Bytes => shake256(bytes(tag(use), s), { dkLen: length })

// ---------------------------------------------------------------- layers

export interface TwinKeys {
  forwardSeed: Bytes
  forwardChain: Bytes
  backwardSeed: Bytes
  backwardChain: Bytes
}

/** seed, counter and chain of one hop and direction. */
export class TwinLayer {
  direction: 1 | 2
  seed: Bytes
  counter = 0
  chain: Bytes

  constructor(direction: 1 | 2, seed: Bytes, chain: Bytes) {
    this.direction = direction
    this.seed = seed
    this.chain = chain
  }

  /** Key and tweak of the next cell, which is counted. */
  next(): { key: Bytes; tweak: Bytes } {
    if (this.counter > 0 && this.counter % 1024 === 0) this.seed = KDF('step', 32, this.seed)
    const key = KDF('key', 32, this.seed)
    const tweak = bytes([this.direction, 0, 0, 0], u64(this.counter), this.chain)
    this.counter++
    return { key, tweak }
  }
}

const startsWithTag = (cell: Bytes): boolean => cell.slice(0, 16).every((byte) => byte === 0)

export class TwinRelay {
  forward: TwinLayer
  backward: TwinLayer

  constructor(keys: TwinKeys) {
    this.forward = new TwinLayer(1, keys.forwardSeed, keys.forwardChain)
    this.backward = new TwinLayer(2, keys.backwardSeed, keys.backwardChain)
  }

  openForward(cell: Bytes): { cell: Bytes; recognised: boolean } {
    const { key, tweak } = this.forward.next()
    const opened = hpolycDecrypt(key, tweak, cell)
    const recognised = startsWithTag(opened)
    this.forward.chain = (recognised ? cell : opened).slice(0, 16)
    return { cell: opened, recognised }
  }

  sealBackward(cell: Bytes): Bytes {
    const { key, tweak } = this.backward.next()
    const sealed = hpolycEncrypt(key, tweak, cell)
    this.backward.chain = sealed.slice(0, 16)
    return sealed
  }
}

export class TwinClient {
  hops: TwinRelay[]

  constructor(keys: TwinKeys[]) {
    this.hops = keys.map((hop) => new TwinRelay(hop))
  }

  sealForward(cell: Bytes, addressee: number): Bytes {
    let sealed = cell
    for (let hop = addressee; hop >= 0; hop--) {
      const layer = this.hops[hop]!.forward
      const { key, tweak } = layer.next()
      const outside = hpolycEncrypt(key, tweak, sealed)
      layer.chain = (hop === addressee ? outside : sealed).slice(0, 16)
      sealed = outside
    }
    return sealed
  }

  openBackward(cell: Bytes): { cell: Bytes; hop: number | null } {
    let opened = cell
    for (const [hop, { backward }] of this.hops.entries()) {
      const { key, tweak } = backward.next()
      backward.chain = opened.slice(0, 16)
      opened = hpolycDecrypt(key, tweak, opened)
      if (startsWithTag(opened)) return { cell: opened, hop }
    }
    return { cell: opened, hop: null }
  }
}

// ---------------------------------------------------------------- handshake

export interface TwinHandshakeInput {
  ID: Bytes
  /** The relay's onion secret, 32 bytes. */
  b: Bytes
  /** The client's X25519 secret (32 bytes) and ML-KEM seed (64 bytes). */
  x: Bytes
  seed: Bytes
  /** The relay's X25519 secret and ML-KEM randomness, 32 bytes each. */
  y: Bytes
  m: Bytes
  clientMessage: Bytes
  relayMessage: Bytes
}

/** Both sides of one honest handshake, with everything in between. */
export function twinHandshake({ ID, b, x, seed, y, m, clientMessage, relayMessage }: TwinHandshakeInput) {
  const B = x25519.getPublicKey(b)
  const X = x25519.getPublicKey(x)
  const ek = ml_kem768.keygen(seed).publicKey
  const noNonce = new Uint8Array(24)

  const xb = x25519.getSharedSecret(b, X)
  const phase1 = KDF('kdf_phase1', 64, bytes(xb, ID, B, X, ek, PROTOID, encap(VER)))
  const encryptedClient = xchacha20(phase1.slice(0, 32), noNonce, clientMessage)
  const mac = MAC('msg_mac', phase1.slice(32), bytes(ID, B, X, ek, encryptedClient))
  const request = bytes(ID, B, X, ek, encryptedClient, mac)

  const Y = x25519.getPublicKey(y)
  const xy = x25519.getSharedSecret(y, X)
  const { cipherText: ct, sharedSecret: kem } = ml_kem768.encapsulate(ek, m)
  const secretInput = bytes(xy, xb, kem, ID, B, X, ek, Y, ct, PROTOID, encap(VER))
  const keySeed = H('key_seed', secretInput)
  const verify = H('verify', secretInput)
  const stream = KDF('kdf_final', 128, keySeed)
  const encryptedRelay = xchacha20(stream.slice(0, 32), noNonce, relayMessage)
  const auth = H('auth_final', bytes(verify, ID, B, Y, ct, X, ek, mac, encap(encryptedRelay), PROTOID, 'Server'))
  const reply = bytes(Y, ct, auth, encryptedRelay)
  const keys: TwinKeys = {
    forwardSeed: stream.slice(32, 64),
    backwardSeed: stream.slice(64, 96),
    forwardChain: stream.slice(96, 112),
    backwardChain: stream.slice(112, 128),
  }
  return { B, X, Y, phase1, mac, request, keySeed, verify, auth, reply, keys }
}
