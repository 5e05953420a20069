import { poly1305 } from '@noble/ciphers/_poly1305.js'
import { unsafe } from '@noble/ciphers/aes.js'
import { xchacha20 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { sha256, sha512 } from '@noble/hashes/sha2.js'
import { sha3_256, shake256 } from '@noble/hashes/sha3.js'
import { randomBytes } from '@noble/hashes/utils.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { assert, concatBytes, equalBytes } from '../base/index.ts'
import { AES_BLOCK_BYTES, type AesKey, type AesUnit } from './aes.ts'
import { HPolyC, type WideBlockPrimitives } from './hpolyc.ts'
import type { CryptoSuite } from './suite.ts'

const primitives: WideBlockPrimitives = {
  poly1305: (out, input, key) => out.set(poly1305(input, key)),
  xchacha20Xor(data, nonce, key) {
    // noble writes only to aligned arrays.
    if (data.byteOffset % 4 === 0) xchacha20(key, nonce, data, data)
    else data.set(xchacha20(key, nonce, data))
  },
  aes: nobleAes(),
}

/** The suite over the noble libraries: JavaScript only, for platforms without the native one. About a tenth of its speed. */
export function portableSuite(): CryptoSuite {
  return {
    name: 'portable',
    description: 'noble ciphers, curves, hashes and post-quantum (JavaScript)',
    random: (length) => randomBytes(length),
    wideBlock: (key) => new HPolyC(primitives, key),

    x25519: {
      keyPair(given) {
        const secret = given === undefined ? randomBytes(32) : own(given, 32, 'an X25519 secret')
        return { secret, publicKey: x25519.getPublicKey(secret) }
      },
      shared(secret, publicKey) {
        assert(secret.length === 32 && publicKey.length === 32, 'X25519 keys have 32 bytes')
        try {
          return x25519.getSharedSecret(secret, publicKey)
        } catch {
          return null // noble's only failure for keys of this length: an all-zero result
        }
      },
    },

    mlkem768: {
      keyPair(given) {
        const secret = given === undefined ? randomBytes(64) : own(given, 64, 'an ML-KEM seed')
        const { publicKey, secretKey } = ml_kem768.keygen(secret)
        secretKey.fill(0)
        return { secret, publicKey }
      },
      encapsulate(publicKey, random) {
        assert(publicKey.length === 1184, 'an ML-KEM-768 public key has 1184 bytes')
        assert(random === undefined || random.length === 32, 'the randomness of ML-KEM has 32 bytes')
        try {
          const { cipherText, sharedSecret } = ml_kem768.encapsulate(publicKey, random)
          return { ciphertext: cipherText, shared: sharedSecret }
        } catch {
          return null // noble's only failure for inputs of these lengths: the modulus check
        }
      },
      decapsulate(secret, ciphertext) {
        assert(secret.length === 64 && ciphertext.length === 1088, 'an ML-KEM-768 seed has 64 bytes, a ciphertext 1088')
        const { secretKey } = ml_kem768.keygen(secret)
        const shared = ml_kem768.decapsulate(ciphertext, secretKey)
        secretKey.fill(0)
        return shared
      },
    },

    ed25519: {
      keyPair(given) {
        const secret = given === undefined ? randomBytes(32) : own(given, 32, 'an Ed25519 seed')
        return { secret, publicKey: ed25519.getPublicKey(secret) }
      },
      sign(seed, message) {
        assert(seed.length === 32, 'an Ed25519 seed has 32 bytes')
        return ed25519.sign(message, seed)
      },
      verify: verifyEd25519,
    },

    sha256: (...parts) => sha256(concatBytes(...parts)),
    sha3_256: (...parts) => sha3_256(concatBytes(...parts)),
    shake256: (length, ...parts) => shake256(concatBytes(...parts), { dkLen: length }),
    xchacha20(key, nonce, data) {
      assert(key.length === 32 && nonce.length === 24, 'XChaCha20 has a 32-byte key and a 24-byte nonce')
      return xchacha20(key, nonce, data)
    },
  }
}

function nobleAes(): AesUnit {
  const input = new Uint8Array(AES_BLOCK_BYTES)
  const output = new Uint8Array(AES_BLOCK_BYTES)
  return { input, output, key: (key) => new NobleKey(input, output, key) }
}

/** noble's single-block AES, with both key schedules kept. It looks tables up: its time is not independent of the data. */
class NobleKey implements AesKey {
  readonly #input: Uint8Array
  readonly #output: Uint8Array
  readonly #key: Uint8Array
  #encryptKeys: Uint32Array | null = null
  #decryptKeys: Uint32Array | null = null

  constructor(input: Uint8Array, output: Uint8Array, key: Uint8Array) {
    this.#input = input
    this.#output = output
    this.#key = Uint8Array.from(key)
  }

  encrypt(): void {
    this.#encryptKeys ??= unsafe.expandKeyLE(this.#key)
    this.#output.set(this.#input)
    unsafe.encryptBlock(this.#encryptKeys, this.#output)
  }

  decrypt(): void {
    this.#decryptKeys ??= unsafe.expandKeyDecLE(this.#key)
    this.#output.set(this.#input)
    unsafe.decryptBlock(this.#decryptKeys, this.#output)
  }

  destroy(): void {
    this.#key.fill(0)
    this.#encryptKeys?.fill(0)
    this.#decryptKeys?.fill(0)
  }
}

/**
 * The verification rules of libsodium, so that both suites agree on every input: canonical S, R and key, none of small order,
 * and the equation without the cofactor. (noble's own `verify` multiplies by the cofactor.) RFC 8032 §5.1.7
 */
function verifyEd25519(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 32 || signature.length !== 64) return false
  const { Point } = ed25519
  const encodedR = signature.subarray(0, 32)
  const s = littleEndian(signature.subarray(32))
  if (s >= Point.Fn.ORDER) return false
  try {
    const A = Point.fromBytes(publicKey, false)
    if (A.isSmallOrder() || Point.fromBytes(encodedR, false).isSmallOrder()) return false
    const k = littleEndian(sha512(concatBytes(encodedR, publicKey, message))) % Point.Fn.ORDER
    const R = Point.BASE.multiplyUnsafe(s).add(A.negate().multiplyUnsafe(k))
    return equalBytes(R.toBytes(), encodedR)
  } catch {
    return false // not the encoding of a point
  }
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!)
  return value
}

function own(bytes: Uint8Array, length: number, what: string): Uint8Array {
  assert(bytes.length === length, `${what} has ${length} bytes`)
  return Uint8Array.from(bytes)
}
