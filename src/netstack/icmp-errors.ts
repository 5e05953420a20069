import { ipFromBytes } from '../base/index.ts'
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Protocol } from '../packet/index.ts'
import type { Endpoint } from './endpoint.ts'

/** The packet an ICMP error speaks of: one that we should have sent. */
export interface QuotedPacket {
  readonly protocol: number
  readonly from: Endpoint
  readonly to: Endpoint
  /** TCP's. */
  readonly sequence: number
  /** What to try when the router does not say how much it takes: RFC 1191 §5, shortened. */
  readonly smallerMtu: number
}

/** RFC 1191 §7.1: sizes that links have. */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1280, 1006, 552] as const

/** Reads what is quoted in [start, end): the IP header and at least eight bytes behind it. Null when it is not whole, or of no interest. */
export function readIcmpError(view: DataView, bytes: Uint8Array, start: number, end: number, version: 4 | 6): QuotedPacket | null {
  const least = (version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + 8
  if (end - start < least || view.getUint8(start) >> 4 !== version) return null
  let protocol: number
  let at: number
  let total: number
  if (version === 4) {
    const headerBytes = (view.getUint8(start) & 15) << 2
    // Only a first fragment has the ports.
    if (headerBytes < IPV4_HEADER_BYTES || end - start < headerBytes + 8 || (view.getUint16(start + 6) & 0x1fff) !== 0) return null
    protocol = view.getUint8(start + 9)
    at = start + headerBytes
    total = view.getUint16(start + 2)
  } else {
    // What we send has no extension headers.
    protocol = view.getUint8(start + 6)
    at = start + IPV6_HEADER_BYTES
    total = view.getUint16(start + 4) + IPV6_HEADER_BYTES
  }
  const hasPorts = protocol === Protocol.tcp || protocol === Protocol.udp
  if (!hasPorts && protocol !== Protocol.icmp && protocol !== Protocol.icmp6) return null
  const addressBytes = version === 4 ? 4 : 16
  const sourceAt = version === 4 ? start + 12 : start + 8
  const address = (from: number) => ipFromBytes(bytes.slice(from, from + addressBytes))
  return {
    protocol,
    from: { address: address(sourceAt), port: hasPorts ? view.getUint16(at) : 0 },
    to: { address: address(sourceAt + addressBytes), port: hasPorts ? view.getUint16(at + 2) : 0 },
    sequence: view.getInt32(at + 4),
    smallerMtu: PLATEAUS.find((mtu) => mtu < total) ?? PLATEAUS.at(-1)!,
  }
}
