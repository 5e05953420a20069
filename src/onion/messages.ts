import { formatIp, ipFromBytes, isIpText, MalformedError, parseIp, Reader, utf8Bytes, Writer } from '../base/index.ts'
import { CELL_BYTES, MESSAGE_BODY_BYTES, MESSAGE_HEADER_BYTES, TAG_BYTES } from './cell.ts'
import type { CloseReason, EndReason, ResolveAnswer, Target } from './circuit.ts'

/**
 * What stands inside a recognised cell, and the two plaintext cells that begin a channel. docs/spec/messages.md
 *
 *     message:  command u8 | stream u16 | length u16 | body        (several to a cell, then zeros)
 *     plain:    version u8 = 1 | kind u8 | length u16 | handshake  (then zeros)
 */
export const Command = {
  extend: 1,
  extended: 2,
  begin: 3,
  connected: 4,
  data: 5,
  window: 6,
  end: 7,
  resolve: 8,
  resolved: 9,
  udpOpen: 10,
  udpDatagram: 11,
  udpClose: 12,
  packet: 13,
  ping: 14,
  pong: 15,
  pad: 16,
  closed: 17,
  dns: 18,
  packetOpen: 19,
  packetOpened: 20,
  packetClose: 21,
} as const

/** Numbers kept for later protocols: first and last, docs/spec/messages.md §2. Received today they are unknown commands. */
export const RESERVED_COMMANDS = {
  rendezvous: [32, 63],
  multipath: [64, 79],
  padding: [80, 95],
  tokens: [96, 111],
} as const

/** 1 where a command belongs to the circuit (stream 0), 2 where to a stream, 0 where the number is unknown. */
const places = new Uint8Array(256)
for (const command of [Command.extend, Command.extended, Command.ping, Command.pong, Command.pad, Command.closed]) places[command] = 1
for (const command of Object.values(Command)) if (places[command] === 0) places[command] = 2

export const COOKIE_BYTES = 8
/** The longest host in a target: a DNS name, or an address in text. */
export const HOST_BYTES = 255
/** Answers of one RESOLVED. */
export const MOST_ANSWERS = 16
/** The longest TTL that is believed. */
export const MOST_TTL_SECONDS = 7 * 24 * 3600
/** The most credit a sender may ever hold. docs/spec/streams.md §2 */
export const MOST_CREDIT_BYTES = 0x7fff_ffff

const closeReasons: readonly CloseReason[] = [
  'requested',
  'finished',
  'protocol',
  'internal',
  'resource-limit',
  'overloaded',
  'timeout',
  'shutting-down',
  'unknown-relay',
  'not-allowed',
  'connect-failed',
  'identity-mismatch',
  'handshake-failed',
  'channel-lost',
]

const endReasons: readonly EndReason[] = [
  'done',
  'reset',
  'refused',
  'unreachable',
  'timeout',
  'resolve-failed',
  'policy',
  'resource-limit',
  'not-exit',
  'internal',
]

/** Walks the messages of one cell without allocating: `next` until false. The fields are valid after a true. */
export class MessageCursor {
  bytes: Uint8Array = new Uint8Array(0)
  command = 0
  stream = 0
  /** Where the body begins and ends in `bytes`. */
  from = 0
  to = 0
  #end = 0

  /** @param start the first byte of the cell (its tag), borrowed until the last `next` */
  begin(bytes: Uint8Array, start: number): void {
    this.bytes = bytes
    this.to = start + TAG_BYTES
    this.#end = start + CELL_BYTES
  }

  /** @throws MalformedError */
  next(): boolean {
    const { bytes } = this
    const at = this.to
    const end = this.#end
    if (at === end) return false
    const command = bytes[at]!
    if (command === 0) {
      for (let i = at + 1; i < end; i++) if (bytes[i] !== 0) throw new MalformedError('cell', 'bytes after its last message')
      return false
    }
    if (end - at < MESSAGE_HEADER_BYTES) throw new MalformedError('message', 'its header leaves the cell')
    const place = places[command]!
    if (place === 0) throw new MalformedError('message', `unknown command ${command}`)
    const stream = (bytes[at + 1]! << 8) | bytes[at + 2]!
    if ((place === 1) !== (stream === 0)) throw new MalformedError('message', `command ${command} on stream ${stream}`)
    const from = at + MESSAGE_HEADER_BYTES
    const to = from + ((bytes[at + 3]! << 8) | bytes[at + 4]!)
    if (to > end) throw new MalformedError('message', 'its body leaves the cell')
    this.command = command
    this.stream = stream
    this.from = from
    this.to = to
    return true
  }

  /** A view of the body. */
  body(): Uint8Array {
    return this.bytes.subarray(this.from, this.to)
  }
}

