import type { IpAddress, Random } from '../base/index.ts'
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

/** Writes a transport's bytes at `at`, its checksum included, behind the IP header at `ipAt`. */
type WriteTransport = (bytes: Uint8Array, view: DataView, ipAt: number, at: number) => void

/** Writes packets that are of no connection into the outbox. Each returns false when there was no room. */
export class Replies {
  readonly #outbox: Outbox
  readonly #random: Random
  #identification: number

  constructor(outbox: Outbox, random: Random) {
    this.#outbox = outbox
    this.#random = random
    this.#identification = random.int(0x1_0000)
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
    const write = (bytes: Uint8Array, view: DataView, ipAt: number, at: number): void => {
      bytes.set(data, writeUdp(view, at, from.port, to.port, data.length))
      writeTransportChecksum(view, ipAt, Protocol.udp, at, at + length, at + 6)
    }
    return this.#whole(from.address, to.address, Protocol.udp, length, mtu, write)
  }

  /** An echo, in fragments if it is larger than the path takes. */
  echo(kind: 'echo-request' | 'echo-reply', { from, to, identifier, sequence, data }: Echo, mtu: number): boolean {
    const length = ICMP_HEADER_BYTES + data.length
    const protocol = from.family === 4 ? Protocol.icmp : Protocol.icmp6
    const write = (bytes: Uint8Array, view: DataView, ipAt: number, at: number): void => {
      bytes.set(data, at + ICMP_HEADER_BYTES)
      writeIcmp(view, ipAt, at, kind, (identifier << 16) | sequence, data.length)
    }
    return this.#whole(from, to, protocol, length, mtu, write)
  }

  /** An ICMP error from `from` to `to` about a packet, which is quoted as far as it fits; `rest`: the MTU of packet-too-big, or what a problem points at. */
  error(kind: IcmpErrorKind, from: IpAddress, to: IpAddress, quoted: Uint8Array, rest = 0): boolean {
    const room = ICMP_ERROR_BYTES[from.family] - ipHeaderBytes(from.bytes.length) - ICMP_HEADER_BYTES
    const body = quoted.subarray(0, room)
    const length = ICMP_HEADER_BYTES + body.length
    const place = this.#place(from, length)
    if (place === null) return false
    const { batch, at } = place
    const icmpAt = this.#ip(place, from, to, from.family === 4 ? Protocol.icmp : Protocol.icmp6, length)
    batch.bytes.set(body, icmpAt + ICMP_HEADER_BYTES)
    writeIcmp(batch.view, at, icmpAt, kind, rest, body.length)
    batch.commit(icmpAt + length - at)
    return true
  }

  #whole(from: IpAddress, to: IpAddress, protocol: number, length: number, mtu: number, write: WriteTransport): boolean {
    if (ipHeaderBytes(from.bytes.length) + length > mtu) return this.#fragments(from, to, protocol, length, mtu, write)
    const place = this.#place(from, length)
    if (place === null) return false
    const { batch, at } = place
    const dataAt = this.#ip(place, from, to, protocol, length)
    write(batch.bytes, batch.view, at, dataAt)
    batch.commit(dataAt + length - at)
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
  #fragments(from: IpAddress, to: IpAddress, protocol: number, total: number, mtu: number, write: WriteTransport): boolean {
    const is4 = from.family === 4
    const headerBytes = ipHeaderBytes(from.bytes.length)
    // The checksum is over the whole: written behind a header that is not sent.
    const packet = new Uint8Array(headerBytes + total)
    const view = new DataView(packet.buffer)
    const fields = { source: from.bytes, destination: to.bytes, hopLimit: HOP_LIMIT }
    writeIp(packet, view, 0, { ...fields, protocol }, total)
    write(packet, view, 0, headerBytes)
    // IPv4 has room for a count only (RFC 6864); IPv6's number is nobody's to guess (RFC 7739 §5.3).
    this.#identification = is4 ? (this.#identification + 1) & 0xffff : this.#random.int(2 ** 32)
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
        const identification = this.#identification
        dataAt = writeIp(batch.bytes, batch.view, at, { ...fields, protocol, identification, dontFragment: false }, length)
        const field = (more ? 0x2000 : 0) | (offset >> 3)
        batch.view.setUint16(at + 6, field)
        batch.view.setUint16(at + 10, updateChecksum(batch.view.getUint16(at + 10), 0, field))
      } else {
        const headerAt = writeIp(batch.bytes, batch.view, at, { ...fields, protocol: Protocol.fragment }, extra + length)
        batch.view.setUint16(headerAt, protocol << 8)
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
