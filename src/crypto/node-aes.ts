import { createCipheriv, createDecipheriv } from 'node:crypto'
import { AES_BLOCK_BYTES, type AesKey, type AesUnit } from './aes.ts'

/** AES of node:crypto: OpenSSL's, in constant time where the processor has AES instructions, at the price of a Buffer for each call. */
export function nodeAes(): AesUnit {
  const input = Buffer.alloc(AES_BLOCK_BYTES)
  const output = Buffer.alloc(AES_BLOCK_BYTES)
  return { input, output, key: (key) => new NodeKey(input, output, key) }
}

/** AES-256-ECB on kept cipher objects, each made when first wanted: a layer uses one direction only. */
class NodeKey implements AesKey {
  readonly #input: Buffer
  readonly #output: Buffer
  readonly #key: Buffer
  #encryptor: ReturnType<typeof createCipheriv> | null = null
  #decryptor: ReturnType<typeof createDecipheriv> | null = null

  constructor(input: Buffer, output: Buffer, key: Uint8Array) {
    this.#input = input
    this.#output = output
    this.#key = Buffer.alloc(32)
    this.#key.set(key)
  }

  encrypt(): void {
    this.#encryptor ??= createCipheriv('aes-256-ecb', this.#key, null).setAutoPadding(false)
    this.#output.set(this.#encryptor.update(this.#input))
  }

  decrypt(): void {
    this.#decryptor ??= createDecipheriv('aes-256-ecb', this.#key, null).setAutoPadding(false)
    this.#output.set(this.#decryptor.update(this.#input))
  }

  destroy(): void {
    this.#key.fill(0)
    this.#encryptor = null
    this.#decryptor = null
  }
}
