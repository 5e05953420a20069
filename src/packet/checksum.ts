/**
 * The Internet checksum (RFC 1071). Adding sums is adding numbers; `foldChecksum` brings them to 16 bits. Ranges start at an even distance from
 * each other, and are of a packet: at most 64 KiB and its headers.
 */

/**
 * The sum of the 16-bit words of a range, folded to 16 bits; an odd last byte counts as the high half of a word. Fast for a whole packet: 16 bytes
 * a step, in the byte order of the machines we run on; the order is put right in the end, which is the same (RFC 1071 §2 B).
 */
export function sumRange(view: DataView, start: number, end: number): number {
  let at = start
  let low = 0
  let high = 0
  for (const stop = end - 16; at <= stop; at += 16) {
    const a = view.getUint32(at, true)
    const b = view.getUint32(at + 4, true)
    const c = view.getUint32(at + 8, true)
    const d = view.getUint32(at + 12, true)
    // Below 2^31 for 64 KiB, so it stays an integer.
    low = (low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0
  }
  for (const stop = end - 2; at <= stop; at += 2) low += view.getUint16(at, true)
  if (at < end) low += view.getUint8(at)
  let sum = (low & 0xffff) + (low >>> 16) + (high & 0xffff) + (high >>> 16)
  sum = (sum & 0xffff) + (sum >>> 16)
  sum = (sum & 0xffff) + (sum >>> 16)
  return ((sum & 0xff) << 8) | (sum >>> 8)
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
