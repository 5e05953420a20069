import {
  ICMP_HEADER_BYTES,
  type IcmpErrorKind,
  type IpHeader,
  ipHeaderBytes,
  type PacketBatch,
  Protocol,
  writeIcmp,
  writeIp,
} from '../../packet/index.ts'

/** What is quoted of a packet: RFC 1812 §4.3.2.3 (576 bytes in all), RFC 4443 §2.4 (c) (1280 in all). */
const MOST_BYTES = { 4: 576, 6: 1280 } as const
const HOP_LIMIT = 64

/**
 * Adds the ICMP error about a packet to `into`; nothing where there is no room, and about what no error may speak of: another error, a fragment that
 * is not the first (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
 * @param header the packet's, read, @param source who says it, @param to whom, @param mtu of packet-too-big
 */
export function addError(
  into: PacketBatch,
  header: IpHeader,
  { bytes, view }: Pick<PacketBatch, 'bytes' | 'view'>,
  kind: IcmpErrorKind,
  source: Uint8Array,
  to: Uint8Array,
  mtu = 0,
): boolean {
  if (header.fragmentOffset !== 0) return false
  const isIcmp = header.protocol === Protocol.icmp || header.protocol === Protocol.icmp6
  if (isIcmp && (header.end === header.payloadStart || !isEcho(view.getUint8(header.payloadStart), header.version))) return false
  const headBytes = ipHeaderBytes(source.length) + ICMP_HEADER_BYTES
  const quoted = Math.min(header.end - header.start, MOST_BYTES[header.version] - headBytes)
  const at = into.reserve(headBytes + quoted)
  if (at < 0) return false
  const protocol = header.version === 4 ? Protocol.icmp : Protocol.icmp6
  const icmpAt = writeIp(into.bytes, into.view, at, { source, destination: to, protocol, hopLimit: HOP_LIMIT }, ICMP_HEADER_BYTES + quoted)
  into.bytes.set(bytes.subarray(header.start, header.start + quoted), icmpAt + ICMP_HEADER_BYTES)
  writeIcmp(into.view, at, icmpAt, kind, mtu, quoted)
  into.commit(headBytes + quoted)
  return true
}

function isEcho(type: number, version: 4 | 6): boolean {
  return version === 4 ? type === 8 || type === 0 : type === 128 || type === 129
}
