/**
 * The Internet checksum (RFC 1071). Sums are held unfolded: a sum over any packet stays far below 2^53, and below 2^31 for what is
 * added up here (64 KiB), so adding sums is adding numbers. Ranges start at an even distance from each other.
 */

/** The sum of the 16-bit words of a range; an odd last byte counts as the high half of a word. Fast for a whole packet: 16 bytes a step. */
export function sumRange(view: DataView, start: number, end: number): number {
  let at = start
  let high = 0
  let low = 0
  for (const stop = end - 16; at <= stop; at += 16) {
    const a = view.getInt32(at)
    const b = view.getInt32(at + 4)
    const c = view.getInt32(at + 8)
    const d = view.getInt32(at + 12)
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)
  }
  for (const stop = end - 2; at <= stop; at += 2) low += view.getUint16(at)
  if (at < end) low += view.getUint8(at) << 8
  return high + low
}

/** The checksum field for a sum: folded to 16 bits and complemented. 0 over a range that holds its own right checksum. */
export function foldChecksum(sum: number): number {
  let folded = sum
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000)
  return ~folded & 0xffff
}

/** What a transport's pseudo header adds, without the addresses: RFC 9293 §3.1, RFC 8200 §8.1. */
export function pseudoSum(protocol: number, length: number): number {
  return protocol + (length & 0xffff) + (length >>> 16)
}

/** A checksum after one 16-bit word of what it covers has changed (RFC 1624, equation 3). */
export function updateChecksum(checksum: number, from: number, to: number): number {
  return foldChecksum((~checksum & 0xffff) + (~from & 0xffff) + to)
}
