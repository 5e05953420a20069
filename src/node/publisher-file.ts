import { MalformedError, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { publisherKey } from '../directory/index.ts'

const SEED_BYTES = 32
const header = 'shallot publisher 1'

/** The secret of somebody who publishes network files, as a file: three lines, `shallot publisher 1`, the public key in hex, the seed in base64. */
export function encodePublisher(suite: CryptoSuite, seed: Uint8Array): Uint8Array {
  return utf8Bytes(`${header}\n${publisherKey(suite, seed)}\n${Buffer.from(seed).toString('base64')}\n`)
}

/** The seed. @throws MalformedError, also when it is not that of the public key */
export function decodePublisher(suite: CryptoSuite, bytes: Uint8Array): Uint8Array {
  const [first, key, seedText, end, more] = Buffer.from(bytes).toString('latin1').split('\n')
  if (first !== header || end !== '' || more !== undefined)
    throw new MalformedError('publisher file', 'not of the form that `shallot network keygen` writes')
  const seed = new Uint8Array(Buffer.from(seedText ?? '', 'base64'))
  if (seed.length !== SEED_BYTES || Buffer.from(seed).toString('base64') !== seedText)
    throw new MalformedError('publisher file', `the secret is not ${SEED_BYTES} bytes of base64`)
  if (publisherKey(suite, seed) !== key) throw new MalformedError('publisher file', 'the secret is not that of the public key in the file')
  return seed
}
