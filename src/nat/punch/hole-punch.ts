import { type IpAddress, ipFromBytes, MalformedError, Reader, Writer } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'

/** libp2p's protocol for direct connection upgrade through a relay. docs/spec/punching.md §1 */
export const PUNCH_PROTOCOL = '/libp2p/dcutr'

/** The longest message, length prefix excluded (libp2p's DCUtR specification, "RPC messages"). */
export const MAX_MESSAGE_BYTES = 4096
/** Addresses read from one message; the message is refused when it has more. */
const MAX_ADDRESSES = 64
const MAX_ADDRESS_BYTES = 512

/** A message of the protocol. */
export interface HolePunch {
  readonly type: 'connect' | 'sync'
  /** Where the sender hopes to be met: multiaddrs in binary. Empty in SYNC. */
  readonly addresses: readonly Uint8Array[]
}

/*
 * Protocol buffer: field 1, varint: the type; field 2, bytes, repeated: the addresses. Unknown fields are skipped.
 * On the stream each message has its length before it, an unsigned varint.
 */
const TYPE_TAG = 0x08
const ADDRESS_TAG = 0x12
const CONNECT = 100
const SYNC = 300

/** The message without its length prefix. */
export function encodeHolePunch(message: HolePunch): Uint8Array {
  const writer = new Writer(256).u8(TYPE_TAG)
  writeVarint(writer, message.type === 'connect' ? CONNECT : SYNC)
  for (const address of message.addresses) {
    writer.u8(ADDRESS_TAG)
    writeVarint(writer, address.length)
    writer.bytes(address)
  }
  return writer.finish()
}

/** Of a message without its length prefix (borrowed). @throws MalformedError */
export function decodeHolePunch(bytes: Uint8Array): HolePunch {
  if (bytes.length > MAX_MESSAGE_BYTES) throw malformed(`has more than ${MAX_MESSAGE_BYTES} bytes`)
  const reader = new Reader('hole punch message', bytes)
  const addresses: Uint8Array[] = []
  let type: number | null = null
  while (reader.left > 0) {
    const tag = readVarint(reader)
    const field = tag >>> 3
    if (field === 0) throw malformed('field 0')
    if (tag === TYPE_TAG) {
      type = readVarint(reader)
    } else if (tag === ADDRESS_TAG) {
      const length = readVarint(reader)
      if (length > MAX_ADDRESS_BYTES) throw malformed('an address is too long')
      if (addresses.length === MAX_ADDRESSES) throw malformed(`more than ${MAX_ADDRESSES} addresses`)
      addresses.push(new Uint8Array(reader.bytes(length)))
    } else if (field === 1 || field === 2) {
      throw malformed(`field ${field} is of another type`)
    } else {
      skip(reader, tag & 7)
    }
  }
  if (type === CONNECT) return { type: 'connect', addresses }
  if (type === SYNC) return { type: 'sync', addresses }
  throw malformed(type === null ? 'it has no type' : 'its type is unknown')
}

/*
 * An address is exactly: /ip4 (0x04) 4 bytes, or /ip6 (0x29) 16 bytes; /tcp (0x06) u16; /tls (0x01c0 as varint: c0 03).
 * Port 0 says that the address is right, but that its NAT gives another port to each destination.
 */
const IP4 = 0x04
const IP6 = 0x29
const TCP = 0x06
const TLS = 0xc003

/** Where the sender can be met by TCP for a direct link. Port 0: at a port that can't be foretold. */
export function encodeEndpoint(endpoint: Endpoint): Uint8Array {
  const { ip, port } = endpoint
  return new Writer(24)
    .u8(ip.family === 4 ? IP4 : IP6)
    .bytes(ip.bytes)
    .u8(TCP)
    .u16(port)
    .u16(TLS)
    .finish()
}

/** Null for an address of another form, which is no mistake: others may mean something by it. */
export function decodeEndpoint(bytes: Uint8Array): Endpoint | null {
  const length = bytes[0] === IP4 ? 4 : bytes[0] === IP6 ? 16 : null
  if (length === null || bytes.length !== 1 + length + 5) return null
  const reader = new Reader('address', bytes, 1)
  const ip: IpAddress = ipFromBytes(new Uint8Array(reader.bytes(length)))
  if (reader.u8() !== TCP) return null
  const port = reader.u16()
  return reader.u16() === TLS ? { ip, port } : null
}

/** Bytes of a stream in, messages out. */
export class HolePunchDecoder {
  #held: Uint8Array = new Uint8Array(0)

  /** @param chunk borrowed. @throws MalformedError after which the stream is of no use */
  push(chunk: Uint8Array): HolePunch[] {
    const all = new Uint8Array(this.#held.length + chunk.length)
    all.set(this.#held)
    all.set(chunk, this.#held.length)
    const found: HolePunch[] = []
    let at = 0
    for (;;) {
      const prefix = lengthPrefix(all, at)
      if (prefix === null || all.length - prefix.end < prefix.length) break
      found.push(decodeHolePunch(all.subarray(prefix.end, prefix.end + prefix.length)))
      if (found.length > MAX_MESSAGES_AT_ONCE) throw malformed('a flood of messages')
      at = prefix.end + prefix.length
    }
    this.#held = all.slice(at)
    return found
  }
}

/** An honest peer waits for answers: two messages may meet in one chunk, hardly more. */
const MAX_MESSAGES_AT_ONCE = 4

/** The message as it goes onto the stream. */
export function frameHolePunch(message: HolePunch): Uint8Array {
  const body = encodeHolePunch(message)
  const writer = new Writer(body.length + 2)
  writeVarint(writer, body.length)
  return writer.bytes(body).finish()
}

function lengthPrefix(bytes: Uint8Array, at: number): { length: number; end: number } | null {
  const first = bytes[at]
  if (first === undefined) return null
  if (first < 0x80) return { length: first, end: at + 1 }
  const second = bytes[at + 1]
  if (second === undefined) return null
  const length = (first & 0x7f) | (second << 7)
  if (second >= 0x80 || length > MAX_MESSAGE_BYTES) throw malformed(`has more than ${MAX_MESSAGE_BYTES} bytes`)
  return { length, end: at + 2 }
}

function writeVarint(writer: Writer, value: number): void {
  let rest = value
  while (rest >= 0x80) {
    writer.u8((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  writer.u8(rest)
}

/** Up to 32 bits: nothing in these messages is larger. */
function readVarint(reader: Reader): number {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = reader.u8()
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) {
      if (value > 0xffff_ffff) break
      return value
    }
  }
  throw malformed('a number is too large')
}

function skip(reader: Reader, wireType: number): void {
  switch (wireType) {
    case 0:
      for (let i = 0; i < 10; i++) if (reader.u8() < 0x80) return
      throw malformed('a number is too large')
    case 1:
      reader.bytes(8)
      return
    case 2:
      reader.bytes(readVarint(reader))
      return
    case 5:
      reader.bytes(4)
      return
    default:
      throw malformed('an unknown wire type')
  }
}

function malformed(problem: string): MalformedError {
  return new MalformedError('hole punch message', problem)
}
