import type { IpAddress } from '../base/index.ts'
import {
  FRAGMENT_HEADER_BYTES,
  ICMP_HEADER_BYTES,
  type IcmpErrorKind,
  ipHeaderBytes,
  Protocol,
  TCP_HEADER_BYTES,
  TCP_TIMESTAMP_BYTES,
  TcpFlag,
  UDP_HEADER_BYTES,
  updateChecksum,
  writeIcmp,
  writeIp,
  writeTcp,
  writeTransportChecksum,
  writeUdp,
} from '../packet/index.ts'
import type { Endpoint } from './endpoint.ts'
import type { Datagram, Echo } from './events.ts'
import type { Outbox, Place } from './outbox.ts'
import { HOP_LIMIT } from './tcp/segment-writer.ts'

/** What an ICMP error may be in all, so that it arrives anywhere: RFC 1812 §4.3.2.3, RFC 4443 §2.4 c. */
const ICMP_ERROR_BYTES = { 4: 576, 6: 1280 } as const

/** A segment that belongs to no connection (any more): a RST, or the ACK of TIME-WAIT. */
export interface LooseSegment {
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly sequence: number
  /** Null: without ACK. */
  readonly acknowledgment: number | null
  readonly reset: boolean
  readonly window: number
  readonly timestamp: number | null
  readonly timestampEcho: number
}

/** Writes packets that are of no connection into the outbox. Each returns false when there was no room. */
export class Replies {
  readonly #outbox: Outbox
  #identification: number

  constructor(outbox: Outbox, identification: number) {
    this.#outbox = outbox
    this.#identification = identification
  }

  segment(segment: LooseSegment): boolean {
    const options = segment.timestamp === null ? {} : { timestamp: segment.timestamp, timestampEcho: segment.timestampEcho }
    const length = TCP_HEADER_BYTES + (segment.timestamp === null ? 0 : TCP_TIMESTAMP_BYTES)
    const place = this.#place(segment.local.address, length)
    if (place === null) return false
    const { batch, at } = place
    const { view } = batch
    const tcpAt = this.#ip(place, segment.local.address, segment.remote.address, Protocol.tcp, length)
    const flags = (segment.reset ? TcpFlag.rst : 0) | (segment.acknowledgment === null ? 0 : TcpFlag.ack)
    writeTcp(
      view,
      tcpAt,
      {
        sourcePort: segment.local.port,
        destinationPort: segment.remote.port,
        sequence: segment.sequence,
        acknowledgment: segment.acknowledgment ?? 0,
        flags,
        window: segment.window,
      },
      options,
    )
    writeTransportChecksum(view, at, Protocol.tcp, tcpAt, tcpAt + length, tcpAt + 16)
    batch.commit(tcpAt + length - at)
    return true
  }

  /** A datagram, in fragments if it is larger than the path takes. */
  datagram({ from, to, data }: Datagram, mtu: number): boolean {
    const length = UDP_HEADER_BYTES + data.length
    if (ipHeaderBytes(from.address.bytes.length) + length > mtu) return this.#fragments({ from, to, data }, mtu)
    const place = this.#place(from.address, length)
    if (place === null) return false
    const { batch, at } = place
    const udpAt = this.#ip(place, from.address, to.address, Protocol.udp, length)
    batch.bytes.set(data, writeUdp(batch.view, udpAt, from.port, to.port, data.length))
    writeTransportChecksum(batch.view, at, Protocol.udp, udpAt, udpAt + length, udpAt + 6)
    batch.commit(udpAt + length - at)
    return true
  }

  echo(kind: 'echo-request' | 'echo-reply', { from, to, identifier, sequence, data }: Echo): boolean {
    const length = ICMP_HEADER_BYTES + data.length
    const place = this.#place(from, length)
    if (place === null) return false
    const { batch, at } = place
    const icmpAt = this.#ip(place, from, to, from.family === 4 ? Protocol.icmp : Protocol.icmp6, length)
    batch.bytes.set(data, icmpAt + ICMP_HEADER_BYTES)
    writeIcmp(batch.view, at, icmpAt, kind, (identifier << 16) | sequence, data.length)
    batch.commit(icmpAt + length - at)
    return true
  }

