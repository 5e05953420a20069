import { concatBytes, MalformedError } from '../../base/index.ts'
import { bytesField, bytesIn, decodeFields, numberField, numberIn } from '../relay/protobuf.ts'

/** AutoNAT v2, libp2p/specs autonat/autonat-v2.md: protobuf messages behind their length as a varint. */
export const DIAL_REQUEST_PROTOCOL = '/libp2p/autonat/2/dial-request'
export const DIAL_BACK_PROTOCOL = '/libp2p/autonat/2/dial-back'

/** The longest message: 4096 bytes of dial data and what is around them. */
export const MESSAGE_BYTES_MAX = 8192
/** "Limited to 4096 bytes in length." */
export const DIAL_DATA_CHUNK_BYTES = 4096
/** Addresses of one request that are looked at. */
export const ADDRESSES_MAX = 16

export const responseStatus = { internalError: 0, requestRejected: 100, dialRefused: 101, ok: 200 } as const
export const dialStatus = { unused: 0, dialError: 100, dialBackError: 101, ok: 200 } as const

/** What goes over a stream of `DIAL_REQUEST_PROTOCOL`. Statuses that are not known are for the reader to discard. */
export type DialMessage =
  /** Addresses as binary multiaddrs (borrowed), the most wanted first. */
  | { readonly type: 'request'; readonly addresses: readonly Uint8Array[]; readonly nonce: bigint }
  | { readonly type: 'response'; readonly status: number; readonly index: number; readonly dialStatus: number }
  | { readonly type: 'data-request'; readonly index: number; readonly bytes: number }
  | { readonly type: 'data'; readonly data: Uint8Array }

/** @throws MalformedError */
export function decodeDialMessage(bytes: Uint8Array): DialMessage {
  const what = 'dial message'
  // A oneof that is there twice: the last one counts (protobuf.dev, "Oneof").
  const field = decodeFields(what, bytes)
    .filter(({ number }) => number >= 1 && number <= 4)
    .at(-1)
  if (field === undefined) throw new MalformedError(what, 'is of no known kind')
  const inner = decodeFields(what, bytesIn(what, field))
  const number = (wanted: number): number => {
    const last = inner.filter((one) => one.number === wanted).at(-1)
    const value = last === undefined ? 0n : numberIn(what, last)
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new MalformedError(what, 'has a number above 2^53 - 1')
    return Number(value)
  }
  switch (field.number) {
    case 1: {
      const addresses = inner.filter((one) => one.number === 1).map((one) => bytesIn(what, one))
      const nonce = inner.filter((one) => one.number === 2).at(-1)
      return { type: 'request', addresses: addresses.slice(0, ADDRESSES_MAX), nonce: nonce === undefined ? 0n : numberIn(what, nonce) }
    }
    case 2:
      return { type: 'response', status: number(1), index: number(2), dialStatus: number(3) }
    case 3:
      return { type: 'data-request', index: number(1), bytes: number(2) }
    default: {
      const data = inner.filter((one) => one.number === 1).at(-1)
      return { type: 'data', data: data === undefined ? new Uint8Array(0) : bytesIn(what, data) }
    }
  }
}

export function encodeDialMessage(message: DialMessage): Uint8Array {
  switch (message.type) {
    case 'request':
      return bytesField(1, concatBytes(...message.addresses.map((address) => bytesField(1, address)), fixed64Field(2, message.nonce)))
    case 'response':
      return bytesField(2, concatBytes(numberField(1, message.status), numberField(2, message.index), numberField(3, message.dialStatus)))
    case 'data-request':
      return bytesField(3, concatBytes(numberField(1, message.index), numberField(2, message.bytes)))
    case 'data':
      return bytesField(4, bytesField(1, message.data))
  }
}

/** The nonce of a DialBack. @throws MalformedError */
export function decodeDialBack(bytes: Uint8Array): bigint {
  const field = decodeFields('dial-back', bytes)
    .filter(({ number }) => number === 1)
    .at(-1)
  return field === undefined ? 0n : numberIn('dial-back', field)
}

export function encodeDialBack(nonce: bigint): Uint8Array {
  return fixed64Field(1, nonce)
}

/** DialBackResponse with the status OK, which is 0. */
export function encodeDialBackResponse(): Uint8Array {
  return numberField(1, 0)
}

/** Whether a DialBackResponse says OK. @throws MalformedError */
export function isDialBackOk(bytes: Uint8Array): boolean {
  return decodeFields('dial-back response', bytes).every((field) => field.number !== 1 || field.value === 0n)
}

/** Wire type 1: eight bytes, the low ones first. */
function fixed64Field(number: number, value: bigint): Uint8Array {
  const field = new Uint8Array(9)
  field[0] = (number << 3) | 1
  new DataView(field.buffer).setBigUint64(1, value, true)
  return field
}
