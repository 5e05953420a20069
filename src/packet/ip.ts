import { foldChecksum, pseudoSum, sumRange } from './checksum.ts'

/** Protocol numbers (IANA) that this room knows. */
export const Protocol = {
  hopByHop: 0,
  icmp: 1,
  tcp: 6,
  udp: 17,
  routing: 43,
  fragment: 44,
  esp: 50,
  authentication: 51,
  icmp6: 58,
  noNext: 59,
  destinationOptions: 60,
  mobility: 135,
} as const

export const IPV4_HEADER_BYTES = 20
export const IPV6_HEADER_BYTES = 40
export const FRAGMENT_HEADER_BYTES = 8
/** Extension headers that are walked before a packet is refused. */
export const MAX_EXTENSION_HEADERS = 8
/** No IP packet without jumbograms (which are not taken) is longer. */
export const MAX_IP_PACKET_BYTES = 65_535 + IPV6_HEADER_BYTES

/** Why bytes are no IP packet. Returned, not thrown: this is the hot path. */
export type IpProblem =
  | 'short' // fewer bytes than the headers need
  | 'version' // neither 4 nor 6
  | 'header-length'
  | 'total-length' // says it is longer than it is, or shorter than its header
  | 'checksum'
  | 'extension-headers' // out of bounds, too many, or hop-by-hop not first
  | 'routing-header' // type 0, or any with segments left: RFC 5095, and we are no router
  | 'fragment' // a fragment that ends beyond 65535 bytes, or is not a multiple of 8 bytes

/**
 * The IP header of one packet, made once and filled over and over by `parse`. Offsets are into the buffer that was parsed.
 *
 *     IPv4 (RFC 791 §3.1): version/ihl, tos, total length, id, flags/fragment offset, ttl, protocol, checksum, source, destination
 *     IPv6 (RFC 8200 §3): version/class/flow, payload length, next header, hop limit, source, destination, extension headers
 */
export class IpHeader {
  version: 4 | 6 = 4
  start = 0
  /** Where the transport's (or the fragment's) bytes start and end; what follows is padding of the medium. */
  payloadStart = 0
  end = 0
  /** Of the payload: after all extension headers. */
  protocol = 0
  hopLimit = 0
  trafficClass = 0
  sourceAt = 0
  destinationAt = 0
  /** 4 or 16. */
  addressBytes = 4
  /** Whether the packet is a part only. An atomic fragment (RFC 6946) counts as whole. */
  isFragment = false
  /** In bytes. */
  fragmentOffset = 0
  moreFragments = false
  identification = 0
  dontFragment = false
  /** IPv6: where the field that holds the fragment header's number lies, and where that header starts; 0 without one. */
  fragmentNextAt = 0
  fragmentHeaderAt = 0
  /** Where `protocol` stands: what an ICMPv6 parameter problem points at (RFC 4443 §3.4). */
  protocolAt = 0
  /**
   * IPv6: it has an option that whom the packet is for must know or else discard it (RFC 8200 §4.2: action bits not 00), and none of those is known
   * here. Who only passes packets on may ignore destination options.
   */
  refusedOption = false

  /** Reads the header of the packet at `start`. Null when it is in order; then every field is set and within bounds. */
  parse(view: DataView, start: number, end: number): IpProblem | null {
    if (end - start < IPV4_HEADER_BYTES) return 'short'
    this.start = start
    const version = view.getUint8(start) >> 4
    if (version === 4) return this.#parse4(view, start, end)
    if (version === 6) return this.#parse6(view, start, end)
    return 'version'
  }

  /** The sum of both addresses: the variable part of a pseudo header. */
  addressSum(view: DataView): number {
    return sumRange(view, this.sourceAt, this.sourceAt + 2 * this.addressBytes)
  }

