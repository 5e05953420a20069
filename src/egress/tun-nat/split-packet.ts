import {
  FRAGMENT_HEADER_BYTES,
  foldChecksum,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  type IpHeader,
  type PacketBatch,
  sumRange,
} from '../../packet/index.ts'

const MORE_FRAGMENTS4 = 0x2000
const MORE_FRAGMENTS6 = 1

/**
 * Cuts a packet into fragments of at most `mtu` bytes: an IPv4 packet that may be cut (RFC 791 §3.2), or one of IPv6 that its sender has cut before
 * (RFC 8200 §4.5 leaves cutting to the sender; the translation put it together in between, so this end cuts it anew).
 * @param header the packet's, read, @param into empty
 * @returns whether it was done; false: it may not be cut, or has no room
 */
export function splitPacket(into: PacketBatch, header: IpHeader, bytes: Uint8Array, mtu: number): boolean {
  const headBytes = header.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES
  if (header.payloadStart - header.start !== headBytes) return false
  if (header.version === 4 && header.dontFragment) return false
  const step = (mtu - headBytes) & ~7
  for (let at = header.payloadStart; at < header.end; at += step) {
    const length = Math.min(step, header.end - at)
    const to = into.reserve(headBytes + length)
    if (to < 0) return false
    into.bytes.set(bytes.subarray(header.start, header.payloadStart), to)
    into.bytes.set(bytes.subarray(at, at + length), to + headBytes)
    const offset = header.fragmentOffset + at - header.payloadStart
    const more = header.moreFragments || at + length < header.end
    if (header.version === 4) write4(into.view, to, length, offset, more)
    else write6(into.view, to, length, offset, more)
    into.commit(headBytes + length)
  }
  return true
}

function write4(view: DataView, at: number, length: number, offset: number, more: boolean): void {
  view.setUint16(at + 2, IPV4_HEADER_BYTES + length)
  view.setUint16(at + 6, (offset >> 3) | (more ? MORE_FRAGMENTS4 : 0))
  view.setUint16(at + 10, 0)
  view.setUint16(at + 10, foldChecksum(sumRange(view, at, at + IPV4_HEADER_BYTES)))
}

function write6(view: DataView, at: number, length: number, offset: number, more: boolean): void {
  view.setUint16(at + 4, FRAGMENT_HEADER_BYTES + length)
  view.setUint16(at + IPV6_HEADER_BYTES + 2, offset | (more ? MORE_FRAGMENTS6 : 0))
}
