import { base58btc } from 'multiformats/bases/base58'
import { concatBytes, MalformedError, type NodeId, parseNodeId } from '../../base/index.ts'
import { bytesField, bytesIn, decodeFields, type Field, numberField, numberIn } from './protobuf.ts'

/** Asked of a relay: to be reachable through it, or to be connected to somebody who is. libp2p specs, relay/circuit-v2.md */
export const HOP_PROTOCOL = '/libp2p/circuit/relay/0.2.0/hop'
/** Asked by a relay of a node that has a reservation there: to take a connection. */
export const STOP_PROTOCOL = '/libp2p/circuit/relay/0.2.0/stop'
/** The longest message that is taken: a reservation with many addresses and a voucher has some hundred bytes. */
export const MESSAGE_BYTES_MAX = 4096

/** The answers of relay/circuit-v2.md, "Status codes". */
export const STATUS = {
  ok: 100,
  reservationRefused: 200,
  resourceLimitExceeded: 201,
  permissionDenied: 202,
  connectionFailed: 203,
  noReservation: 204,
  malformedMessage: 400,
  unexpectedMessage: 401,
} as const
export type Status = (typeof STATUS)[keyof typeof STATUS]

/** The name of a status code, for people. */
export function statusName(status: number | null): string {
  const found = Object.entries(STATUS).find(([, code]) => code === status)
  return found?.[0].replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`) ?? 'no known status'
}

/** What a relayed connection may last and carry, both directions together; null is unlimited. */
export interface RelayLimit {
  readonly seconds: number | null
  readonly bytes: number | null
}

/** A reservation as a relay tells it. */
export interface ReservationGrant {
  /** Wall clock, seconds. */
  readonly expiresAt: number
  /** Multiaddrs, binary: what the relay says its addresses are. */
  readonly addresses: readonly Uint8Array[]
  /** A signed envelope that proves the reservation to third parties, or null. */
  readonly voucher: Uint8Array | null
}

/** A HOP message: a request of a peer, or a relay's answer. */
export interface HopMessage {
  readonly type: 'reserve' | 'connect' | 'status' | 'unknown'
  /** CONNECT: who is wanted. What else the field says of it is not looked at. */
  readonly peer: NodeId | null
  readonly reservation: ReservationGrant | null
  readonly limit: RelayLimit | null
  readonly status: number | null
}

/** A STOP message: a relay's request, or the answer of who has a reservation. */
export interface StopMessage {
  readonly type: 'connect' | 'status' | 'unknown'
  /** CONNECT: who wants to connect. */
  readonly peer: NodeId | null
  readonly limit: RelayLimit | null
  readonly status: number | null
}

const HOP_TYPES = ['reserve', 'connect', 'status'] as const
const STOP_TYPES = ['connect', 'status'] as const
/** A PeerId of an Ed25519 key as a multihash. */
const PEER_ID_BYTES = 38

/** Bytes are borrowed. @throws MalformedError */
export function decodeHop(bytes: Uint8Array): HopMessage {
  const what = 'HOP message'
  const fields = last(decodeFields(what, checked(what, bytes)))
  const type = fields.get(1)
  if (type === undefined) throw new MalformedError(what, 'has no type')
  return {
    type: HOP_TYPES[Number(numberIn(what, type))] ?? 'unknown',
    peer: optional(fields.get(2), (field) => decodePeer(what, field)),
    reservation: optional(fields.get(3), (field) => decodeReservation(bytesIn(what, field))),
    limit: optional(fields.get(4), (field) => decodeLimit(what, field)),
    status: optional(fields.get(5), (field) => small(numberIn(what, field))),
  }
}

/** Of the fields given. */
export function encodeHop(message: Pick<HopMessage, 'type'> & Partial<HopMessage>): Uint8Array {
  const { peer, reservation, limit, status } = message
  const parts = [numberField(1, HOP_TYPES.indexOf(message.type as (typeof HOP_TYPES)[number]))]
  if (peer) parts.push(bytesField(2, encodePeer(peer)))
  if (reservation) parts.push(bytesField(3, encodeReservation(reservation)))
  if (limit) parts.push(bytesField(4, encodeLimit(limit)))
  if (status != null) parts.push(numberField(5, status))
  return concatBytes(...parts)
}

/** Bytes are borrowed. @throws MalformedError */
export function decodeStop(bytes: Uint8Array): StopMessage {
  const what = 'STOP message'
  const fields = last(decodeFields(what, checked(what, bytes)))
  const type = fields.get(1)
  if (type === undefined) throw new MalformedError(what, 'has no type')
  return {
    type: STOP_TYPES[Number(numberIn(what, type))] ?? 'unknown',
    peer: optional(fields.get(2), (field) => decodePeer(what, field)),
    limit: optional(fields.get(3), (field) => decodeLimit(what, field)),
    status: optional(fields.get(4), (field) => small(numberIn(what, field))),
  }
}

/** Of the fields given. */
export function encodeStop(message: Pick<StopMessage, 'type'> & Partial<StopMessage>): Uint8Array {
  const { peer, limit, status } = message
  const parts = [numberField(1, STOP_TYPES.indexOf(message.type as (typeof STOP_TYPES)[number]))]
  if (peer) parts.push(bytesField(2, encodePeer(peer)))
  if (limit) parts.push(bytesField(3, encodeLimit(limit)))
  if (status != null) parts.push(numberField(4, status))
  return concatBytes(...parts)
}

/** A PeerId's multihash. */
export function peerIdBytes(id: NodeId): Uint8Array {
  return base58btc.baseDecode(id)
}

function checked(what: string, bytes: Uint8Array): Uint8Array {
  if (bytes.length > MESSAGE_BYTES_MAX) throw new MalformedError(what, `has ${bytes.length} bytes, more than ${MESSAGE_BYTES_MAX}`)
  return bytes
}

/** Of a field that should be there once, the last counts. */
function last(fields: readonly Field[]): Map<number, Field> {
  return new Map(fields.map((field) => [field.number, field]))
}

function optional<T>(field: Field | undefined, decode: (field: Field) => T): T | null {
  return field === undefined ? null : decode(field)
}

/** message Peer { id = 1; addrs = 2 }. The addresses are whatever a peer likes to claim: not used. */
function decodePeer(what: string, field: Field): NodeId {
  const id = last(decodeFields(what, bytesIn(what, field))).get(1)
  const bytes = id === undefined ? null : bytesIn(what, id)
  if (bytes?.length !== PEER_ID_BYTES) throw new MalformedError(what, 'names no peer of this network')
  return parseNodeId(base58btc.baseEncode(bytes))
}

function encodePeer(id: NodeId): Uint8Array {
  return bytesField(1, peerIdBytes(id))
}

/** message Reservation { expire = 1; addrs = 2; voucher = 3 } */
function decodeReservation(bytes: Uint8Array): ReservationGrant {
  const what = 'reservation'
  const fields = decodeFields(what, bytes)
  const single = last(fields)
  return {
    expiresAt: optional(single.get(1), (field) => small(numberIn(what, field))) ?? 0,
    addresses: fields.filter((field) => field.number === 2).map((field) => bytesIn(what, field)),
    voucher: optional(single.get(3), (field) => bytesIn(what, field)),
  }
}

function encodeReservation({ expiresAt, addresses, voucher }: ReservationGrant): Uint8Array {
  return concatBytes(
    numberField(1, expiresAt),
    ...addresses.map((address) => bytesField(2, address)),
    voucher === null ? new Uint8Array() : bytesField(3, voucher),
  )
}

/** message Limit { duration = 1 (seconds); data = 2 (bytes) }; zero means none. */
function decodeLimit(what: string, field: Field): RelayLimit {
  const fields = last(decodeFields(what, bytesIn(what, field)))
  const seconds = optional(fields.get(1), (inner) => small(numberIn(what, inner)))
  const bytes = optional(fields.get(2), (inner) => small(numberIn(what, inner)))
  return { seconds: seconds === 0 ? null : seconds, bytes: bytes === 0 ? null : bytes }
}

function encodeLimit({ seconds, bytes }: RelayLimit): Uint8Array {
  return concatBytes(
    seconds === null ? new Uint8Array() : numberField(1, seconds),
    bytes === null ? new Uint8Array() : numberField(2, bytes),
  )
}

/** Numbers beyond what a double holds exactly are as good as the largest it does. */
function small(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value)
}
