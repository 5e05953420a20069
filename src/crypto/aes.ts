/**
 * AES-256 of one 16-byte block at a time, between two fixed places which all keys of the unit share: fill `input`, call, read `output`.
 * Calls are synchronous and not reentrant.
 */
export interface AesUnit {
  /** A call leaves it as it is. */
  readonly input: Uint8Array
  readonly output: Uint8Array
  /** A kept key. @param key 32 bytes, copied */
  key(key: Uint8Array): AesKey
}

/** Each call takes the unit's input to its output. */
export interface AesKey {
  encrypt(): void
  decrypt(): void
  /** Overwrites the key, as far as its holder can. It is unusable afterwards. */
  destroy(): void
}

export const AES_BLOCK_BYTES = 16
