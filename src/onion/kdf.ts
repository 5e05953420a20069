import { concatBytes, utf8Bytes, Writer } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'

/**
 * The hash functions of the handshake and of the layers, in ntor-v3's form (Tor proposal 332): one label per use, every part of
 * variable length behind its length. docs/spec/handshake.md §2
 *
 *   ENCAP(s)      = length of s as u64 | s
 *   H(s, t)       = SHA3-256(ENCAP(t) | s)
 *   MAC(k, s, t)  = SHA3-256(ENCAP(t) | ENCAP(k) | s)
 *   KDF(s, t, n)  = the first n bytes of SHAKE-256(ENCAP(t) | s)
 */
export const PROTOID: Uint8Array = utf8Bytes('shallot-ntor3-x25519-mlkem768-sha3-1')

/** What binds a handshake to its use: circuits of this protocol version. */
export const VER: Uint8Array = utf8Bytes('circuit 1')

/** An encapsulated label: made once, at load. */
export type Label = Uint8Array & { readonly __label: true }

export function label(use: string): Label {
  return encap(concatBytes(PROTOID, utf8Bytes(`:${use}`))) as Label
}

export function encap(bytes: Uint8Array): Uint8Array {
  return new Writer(8 + bytes.length).u64(bytes.length).bytes(bytes).finish()
}

/** 32 bytes. */
export function H(suite: CryptoSuite, t: Label, ...s: readonly Uint8Array[]): Uint8Array {
  return suite.sha3_256(t, ...s)
}

/** 32 bytes. */
export function MAC(suite: CryptoSuite, t: Label, key: Uint8Array, ...s: readonly Uint8Array[]): Uint8Array {
  return suite.sha3_256(t, encap(key), ...s)
}

/** `length` bytes. */
export function KDF(suite: CryptoSuite, t: Label, length: number, ...s: readonly Uint8Array[]): Uint8Array {
  return suite.shake256(length, t, ...s)
}

/** What both sides of a hop have from the handshake: the layers' first state. Seeds 32 bytes, chains 16. */
export interface HopKeys {
  readonly forwardSeed: Uint8Array
  readonly forwardChain: Uint8Array
  readonly backwardSeed: Uint8Array
  readonly backwardChain: Uint8Array
}
