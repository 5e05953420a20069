import { endianness } from 'node:os'

/**
 * Netlink messages of the connection tracking (RFC 3549 §2.3.2; linux/netlink.h, nfnetlink.h, nfnetlink_conntrack.h). Numbers are in the machine's byte order.
 *
 *     length u32 | type u16 | flags u16 | sequence u32 | port u32 | family u8 | version u8 | resource u16 | attributes
 *     attribute: length u16 | type u16 | body, padded to four bytes
 */
const LITTLE = endianness() === 'LE'
const HEADER_BYTES = 16
const NFGEN_BYTES = 4
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const TYPE_MASK = 0x3fff

/** Flags of a request. */
export const NLM = { request: 1, ack: 4, dump: 0x300 } as const
/** NFNL_SUBSYS_CTNETLINK, and its messages. */
export const CT_GET = 0x101
export const CT_DELETE = 0x102
const CT_NEW = 0x100
const TUPLE_ORIG = 1
const ID = 12
const ZONE = 18
const AF_INET = 2
const AF_INET6 = 10

/** One message of the kernel's. */
export interface ConntrackMessage {
  readonly sequence: number
  /** The answer is over, or this one thing was done; with `error` (a positive errno, 0: none). */
  readonly done: boolean
  readonly error: number
  readonly family: 4 | 6
  /** Of an entry: who began it, and the attributes that name it, as they came; empty where there are none. */
  readonly source: Uint8Array | null
  readonly tuple: Uint8Array
  readonly id: Uint8Array
  readonly zone: Uint8Array
}

const none = new Uint8Array(0)

/** One attribute, padded. */
export function attribute(type: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array((4 + body.length + 3) & ~3)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, 4 + body.length, LITTLE)
  view.setUint16(2, type, LITTLE)
  bytes.set(body, 4)
  return bytes
}

/** One behind the other. */
export function attributes(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** One request. */
export function nlmsg(type: number, flags: number, sequence: number, family: 4 | 6, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + NFGEN_BYTES + body.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, LITTLE)
  view.setUint16(4, type, LITTLE)
  view.setUint16(6, flags, LITTLE)
  view.setUint32(8, sequence, LITTLE)
  bytes[HEADER_BYTES] = family === 4 ? AF_INET : AF_INET6
  bytes.set(body, HEADER_BYTES + NFGEN_BYTES)
  return bytes
}

/** The messages of one datagram of the kernel's; what is cut off is left out. */
export function* messagesIn(bytes: Uint8Array): Generator<ConntrackMessage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = view.getUint32(at, LITTLE)
    if (length < HEADER_BYTES || at + length > bytes.length) return
    const type = view.getUint16(at + 4, LITTLE)
    const sequence = view.getUint32(at + 8, LITTLE)
    if (type === NLMSG_ERROR || type === NLMSG_DONE) {
      const error = length >= HEADER_BYTES + 4 ? -view.getInt32(at + HEADER_BYTES, LITTLE) : 0
      yield { sequence, done: true, error: Math.max(error, 0), family: 4, source: null, tuple: none, id: none, zone: none }
    } else if (type === CT_NEW && length >= HEADER_BYTES + NFGEN_BYTES) {
      const parts = read(bytes, view, at + HEADER_BYTES + NFGEN_BYTES, at + length)
      const tuple = parts.get(TUPLE_ORIG) ?? none
      const family = bytes[at + HEADER_BYTES] === AF_INET6 ? 6 : 4
      yield {
        sequence,
        done: false,
        error: 0,
        family,
        source: sourceOf(tuple, family),
        tuple,
        id: parts.get(ID) ?? none,
        zone: parts.get(ZONE) ?? none,
      }
    }
    at += (length + 3) & ~3
  }
}

/** The attributes between two places by type, each with its head. */
function read(bytes: Uint8Array, view: DataView, start: number, end: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>()
  for (let at = start; at + 4 <= end; ) {
    const length = view.getUint16(at, LITTLE)
    if (length < 4 || at + length > end) break
    const padded = Math.min(end - at, (length + 3) & ~3)
    found.set(view.getUint16(at + 2, LITTLE) & TYPE_MASK, bytes.subarray(at, at + padded))
    at += padded
  }
  return found
}

/** CTA_TUPLE_IP, and in it CTA_IP_V4_SRC or CTA_IP_V6_SRC. */
function sourceOf(tuple: Uint8Array, family: 4 | 6): Uint8Array | null {
  const within = (part: Uint8Array | undefined) =>
    part === undefined ? undefined : read(part, new DataView(part.buffer, part.byteOffset, part.length), 4, part.length)
  const source = within(within(tuple)?.get(1))?.get(family === 4 ? 1 : 3)
  return source?.length === (family === 4 ? 8 : 20) ? source.subarray(4) : null
}
