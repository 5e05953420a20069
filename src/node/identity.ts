import { MalformedError, type NodeId, nodeIdFromKey, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'

/** Where a serving node keeps who it is, in its directory. A client has no such file: its identity is fresh at every start. */
export const IDENTITY_FILE = 'keys/identity'

const SEED_BYTES = 32
const header = 'shallot identity 1'

/** A node's Ed25519 identity. */
export interface Identity {
  readonly id: NodeId
  /** Ed25519 seed, 32 bytes. Secret. */
  readonly seed: Uint8Array
}

/** An identity from its seed, or a fresh one. */
export function createIdentity(suite: CryptoSuite, seed?: Uint8Array): Identity {
  const secret = seed ?? suite.random(SEED_BYTES)
  return { id: nodeIdFromKey(suite.ed25519.keyPair(secret).publicKey), seed: secret }
}

/**
 * The file's bytes: three lines of text, `shallot identity 1`, the node id, and the seed in base64. The id lets a person see whose key
 * it is, and a damaged seed be told from another relay's.
 */
export function encodeIdentity(identity: Identity): Uint8Array {
  return utf8Bytes(`${header}\n${identity.id}\n${Buffer.from(identity.seed).toString('base64')}\n`)
}

/** @throws MalformedError, also when the seed is not that of the id */
export function decodeIdentity(suite: CryptoSuite, bytes: Uint8Array): Identity {
  const [first, id, seedText, end, more] = Buffer.from(bytes).toString('latin1').split('\n')
  if (first !== header || end !== '' || more !== undefined) throw new MalformedError('identity file', 'not of the form of an identity file')
  const seed = Buffer.from(seedText ?? '', 'base64')
  if (seed.length !== SEED_BYTES || seed.toString('base64') !== seedText)
    throw new MalformedError('identity file', `the key is not ${SEED_BYTES} bytes of base64`)
  const identity = createIdentity(suite, new Uint8Array(seed))
  if (identity.id !== id) throw new MalformedError('identity file', 'the key is not that of the node id in the file')
  return identity
}
