import { concatBytes, formatIp, ipFromBytes, isIpText, MalformedError, parseIp, Reader, utf8Bytes, Writer } from '../base/index.ts'
import type { Target } from '../onion/index.ts'

/**
 * SOCKS 5 (RFC 1928), its username/password method (RFC 1929), SOCKS 4 and 4a, and Tor's RESOLVE commands, byte by byte.
 * Decoders take the bytes received so far (borrowed) and give null while they need more; they throw MalformedError, or SocksRefusal
 * where the protocol has a code for what is wrong.
 */

export const SOCKS5_VERSION = 5
export const SOCKS4_VERSION = 4

/** RFC 1928 §3 */
export const AuthMethod = { none: 0x00, userPassword: 0x02, notAcceptable: 0xff } as const

/** RFC 1928 §4; 0xf0 and 0xf1 are Tor's (socks-extensions). */
export type SocksCommand = 'connect' | 'associate' | 'resolve' | 'resolve-pointer'

/** RFC 1928 §6 */
export const SocksReply = {
  succeeded: 0x00,
  generalFailure: 0x01,
  notAllowed: 0x02,
  networkUnreachable: 0x03,
  hostUnreachable: 0x04,
  connectionRefused: 0x05,
  ttlExpired: 0x06,
  commandNotSupported: 0x07,
  addressTypeNotSupported: 0x08,
} as const
export type SocksReplyCode = (typeof SocksReply)[keyof typeof SocksReply]

/** A request of the right form that is answered by a reply code. */
export class SocksRefusal extends MalformedError {
  readonly reply: SocksReplyCode

  constructor(reply: SocksReplyCode, problem: string) {
    super('SOCKS request', problem)
    this.name = 'SocksRefusal'
    this.reply = reply
  }
}

/** What was decoded, and of how many bytes. */
export interface Decoded<T> {
  readonly value: T
  readonly used: number
}

/** User and password as one character a byte: any bytes are allowed. */
export interface UserPassword {
  readonly user: string
  readonly password: string
}

/** `host` as it was sent: an address in canonical text, or a name that has not been looked at. */
export interface SocksRequest {
  readonly command: SocksCommand
  readonly target: Target
}

export interface Socks4Request extends SocksRequest {
  readonly user: string
}

/**
 *     +-----+----------+----------+
 *     | VER | NMETHODS | METHODS  |
 *     |  1  |    1     | 0 to 255 |
 *     +-----+----------+----------+
 */
export function decodeGreeting(bytes: Uint8Array): Decoded<readonly number[]> | null {
  if (bytes.length < 2 || bytes.length < 2 + bytes[1]!) return null
  const reader = new Reader('SOCKS greeting', bytes)
  expectVersion(reader, SOCKS5_VERSION, 'SOCKS greeting')
  const methods = Array.from(reader.bytes(reader.u8()))
  return { value: methods, used: reader.at }
}

/** VER, METHOD. RFC 1928 §3 */
export function encodeMethod(method: number): Uint8Array {
  return Uint8Array.of(SOCKS5_VERSION, method)
}

/**
 *     +-----+------+----------+------+----------+
 *     | VER | ULEN |  UNAME   | PLEN |  PASSWD  |
 *     |  1  |  1   | 0 to 255 |  1   | 0 to 255 |
 *     +-----+------+----------+------+----------+
 * Empty fields, which RFC 1929 does not have, are taken: some clients send them.
 */
export function decodeUserPassword(bytes: Uint8Array): Decoded<UserPassword> | null {
  if (bytes.length < 2) return null
  const passwordAt = 2 + bytes[1]!
  if (bytes.length <= passwordAt || bytes.length < passwordAt + 1 + bytes[passwordAt]!) return null
  const reader = new Reader('SOCKS credentials', bytes)
  expectVersion(reader, 1, 'SOCKS credentials')
  const user = latin1(reader.bytes(reader.u8()))
  const password = latin1(reader.bytes(reader.u8()))
  return { value: { user, password }, used: reader.at }
}

/** VER, STATUS. RFC 1929 §2 */
export function encodeUserPasswordStatus(accepted: boolean): Uint8Array {
  return Uint8Array.of(1, accepted ? 0 : 1)
}

/**
 *     +-----+-----+-----+------+----------+------+
 *     | VER | CMD | RSV | ATYP | DST.ADDR | PORT |
 *     |  1  |  1  |  1  |  1   | variable |  2   |
 *     +-----+-----+-----+------+----------+------+
 * @throws SocksRefusal 07 for a command that is not served, 08 for an unknown address type
 */
export function decodeRequest(bytes: Uint8Array): Decoded<SocksRequest> | null {
  if (bytes.length < 4) return null
  const reader = new Reader('SOCKS request', bytes)
  expectVersion(reader, SOCKS5_VERSION, 'SOCKS request')
  const command = reader.u8()
  reader.u8()
  // The whole request is awaited before a refusal, so that none of it is left unread behind the reply.
  const length = addressLength(bytes, reader.at)
  if (length === null || reader.left < length) return null
  const target = readTarget(reader)
  return { value: { command: commandOf(command), target }, used: reader.at }
}

/** VER, REP, RSV, ATYP, BND.ADDR, BND.PORT. @param bound an address in text or, for RESOLVE_PTR, a name; 0.0.0.0:0 when not given */
export function encodeReply(reply: SocksReplyCode, bound: Target = { host: '0.0.0.0', port: 0 }): Uint8Array {
  const writer = new Writer(32).u8(SOCKS5_VERSION).u8(reply).u8(0)
  return writeTarget(writer, bound).finish()
}

