import { MalformedError } from './errors.ts'

const text = new TextEncoder()
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Reads big-endian fields in order; short input throws a MalformedError that names `what`. Borrowed: results of `bytes` are views. */
export class Reader {
  readonly #what: string
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at: number
  readonly #end: number

  constructor(what: string, bytes: Uint8Array, start = 0, end = bytes.length) {
    this.#what = what
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#at = start
    this.#end = end
  }

  get at(): number {
    return this.#at
  }

  get left(): number {
    return this.#end - this.#at
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2))
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4))
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8))
  }

  /** A u64 that must be exactly representable as a number (up to 2^53 - 1). */
  u53(): number {
    const value = this.u64()
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.#malformed('number above 2^53 - 1')
    return Number(value)
  }

  /** A view of the next `length` bytes. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** UTF-8 text of `length` bytes, refused when it is not valid UTF-8. */
  text(length: number): string {
    const bytes = this.bytes(length)
    try {
      return utf8.decode(bytes)
    } catch {
      throw this.#malformed('text is not UTF-8')
    }
  }

  rest(): Uint8Array {
    return this.bytes(this.left)
  }

  /** Refuses what is left over. */
  end(): void {
    if (this.left !== 0) throw this.#malformed(`${this.left} bytes too many`)
  }

  #take(length: number): number {
    const at = this.#at
    if (length < 0 || this.#end - at < length) throw this.#malformed(`needs ${length} more bytes, has ${this.#end - at}`)
    this.#at = at + length
    return at
  }

  #malformed(problem: string): MalformedError {
    return new MalformedError(this.#what, problem)
  }
}

/** Writes big-endian fields in order into a buffer that grows. */
export class Writer {
  #bytes: Uint8Array
  #view: DataView
  #at = 0

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = new DataView(this.#bytes.buffer)
  }

  u8(value: number): this {
    const at = this.#room(1)
    this.#view.setUint8(at, value)
    return this
  }

  u16(value: number): this {
    const at = this.#room(2)
    this.#view.setUint16(at, value)
    return this
  }

  u32(value: number): this {
    const at = this.#room(4)
    this.#view.setUint32(at, value)
    return this
  }

  u64(value: bigint | number): this {
    const at = this.#room(8)
    this.#view.setBigUint64(at, BigInt(value))
    return this
  }

  bytes(value: Uint8Array): this {
    const at = this.#room(value.length)
    this.#bytes.set(value, at)
    return this
  }

  /** The bytes written so far, as a copy of their exact length. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#at)
  }

  #room(length: number): number {
    const at = this.#at
    const need = at + length
    if (need > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(need, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, at))
      this.#bytes = grown
      this.#view = new DataView(grown.buffer)
    }
    this.#at = need
    return at
  }
}

/** The UTF-8 encoding of a text. */
export function utf8Bytes(value: string): Uint8Array {
  return text.encode(value)
}

/** All parts in one fresh array. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const all = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** Two lower-case hex digits a byte. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}

/** @throws MalformedError when the text is not an even number of hex digits */
export function fromHex(hex: string): Uint8Array {
  if (hex.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(hex)) throw new MalformedError('hex', 'not an even number of hex digits')
  return new Uint8Array(Buffer.from(hex, 'hex'))
}

/** Plain comparison for public values. Secrets go through `equalSecret`. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0
}

/** Comparison whose time depends on the lengths only. */
export function equalSecret(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!
  return difference === 0
}