  /** An ICMP error from `from` to `to` about a packet, which is quoted as far as it fits. */
  error(kind: IcmpErrorKind, from: IpAddress, to: IpAddress, quoted: Uint8Array, mtu = 0): boolean {
    const room = ICMP_ERROR_BYTES[from.family] - ipHeaderBytes(from.bytes.length) - ICMP_HEADER_BYTES
    const body = quoted.subarray(0, room)
    const length = ICMP_HEADER_BYTES + body.length
    const place = this.#place(from, length)
    if (place === null) return false
    const { batch, at } = place
    const icmpAt = this.#ip(place, from, to, from.family === 4 ? Protocol.icmp : Protocol.icmp6, length)
    batch.bytes.set(body, icmpAt + ICMP_HEADER_BYTES)
    writeIcmp(batch.view, at, icmpAt, kind, mtu, body.length)
    batch.commit(icmpAt + length - at)
    return true
  }

  #place(source: IpAddress, payloadBytes: number): Place | null {
    return this.#outbox.place(ipHeaderBytes(source.bytes.length) + payloadBytes)
  }

  #ip(place: Place, from: IpAddress, to: IpAddress, protocol: number, length: number): number {
    const fields = { source: from.bytes, destination: to.bytes, protocol, hopLimit: HOP_LIMIT }
    return writeIp(place.batch.bytes, place.batch.view, place.at, fields, length)
  }

  /** RFC 791 §3.2, RFC 8200 §4.5. */
  #fragments({ from, to, data }: Datagram, mtu: number): boolean {
    const total = UDP_HEADER_BYTES + data.length
    const is4 = from.address.family === 4
    const headerBytes = ipHeaderBytes(from.address.bytes.length)
    // The checksum is over the whole datagram: written behind a header that is not sent.
    const packet = new Uint8Array(headerBytes + total)
    const view = new DataView(packet.buffer)
    const fields = { source: from.address.bytes, destination: to.address.bytes, hopLimit: HOP_LIMIT }
    writeIp(packet, view, 0, { ...fields, protocol: Protocol.udp }, total)
    packet.set(data, writeUdp(view, headerBytes, from.port, to.port, data.length))
    writeTransportChecksum(view, 0, Protocol.udp, headerBytes, packet.length, headerBytes + 6)
    this.#identification = (this.#identification + 1) >>> 0
    const extra = is4 ? 0 : FRAGMENT_HEADER_BYTES
    const step = (mtu - headerBytes - extra) & ~7
    for (let offset = 0; offset < total; offset += step) {
      const length = Math.min(step, total - offset)
      const more = offset + length < total
      const place = this.#outbox.place(headerBytes + extra + length)
      if (place === null) return false
      const { batch, at } = place
      let dataAt: number
      if (is4) {
        const identification = this.#identification & 0xffff
        dataAt = writeIp(batch.bytes, batch.view, at, { ...fields, protocol: Protocol.udp, identification, dontFragment: false }, length)
        const field = (more ? 0x2000 : 0) | (offset >> 3)
        batch.view.setUint16(at + 6, field)
        batch.view.setUint16(at + 10, updateChecksum(batch.view.getUint16(at + 10), 0, field))
      } else {
        const headerAt = writeIp(batch.bytes, batch.view, at, { ...fields, protocol: Protocol.fragment }, extra + length)
        batch.view.setUint16(headerAt, Protocol.udp << 8)
        batch.view.setUint16(headerAt + 2, offset | (more ? 1 : 0))
        batch.view.setUint32(headerAt + 4, this.#identification)
        dataAt = headerAt + FRAGMENT_HEADER_BYTES
      }
      batch.bytes.set(packet.subarray(headerBytes + offset, headerBytes + offset + length), dataAt)
      batch.commit(dataAt + length - at)
    }
    return true
  }
}
