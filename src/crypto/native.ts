import { createPrivateKey, createPublicKey, decapsulate, encapsulate, generateKeyPairSync, hash, type KeyObject } from 'node:crypto'
import { createRequire } from 'node:module'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { assert, concatBytes } from '../base/index.ts'
import type { AesUnit } from './aes.ts'
import { HPolyC, type WideBlockPrimitives } from './hpolyc.ts'
import { nodeAes } from './node-aes.ts'
import type { CryptoSuite } from './suite.ts'
import { vectorAes } from './vector-aes.ts'

/** What is used of sodium-native: each call writes into its first argument and throws when libsodium says no. */
interface Sodium {
  randombytes_buf(out: Uint8Array): void
  crypto_scalarmult_base(out: Uint8Array, secret: Uint8Array): void
  crypto_scalarmult(out: Uint8Array, secret: Uint8Array, point: Uint8Array): void
  crypto_sign_seed_keypair(publicKey: Uint8Array, secret: Uint8Array, seed: Uint8Array): void
  crypto_sign_detached(signature: Uint8Array, message: Uint8Array, secret: Uint8Array): void
  crypto_sign_verify_detached(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean
  crypto_stream_xchacha20_xor(out: Uint8Array, data: Uint8Array, nonce: Uint8Array, key: Uint8Array): void
  crypto_onetimeauth(out: Uint8Array, data: Uint8Array, key: Uint8Array): void
}

/**
 * The suite over sodium-native (stream cipher, Poly1305, X25519, Ed25519), node:crypto (ML-KEM, hashes) and vector AES in WebAssembly.
 * @param vector null where WebAssembly cannot do that: then AES is node:crypto's too
 * @throws whatever the loader throws when sodium-native has no binary for this platform, or node:crypto no ML-KEM
 */
export function nativeSuite(vector: AesUnit | null = vectorAes()): CryptoSuite {
  const require = createRequire(import.meta.url)
  const sodium = require('sodium-native') as Sodium
  const { version } = require('sodium-native/package.json') as { version: string }
  const primitives: WideBlockPrimitives = {
    poly1305: (out, input, key) => sodium.crypto_onetimeauth(out, input, key),
    xchacha20Xor: (data, nonce, key) => sodium.crypto_stream_xchacha20_xor(data, data, nonce, key),
    aes: vector ?? nodeAes(),
  }
  const random = (length: number): Uint8Array => {
    const out = new Uint8Array(length)
    sodium.randombytes_buf(out)
    return out
  }

  return {
    name: 'native',
    description: `sodium-native ${version}, OpenSSL ${process.versions.openssl}, AES ${vector ? 'in WebAssembly' : 'of OpenSSL'}`,
    random,
    wideBlock: (key) => new HPolyC(primitives, key),

    x25519: {
      keyPair(given) {
        const secret = given === undefined ? random(32) : own(given, 32, 'an X25519 secret')
        const publicKey = new Uint8Array(32)
        sodium.crypto_scalarmult_base(publicKey, secret)
        return { secret, publicKey }
      },
      shared(secret, publicKey) {
        assert(secret.length === 32 && publicKey.length === 32, 'X25519 keys have 32 bytes')
        const out = new Uint8Array(32)
        try {
          sodium.crypto_scalarmult(out, secret, publicKey)
        } catch {
          return null // libsodium's only failure here: an all-zero result
        }
        return out
      },
    },

    mlkem768: nativeMlKem(),

    ed25519: {
      keyPair(given) {
        const secret = given === undefined ? random(32) : own(given, 32, 'an Ed25519 seed')
        const publicKey = new Uint8Array(32)
        const expanded = new Uint8Array(64)
        sodium.crypto_sign_seed_keypair(publicKey, expanded, secret)
        expanded.fill(0)
        return { secret, publicKey }
      },
      sign(seed, message) {
        assert(seed.length === 32, 'an Ed25519 seed has 32 bytes')
        const expanded = new Uint8Array(64)
        sodium.crypto_sign_seed_keypair(new Uint8Array(32), expanded, seed)
        const signature = new Uint8Array(64)
        sodium.crypto_sign_detached(signature, message, expanded)
        expanded.fill(0)
        return signature
      },
      verify(publicKey, message, signature) {
        if (publicKey.length !== 32 || signature.length !== 64) return false
        return sodium.crypto_sign_verify_detached(signature, message, publicKey)
      },
    },

    sha256: (...parts) => plain(hash('sha256', joined(parts), 'buffer')),
    sha3_256: (...parts) => plain(hash('sha3-256', joined(parts), 'buffer')),
    shake256: (length, ...parts) => plain(hash('shake256', joined(parts), { outputEncoding: 'buffer', outputLength: length })),
    xchacha20(key, nonce, data) {
      assert(key.length === 32 && nonce.length === 24, 'XChaCha20 has a 32-byte key and a 24-byte nonce')
      const out = new Uint8Array(data.length)
      if (data.length > 0) sodium.crypto_stream_xchacha20_xor(out, data, nonce, key)
      return out
    },
  }
}

function nativeMlKem(): CryptoSuite['mlkem768'] {
  const type = 'ml-kem-768'
  // Expanding a seed costs more than decapsulating: the expanded key lives as long as the seed's array does.
  const expanded = new WeakMap<Uint8Array, KeyObject>()
  const expand = (seed: Uint8Array): KeyObject => {
    const known = expanded.get(seed)
    if (known) return known
    const key = createPrivateKey({ key: Buffer.from(seed), format: 'raw-seed', asymmetricKeyType: type })
    expanded.set(seed, key)
    return key
  }
  return {
    keyPair(given) {
      if (given === undefined) {
        const pair = generateKeyPairSync(type)
        const secret = plain(pair.privateKey.export({ format: 'raw-seed' }))
        expanded.set(secret, pair.privateKey)
        return { secret, publicKey: plain(pair.publicKey.export({ format: 'raw-public' })) }
      }
      const secret = own(given, 64, 'an ML-KEM seed')
      return { secret, publicKey: plain(createPublicKey(expand(secret)).export({ format: 'raw-public' })) }
    },
    encapsulate(publicKey, random) {
      assert(publicKey.length === 1184, 'an ML-KEM-768 public key has 1184 bytes')
      let key: KeyObject
      try {
        key = createPublicKey({ key: Buffer.from(publicKey), format: 'raw-public', asymmetricKeyType: type })
      } catch {
        return null
      }
      if (random !== undefined) {
        // OpenSSL's randomness can't be given from here; vectors go the portable way.
        const { cipherText, sharedSecret } = ml_kem768.encapsulate(publicKey, random)
        return { ciphertext: cipherText, shared: sharedSecret }
      }
      const { ciphertext, sharedKey } = encapsulate(key)
      return { ciphertext: plain(ciphertext), shared: plain(sharedKey) }
    },
    decapsulate(secret, ciphertext) {
      assert(secret.length === 64 && ciphertext.length === 1088, 'an ML-KEM-768 seed has 64 bytes, a ciphertext 1088')
      return plain(decapsulate(expand(secret), ciphertext))
    },
  }
}

function own(bytes: Uint8Array, length: number, what: string): Uint8Array {
  assert(bytes.length === length, `${what} has ${length} bytes`)
  return Uint8Array.from(bytes)
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : concatBytes(...parts)
}

/** The same bytes as a plain Uint8Array: both suites give the same type. */
function plain(bytes: Uint8Array | ArrayBuffer): Uint8Array {
  return bytes instanceof Uint8Array ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes)
}
