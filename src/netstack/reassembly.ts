import { foldChecksum, IPV6_HEADER_BYTES, type IpHeader, sumRange } from '../packet/index.ts'
import type { StackLimits } from './limits.ts'

/** RFC 8200 §4.5 says 60 s, RFC 1122 §3.3.2 between 60 and 120; what takes so long is of no use to anybody, and Linux waits 30. */
export const REASSEMBLY_TIMEOUT_MS = 30_000
/** What a part costs besides its bytes. */
const OVERHEAD_BYTES = 96

interface Part {
  readonly offset: number
  readonly bytes: Uint8Array
}

interface Unfinished {
  readonly key: string
  readonly expiresAt: number
  /** In order, disjoint. */
  readonly parts: Part[]
  /** The first fragment's headers without its fragment header. */
  header: Uint8Array | null
  /** The whole first fragment, as far as an ICMP error would quote it. */
  total: number | null
  received: number
  memory: number
  /** Parts overlapped: all that comes is dropped until it expires (RFC 5722 §3). */
  poisoned: boolean
}

/** Puts packets together from fragments, within bounds; overlapping ones are refused, for IPv4 too. */
export class Reassembly {
  readonly #limits: StackLimits
  /** In order of age. */
  readonly #unfinished = new Map<string, Unfinished>()
  #memory = 0

  constructor(limits: StackLimits) {
    this.#limits = limits
  }

  get memory(): number {
    return this.#memory
  }

  get size(): number {
    return this.#unfinished.size
  }

  get deadline(): number {
    for (const first of this.#unfinished.values()) return first.expiresAt
    return Number.POSITIVE_INFINITY
  }

  /** Forgets what has taken too long; `expired` is given the headers of those whose first part has come (RFC 792, RFC 4443 §3.3). */
  expire(now: number, expired: (header: Uint8Array) => void): void {
    for (const one of this.#unfinished.values()) {
      if (one.expiresAt > now) return
      this.#forget(one)
      if (one.header !== null && !one.poisoned) expired(one.header)
    }
  }

  /** Takes a fragment (copied); returns the whole packet once all are there. */
  add(ip: IpHeader, bytes: Uint8Array, now: number): Uint8Array | null {
    const key = keyOf(ip, bytes)
    let one = this.#unfinished.get(key)
    if (one === undefined) {
      if (this.#unfinished.size >= this.#limits.reassemblies) this.#forgetOldest()
      one = { key, expiresAt: now + REASSEMBLY_TIMEOUT_MS, parts: [], header: null, total: null, received: 0, memory: 0, poisoned: false }
      this.#unfinished.set(key, one)
      this.#charge(one, OVERHEAD_BYTES)
    }
    if (one.poisoned || !this.#insert(one, ip, bytes)) return null
    while (this.#memory > this.#limits.reassemblyBytes) if (this.#forgetOldest() === one) return null
    if (one.total === null || one.received !== one.total || one.header === null) return null
    this.#forget(one)
    return assemble(one, ip.version)
  }

  /** False: the fragment adds nothing. */
  #insert(one: Unfinished, ip: IpHeader, bytes: Uint8Array): boolean {
    const start = ip.fragmentOffset
    const end = start + ip.end - ip.payloadStart
    const { parts } = one
    let i = parts.length
    while (i > 0 && parts[i - 1]!.offset >= start) i--
    const next = parts[i]
    const before = parts[i - 1]
    // The same once more is a copy the network made; anything else that overlaps is an attack, or of no use.
    if (next !== undefined && next.offset === start && next.bytes.length === end - start) return false
    const last = parts.at(-1)
    const lastEnd = last === undefined ? 0 : last.offset + last.bytes.length
    const overlaps = (before !== undefined && before.offset + before.bytes.length > start) || (next !== undefined && next.offset < end)
    const contradicts = ip.moreFragments
      ? one.total !== null && end > one.total
      : (one.total !== null && one.total !== end) || lastEnd > end
    if (overlaps || contradicts || parts.length >= this.#limits.fragmentsPerPacket) {
      this.#poison(one)
      return false
    }
    if (!ip.moreFragments) one.total = end
    if (start === 0) one.header = headerOf(ip, bytes)
    parts.splice(i, 0, { offset: start, bytes: bytes.slice(ip.payloadStart, ip.end) })
    one.received += end - start
    this.#charge(one, end - start + OVERHEAD_BYTES)
    return true
  }

  #poison(one: Unfinished): void {
    one.poisoned = true
    one.parts.length = 0
    this.#charge(one, OVERHEAD_BYTES - one.memory)
  }

  #charge(one: Unfinished, bytes: number): void {
    one.memory += bytes
    this.#memory += bytes
  }

  #forgetOldest(): Unfinished | null {
    for (const one of this.#unfinished.values()) {
      this.#forget(one)
      return one
    }
    return null
  }

  #forget(one: Unfinished): void {
    this.#unfinished.delete(one.key)
    this.#memory -= one.memory
  }
}

function keyOf(ip: IpHeader, bytes: Uint8Array): string {
  const addresses = Buffer.from(bytes.buffer, bytes.byteOffset + ip.sourceAt, 2 * ip.addressBytes).toString('latin1')
  // RFC 791: the protocol belongs to the key; RFC 8200 §4.5: it does not, since only the first fragment's counts.
  return `${ip.identification} ${ip.version === 4 ? ip.protocol : '6'} ${addresses}`
}

/** The headers in front of the data, as they will stand in the whole packet. */
function headerOf(ip: IpHeader, bytes: Uint8Array): Uint8Array {
  if (ip.version === 4) return bytes.slice(ip.start, ip.payloadStart)
  const header = bytes.slice(ip.start, ip.fragmentHeaderAt)
  header[ip.fragmentNextAt - ip.start] = ip.protocol
  return header
}

function assemble(one: Unfinished, version: 4 | 6): Uint8Array | null {
  const header = one.header!
  const length = header.length + one.total!
  if (version === 4 ? length > 65_535 : length - IPV6_HEADER_BYTES > 65_535) return null
  const packet = new Uint8Array(length)
  packet.set(header)
  for (const part of one.parts) packet.set(part.bytes, header.length + part.offset)
  const view = new DataView(packet.buffer)
  if (version === 6) view.setUint16(4, length - IPV6_HEADER_BYTES)
  else {
    view.setUint16(2, length)
    view.setUint16(6, 0)
    view.setUint16(10, 0)
    view.setUint16(10, foldChecksum(sumRange(view, 0, header.length)))
  }
  return packet
}
