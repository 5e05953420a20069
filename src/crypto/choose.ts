import { assert, equalBytes, fromHex, messageOf, type Random } from '../base/index.ts'
import { nativeSuite } from './native.ts'
import { portableSuite } from './portable.ts'
import { type CryptoSuite, WIDE_BLOCK_SCRATCH } from './suite.ts'

/** What a configuration may ask for. */
export type SuiteWish = 'auto' | 'native' | 'portable'

export interface ChosenSuite {
  readonly suite: CryptoSuite
  /** Why this one, for `status`: "its binaries load and pass the self-test". */
  readonly reason: string
}

/**
 * Picks the suite at the start of a node: native where its binaries load and give the right bytes, else portable.
 * @param native how the native suite is made: given in tests only
 * @throws whatever kept the native suite from working, when it was asked for by name
 */
export function chooseSuite(wish: SuiteWish = 'auto', native: () => CryptoSuite = nativeSuite): ChosenSuite {
  if (wish === 'portable') return { suite: portableSuite(), reason: 'asked for' }
  try {
    const suite = native()
    selfTest(suite)
    return { suite, reason: wish === 'native' ? 'asked for' : 'its binaries load and pass the self-test' }
  } catch (error) {
    if (wish === 'native') throw error
    return { suite: portableSuite(), reason: `the native suite does not work here: ${messageOf(error)}` }
  }
}

/** The suite's system randomness in base's form. */
export function systemRandom(suite: CryptoSuite): Random {
  const unit = (): number => {
    const bytes = suite.random(8)
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8)
    return (view.getUint32(0) * 0x200000 + (view.getUint32(4) >>> 11)) / 2 ** 53
  }
  return {
    bytes: (length) => suite.random(length),
    int(below) {
      assert(Number.isSafeInteger(below) && below > 0, 'int needs a positive bound')
      // A multiple of `below` in 2^53 at most: what lies above it would favour small results.
      const limit = 2 ** 53 - (2 ** 53 % below)
      for (;;) {
        const value = unit() * 2 ** 53
        if (value < limit) return value % below
      }
    },
    unit,
  }
}

/** Known answers for what a broken binary or another libsodium or OpenSSL would get wrong. @throws Error that names the primitive */
export function selfTest(suite: CryptoSuite): void {
  const expect = (what: string, right: boolean): void => {
    if (!right) throw new Error(`self-test of ${what} failed`)
  }
  // test/vectors/hpolyc, the entry with a 28-byte tweak and a 31-byte message.
  const plaintext = fromHex(wideBlockVector.plaintext)
  const buffer = new Uint8Array(WIDE_BLOCK_SCRATCH + plaintext.length)
  buffer.set(plaintext, WIDE_BLOCK_SCRATCH)
  const cipher = suite.wideBlock(fromHex(wideBlockVector.key))
  const tweak = fromHex(wideBlockVector.tweak)
  cipher.encrypt(tweak, buffer, WIDE_BLOCK_SCRATCH, plaintext.length)
  expect('HPolyC', equalBytes(buffer.subarray(WIDE_BLOCK_SCRATCH), fromHex(wideBlockVector.ciphertext)))
  cipher.decrypt(tweak, buffer, WIDE_BLOCK_SCRATCH, plaintext.length)
  expect('HPolyC', equalBytes(buffer.subarray(WIDE_BLOCK_SCRATCH), plaintext))
  cipher.destroy()

  // RFC 7748 §6.1
  const shared = suite.x25519.shared(fromHex(x25519Vector.a), fromHex(x25519Vector.B))
  expect('X25519', shared !== null && equalBytes(shared, fromHex(x25519Vector.K)))

  // The key of an all-zero seed (as SHA3-256), from both implementations, and one secret there and back.
  const kem = suite.mlkem768.keyPair(new Uint8Array(64))
  expect('ML-KEM-768 or SHA-3', equalBytes(suite.sha3_256(kem.publicKey), fromHex(mlkemKeyOfZeros)))
  const sent = suite.mlkem768.encapsulate(kem.publicKey)
  expect('ML-KEM-768', sent !== null && equalBytes(suite.mlkem768.decapsulate(kem.secret, sent.ciphertext), sent.shared))
}

const wideBlockVector = {
  key: '4d9aababedfc9edcccfb817d8316ff980adbeebf4b4e117c2d4f802251f21925',
  tweak: '58367f8c86f61c9ab2f4a6346ca784d2e58d156bfc4813fa1d4ceba8',
  plaintext: '3c94a6098fbe81790e38a4e1fc05994b9abb9271571524ccdc17fc9e5e99e5',
  ciphertext: 'd2ee6f0041e74b2b1c6e84ee34931fb7c9588ac133becfc0b568c0aa7f6e75',
}
const x25519Vector = {
  a: '77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a',
  B: 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f',
  K: '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742',
}
const mlkemKeyOfZeros = '07f81a8b0e266a3ee92d3a63cdae5cff921905544c9dd797a849e1d054180eca'
