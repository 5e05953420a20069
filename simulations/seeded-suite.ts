import type { Random } from '../src/base/index.ts'
import type { CryptoSuite } from '../src/crypto/index.ts'

/** Digests of at least this many bytes are remembered by the array they are of: descriptors, which are never changed. */
const REMEMBERED_BYTES = 200
/** Proofs of work are remembered by what is hashed. */
const PROOF_BYTES_MAX = 80
const PROOFS_MAX = 100_000

/**
 * A suite whose randomness comes from a seed, so that a run with real handshakes repeats. The primitives are the suite's own; what a thousand
 * nodes hash again and again (the same descriptor, the same proof of work) is hashed once.
 */
export function seededSuite(suite: CryptoSuite, random: Random): CryptoSuite {
  const digests = new WeakMap<Uint8Array, Uint8Array>()
  const proofs = new Map<string, Uint8Array>()
  return {
    ...suite,
    random: (length) => random.bytes(length),
    sha256: (...parts) => {
      const only = parts.length === 1 && parts[0]!.length >= REMEMBERED_BYTES ? parts[0]! : null
      if (!only) return suite.sha256(...parts)
      let digest = digests.get(only)
      if (!digest) {
        digest = suite.sha256(only)
        digests.set(only, digest)
      }
      return digest
    },
    sha3_256: (...parts) => {
      if (parts.length !== 1 || parts[0]!.length > PROOF_BYTES_MAX) return suite.sha3_256(...parts)
      const key = Buffer.from(parts[0]!.buffer, parts[0]!.byteOffset, parts[0]!.length).toString('latin1')
      let digest = proofs.get(key)
      if (!digest) {
        digest = suite.sha3_256(parts[0]!)
        if (proofs.size < PROOFS_MAX) proofs.set(key, digest)
      }
      return digest
    },
    wideBlock: (key) => suite.wideBlock(key),
    x25519: {
      keyPair: (secret = random.bytes(32)) => suite.x25519.keyPair(secret),
      shared: (secret, publicKey) => suite.x25519.shared(secret, publicKey),
    },
    mlkem768: {
      keyPair: (seed = random.bytes(64)) => suite.mlkem768.keyPair(seed),
      encapsulate: (publicKey, message = random.bytes(32)) => suite.mlkem768.encapsulate(publicKey, message),
      decapsulate: (secret, ciphertext) => suite.mlkem768.decapsulate(secret, ciphertext),
    },
    ed25519: {
      keyPair: (seed = random.bytes(32)) => suite.ed25519.keyPair(seed),
      sign: (seed, message) => suite.ed25519.sign(seed, message),
      verify: (publicKey, message, signature) => suite.ed25519.verify(publicKey, message, signature),
    },
  }
}
