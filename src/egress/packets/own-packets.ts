import type { IpAddress } from '../../base/index.ts'
import {
  foldChecksum,
  ICMP_HEADER_BYTES,
  type IcmpErrorKind,
  ipHeaderBytes,
  PacketBatch,
  Protocol,
  sumRange,
  writeIcmp,
  writeIp,
  writeTransportChecksum,
} from '../../packet/index.ts'

/** What an ICMP error may be in all, so that it arrives anywhere: RFC 1812 §4.3.2.3, RFC 4443 §2.4 c. */
const ICMP_ERROR_BYTES = { 4: 576, 6: 1280 } as const
const HOP_LIMIT = 64

/** An echo reply for the client. */
export interface EchoReply {
  readonly from: IpAddress
  readonly to: IpAddress
  readonly identifier: number
  readonly sequence: number
  /** Borrowed. */
  readonly data: Uint8Array
  readonly hopLimit: number
}

/** The ICMP messages that an exit itself says to a client; they wait in a batch, bounded: what finds no room is dropped. */
export class OwnPackets {
  readonly #packets: number
  readonly #mtu: number
  /** Made with the first message. */
  #batch: PacketBatch | null = null
  /** Messages for which there was no room. */
  dropped = 0

  /** @param packets that may wait */
  constructor(packets: number, mtu: number) {
    this.#packets = packets
    this.#mtu = mtu
  }

  /** Hands all on, if there are any; they are lent for the call. */
  take(give: (batch: PacketBatch) => void): void {
    const batch = this.#batch
    if (batch === null || batch.count === 0) return
    give(batch)
    batch.clear()
  }

  /** An ICMP error about a packet (borrowed), which is quoted as far as it fits. */
  error(kind: IcmpErrorKind, from: IpAddress, to: IpAddress, quoted: Uint8Array): boolean {
    return this.#message(from, to, quoted, (view, ipAt, at, bodyBytes) => writeIcmp(view, ipAt, at, kind, 0, bodyBytes))
  }

  /** An ICMP error with the numbers that a router gave it. @param rest the header's last four bytes */
  relayedError(type: number, code: number, rest: number, from: IpAddress, to: IpAddress, quoted: Uint8Array): boolean {
    return this.#message(from, to, quoted, (view, ipAt, at, bodyBytes) => {
      const end = at + ICMP_HEADER_BYTES + bodyBytes
      view.setUint8(at, type)
      view.setUint8(at + 1, code)
      view.setUint16(at + 2, 0)
      view.setUint32(at + 4, rest >>> 0)
      if (from.family === 4) view.setUint16(at + 2, foldChecksum(sumRange(view, at, end)))
      else writeTransportChecksum(view, ipAt, Protocol.icmp6, at, end, at + 2)
    })
  }

  /** An echo reply that fits the link. */
  echoReply({ from, to, identifier, sequence, data, hopLimit }: EchoReply): boolean {
    const batch = this.#room()
    const length = ICMP_HEADER_BYTES + data.length
    const at = batch.reserve(ipHeaderBytes(from.bytes.length) + length)
    if (at < 0) return this.#drop()
    const fields = { source: from.bytes, destination: to.bytes, hopLimit, protocol: from.family === 4 ? Protocol.icmp : Protocol.icmp6 }
    const icmpAt = writeIp(batch.bytes, batch.view, at, fields, length)
    batch.bytes.set(data, icmpAt + ICMP_HEADER_BYTES)
    writeIcmp(batch.view, at, icmpAt, 'echo-reply', ((identifier << 16) | sequence) >>> 0, data.length)
    batch.commit(icmpAt + length - at)
    return true
  }

  #message(
    from: IpAddress,
    to: IpAddress,
    quoted: Uint8Array,
    write: (view: DataView, ipAt: number, at: number, bodyBytes: number) => void,
  ): boolean {
    const batch = this.#room()
    const headerBytes = ipHeaderBytes(from.bytes.length) + ICMP_HEADER_BYTES
    const body = quoted.subarray(0, ICMP_ERROR_BYTES[from.family] - headerBytes)
    const at = batch.reserve(headerBytes + body.length)
    if (at < 0) return this.#drop()
    const protocol = from.family === 4 ? Protocol.icmp : Protocol.icmp6
    const fields = { source: from.bytes, destination: to.bytes, protocol, hopLimit: HOP_LIMIT }
    const icmpAt = writeIp(batch.bytes, batch.view, at, fields, ICMP_HEADER_BYTES + body.length)
    batch.bytes.set(body, icmpAt + ICMP_HEADER_BYTES)
    write(batch.view, at, icmpAt, body.length)
    batch.commit(headerBytes + body.length)
    return true
  }

  #room(): PacketBatch {
    this.#batch ??= new PacketBatch(this.#packets, this.#packets * (this.#mtu + 3))
    return this.#batch
  }

  #drop(): false {
    this.dropped++
    return false
  }
}