/** Writes a message's header at `at`; the body of `length` bytes begins at the position returned. */
export function putHeader(bytes: Uint8Array, at: number, command: number, stream: number, length: number): number {
  bytes[at] = command
  bytes[at + 1] = stream >> 8
  bytes[at + 2] = stream
  bytes[at + 3] = length >> 8
  bytes[at + 4] = length
  return at + MESSAGE_HEADER_BYTES
}

/** CREATE and CREATED. */
export const PlainKind = { create: 1, created: 2 } as const
const PLAIN_VERSION = 1
const PLAIN_HEADER_BYTES = 4

/** Writes a plaintext cell at `start` of zeroed bytes. @param handshake at most MESSAGE_BODY_BYTES, copied */
export function putPlainCell(bytes: Uint8Array, start: number, kind: number, handshake: Uint8Array): void {
  bytes[start] = PLAIN_VERSION
  bytes[start + 1] = kind
  bytes[start + 2] = handshake.length >> 8
  bytes[start + 3] = handshake.length
  bytes.set(handshake, start + PLAIN_HEADER_BYTES)
}

/** The handshake bytes of a plaintext cell, a view. @throws MalformedError */
export function readPlainCell(bytes: Uint8Array, start: number, kind: number): Uint8Array {
  const reader = new Reader('plain cell', bytes, start, start + CELL_BYTES)
  const version = reader.u8()
  if (version !== PLAIN_VERSION) throw new MalformedError('plain cell', `version ${version}, not ${PLAIN_VERSION}`)
  const given = reader.u8()
  if (given !== kind) throw new MalformedError('plain cell', `kind ${given}, not ${kind}`)
  const length = reader.u16()
  // It must also fit an EXTEND or EXTENDED message.
  if (length > MESSAGE_BODY_BYTES) throw new MalformedError('plain cell', `handshake of ${length} bytes`)
  const handshake = reader.bytes(length)
  if (!allZero(reader.rest())) throw new MalformedError('plain cell', 'padding is not zero')
  return handshake
}

/** `port u16, length u8, host`: the body of BEGIN. */
export function encodeTarget(target: Target): Uint8Array {
  const host = utf8Bytes(target.host)
  return new Writer(3 + host.length).u16(target.port).u8(host.length).bytes(host).finish()
}

/** Whether a target can be said in a BEGIN: 1 to 255 visible ASCII characters and a port from 1. */
export function isSayableTarget(target: Target): boolean {
  return isHost(target.host) && Number.isInteger(target.port) && target.port >= 1 && target.port <= 0xffff
}

/** @throws MalformedError */
export function decodeTarget(body: Uint8Array): Target {
  const reader = new Reader('target', body)
  const target = readTarget(reader)
  reader.end()
  return target
}

/** A target within something longer. @throws MalformedError */
export function readTarget(reader: Reader): Target {
  const port = reader.u16()
  if (port === 0) throw new MalformedError('target', 'port 0')
  return { host: host(reader.bytes(reader.u8())), port }
}

/** The body of RESOLVE: the name, or an address in text. */
export function encodeName(name: string): Uint8Array {
  return utf8Bytes(name)
}

/** Whether a name can be asked: 1 to 255 visible ASCII characters. */
export function isHost(name: string): boolean {
  return name.length <= HOST_BYTES && /^[\x21-\x7e]+$/.test(name)
}

/** @throws MalformedError */
export function decodeName(body: Uint8Array): string {
  return host(body)
}

/** The body of CONNECTED: the address's 4 or 16 bytes, or nothing where the exit does not say. @param address text */
export function encodeConnected(address: string): Uint8Array {
  return isIpText(address) ? parseIp(address).bytes : new Uint8Array(0)
}

/** @throws MalformedError */
export function decodeConnected(body: Uint8Array): string | null {
  return body.length === 0 ? null : formatIp(ipFromBytes(body))
}

/** Up to `count` bytes of credit, for the body of WINDOW. */
export function putWindow(bytes: Uint8Array, at: number, count: number): void {
  bytes[at] = count >>> 24
  bytes[at + 1] = count >>> 16
  bytes[at + 2] = count >>> 8
  bytes[at + 3] = count
}

/** @throws MalformedError */
export function decodeWindow(body: Uint8Array): number {
  const reader = new Reader('WINDOW', body)
  const count = reader.u32()
  reader.end()
  if (count === 0 || count > MOST_CREDIT_BYTES) throw new MalformedError('WINDOW', `grants ${count}`)
  return count
}

/** 'circuit-lost' is never said; it stands for 'reset'. */
export function endReasonNumber(reason: EndReason): number {
  const index = endReasons.indexOf(reason)
  return index < 0 ? endReasonNumber('reset') : index + 1
}

