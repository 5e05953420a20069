import { crc32 } from 'node:zlib'
import { assert, concatBytes, equalBytes, ipFromBytes, MalformedError, Reader, utf8Bytes, Writer } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'

/*
 * RFC 8489 §5, §14:
 *
 *   u16 type (two zero bits, then class and method interleaved)   u16 length of what follows the header, a multiple of 4
 *   u32 magic cookie 0x2112a442                                   12 bytes transaction id
 *   attributes: u16 type, u16 length of the value, value, 0 to 3 bytes up to a multiple of 4
 *
 * RFC 3489 has no cookie: there the transaction id has 16 bytes. Such a message is called classic here.
 */

export const STUN_HEADER_BYTES = 20
const MAGIC_COOKIE = 0x2112a442
/** Of the addresses in attributes: 4 bytes and the address, in an attribute header of 4. */
const ADDRESS_4_BYTES = 12
const ADDRESS_6_BYTES = 24
const FINGERPRINT_XOR = 0x5354554e
/** RFC 8489 §14.8: fewer than 128 characters, at most 509 bytes. */
const MAX_REASON_BYTES = 509
/** Unknown attributes that are remembered of one message: as many as an answer names. */
const MAX_UNKNOWN = 8

export const BINDING = 1

export type StunClass = 'request' | 'indication' | 'success' | 'error'
const classes: readonly StunClass[] = ['request', 'indication', 'success', 'error']

export const addressAttributes = {
  'mapped-address': 0x0001,
  // RFC 3489 §11.2: where the answer is to be sent. Known to be refused.
  'response-address': 0x0002,
  // RFC 3489 §11.2.
  'source-address': 0x0004,
  'changed-address': 0x0005,
  'xor-mapped-address': 0x0020,
  // RFC 5780 §7.
  'response-origin': 0x802b,
  'other-address': 0x802c,
} as const
export type AddressAttribute = keyof typeof addressAttributes
const addressNames = new Map<number, AddressAttribute>(
  Object.entries(addressAttributes).map(([name, type]) => [type, name as AddressAttribute]),
)

const CHANGE_REQUEST = 0x0003
const ERROR_CODE = 0x0009
const UNKNOWN_ATTRIBUTES = 0x000a
const PADDING = 0x0026
const RESPONSE_PORT = 0x0027
const FINGERPRINT = 0x8028
/** Ours: zero bytes that make a request as long as its answer. From the range that whoever does not know it skips (RFC 8489 §14). */
const FILLER = 0xc0f1
/** Of authentication, which nobody asks for here: known, without effect. RFC 8489 §14.3 to §14.12, and PASSWORD of RFC 3489. */
const authentication = new Set([0x0006, 0x0007, 0x0008, 0x000b, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e])

interface AddressedAttribute {
  readonly type: AddressAttribute
  readonly endpoint: Endpoint
}

export type StunAttribute =
  | AddressedAttribute
  | { readonly type: 'change-request'; readonly ip: boolean; readonly port: boolean }
  | { readonly type: 'error-code'; readonly code: number; readonly reason: string }
  | { readonly type: 'unknown-attributes'; readonly types: readonly number[] }
  | { readonly type: 'response-port'; readonly port: number }
  /** `length` zero bytes: RFC 5780 §7.6. */
  | { readonly type: 'padding'; readonly length: number }
  /** The same for us alone: whoever decodes it skips it. */
  | { readonly type: 'filler'; readonly length: number }
  /** Always the last one; made and checked here. RFC 8489 §14.7 */
  | { readonly type: 'fingerprint' }

export interface StunHeader {
  readonly class: StunClass
  readonly method: number
  /** Of 12 bytes, or 16 in a classic message. */
  readonly transactionId: Uint8Array
}

export interface StunMessage extends StunHeader {
  readonly classic: boolean
  /** The known ones, in order, the first of each kind. */
  readonly attributes: readonly StunAttribute[]
  /** Types of unknown attributes that must be understood (below 0x8000), at most eight. */
  readonly unknown: readonly number[]
}

/** The attribute of this type, or null. */
export function attributeOf<T extends Exclude<StunAttribute['type'], AddressAttribute>>(
  message: Pick<StunMessage, 'attributes'>,
  type: T,
): Extract<StunAttribute, { type: T }> | null {
  return (message.attributes.find((one) => one.type === type) as Extract<StunAttribute, { type: T }> | undefined) ?? null
}

/** The transport address in an attribute, or null. */
export function addressOf(message: Pick<StunMessage, 'attributes'>, type: AddressAttribute): Endpoint | null {
  const found = message.attributes.find((one) => one.type === type)
  return found !== undefined && 'endpoint' in found ? found.endpoint : null
}

/** Whether bytes can be a STUN message at all, to tell them from other protocols on the same port. */
export function looksLikeStun(bytes: Uint8Array): boolean {
  return bytes.length >= STUN_HEADER_BYTES && (bytes[0]! & 0xc0) === 0 && (bytes[3]! & 3) === 0
}

