import { type IpAddress, TokenBucket } from '../../base/index.ts'
import {
  FRAGMENT_HEADER_BYTES,
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  type IpHeader,
  Protocol,
  TCP_HEADER_BYTES,
  UDP_HEADER_BYTES,
} from '../../packet/index.ts'
import type { LeaseAddress } from '../packets/lease-addresses.ts'

/** Why a packet goes no further: the names under which `PacketCounts.dropped` counts. */
export type DropReason = 'source' | 'policy' | 'malformed' | 'fragment' | 'rate' | 'limit' | 'protocol'

export interface LeaseFilterOptions {
  readonly lease: LeaseAddress
  /** Whether the policy allows it; port null where the protocol has none, or a fragment does not show it. */
  readonly allows: (address: IpAddress, port: number | null) => boolean
  readonly takeRate: (bytes: number) => boolean
  /** Lease addresses, gateways included: never a destination. */
  readonly isLeaseAddress: (address: IpAddress) => boolean
  /** IANA numbers that are let through beside TCP, UDP and ICMP. */
  readonly protocols: readonly number[]
  readonly icmpPerSecond: number
  readonly fragmentsPerSecond: number
  /** Monotonic milliseconds. */
  readonly now: number
}

/** Verdicts that are remembered; two destinations that meet in one place displace each other. */
const CACHE_ENTRIES = 128
/** Four words of the address, one of port and family, one of the verdict and its end. */
const ENTRY_WORDS = 6
/** For how long, so that what has become a relay's address is not reached for longer: as long as a datagram's route (exit-datagrams.ts). */
const VERDICT_SECONDS = 30
/** A first fragment shows the whole TCP header (RFC 1858 §4, RFC 3128); of the others the ports are enough. */
const FIRST_FRAGMENT_BYTES = { tcp: TCP_HEADER_BYTES, other: 8 } as const
const NO_PORT = -1

/** Destination port in the third and fourth byte: DCCP, SCTP, UDP-Lite. */
const portedProtocols: readonly number[] = [33, 132, 136]

/**
 * What one lease may send: the first of two walls (`rulesetText` is the second). One call a packet, without an allocation but for the first packet
 * to a destination, whose verdict is then remembered for a while.
 */
export class LeaseFilter {
  readonly #m: LeaseFilterOptions
  readonly #source4: number | null
  readonly #source6: Int32Array | null
  readonly #icmp: TokenBucket | null
  readonly #fragments: TokenBucket | null
  readonly #cache = new Int32Array(CACHE_ENTRIES * ENTRY_WORDS)
  readonly #words = new Int32Array(4)

  constructor(options: LeaseFilterOptions) {
    this.#m = options
    const { address4, address6 } = options.lease
    this.#source4 = address4 ? wordsOf(address4)[0]! : null
    this.#source6 = address6 ? wordsOf(address6) : null
    this.#icmp = bucket(options.icmpPerSecond, options.now)
    this.#fragments = bucket(options.fragmentsPerSecond, options.now)
  }