  #parse4(view: DataView, start: number, end: number): IpProblem | null {
    const headerBytes = (view.getUint8(start) & 15) << 2
    if (headerBytes < IPV4_HEADER_BYTES) return 'header-length'
    const total = view.getUint16(start + 2)
    if (total < headerBytes || total > end - start) return 'total-length'
    if (foldChecksum(sumRange(view, start, start + headerBytes)) !== 0) return 'checksum'
    const fragment = view.getUint16(start + 6)
    this.version = 4
    this.addressBytes = 4
    this.trafficClass = view.getUint8(start + 1)
    this.identification = view.getUint16(start + 4)
    this.dontFragment = (fragment & 0x4000) !== 0
    this.moreFragments = (fragment & 0x2000) !== 0
    this.fragmentOffset = (fragment & 0x1fff) << 3
    this.isFragment = (fragment & 0x3fff) !== 0
    this.hopLimit = view.getUint8(start + 8)
    this.protocol = view.getUint8(start + 9)
    this.protocolAt = start + 9
    this.refusedOption = false
    this.sourceAt = start + 12
    this.destinationAt = start + 16
    this.payloadStart = start + headerBytes
    this.end = start + total
    this.fragmentNextAt = 0
    this.fragmentHeaderAt = 0
    return this.isFragment ? this.#fragmentProblem() : null
  }

  #parse6(view: DataView, start: number, end: number): IpProblem | null {
    if (end - start < IPV6_HEADER_BYTES) return 'short'
    const payload = view.getUint16(start + 4)
    if (payload > end - start - IPV6_HEADER_BYTES) return 'total-length'
    this.version = 6
    this.addressBytes = 16
    this.trafficClass = (view.getUint16(start) >> 4) & 0xff
    this.hopLimit = view.getUint8(start + 7)
    this.protocol = view.getUint8(start + 6)
    this.protocolAt = start + 6
    this.refusedOption = false
    this.sourceAt = start + 8
    this.destinationAt = start + 24
    this.payloadStart = start + IPV6_HEADER_BYTES
    this.end = start + IPV6_HEADER_BYTES + payload
    this.isFragment = false
    this.fragmentOffset = 0
    this.moreFragments = false
    this.identification = 0
    this.dontFragment = true
    this.fragmentNextAt = 0
    this.fragmentHeaderAt = 0
    if (this.protocol === Protocol.tcp || this.protocol === Protocol.udp || this.protocol === Protocol.icmp6) return null
    return this.#walkExtensions(view)
  }

  /** RFC 8200 §4: until something that is no extension header, or a part of a packet. */
  #walkExtensions(view: DataView): IpProblem | null {
    let nextAt = this.start + 6
    for (let walked = 0; ; walked++) {
      const at = this.payloadStart
      switch (this.protocol) {
        case Protocol.hopByHop:
          // §4.1: only directly after the IPv6 header.
          if (walked !== 0) return 'extension-headers'
          break
        case Protocol.routing:
        case Protocol.destinationOptions:
        case Protocol.mobility:
        case Protocol.authentication:
        case Protocol.fragment:
          break
        default:
          return null
      }
      if (walked === MAX_EXTENSION_HEADERS || this.end - at < 8) return 'extension-headers'
      if (this.protocol === Protocol.routing && view.getUint8(at + 3) !== 0) return 'routing-header'
      if (this.protocol === Protocol.fragment) {
        const problem = this.#readFragment(view, at, nextAt)
        this.protocolAt = at
        if (problem !== null || this.isFragment) return problem
        nextAt = at
        continue
      }
      // RFC 4302 §2.2: the authentication header counts in words of four bytes.
      const length = this.protocol === Protocol.authentication ? (view.getUint8(at + 1) + 2) << 2 : (view.getUint8(at + 1) + 1) << 3
      if (length > this.end - at) return 'extension-headers'
      const hasOptions = this.protocol === Protocol.hopByHop || this.protocol === Protocol.destinationOptions
      if (hasOptions && !this.#readOptions(view, at + 2, at + length)) return 'extension-headers'
      nextAt = at
      this.protocolAt = at
      this.protocol = view.getUint8(at)
      this.payloadStart = at + length
    }
  }

  /** RFC 8200 §4.2: type, length, data; a lone 0 is padding. False: they do not fit their header. */
  #readOptions(view: DataView, start: number, end: number): boolean {
    for (let at = start; at < end; ) {
      const type = view.getUint8(at)
      if (type === 0) {
        at++
        continue
      }
      if (end - at < 2) return false
      if (type >> 6 !== 0) this.refusedOption = true
      at += 2 + view.getUint8(at + 1)
      if (at > end) return false
    }
    return true
  }

  #readFragment(view: DataView, at: number, nextAt: number): IpProblem | null {
    if (this.fragmentHeaderAt !== 0) return 'extension-headers'
    const field = view.getUint16(at + 2)
    this.fragmentNextAt = nextAt
    this.fragmentHeaderAt = at
    this.fragmentOffset = field & 0xfff8
    this.moreFragments = (field & 1) !== 0
    this.identification = view.getUint32(at + 4)
    this.protocol = view.getUint8(at)
    this.payloadStart = at + FRAGMENT_HEADER_BYTES
    this.isFragment = this.moreFragments || this.fragmentOffset !== 0
    return this.isFragment ? this.#fragmentProblem() : null
  }

  #fragmentProblem(): IpProblem | null {
    const length = this.end - this.payloadStart
    // RFC 8200 §4.5; RFC 791 §3.2.
    if (length === 0 || (this.moreFragments && length % 8 !== 0)) return 'fragment'
    if (this.fragmentOffset + length > 65_535) return 'fragment'
    return null
  }
}