/** A whole datagram. The result holds copies. @throws MalformedError */
export function decodeStun(bytes: Uint8Array): StunMessage {
  const reader = new Reader('STUN message', bytes)
  const type = reader.u16()
  if (type >= 0x4000) throw malformed('does not begin with two zero bits')
  const length = reader.u16()
  const id = reader.bytes(16)
  if (length % 4 !== 0) throw malformed('length is no multiple of 4')
  if (length !== reader.left) throw malformed(`says ${length} bytes of attributes, has ${reader.left}`)
  const classic = new DataView(id.buffer, id.byteOffset).getUint32(0) !== MAGIC_COOKIE
  const transactionId = classic ? id.slice() : id.slice(4)
  const attributes: StunAttribute[] = []
  const unknown: number[] = []
  const seen = new Set<number>()
  while (reader.left > 0) {
    const start = reader.at
    const attribute = reader.u16()
    const size = reader.u16()
    const value = reader.bytes(size)
    reader.bytes(-size & 3)
    // RFC 8489 §14: of attributes of one type only the first counts.
    if (seen.has(attribute)) continue
    seen.add(attribute)
    if (attribute === FINGERPRINT) {
      if (reader.left !== 0) throw malformed('FINGERPRINT is not the last attribute')
      if (!equalBytes(value, fingerprint(bytes.subarray(0, start)))) throw malformed('FINGERPRINT does not fit')
    }
    const decoded = decodeAttribute(attribute, value, id, classic)
    if (decoded !== null) attributes.push(decoded)
    else if (attribute < 0x8000 && !authentication.has(attribute) && unknown.length < MAX_UNKNOWN) unknown.push(attribute)
  }
  const { class: kind, method } = splitType(type)
  return { class: kind, method, transactionId, classic, attributes, unknown }
}

/** @param header a transaction id of 16 bytes makes a classic message */
export function encodeStun(header: StunHeader, attributes: readonly StunAttribute[]): Uint8Array {
  const { transactionId } = header
  assert(transactionId.length === 12 || transactionId.length === 16, 'a transaction id has 12 bytes, or 16 in RFC 3489')
  const classic = transactionId.length === 16
  const length = attributes.reduce((sum, attribute) => sum + attributeBytes(attribute), 0)
  const id = classic ? transactionId : concatBytes(Uint8Array.of(0x21, 0x12, 0xa4, 0x42), transactionId)
  const writer = new Writer(STUN_HEADER_BYTES + length).u16(joinType(header)).u16(length).bytes(id)
  for (const [i, attribute] of attributes.entries()) {
    assert(attribute.type !== 'fingerprint' || i === attributes.length - 1, 'FINGERPRINT is the last attribute')
    const value = encodeValue(attribute, id, classic, writer)
    writer.u16(typeOf(attribute)).u16(value.length).bytes(value)
    writer.bytes(new Uint8Array(-value.length & 3))
  }
  return writer.finish()
}

/** Bytes that an attribute takes in a message, its header and padding with it. */
export function attributeBytes(attribute: StunAttribute): number {
  switch (attribute.type) {
    case 'change-request':
    case 'response-port':
    case 'fingerprint':
      return 8
    case 'error-code':
      return 8 + roundUp(utf8Bytes(attribute.reason).length)
    case 'unknown-attributes':
      return 4 + roundUp(attribute.types.length * 2)
    case 'padding':
    case 'filler':
      return 4 + roundUp(attribute.length)
    default:
      return attribute.endpoint.ip.family === 4 ? ADDRESS_4_BYTES : ADDRESS_6_BYTES
  }
}

function decodeAttribute(type: number, value: Uint8Array, id: Uint8Array, classic: boolean): StunAttribute | null {
  const address = addressNames.get(type)
  if (address !== undefined) return { type: address, endpoint: decodeAddress(value, address === 'xor-mapped-address' ? id : null) }
  const reader = new Reader('STUN attribute', value)
  switch (type) {
    case CHANGE_REQUEST: {
      const flags = reader.u32()
      reader.end()
      return { type: 'change-request', ip: (flags & 4) !== 0, port: (flags & 2) !== 0 }
    }
    case RESPONSE_PORT: {
      const port = reader.u16()
      // RFC 5780 §7.5 has two bytes of padding: within the value for some programs, after it for others.
      if (reader.left !== 0 && reader.left !== 2) throw malformed('RESPONSE-PORT has no 2 or 4 bytes')
      return { type: 'response-port', port }
    }
    case ERROR_CODE: {
      const hundreds = reader.u32() & 0x7ff
      const code = (hundreds >> 8) * 100 + (hundreds & 0xff)
      if (code < 300 || code > 699 || (hundreds & 0xff) > 99) throw malformed('error code is not 300 to 699')
      if (reader.left > MAX_REASON_BYTES) throw malformed('reason is too long')
      // RFC 3489 pads the reason with spaces, to a multiple of 4.
      return { type: 'error-code', code, reason: classic ? reader.text(reader.left).trimEnd() : reader.text(reader.left) }
    }
    case UNKNOWN_ATTRIBUTES: {
      if (value.length % 2 !== 0) throw malformed('UNKNOWN-ATTRIBUTES has an odd length')
      const types: number[] = []
      while (reader.left > 0 && types.length < MAX_UNKNOWN) types.push(reader.u16())
      return { type: 'unknown-attributes', types }
    }
    case PADDING:
      return { type: 'padding', length: value.length }
    case FINGERPRINT:
      return { type: 'fingerprint' }
    default:
      return null
  }
}

