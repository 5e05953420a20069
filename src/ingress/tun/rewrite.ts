import {
  foldChecksum,
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  type IpHeader,
  Protocol,
  sumRange,
  writeTransportChecksum,
} from '../../packet/index.ts'

/** Protocols whose checksum covers the addresses, beside TCP, UDP and ICMPv6 (RFC 3828, RFC 4340). */
const UDP_LITE = 136
const DCCP = 33

/**
 * Puts another address of the same family in place of a packet's source or destination, and keeps every checksum as right or wrong as it was
 * (RFC 1624): so damage on the way is still found where the packet goes.
 */
export function replaceAddress(
  view: DataView,
  bytes: Uint8Array,
  ip: IpHeader,
  which: 'source' | 'destination',
  address: Uint8Array,
): void {
  const at = which === 'source' ? ip.sourceAt : ip.destinationAt
  const change = exchange(view, bytes, at, address)
  if (ip.version === 4) adjust(view, ip.start + 10, change)
  if (ip.fragmentOffset === 0) adjustTransport(view, ip.protocol, ip.payloadStart, ip.end, change)
}

/**
 * Puts another address in place of the source or destination of the packet that an ICMP error quotes, as far as it is there, and makes the error's
 * checksum anew (check it before, and replace the outer address before). `ip` is the error's own header. False: what is quoted is no packet of this version.
 */
export function replaceQuoted(
  view: DataView,
  bytes: Uint8Array,
  ip: IpHeader,
  which: 'source' | 'destination',
  address: Uint8Array,
): boolean {
  const start = ip.payloadStart + ICMP_HEADER_BYTES
  const quote = readQuote(view, start, ip.end, ip.version)
  if (quote === null) return false
  const change = exchange(view, bytes, which === 'source' ? quote.sourceAt : quote.destinationAt, address)
  if (ip.version === 4) adjust(view, start + 10, change)
  if (quote.fragmentOffset === 0) adjustTransport(view, quote.protocol, quote.payloadStart, ip.end, change)
  if (ip.version === 6) writeTransportChecksum(view, ip.start, Protocol.icmp6, ip.payloadStart, ip.end, ip.payloadStart + 2)
  else {
    view.setUint16(ip.payloadStart + 2, 0)
    view.setUint16(ip.payloadStart + 2, foldChecksum(sumRange(view, ip.payloadStart, ip.end)))
  }
  return true
}

/** What an ICMP error quotes, as far as it is there. Offsets are into what was read. */
export interface Quote {
  readonly protocol: number
  readonly sourceAt: number
  readonly destinationAt: number
  readonly payloadStart: number
  readonly fragmentOffset: number
}

/** Reads the packet quoted in [start, end): its IP header and at least eight bytes more (RFC 792). Null when that is not there. */
export function readQuote(view: DataView, start: number, end: number, version: 4 | 6): Quote | null {
  if (end - start < (version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + 8 || view.getUint8(start) >> 4 !== version) return null
  if (version === 4) {
    const payloadStart = start + ((view.getUint8(start) & 15) << 2)
    if (payloadStart < start + IPV4_HEADER_BYTES || end - payloadStart < 8) return null
    return {
      protocol: view.getUint8(start + 9),
      sourceAt: start + 12,
      destinationAt: start + 16,
      payloadStart,
      fragmentOffset: (view.getUint16(start + 6) & 0x1fff) << 3,
    }
  }
  let protocol = view.getUint8(start + 6)
  let payloadStart = start + IPV6_HEADER_BYTES
  let fragmentOffset = 0
  // Of extension headers only the fragment's is looked behind: others are hardly ever sent, and were not by us.
  if (protocol === Protocol.fragment) {
    if (end - payloadStart < 16) return null
    protocol = view.getUint8(payloadStart)
    fragmentOffset = view.getUint16(payloadStart + 2) & 0xfff8
    payloadStart += 8
  }
  return { protocol, sourceAt: start + 8, destinationAt: start + 24, payloadStart, fragmentOffset }
}

/** Takes one hop off; false when there is none left to take. */
export function takeHop(view: DataView, ip: IpHeader): boolean {
  if (ip.hopLimit <= 1) return false
  if (ip.version === 6) view.setUint8(ip.start + 7, ip.hopLimit - 1)
  else {
    view.setUint8(ip.start + 8, ip.hopLimit - 1)
    // One less in the high byte of a word: RFC 1141.
    adjust(view, ip.start + 10, 0xffff - 0x100)
  }
  return true
}

/** Writes the address, and returns what it adds to a sum of words: the new ones and the complements of the old ones. */
function exchange(view: DataView, bytes: Uint8Array, at: number, address: Uint8Array): number {
  let change = 0
  for (let i = 0; i < address.length; i += 2) {
    change += (~view.getUint16(at + i) & 0xffff) + ((address[i]! << 8) | address[i + 1]!)
  }
  bytes.set(address, at)
  return change
}

/** RFC 1624, equation 3. */
function adjust(view: DataView, fieldAt: number, change: number): void {
  view.setUint16(fieldAt, foldChecksum((~view.getUint16(fieldAt) & 0xffff) + change))
}

function adjustTransport(view: DataView, protocol: number, start: number, end: number, change: number): void {
  let fieldAt: number
  switch (protocol) {
    case Protocol.tcp:
      fieldAt = start + 16
      break
    case Protocol.udp:
    case UDP_LITE:
    case DCCP:
      fieldAt = start + 6
      break
    case Protocol.icmp6:
      fieldAt = start + 2
      break
    default:
      return
  }
  if (fieldAt + 2 > end) return
  // RFC 768: 0 is "none", and a computed 0 is sent as all ones.
  if (protocol === Protocol.udp && view.getUint16(fieldAt) === 0) return
  adjust(view, fieldAt, change)
  if (protocol === Protocol.udp && view.getUint16(fieldAt) === 0) view.setUint16(fieldAt, 0xffff)
}
