import { assert } from '../base/index.ts'
import { AES_BLOCK_BYTES, type AesKey, type AesUnit } from './aes.ts'
import { WIDE_BLOCK_SCRATCH, type WideBlock } from './suite.ts'

/**
 * HPolyC-XChaCha20-AES256: the HBSH construction of Crowley and Biggers, "Adiantum: length-preserving encryption for entry-level
 * processors", ToSC 2018(4), with Poly1305 as the hash. A block is L (all but 16 bytes) and R (the last 16 bytes):
 *
 *   K_E || K_H = XChaCha20(K_S, nonce 01 00…00)            AES-256 key 32, Poly1305 key 16
 *   H(T, M)    = Poly1305(K_H || 0^16, pad16(bits(T) as u32 LE || T) || M)
 *   encrypt:  P_M = P_R + H(T, P_L);  C_M = AES(P_M);  C_L = P_L xor XChaCha20(K_S, C_M || 01 00…00);  C_R = C_M - H(T, C_L)
 *
 * where + and - are little-endian, modulo 2^128. Nothing is allocated in a call but the views.
 */
export interface WideBlockPrimitives {
  /** @param out 16 bytes, @param key r (16 bytes) and s (16 bytes) */
  poly1305(out: Uint8Array, input: Uint8Array, key: Uint8Array): void
  /** XORs the key stream over `data` in place. @param nonce 24 bytes, @param key 32 bytes */
  xchacha20Xor(data: Uint8Array, nonce: Uint8Array, key: Uint8Array): void
  readonly aes: AesUnit
}

/** The right part of a block is one block of AES. */
const RIGHT_BYTES = AES_BLOCK_BYTES
const TWEAK_LENGTH_BYTES = 4

// Calls are synchronous and not reentrant, so all ciphers share these buffers (Buffer.alloc: never pooled, so no neighbour sees them).
const saved = Buffer.alloc(WIDE_BLOCK_SCRATCH)
const hash = Buffer.alloc(RIGHT_BYTES)
const nonce = Buffer.alloc(24)
nonce[RIGHT_BYTES] = 1

export class HPolyC implements WideBlock {
  readonly #primitives: WideBlockPrimitives
  /** K_S, 32 bytes. */
  readonly #streamKey: Uint8Array
  /** K_H and sixteen zero bytes. */
  readonly #hashKey: Uint8Array
  readonly #aes: AesKey
  #destroyed = false

  constructor(primitives: WideBlockPrimitives, key: Uint8Array) {
    assert(key.length === 32, 'a wide-block key has 32 bytes')
    this.#primitives = primitives
    this.#streamKey = Buffer.alloc(32)
    this.#streamKey.set(key)
    const derived = Buffer.alloc(48)
    const first = Buffer.alloc(24)
    first[0] = 1
    primitives.xchacha20Xor(derived, first, this.#streamKey)
    this.#aes = primitives.aes.key(derived.subarray(0, 32))
    this.#hashKey = Buffer.alloc(32)
    this.#hashKey.set(derived.subarray(32))
    derived.fill(0)
  }

  encrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void {
    if (headLength(tweak.length) > WIDE_BLOCK_SCRATCH) this.#apart(tweak, buffer, start, length, true)
    else this.#inPlace(tweak, buffer, start, length, true)
  }

  decrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void {
    if (headLength(tweak.length) > WIDE_BLOCK_SCRATCH) this.#apart(tweak, buffer, start, length, false)
    else this.#inPlace(tweak, buffer, start, length, false)
  }

  destroy(): void {
    this.#destroyed = true
    this.#streamKey.fill(0)
    this.#hashKey.fill(0)
    this.#aes.destroy()
  }

  #inPlace(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number, encrypting: boolean): void {
    const head = headLength(tweak.length)
    this.#check(buffer, start, length)
    save(buffer, start, head)
    writeTweak(tweak, buffer, start - head, start)
    this.#turn(buffer, start, head, length, encrypting)
    restore(buffer, start, head)
  }

  /** For tweaks that do not fit into the scratch: works on a copy with room for them. */
  #apart(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number, encrypting: boolean): void {
    this.#check(buffer, start, length)
    const head = headLength(tweak.length)
    const copy = Buffer.alloc(head + length)
    writeTweak(tweak, copy, 0, head)
    copy.set(view(buffer, start, length), head)
    this.#turn(copy, head, head, length, encrypting)
    buffer.set(copy.subarray(head), start)
  }

  /** The construction itself. The tweak as it is hashed lies in the `head` bytes before the block. */
  #turn(buffer: Uint8Array, start: number, head: number, length: number, encrypting: boolean): void {
    const { poly1305, xchacha20Xor, aes } = this.#primitives
    const left = length - RIGHT_BYTES
    const right = start + left
    const hashed = view(buffer, start - head, head + left)
    poly1305(hash, hashed, this.#hashKey)
    add(aes.input, buffer, right)
    if (encrypting) this.#aes.encrypt()
    else this.#aes.decrypt()
    // What the key stream is made from is always the ciphertext side of AES.
    copyBlock(nonce, encrypting ? aes.output : aes.input)
    if (left > 0) xchacha20Xor(view(buffer, start, left), nonce, this.#streamKey)
    poly1305(hash, hashed, this.#hashKey)
    subtract(buffer, right, aes.output)
  }

  #check(buffer: Uint8Array, start: number, length: number): void {
    assert(!this.#destroyed, 'a destroyed cipher is not used')
    assert(
      start >= WIDE_BLOCK_SCRATCH && length >= RIGHT_BYTES && start + length <= buffer.length,
      'a wide block lies in its buffer, with scratch before it',
    )
  }
}

/** The length of a tweak as it is hashed: u32 of its bits, the tweak, zeros up to a whole block. */
function headLength(tweakBytes: number): number {
  return (TWEAK_LENGTH_BYTES + tweakBytes + 15) & ~15
}

function writeTweak(tweak: Uint8Array, buffer: Uint8Array, start: number, end: number): void {
  const { length } = tweak
  const bits = length * 8
  buffer[start] = bits
  buffer[start + 1] = bits >>> 8
  buffer[start + 2] = bits >>> 16
  buffer[start + 3] = bits >>> 24
  let to = start + TWEAK_LENGTH_BYTES
  for (let i = 0; i < length; i++) buffer[to++] = tweak[i]!
  while (to < end) buffer[to++] = 0
}

function save(buffer: Uint8Array, start: number, length: number): void {
  for (let i = 0, from = start - length; i < length; i++) saved[i] = buffer[from + i]!
}

function restore(buffer: Uint8Array, start: number, length: number): void {
  for (let i = 0, to = start - length; i < length; i++) buffer[to + i] = saved[i]!
}

/** out = the block at `from` + hash */
function add(out: Uint8Array, buffer: Uint8Array, from: number): void {
  let carry = 0
  for (let i = 0; i < RIGHT_BYTES; i++) {
    carry += buffer[from + i]! + hash[i]!
    out[i] = carry
    carry >>>= 8
  }
}

/** The block at `to` = block - hash */
function subtract(buffer: Uint8Array, to: number, block: Uint8Array): void {
  let borrow = 0
  for (let i = 0; i < RIGHT_BYTES; i++) {
    borrow += block[i]! - hash[i]!
    buffer[to + i] = borrow
    borrow >>= 8
  }
}

function copyBlock(out: Uint8Array, from: Uint8Array): void {
  for (let i = 0; i < RIGHT_BYTES; i++) out[i] = from[i]!
}

/** A plain view: cheaper than `subarray`, above all a Buffer's. */
function view(buffer: Uint8Array, start: number, length: number): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset + start, length)
}