/** Whether the checksum of a transport (TCP, UDP over IPv6, ICMPv6) over `ip`'s payload is right. */
export function transportChecksumHolds(view: DataView, ip: IpHeader): boolean {
  const length = ip.end - ip.payloadStart
  const sum = ip.addressSum(view) + pseudoSum(ip.protocol, length) + sumRange(view, ip.payloadStart, ip.end)
  return foldChecksum(sum) === 0
}

/** What is written of a header; the addresses are 4 or 16 bytes, both alike, and decide the version. */
export interface IpFields {
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly protocol: number
  readonly hopLimit: number
  /** IPv4: 0 with don't-fragment set (RFC 6864 §4.1). */
  readonly identification?: number
  readonly dontFragment?: boolean
  readonly trafficClass?: number
}

/** Header bytes for addresses of this length. */
export function ipHeaderBytes(addressBytes: number): number {
  return addressBytes === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES
}

/** Writes a header without options at `at` for a payload of `payloadBytes`, checksum included. Returns where the payload starts. */
export function writeIp(bytes: Uint8Array, view: DataView, at: number, fields: IpFields, payloadBytes: number): number {
  const trafficClass = fields.trafficClass ?? 0
  if (fields.source.length === 4) {
    view.setUint8(at, 0x45)
    view.setUint8(at + 1, trafficClass)
    view.setUint16(at + 2, IPV4_HEADER_BYTES + payloadBytes)
    view.setUint16(at + 4, fields.identification ?? 0)
    view.setUint16(at + 6, (fields.dontFragment ?? true) ? 0x4000 : 0)
    view.setUint8(at + 8, fields.hopLimit)
    view.setUint8(at + 9, fields.protocol)
    view.setUint16(at + 10, 0)
    bytes.set(fields.source, at + 12)
    bytes.set(fields.destination, at + 16)
    view.setUint16(at + 10, foldChecksum(sumRange(view, at, at + IPV4_HEADER_BYTES)))
    return at + IPV4_HEADER_BYTES
  }
  view.setUint32(at, 0x6000_0000 + (trafficClass << 20))
  view.setUint16(at + 4, payloadBytes)
  view.setUint8(at + 6, fields.protocol)
  view.setUint8(at + 7, fields.hopLimit)
  bytes.set(fields.source, at + 8)
  bytes.set(fields.destination, at + 24)
  return at + IPV6_HEADER_BYTES
}

/** Writes the checksum at `fieldAt` of a transport that lies in [start, end) behind an IP header written at `ipAt`. */
export function writeTransportChecksum(view: DataView, ipAt: number, protocol: number, start: number, end: number, fieldAt: number): void {
  view.setUint16(fieldAt, 0)
  const is4 = view.getUint8(ipAt) >> 4 === 4
  const addresses = is4 ? sumRange(view, ipAt + 12, ipAt + 20) : sumRange(view, ipAt + 8, ipAt + 40)
  const checksum = foldChecksum(addresses + pseudoSum(protocol, end - start) + sumRange(view, start, end))
  // RFC 768: a computed 0 is sent as all ones, 0 means "none".
  view.setUint16(fieldAt, checksum === 0 && protocol === Protocol.udp ? 0xffff : checksum)
}