export function encodeEnd(reason: EndReason): Uint8Array {
  return Uint8Array.of(endReasonNumber(reason))
}

/** @throws MalformedError */
export function decodeEnd(body: Uint8Array): EndReason {
  return oneOf('END', body, endReasons)
}

export function encodeClosed(reason: CloseReason): Uint8Array {
  return Uint8Array.of(closeReasons.indexOf(reason) + 1)
}

/** @throws MalformedError */
export function decodeClosed(body: Uint8Array): CloseReason {
  return oneOf('CLOSED', body, closeReasons)
}

const AnswerKind = { address4: 4, address6: 6, name: 1 } as const

/**
 * The body of RESOLVED: `error u8 (0, or an END reason), count u8, then count times: kind u8, ttl u32, length u8, value`.
 * Answers that do not fit one message are left out.
 */
export function encodeResolved(answers: readonly ResolveAnswer[] | EndReason): Uint8Array {
  if (typeof answers === 'string') return Uint8Array.of(endReasonNumber(answers === 'done' ? 'internal' : answers), 0)
  const values: { kind: number; ttl: number; value: Uint8Array }[] = []
  let size = 2
  for (const { type, value, ttlSeconds } of answers) {
    if (type === 'address' ? !isIpText(value) : !isHost(value)) continue
    const bytes = type === 'address' ? parseIp(value).bytes : utf8Bytes(value)
    const kind = type === 'name' ? AnswerKind.name : bytes.length === 4 ? AnswerKind.address4 : AnswerKind.address6
    size += 6 + bytes.length
    if (values.length === MOST_ANSWERS || size > MESSAGE_BODY_BYTES) break
    values.push({ kind, ttl: Math.min(MOST_TTL_SECONDS, Math.max(0, Math.floor(ttlSeconds))), value: bytes })
  }
  if (values.length === 0) return encodeResolved('resolve-failed')
  const writer = new Writer(size).u8(0).u8(values.length)
  for (const { kind, ttl, value } of values) writer.u8(kind).u32(ttl).u8(value.length).bytes(value)
  return writer.finish()
}

/** @throws MalformedError */
export function decodeResolved(body: Uint8Array): { answers: ResolveAnswer[]; error: EndReason | null } {
  const reader = new Reader('RESOLVED', body)
  const error = reader.u8()
  const count = reader.u8()
  if (count > MOST_ANSWERS || (error === 0) !== count > 0) throw new MalformedError('RESOLVED', `${count} answers with error ${error}`)
  const answers: ResolveAnswer[] = []
  for (let i = 0; i < count; i++) {
    const kind = reader.u8()
    const ttlSeconds = reader.u32()
    if (ttlSeconds > MOST_TTL_SECONDS) throw new MalformedError('RESOLVED', `TTL of ${ttlSeconds} seconds`)
    const value = reader.bytes(reader.u8())
    if (kind === AnswerKind.name) answers.push({ type: 'name', value: host(value), ttlSeconds })
    else if (kind === AnswerKind.address4 || kind === AnswerKind.address6) {
      if (value.length !== (kind === AnswerKind.address4 ? 4 : 16)) throw new MalformedError('RESOLVED', `address of ${value.length} bytes`)
      answers.push({ type: 'address', value: formatIp(ipFromBytes(value)), ttlSeconds })
    } else throw new MalformedError('RESOLVED', `answer of kind ${kind}`)
  }
  reader.end()
  const reason = error === 0 ? null : oneOf('RESOLVED', Uint8Array.of(error), endReasons)
  if (reason === 'done') throw new MalformedError('RESOLVED', "error 'done'")
  return { answers, error: reason }
}

/** The 8-byte cookie of PING and PONG, copied. @throws MalformedError */
export function decodeCookie(body: Uint8Array): Uint8Array {
  if (body.length !== COOKIE_BYTES) throw new MalformedError('PING or PONG', `cookie of ${body.length} bytes`)
  return body.slice()
}

/** DNS, UDP_OPEN and UDP_CLOSE have no body. @throws MalformedError */
export function decodeEmpty(what: string, body: Uint8Array): void {
  if (body.length !== 0) throw new MalformedError(what, `has a body of ${body.length} bytes`)
}

function oneOf<Reason>(what: string, body: Uint8Array, reasons: readonly Reason[]): Reason {
  const reason = body.length === 1 ? reasons[body[0]! - 1] : undefined
  if (reason === undefined) throw new MalformedError(what, 'unknown reason')
  return reason
}

function host(bytes: Uint8Array): string {
  // Latin-1 maps each byte to a character; the check leaves visible ASCII.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  if (!isHost(text)) throw new MalformedError('host', 'not 1 to 255 visible ASCII characters')
  return text
}

function allZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false
  return true
}
