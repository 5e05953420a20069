import { assert, type NodeId, nodeKey, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { Descriptor } from './descriptor.ts'

/**
 * Proof of work, docs/spec/descriptor.md §4: a nonce for which
 *
 *   SHA3-256("shallot-work-1" || network id 8 || identity 32 || period u32 || nonce 8)
 *
 * begins with as many zero bits as the network's rules ask. Bound to network, identity and period, so it is worth nothing elsewhere and
 * expires. Why this function: docs/decisions/2026-11-20-proof-of-work.md.
 */
export const WORK_HASH_BYTES = 32

/** What a proof is for. */
export interface WorkSubject {
  readonly networkId: Uint8Array
  readonly id: NodeId
  /** Number of the period, counted from 1970 in units of the rules' period length. */
  readonly period: number
}

/** The period that a moment (wall-clock ms) is in. */
export function workPeriod(wallMs: number, periodMs: number): number {
  return Math.floor(wallMs / periodMs)
}

/** The hash of a proof: its leading zero bits are what was worked for, and as a number it ranks relays where a cap makes it necessary. */
export function workHash(suite: CryptoSuite, subject: WorkSubject, nonce: Uint8Array): Uint8Array {
  return suite.sha3_256(workInput(subject, nonce))
}

/** The work hash of a descriptor in a network. */
export function descriptorWorkHash(suite: CryptoSuite, networkId: Uint8Array, descriptor: Descriptor): Uint8Array {
  return workHash(suite, { networkId, id: descriptor.id, period: descriptor.work.period }, descriptor.work.nonce)
}

/** How many bits of a hash, from its first, are zero. */
export function leadingZeroBits(hash: Uint8Array): number {
  let bits = 0
  for (const byte of hash) {
    if (byte !== 0) return bits + Math.clz32(byte) - 24
    bits += 8
  }
  return bits
}

/** A search for a proof that is run in slices: `run` until it gives a nonce. Starts at nonce 0, so the result is the same everywhere. */
export class WorkSearch {
  readonly subject: WorkSubject
  readonly bits: number
  readonly #suite: CryptoSuite
  readonly #input: Uint8Array
  readonly #nonce: DataView
  readonly #from: number
  #attempts = 0

  /** @param from the first nonce that is tried: 0, or one above a proof that is to be bettered */
  constructor(suite: CryptoSuite, subject: WorkSubject, bits: number, from = 0) {
    this.#from = from
    this.#suite = suite
    this.subject = subject
    this.bits = bits
    this.#input = workInput(subject, new Uint8Array(8))
    this.#nonce = new DataView(this.#input.buffer, this.#input.length - 8)
  }

  /** Hashes tried so far. */
  get attempts(): number {
    return this.#attempts
  }

  /** Tries at most `attempts` more nonces. Returns the nonce (8 bytes), or null when there is none among them. */
  run(attempts: number): Uint8Array | null {
    for (let i = 0; i < attempts; i++) {
      // An attempt above 2^53 is out of reach: a thousand years at ten million a second is 2^58, and rules stop at 40 bits.
      this.#nonce.setBigUint64(0, BigInt(this.#from + this.#attempts++))
      if (leadingZeroBits(this.#suite.sha3_256(this.#input)) >= this.bits) return this.#input.slice(this.#input.length - 8)
    }
    return null
  }
}

/** Solves in one go: for tests, simulations and low difficulties. */
export function solveWork(suite: CryptoSuite, subject: WorkSubject, bits: number): Uint8Array {
  const search = new WorkSearch(suite, subject, bits)
  for (;;) {
    const nonce = search.run(1 << 16)
    if (nonce) return nonce
  }
}

function workInput(subject: WorkSubject, nonce: Uint8Array): Uint8Array {
  assert(subject.networkId.length === 8 && nonce.length === 8, 'network ids and nonces have 8 bytes')
  const input = new Uint8Array(label.length + 8 + 32 + 4 + 8)
  input.set(label)
  input.set(subject.networkId, label.length)
  input.set(nodeKey(subject.id), label.length + 8)
  new DataView(input.buffer).setUint32(label.length + 40, subject.period)
  input.set(nonce, label.length + 44)
  return input
}

const label = utf8Bytes('shallot-work-1')
