/**
 * The one small, synchronous interface to primitives. Two implementations: `native` (sodium-native and node:crypto) and
 * `portable` (noble). Both give the same bytes for the same inputs. All inputs are borrowed; all results are fresh.
 */
export interface CryptoSuite {
  readonly name: 'native' | 'portable'
  /** What the primitives come from, for people: "sodium-native 5.1.0, OpenSSL 3.5.8". */
  readonly description: string

  random(length: number): Uint8Array

  /** A kept HPolyC-XChaCha20-AES256 cipher of one 32-byte key. */
  wideBlock(key: Uint8Array): WideBlock

  readonly x25519: {
    /** @param secret 32 bytes; fresh randomness when not given */
    keyPair(secret?: Uint8Array): KeyPair
    /** 32 bytes, or null when the result is all zero (RFC 7748 §6.1). */
    shared(secret: Uint8Array, publicKey: Uint8Array): Uint8Array | null
  }

  /** ML-KEM-768, FIPS 203. Public key 1184 bytes, ciphertext 1088, shared secret 32. */
  readonly mlkem768: {
    /** @param seed d || z, 64 bytes; fresh randomness when not given. The secret key is held as this 64-byte seed. */
    keyPair(seed?: Uint8Array): KeyPair
    /** @param random m, 32 bytes, for vectors only. Null when the public key is invalid (FIPS 203 §7.2 modulus check). */
    encapsulate(publicKey: Uint8Array, random?: Uint8Array): { ciphertext: Uint8Array; shared: Uint8Array } | null
    /** Implicit rejection: a wrong ciphertext gives an unrelated secret. */
    decapsulate(secret: Uint8Array, ciphertext: Uint8Array): Uint8Array
  }

  readonly ed25519: {
    /** @param seed 32 bytes; fresh randomness when not given */
    keyPair(seed?: Uint8Array): KeyPair
    sign(seed: Uint8Array, message: Uint8Array): Uint8Array
    verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
  }

  sha256(...parts: Uint8Array[]): Uint8Array
  sha3_256(...parts: Uint8Array[]): Uint8Array
  /** SHAKE-256 with `length` bytes of output. */
  shake256(length: number, ...parts: Uint8Array[]): Uint8Array
  /** XORs the XChaCha20 key stream (24-byte nonce, counter 0) over `data` into a fresh array. */
  xchacha20(key: Uint8Array, nonce: Uint8Array, data: Uint8Array): Uint8Array
}

export interface KeyPair {
  readonly secret: Uint8Array
  readonly publicKey: Uint8Array
}

/** Bytes before a block in its buffer that a wide-block operation may use as scratch; they are restored before it returns. */
export const WIDE_BLOCK_SCRATCH = 32

/** A strong pseudorandom permutation over a whole block, with a tweak. Works in place. */
export interface WideBlock {
  /**
   * Encrypts `buffer[start, start + length)` in place. `start` is at least WIDE_BLOCK_SCRATCH; the scratch before it is restored.
   * @param tweak up to 28 bytes are hashed in place; a longer one costs a copy of the block
   */
  encrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void
  decrypt(tweak: Uint8Array, buffer: Uint8Array, start: number, length: number): void
  /** Overwrites the key material, as far as a JavaScript heap allows. The cipher is unusable afterwards. */
  destroy(): void
}
