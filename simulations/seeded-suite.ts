import type { Random } from '../src/base/index.ts'
import type { CryptoSuite } from '../src/crypto/index.ts'

/** A suite whose randomness comes from a seed, so that a run with real handshakes repeats. The primitives are the suite's own. */
export function seededSuite(suite: CryptoSuite, random: Random): CryptoSuite {
  return {
    ...suite,
    random: (length) => random.bytes(length),
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
