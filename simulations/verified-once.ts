import { equalBytes } from '../src/base/index.ts'
import type { CryptoSuite } from '../src/crypto/index.ts'
import { decodeDescriptor, type SignedDescriptor, type UnverifiedDescriptor } from '../src/directory/index.ts'

/** Bytes at the end of a descriptor (of its signature) that it is found by. */
const KEY_BYTES = 16

/**
 * One memory of decoded and verified descriptors that all simulated nodes share: each descriptor's signature is checked once,
 * not a thousand times, and its facts exist once. Equal bytes only; whatever is wrong is decoded, and refused, every time.
 */
export function verifiedOnce(suite: CryptoSuite): (bytes: Uint8Array) => UnverifiedDescriptor {
  const memory = new Map<string, { readonly signed: SignedDescriptor; readonly unverified: UnverifiedDescriptor }>()
  return (bytes) => {
    const key = Buffer.from(
      bytes.buffer,
      bytes.byteOffset + Math.max(0, bytes.length - KEY_BYTES),
      Math.min(bytes.length, KEY_BYTES),
    ).toString('latin1')
    const known = memory.get(key)
    if (known && equalBytes(known.signed.bytes, bytes)) return known.unverified
    const unverified = decodeDescriptor(bytes)
    const signed = unverified.verify(suite)
    const remembered: UnverifiedDescriptor = { descriptor: signed.descriptor, verify: () => signed }
    memory.set(key, { signed, unverified: remembered })
    return remembered
  }
}