/** u8 zero, u8 family (1 or 2), u16 port, 4 or 16 bytes; with `id`, port and address are XORed with it. RFC 8489 §14.1, §14.2 */
function decodeAddress(value: Uint8Array, id: Uint8Array | null): Endpoint {
  const reader = new Reader('STUN address', value)
  reader.u8()
  const family = reader.u8()
  if (family !== 1 && family !== 2) throw malformed('address family is neither 1 nor 2')
  const port = reader.u16()
  const address = reader.bytes(family === 1 ? 4 : 16).slice()
  reader.end()
  if (id === null) return { ip: ipFromBytes(address), port }
  return { ip: ipFromBytes(xor(address, id)), port: port ^ ((id[0]! << 8) | id[1]!) }
}

function encodeValue(attribute: StunAttribute, id: Uint8Array, classic: boolean, before: Writer): Uint8Array {
  const writer = new Writer(32)
  switch (attribute.type) {
    case 'change-request':
      return writer.u32((attribute.ip ? 4 : 0) | (attribute.port ? 2 : 0)).finish()
    case 'response-port':
      return writer.u16(attribute.port).u16(0).finish()
    case 'error-code': {
      const reason = utf8Bytes(attribute.reason)
      assert(reason.length <= MAX_REASON_BYTES, 'a reason has at most 509 bytes')
      writer
        .u16(0)
        .u8(Math.floor(attribute.code / 100))
        .u8(attribute.code % 100)
      writer.bytes(reason)
      // RFC 3489 §11.2.9: there every attribute is a multiple of 4 long.
      return (classic ? writer.bytes(new Uint8Array(-reason.length & 3).fill(0x20)) : writer).finish()
    }
    case 'unknown-attributes': {
      for (const type of attribute.types) writer.u16(type)
      // RFC 3489 §11.2.10: an odd one is repeated.
      if (classic && attribute.types.length % 2 === 1) writer.u16(attribute.types.at(-1)!)
      return writer.finish()
    }
    case 'padding':
    case 'filler':
      return new Uint8Array(attribute.length)
    case 'fingerprint':
      return fingerprint(before.finish())
    default: {
      const { ip, port } = attribute.endpoint
      const isXor = attribute.type === 'xor-mapped-address'
      writer.u8(0).u8(ip.family === 4 ? 1 : 2)
      writer.u16(isXor ? port ^ ((id[0]! << 8) | id[1]!) : port)
      return writer.bytes(isXor ? xor(ip.bytes, id) : ip.bytes).finish()
    }
  }
}

function typeOf(attribute: StunAttribute): number {
  switch (attribute.type) {
    case 'change-request':
      return CHANGE_REQUEST
    case 'response-port':
      return RESPONSE_PORT
    case 'error-code':
      return ERROR_CODE
    case 'unknown-attributes':
      return UNKNOWN_ATTRIBUTES
    case 'padding':
      return PADDING
    case 'filler':
      return FILLER
    case 'fingerprint':
      return FINGERPRINT
    default:
      return addressAttributes[attribute.type]
  }
}

/** Over the message up to the attribute, whose 8 bytes the length in the header already counts. */
function fingerprint(message: Uint8Array): Uint8Array {
  return new Writer(4).u32((crc32(message) ^ FINGERPRINT_XOR) >>> 0).finish()
}

/** RFC 8489 §5, figure 3: M11 to M7, C1, M6 to M4, C0, M3 to M0. */
function splitType(type: number): { class: StunClass; method: number } {
  const method = (type & 0xf) | ((type >> 1) & 0x70) | ((type >> 2) & 0xf80)
  return { class: classes[((type >> 4) & 1) | ((type >> 7) & 2)]!, method }
}

function joinType({ class: kind, method }: StunHeader): number {
  const bits = classes.indexOf(kind)
  return (method & 0xf) | ((method & 0x70) << 1) | ((method & 0xf80) << 2) | ((bits & 1) << 4) | ((bits & 2) << 7)
}

function xor(bytes: Uint8Array, mask: Uint8Array): Uint8Array {
  return bytes.map((byte, i) => byte ^ mask[i]!)
}

function roundUp(length: number): number {
  return (length + 3) & ~3
}

function malformed(problem: string): MalformedError {
  return new MalformedError('STUN message', problem)
}
