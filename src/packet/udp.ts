export const UDP_HEADER_BYTES = 8

/** Why bytes are no UDP datagram. */
export type UdpProblem = 'short' | 'length' | 'no-checksum'

/** The header of one datagram, made once and filled over and over. */
export class UdpHeader {
  sourcePort = 0
  destinationPort = 0
  payloadStart = 0
  end = 0
  /** Whether the sender computed one; then it is still to be checked (`transportChecksumHolds`). */
  hasChecksum = true

  /** Reads the datagram in [start, end); null when it is in order. */
  parse(view: DataView, start: number, end: number, version: 4 | 6): UdpProblem | null {
    if (end - start < UDP_HEADER_BYTES) return 'short'
    // The checksum's pseudo header has the IP payload's length, so one that is shorter than it has no right checksum.
    if (view.getUint16(start + 4) !== end - start) return 'length'
    this.sourcePort = view.getUint16(start)
    this.destinationPort = view.getUint16(start + 2)
    this.payloadStart = start + UDP_HEADER_BYTES
    this.end = end
    this.hasChecksum = view.getUint16(start + 6) !== 0
    // RFC 8200 §8.1
    return version === 6 && !this.hasChecksum ? 'no-checksum' : null
  }
}

/** Writes a header, the checksum left 0; returns where the payload starts. */
export function writeUdp(view: DataView, at: number, sourcePort: number, destinationPort: number, payloadBytes: number): number {
  view.setUint16(at, sourcePort)
  view.setUint16(at + 2, destinationPort)
  view.setUint16(at + 4, UDP_HEADER_BYTES + payloadBytes)
  view.setUint16(at + 6, 0)
  return at + UDP_HEADER_BYTES
}