  /**
   * Whether the packet in [start, end) may go out; null: yes. `header` is filled either way, as far as the packet has one.
   * @param now monotonic milliseconds
   */
  check(header: IpHeader, view: DataView, start: number, end: number, now: number): DropReason | null {
    const problem = header.parse(view, start, end)
    if (problem !== null) return problem === 'fragment' ? 'fragment' : 'malformed'
    if (!this.#isSource(header, view)) return 'source'
    if (header.hopLimit === 0) return 'malformed'
    // Options and extension headers ask routers for work, or hide what follows (RFC 7126, RFC 9098); only a fragment's own header is one we need.
    if (!isPlain(header)) return 'protocol'
    if (header.isFragment) return this.#checkFragment(header, view, now)
    const port = this.#portOf(header, view, now)
    if (typeof port === 'string') return port
    return this.#finish(header, view, port, end - start, now)
  }

  #checkFragment(header: IpHeader, view: DataView, now: number): DropReason | null {
    const length = header.end - header.payloadStart
    const isTcp = header.protocol === Protocol.tcp
    if (header.fragmentOffset === 0) {
      if (length < (isTcp ? FIRST_FRAGMENT_BYTES.tcp : FIRST_FRAGMENT_BYTES.other)) return 'fragment'
    } else if (isTcp && header.fragmentOffset < TCP_HEADER_BYTES) return 'fragment'
    if (!this.#isServed(header)) return 'protocol'
    if (this.#fragments === null || !this.#fragments.take(1, now)) return 'fragment'
    // The whole is judged by its ports once more, by the kernel, which puts it together.
    const port = header.fragmentOffset === 0 && hasPorts(header.protocol) ? view.getUint16(header.payloadStart + 2) : NO_PORT
    return this.#finish(header, view, port, header.end - header.start, now)
  }

  /** The destination port, or none, or why not. */
  #portOf(header: IpHeader, view: DataView, now: number): number | DropReason {
    const { protocol, payloadStart } = header
    const length = header.end - payloadStart
    switch (protocol) {
      case Protocol.tcp:
        return length < TCP_HEADER_BYTES ? 'malformed' : view.getUint16(payloadStart + 2)
      case Protocol.udp:
        return length < UDP_HEADER_BYTES ? 'malformed' : view.getUint16(payloadStart + 2)
      case Protocol.icmp:
      case Protocol.icmp6:
        if (!this.#isServed(header)) return 'protocol'
        if (length < ICMP_HEADER_BYTES) return 'malformed'
        if (!isIcmpOut(header.version, view.getUint8(payloadStart))) return 'protocol'
        return this.#icmp?.take(1, now) ? NO_PORT : 'rate'
      default:
        if (!this.#isServed(header)) return 'protocol'
        if (!hasPorts(protocol)) return NO_PORT
        return length < 8 ? 'malformed' : view.getUint16(payloadStart + 2)
    }
  }

  #isServed({ protocol, version }: IpHeader): boolean {
    if (protocol === Protocol.tcp || protocol === Protocol.udp) return true
    if (protocol === Protocol.icmp) return version === 4
    if (protocol === Protocol.icmp6) return version === 6
    return this.#m.protocols.includes(protocol)
  }

  #finish(header: IpHeader, view: DataView, port: number, bytes: number, now: number): DropReason | null {
    if (!this.#isAllowed(header, view, port, now)) return 'policy'
    return this.#m.takeRate(bytes) ? null : 'rate'
  }

  #isSource(header: IpHeader, view: DataView): boolean {
    const at = header.sourceAt
    if (header.version === 4) return this.#source4 !== null && view.getInt32(at) === this.#source4
    const source = this.#source6
    if (source === null) return false
    for (let i = 0; i < 4; i++) if (view.getInt32(at + 4 * i) !== source[i]) return false
    return true
  }

  #isAllowed(header: IpHeader, view: DataView, port: number, now: number): boolean {
    const words = this.#words
    const at = header.destinationAt
    const count = header.version === 4 ? 1 : 4
    let hash = port
    for (let i = 0; i < 4; i++) {
      words[i] = i < count ? view.getInt32(at + 4 * i) : 0
      hash = Math.imul(hash ^ words[i]!, 0x9e37_79b1)
      hash ^= hash >>> 15
    }
    const key = (header.version << 20) | (port + 1)
    const entry = (hash & (CACHE_ENTRIES - 1)) * ENTRY_WORDS
    const cache = this.#cache
    const seconds = Math.floor(now / 1000)
    if (cache[entry + 4] === key && sameWords(cache, entry, words)) {
      const verdict = cache[entry + 5]!
      // Negative: refused. The moment it ends is one of seconds and never 0.
      if (Math.abs(verdict) > seconds) return verdict > 0
    }
    const allowed = this.#ask(header, view, port)
    for (let i = 0; i < 4; i++) cache[entry + i] = words[i]!
    cache[entry + 4] = key
    cache[entry + 5] = (seconds + VERDICT_SECONDS) * (allowed ? 1 : -1)
    return allowed
  }

  #ask({ version, destinationAt, addressBytes }: IpHeader, view: DataView, port: number): boolean {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + destinationAt, addressBytes).slice()
    const address: IpAddress = { family: version, bytes }
    if (isGroup(address) || this.#m.isLeaseAddress(address)) return false
    return this.#m.allows(address, port === NO_PORT ? null : port)
  }
}

/** To nobody, to all or to a group: never through an exit, even where private networks may be reached. */
function isGroup({ family, bytes }: IpAddress): boolean {
  return family === 4 ? bytes[0] === 0 || bytes[0]! >= 224 : bytes[0] === 0xff || bytes.every((byte) => byte === 0)
}

function isPlain(header: IpHeader): boolean {
  const length = header.payloadStart - header.start
  if (header.version === 4) return length === IPV4_HEADER_BYTES
  if (header.fragmentHeaderAt === 0) return length === IPV6_HEADER_BYTES
  return length === IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES
}

function hasPorts(protocol: number): boolean {
  return protocol === Protocol.tcp || protocol === Protocol.udp || portedProtocols.includes(protocol)
}

/** Echo requests, unreachable, too big, time exceeded (RFC 792, RFC 4443). */
function isIcmpOut(version: 4 | 6, type: number): boolean {
  return version === 4 ? type === 8 || type === 3 || type === 11 : type === 128 || (type >= 1 && type <= 3)
}

function sameWords(cache: Int32Array, entry: number, words: Int32Array): boolean {
  for (let i = 0; i < 4; i++) if (cache[entry + i] !== words[i]) return false
  return true
}

function wordsOf({ bytes }: IpAddress): Int32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return Int32Array.from({ length: bytes.length / 4 }, (_, i) => view.getInt32(4 * i))
}

/** Bursts of a second; null where there is none. */
function bucket(perSecond: number, now: number): TokenBucket | null {
  return perSecond === 0 ? null : new TokenBucket(perSecond, Math.max(10, perSecond), now)
}
