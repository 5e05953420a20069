import { MalformedError } from '../base/index.ts'

/** The few ASN.1 tags that a certificate needs (X.690 §8). */
export const Tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** One element: tag, length (X.690 §10.1, the shortest form), contents. */
export function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(contents)
  const length = body.length
  if (length < 0x80) return Buffer.concat([Uint8Array.of(tag, length), body])
  if (length < 0x100) return Buffer.concat([Uint8Array.of(tag, 0x81, length), body])
  if (length < 0x10000) return Buffer.concat([Uint8Array.of(tag, 0x82, length >> 8, length & 0xff), body])
  throw new RangeError('a DER element here has at most 65535 bytes')
}

/** Dotted decimal to OBJECT IDENTIFIER (X.690 §8.19). */
export function derOid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes: number[] = [first * 40 + second]
  for (let arc of rest) {
    const septets = [arc & 0x7f]
    while (arc > 0x7f) {
      arc >>>= 7
      septets.unshift((arc & 0x7f) | 0x80)
    }
    bytes.push(...septets)
  }
  return der(Tag.oid, Uint8Array.from(bytes))
}

/** Reads DER elements in order. All results are borrowed views. */
export class DerReader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  /** The tag of the next element, or -1 at the end. */
  get nextTag(): number {
    return this.#bytes[this.#at] ?? -1
  }

  /** The next element's contents. @throws MalformedError */
  take(tag: number): Uint8Array {
    return this.#element(tag).contents
  }

  /** The next element, tag and length included. @throws MalformedError */
  takeWhole(tag: number): Uint8Array {
    return this.#element(tag).whole
  }

  /** A reader of the next element's contents. @throws MalformedError */
  enter(tag: number): DerReader {
    return new DerReader(this.take(tag))
  }

  /** Refuses what is left over. @throws MalformedError */
  end(): void {
    if (!this.isAtEnd) throw malformed('bytes too many')
  }

  #element(tag: number): { contents: Uint8Array; whole: Uint8Array } {
    const bytes = this.#bytes
    const from = this.#at
    if (bytes[from] !== tag) throw malformed('another element was expected')
    let at = from + 1
    let length = bytes[at++]
    if (length === undefined) throw malformed('ends within an element')
    if (length >= 0x80) {
      const octets = length & 0x7f
      if (octets < 1 || octets > 2) throw malformed('length is not of 1 to 3 bytes')
      length = 0
      for (let i = 0; i < octets; i++) {
        const byte = bytes[at++]
        if (byte === undefined) throw malformed('ends within an element')
        length = (length << 8) | byte
      }
      if (length < (octets === 1 ? 0x80 : 0x100)) throw malformed('length is not of the shortest form')
    }
    const end = at + length
    if (end > bytes.length) throw malformed('ends within an element')
    this.#at = end
    return { contents: bytes.subarray(at, end), whole: bytes.subarray(from, end) }
  }
}

function malformed(problem: string): MalformedError {
  return new MalformedError('certificate', problem)
}
