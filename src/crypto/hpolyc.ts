import { assert } from '../base/index.ts'
import { WIDE_BLOCK_SCRATCH, type WideBlock } from './suite.ts'

/**
 * HPolyC-XChaCha20-AES256: the HBSH construction of Crowley and Biggers, "Adiantum: length-preserving encryption for entry-level
 * processors", ToSC 2018(4), with Poly1305 as the hash. A block is L (all but 16 bytes) and R (the last 16 bytes):
 *
 *   K_E || K_H = XChaCha20(K_S, nonce 01 00…00)            AES-256 key 32, Poly1305 key 16
 *   H(T, M)    = Poly1305(K_H || 0^16, pad16(bits(T) as u32 LE || T) || M)
 *   encrypt:  P_M = P_R + H(T, P_L);  C_M = AES(P_M);  C_L = P_L xor XChaCha20(K_S, C_M || 01 00…00);  C_R = C_M - H(T, C_L)
 *
 * where + and - are little-endian, modulo 2^128. Nothing is allocated in a call but the views and what AES returns.
 */
export interface WideBlockPrimitives {
  /** @param out 16 bytes, @param key r (16 bytes) and s (16 bytes) */
  poly1305(out: Uint8Array, input: Uint8Array, key: Uint8Array): void
  /** XORs the key stream over `data` in place. @param nonce 24 bytes, @param key 32 bytes */
  xchacha20Xor(data: Uint8Array, nonce: Uint8Array, key: Uint8Array): void
  /** AES-256 over independent 16-byte blocks; both return arrays of the input's length, which may be its own. */
  aes256(key: Uint8Array): AesBlocks
}

export interface AesBlocks {
  encrypt(blocks: Uint8Array): Uint8Array
  decrypt(blocks: Uint8Array): Uint8Array
  destroy(): void
}

/** Right half of a block, and an AES block. */
const RIGHT_BYTES = 16
const TWEAK_LENGTH_BYTES = 4
/** How many blocks `encryptMany` and `decryptMany` hand to AES in one call. */
const MANY_BLOCKS = 64

// Calls are synchronous and not reentrant, so all ciphers share these buffers (Buffer.alloc: never pooled, so no neighbour sees them).
const saved = Buffer.alloc(WIDE_BLOCK_SCRATCH)
const hash = Buffer.alloc(RIGHT_BYTES)
const middle = Buffer.alloc(RIGHT_BYTES)
const middles = Buffer.alloc(MANY_BLOCKS * RIGHT_BYTES)
const nonce = Buffer.alloc(24)
nonce[RIGHT_BYTES] = 1