/** The longest user id or name of a SOCKS 4 request: a limit of ours, where the protocol has none. */
export const SOCKS4_TEXT_BYTES = 255

/**
 *     +----+----+---------+-------+---------+----+ +------+----+
 *     | VN | CD | DSTPORT | DSTIP | USERID  | 00 | | NAME | 00 |   NAME: SOCKS 4a, when DSTIP is 0.0.0.x, x not 0
 *     | 1  | 1  |    2    |   4   | variable| 1  | | var. | 1  |
 *     +----+----+---------+-------+---------+----+ +------+----+
 */
export function decodeSocks4Request(bytes: Uint8Array): Decoded<Socks4Request> | null {
  if (bytes.length < 8) return null
  const reader = new Reader('SOCKS 4 request', bytes)
  expectVersion(reader, SOCKS4_VERSION, 'SOCKS 4 request')
  const command = reader.u8()
  const port = reader.u16()
  const ip = reader.bytes(4)
  const user = readUntilZero(reader, bytes)
  if (user === null) return null
  let host = formatIp(ipFromBytes(new Uint8Array(ip)))
  if (ip[0] === 0 && ip[1] === 0 && ip[2] === 0 && ip[3] !== 0) {
    const name = readUntilZero(reader, bytes)
    if (name === null) return null
    host = new Reader('SOCKS 4 request', name).text(name.length)
  }
  const known = command === 0x01 ? 'connect' : command === 0xf0 ? 'resolve' : null
  if (known === null) throw new SocksRefusal(SocksReply.commandNotSupported, 'the command is not served')
  return { value: { command: known, target: { host, port }, user: latin1(user) }, used: reader.at }
}

/** VN 0, CD 90 granted or 91 failed, DSTPORT, DSTIP. */
export function encodeSocks4Reply(granted: boolean, bound: Target = { host: '0.0.0.0', port: 0 }): Uint8Array {
  const ip = isIpText(bound.host) ? parseIp(bound.host) : null
  return new Writer(8)
    .u8(0)
    .u8(granted ? 90 : 91)
    .u16(bound.port)
    .bytes(ip?.family === 4 ? ip.bytes : new Uint8Array(4))
    .finish()
}

/**
 *     +-----+------+------+----------+----------+------+
 *     | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA |
 *     |  2  |  1   |  1   | variable |    2     | rest |
 *     +-----+------+------+----------+----------+------+
 * RFC 1928 §7. `bytes` of the result is a view. @throws MalformedError also for a fragment, which is to be dropped
 */
export function decodeUdp(bytes: Uint8Array): { readonly to: Target; readonly bytes: Uint8Array } {
  const reader = new Reader('SOCKS datagram', bytes)
  reader.u16()
  if (reader.u8() !== 0) throw new MalformedError('SOCKS datagram', 'is a fragment')
  const to = readTarget(reader)
  return { to, bytes: reader.rest() }
}

/** The header and a copy of the data. */
export function encodeUdp(from: Target, bytes: Uint8Array): Uint8Array {
  return concatBytes(writeTarget(new Writer(32).u16(0).u8(0), from).finish(), bytes)
}

function expectVersion(reader: Reader, version: number, what: string): void {
  if (reader.u8() !== version) throw new MalformedError(what, `version is not ${version}`)
}

function commandOf(command: number): SocksCommand {
  switch (command) {
    case 0x01:
      return 'connect'
    case 0x03:
      return 'associate'
    case 0xf0:
      return 'resolve'
    case 0xf1:
      return 'resolve-pointer'
    default:
      throw new SocksRefusal(SocksReply.commandNotSupported, 'the command is not served')
  }
}

/** ATYP, address and port together; null while the length of a name is not here yet. */
function addressLength(bytes: Uint8Array, at: number): number | null {
  switch (bytes[at]) {
    case 0x01:
      return 1 + 4 + 2
    case 0x03:
      return bytes.length < at + 2 ? null : 1 + 1 + bytes[at + 1]! + 2
    case 0x04:
      return 1 + 16 + 2
    default:
      throw new SocksRefusal(SocksReply.addressTypeNotSupported, 'the address type is unknown')
  }
}

function readTarget(reader: Reader): Target {
  let host: string
  switch (reader.u8()) {
    case 0x01:
      host = formatIp(ipFromBytes(new Uint8Array(reader.bytes(4))))
      break
    case 0x03:
      host = reader.text(reader.u8())
      break
    case 0x04:
      host = formatIp(ipFromBytes(new Uint8Array(reader.bytes(16))))
      break
    default:
      throw new SocksRefusal(SocksReply.addressTypeNotSupported, 'the address type is unknown')
  }
  return { host, port: reader.u16() }
}

function writeTarget(writer: Writer, target: Target): Writer {
  if (isIpText(target.host)) {
    const ip = parseIp(target.host)
    writer.u8(ip.family === 4 ? 0x01 : 0x04).bytes(ip.bytes)
  } else {
    const name = utf8Bytes(target.host).subarray(0, 255)
    writer.u8(0x03).u8(name.length).bytes(name)
  }
  return writer.u16(target.port)
}

function readUntilZero(reader: Reader, bytes: Uint8Array): Uint8Array | null {
  const end = bytes.indexOf(0, reader.at)
  if ((end < 0 ? bytes.length : end) - reader.at > SOCKS4_TEXT_BYTES) throw new MalformedError('SOCKS 4 request', 'a text is too long')
  if (end < 0) return null
  const text = reader.bytes(end - reader.at)
  reader.u8()
  return text
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
