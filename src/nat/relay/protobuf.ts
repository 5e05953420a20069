import { concatBytes, MalformedError } from '../../base/index.ts'

/** One field of a protobuf message: a number (wire types 0, 1, 5) or bytes (wire type 2; borrowed). */
export interface Field {
  readonly number: number
  readonly value: bigint | Uint8Array
}

const MAX_U64 = (1n << 64n) - 1n

/**
 * The fields of a message, in order, of known numbers or not. protobuf.dev/programming-guides/encoding
 * @throws MalformedError on short input, a varint above 64 bits, field number 0, groups and unknown wire types
 */
export function decodeFields(what: string, bytes: Uint8Array): Field[] {
  const fields: Field[] = []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const take = (length: number): number => {
    if (bytes.length - at < length) throw new MalformedError(what, 'is cut short')
    at += length
    return at - length
  }
  const varint = (): bigint => {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[take(1)]!
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) {
        if (value > MAX_U64) break
        return value
      }
    }
    throw new MalformedError(what, 'has a varint of more than 64 bits')
  }
  while (at < bytes.length) {
    const key = varint()
    if (key > 0xffff_ffffn || key < 8n) throw new MalformedError(what, 'has a field number that is none')
    const number = Number(key >> 3n)
    switch (Number(key & 7n)) {
      case 0:
        fields.push({ number, value: varint() })
        break
      case 1:
        fields.push({ number, value: view.getBigUint64(take(8), true) })
        break
      case 2: {
        const length = varint()
        if (length > BigInt(bytes.length - at)) throw new MalformedError(what, 'is cut short')
        const from = take(Number(length))
        fields.push({ number, value: bytes.subarray(from, at) })
        break
      }
      case 5:
        fields.push({ number, value: BigInt(view.getUint32(take(4), true)) })
        break
      default:
        throw new MalformedError(what, 'has a field of an unknown kind')
    }
  }
  return fields
}

/** The number in a field. @throws MalformedError when it holds bytes */
export function numberIn(what: string, field: Field): bigint {
  if (typeof field.value !== 'bigint') throw new MalformedError(what, `field ${field.number} is no number`)
  return field.value
}

/** The bytes in a field (borrowed). @throws MalformedError when it holds a number */
export function bytesIn(what: string, field: Field): Uint8Array {
  if (typeof field.value === 'bigint') throw new MalformedError(what, `field ${field.number} is no bytes`)
  return field.value
}

/** A varint: seven bits a byte, the low ones first. */
export function varint(value: number | bigint): Uint8Array {
  const bytes: number[] = []
  let left = BigInt(value)
  do {
    const rest = left >> 7n
    bytes.push(Number(left & 0x7fn) | (rest > 0n ? 0x80 : 0))
    left = rest
  } while (left > 0n)
  return Uint8Array.from(bytes)
}

/** A field that holds a number. */
export function numberField(number: number, value: number | bigint): Uint8Array {
  return concatBytes(varint(number << 3), varint(value))
}

/** A field that holds bytes. */
export function bytesField(number: number, value: Uint8Array): Uint8Array {
  return concatBytes(varint((number << 3) | 2), varint(value.length), value)
}
