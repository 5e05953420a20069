import { foldChecksum, sumRange } from './checksum.ts'
import { Protocol, writeTransportChecksum } from './ip.ts'

/** Type, code, checksum and the four bytes that depend on the type. */
export const ICMP_HEADER_BYTES = 8

/** What an ICMP message says, in words that both versions share. */
export type IcmpKind =
  | 'echo-request'
  | 'echo-reply'
  | 'net-unreachable'
  | 'host-unreachable'
  | 'protocol-unreachable'
  | 'port-unreachable'
  | 'prohibited'
  | 'packet-too-big'
  | 'time-exceeded'
  | 'reassembly-time-exceeded'
  | 'parameter-problem'
  | 'other' // known to be ICMP and nothing else: ignored, never answered

/** The kinds that quote a packet. */
export type IcmpErrorKind = Exclude<IcmpKind, 'echo-request' | 'echo-reply' | 'other'>

/** type and code of each kind, for version 4 (RFC 792, 1122 §3.2.2.1, 1191) and version 6 (RFC 4443). Other codes of a type are read, not written. */
const wire: Readonly<Record<Exclude<IcmpKind, 'other'>, readonly [number, number, number, number]>> = {
  'echo-request': [8, 0, 128, 0],
  'echo-reply': [0, 0, 129, 0],
  'net-unreachable': [3, 0, 1, 0],
  'host-unreachable': [3, 1, 1, 3],
  'protocol-unreachable': [3, 2, 4, 1],
  'port-unreachable': [3, 3, 1, 4],
  prohibited: [3, 13, 1, 1],
  'packet-too-big': [3, 4, 2, 0],
  'time-exceeded': [11, 0, 3, 0],
  'reassembly-time-exceeded': [11, 1, 3, 1],
  'parameter-problem': [12, 0, 4, 0],
}

/** The header of one ICMP message, made once and filled over and over. */
export class IcmpHeader {
  kind: IcmpKind = 'other'
  isError = false
  /** Echo only. */
  identifier = 0
  sequence = 0
  /** Of packet-too-big: the MTU it names, 0 where the router is older than RFC 1191. */
  mtu = 0
  /** Echo: the data. Errors: the packet that is quoted, as much of it as there is. */
  bodyStart = 0
  end = 0

  /** Reads the message in [start, end); null when it is in order, its checksum included for version 4 (version 6: `transportChecksumHolds`). */
  parse(view: DataView, start: number, end: number, version: 4 | 6): 'short' | 'checksum' | null {
    if (end - start < ICMP_HEADER_BYTES) return 'short'
    if (version === 4 && foldChecksum(sumRange(view, start, end)) !== 0) return 'checksum'
    const type = view.getUint8(start)
    const code = view.getUint8(start + 1)
    this.kind = version === 4 ? kind4(type, code) : kind6(type, code)
    this.isError = this.kind !== 'echo-request' && this.kind !== 'echo-reply' && this.kind !== 'other'
    this.bodyStart = start + ICMP_HEADER_BYTES
    this.end = end
    this.identifier = view.getUint16(start + 4)
    this.sequence = view.getUint16(start + 6)
    this.mtu = 0
    if (this.kind === 'packet-too-big') this.mtu = version === 4 ? view.getUint16(start + 6) : view.getUint32(start + 4)
    return null
  }
}

function kind4(type: number, code: number): IcmpKind {
  switch (type) {
    case 0:
      return 'echo-reply'
    case 8:
      return 'echo-request'
    case 3:
      if (code === 4) return 'packet-too-big'
      if (code === 2) return 'protocol-unreachable'
      if (code === 3) return 'port-unreachable'
      if (code === 9 || code === 10 || code === 13) return 'prohibited'
      return code === 0 || code === 6 || code === 11 ? 'net-unreachable' : 'host-unreachable'
    case 11:
      return code === 1 ? 'reassembly-time-exceeded' : 'time-exceeded'
    case 12:
      return 'parameter-problem'
    default:
      return 'other'
  }
}

function kind6(type: number, code: number): IcmpKind {
  switch (type) {
    case 128:
      return 'echo-request'
    case 129:
      return 'echo-reply'
    case 1:
      if (code === 4) return 'port-unreachable'
      if (code === 1 || code === 5 || code === 6) return 'prohibited'
      return code === 0 ? 'net-unreachable' : 'host-unreachable'
    case 2:
      return 'packet-too-big'
    case 3:
      return code === 1 ? 'reassembly-time-exceeded' : 'time-exceeded'
    case 4:
      return code === 1 ? 'protocol-unreachable' : 'parameter-problem'
    default:
      return 'other'
  }
}

/**
 * Writes a message of `kind` at `at`, whose body of `bodyBytes` lies behind it already, and its checksum. The IP header stands at `ipAt`.
 * @param rest the header's last four bytes: identifier and sequence of an echo, or the MTU of packet-too-big
 */
export function writeIcmp(
  view: DataView,
  ipAt: number,
  at: number,
  kind: Exclude<IcmpKind, 'other'>,
  rest: number,
  bodyBytes: number,
): void {
  const [type4, code4, type6, code6] = wire[kind]
  const is4 = view.getUint8(ipAt) >> 4 === 4
  view.setUint8(at, is4 ? type4 : type6)
  view.setUint8(at + 1, is4 ? code4 : code6)
  view.setUint16(at + 2, 0)
  view.setUint32(at + 4, rest >>> 0)
  const end = at + ICMP_HEADER_BYTES + bodyBytes
  if (is4) view.setUint16(at + 2, foldChecksum(sumRange(view, at, end)))
  else writeTransportChecksum(view, ipAt, Protocol.icmp6, at, end, at + 2)
}