export class HPolyC implements WideBlock {
  readonly #primitives: WideBlockPrimitives
  /** K_S, 32 bytes. */
  readonly #streamKey: Uint8Array
  /** K_H and sixteen zero bytes. */
  readonly #hashKey: Uint8Array
  readonly #aes: AesBlocks
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
    this.#aes = primitives.aes256(derived.subarray(0, 32))
    this.#hashKey = Buffer.alloc(32)
    this.#hashKey.set(derived.subarray(32))
    derived.fill(0)
  }

  encrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void {
    const end = this.#check(buffer, start, length)
    const head = headLength(tweak.length)
    if (head > WIDE_BLOCK_SCRATCH) {
      this.#apart(tweak, buffer, start, length, true)
      return
    }
    const hashed = view(buffer, start - head, head + length - RIGHT_BYTES)
    const right = end - RIGHT_BYTES
    save(buffer, start, head)
    writeTweak(tweak, 0, tweak.length, buffer, start - head, start)
    this.#primitives.poly1305(hash, hashed, this.#hashKey)
    add(middle, 0, buffer, right)
    nonce.set(this.#aes.encrypt(middle))
    this.#xor(buffer, start, length)
    this.#primitives.poly1305(hash, hashed, this.#hashKey)
    subtract(buffer, right, nonce, 0)
    restore(buffer, start, head)
  }

  decrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void {
    const end = this.#check(buffer, start, length)
    const head = headLength(tweak.length)
    if (head > WIDE_BLOCK_SCRATCH) {
      this.#apart(tweak, buffer, start, length, false)
      return
    }
    const hashed = view(buffer, start - head, head + length - RIGHT_BYTES)
    const right = end - RIGHT_BYTES
    save(buffer, start, head)
    writeTweak(tweak, 0, tweak.length, buffer, start - head, start)
    this.#primitives.poly1305(hash, hashed, this.#hashKey)
    add(nonce, 0, buffer, right)
    this.#xor(buffer, start, length)
    middle.set(nonce.subarray(0, RIGHT_BYTES))
    this.#primitives.poly1305(hash, hashed, this.#hashKey)
    subtract(buffer, right, this.#aes.decrypt(middle), 0)
    restore(buffer, start, head)
  }

  encryptMany(tweaks: Uint8Array, tweakBytes: number, buffer: Uint8Array, starts: Uint32Array, count: number, length: number): void {
    this.#many(tweaks, tweakBytes, buffer, starts, count, length, true)
  }

  decryptMany(tweaks: Uint8Array, tweakBytes: number, buffer: Uint8Array, starts: Uint32Array, count: number, length: number): void {
    this.#many(tweaks, tweakBytes, buffer, starts, count, length, false)
  }

  destroy(): void {
    this.#destroyed = true
    this.#streamKey.fill(0)
    this.#hashKey.fill(0)
    this.#aes.destroy()
  }

  /** One AES call for up to MANY_BLOCKS blocks: the call costs more than the blocks do. */
  #many(
    tweaks: Uint8Array,
    tweakBytes: number,
    buffer: Uint8Array,
    starts: Uint32Array,
    count: number,
    length: number,
    encrypting: boolean,
  ): void {
    const head = headLength(tweakBytes)
    assert(head <= WIDE_BLOCK_SCRATCH, 'tweaks of many blocks have at most 28 bytes')
    for (let from = 0; from < count; from += MANY_BLOCKS) {
      const blocks = Math.min(MANY_BLOCKS, count - from)
      for (let i = 0; i < blocks; i++) {
        const start = starts[from + i]!
        const right = this.#check(buffer, start, length) - RIGHT_BYTES
        save(buffer, start, head)
        writeTweak(tweaks, (from + i) * tweakBytes, tweakBytes, buffer, start - head, start)
        this.#primitives.poly1305(hash, view(buffer, start - head, head + length - RIGHT_BYTES), this.#hashKey)
        add(middles, i * RIGHT_BYTES, buffer, right)
        restore(buffer, start, head)
      }
      const batch = middles.subarray(0, blocks * RIGHT_BYTES)
      // What the key stream is made from is always the ciphertext side of AES.
      const plain = encrypting ? batch : this.#aes.decrypt(batch)
      const cipher = encrypting ? this.#aes.encrypt(batch) : batch
      for (let i = 0; i < blocks; i++) {
        const start = starts[from + i]!
        copyBlock(nonce, cipher, i * RIGHT_BYTES)
        this.#xor(buffer, start, length)
        save(buffer, start, head)
        writeTweak(tweaks, (from + i) * tweakBytes, tweakBytes, buffer, start - head, start)
        this.#primitives.poly1305(hash, view(buffer, start - head, head + length - RIGHT_BYTES), this.#hashKey)
        subtract(buffer, start + length - RIGHT_BYTES, encrypting ? cipher : plain, i * RIGHT_BYTES)
        restore(buffer, start, head)
      }
    }
  }

  #xor(buffer: Uint8Array, start: number, length: number): void {
    if (length > RIGHT_BYTES) this.#primitives.xchacha20Xor(view(buffer, start, length - RIGHT_BYTES), nonce, this.#streamKey)
  }

  /** The general path, for tweaks that do not fit into the scratch: works on a copy with room for them. */
  #apart(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number, encrypting: boolean): void {
    const head = headLength(tweak.length)
    const copy = Buffer.alloc(head + length)
    const right = copy.length - RIGHT_BYTES
    const hashed = copy.subarray(0, right)
    writeTweak(tweak, 0, tweak.length, copy, 0, head)
    copy.set(view(buffer, start, length), head)
    this.#primitives.poly1305(hash, hashed, this.#hashKey)
    if (encrypting) {
      add(middle, 0, copy, right)
      nonce.set(this.#aes.encrypt(middle))
      this.#xor(copy, head, length)
      this.#primitives.poly1305(hash, hashed, this.#hashKey)
      subtract(copy, right, nonce, 0)
    } else {
      add(nonce, 0, copy, right)
      this.#xor(copy, head, length)
      middle.set(nonce.subarray(0, RIGHT_BYTES))
      this.#primitives.poly1305(hash, hashed, this.#hashKey)
      subtract(copy, right, this.#aes.decrypt(middle), 0)
    }
    buffer.set(copy.subarray(head), start)
  }

  #check(buffer: Uint8Array, start: number, length: number): number {
    const end = start + length
    assert(!this.#destroyed, 'a destroyed cipher is not used')
    assert(
      start >= WIDE_BLOCK_SCRATCH && length >= RIGHT_BYTES && end <= buffer.length,
      'a wide block lies in its buffer, with scratch before it',
    )
    return end
  }
}

/** The length of a tweak as it is hashed: u32 of its bits, the tweak, zeros up to a whole block. */
function headLength(tweakBytes: number): number {
  return (TWEAK_LENGTH_BYTES + tweakBytes + 15) & ~15
}

function writeTweak(from: Uint8Array, at: number, length: number, buffer: Uint8Array, start: number, end: number): void {
  const bits = length * 8
  buffer[start] = bits
  buffer[start + 1] = bits >>> 8
  buffer[start + 2] = bits >>> 16
  buffer[start + 3] = bits >>> 24
  let to = start + TWEAK_LENGTH_BYTES
  for (let i = 0; i < length; i++) buffer[to++] = from[at + i]!
  while (to < end) buffer[to++] = 0
}

function save(buffer: Uint8Array, start: number, length: number): void {
  for (let i = 0, from = start - length; i < length; i++) saved[i] = buffer[from + i]!
}

function restore(buffer: Uint8Array, start: number, length: number): void {
  for (let i = 0, to = start - length; i < length; i++) buffer[to + i] = saved[i]!
}

/** out = block + hash */
function add(out: Uint8Array, at: number, block: Uint8Array, from: number): void {
  let carry = 0
  for (let i = 0; i < RIGHT_BYTES; i++) {
    carry += block[from + i]! + hash[i]!
    out[at + i] = carry
    carry >>>= 8
  }
}

/** out = block - hash */
function subtract(out: Uint8Array, at: number, block: Uint8Array, from: number): void {
  let borrow = 0
  for (let i = 0; i < RIGHT_BYTES; i++) {
    borrow += block[from + i]! - hash[i]!
    out[at + i] = borrow
    borrow >>= 8
  }
}

function copyBlock(out: Uint8Array, from: Uint8Array, at: number): void {
  for (let i = 0; i < RIGHT_BYTES; i++) out[i] = from[at + i]!
}

/** A plain view: cheaper than `subarray`, above all a Buffer's. */
function view(buffer: Uint8Array, start: number, length: number): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset + start, length)
}
