import {
  foldChecksum,
  IPV4_HEADER_BYTES,
  ipHeaderBytes,
  type PacketBatch,
  Protocol,
  pseudoSum,
  sumRange,
  TCP_HEADER_BYTES,
  TCP_TIMESTAMP_BYTES,
  TcpFlag,
  tcpOptionBytes,
  writeIp,
  writeTcp,
  writeTransportChecksum,
} from '../../packet/index.ts'
import type { Endpoint } from '../endpoint.ts'
import type { Plan } from './plan.ts'
import type { ReceivedRanges } from './ranges.ts'
import type { Sender } from './sender.ts'

export const HOP_LIMIT = 64

/** Used within one call. */
const edges = new Int32Array(8)

/** Writes one connection's segments into a batch: the headers' fixed parts from a template, the sums over them known. */
export class SegmentWriter {
  readonly #template: Uint8Array
  readonly #ipBytes: number
  readonly #is4: boolean
  readonly #headerSum: number
  readonly #pseudoSum: number
  timestamps = false
  sack = false

  constructor(local: Uint8Array, localPort: number, remote: Uint8Array, remotePort: number) {
    this.#ipBytes = ipHeaderBytes(local.length)
    this.#is4 = local.length === 4
    this.#template = new Uint8Array(this.#ipBytes + TCP_HEADER_BYTES)
    const view = new DataView(this.#template.buffer)
    writeIp(this.#template, view, 0, { source: local, destination: remote, protocol: Protocol.tcp, hopLimit: HOP_LIMIT }, 0)
    if (this.#is4) {
      view.setUint16(2, 0)
      view.setUint16(10, 0)
    }
    this.#headerSum = sumRange(view, 0, IPV4_HEADER_BYTES)
    this.#pseudoSum = this.#is4 ? sumRange(view, 12, 20) : sumRange(view, 8, 40)
    view.setUint16(this.#ipBytes, localPort)
    view.setUint16(this.#ipBytes + 2, remotePort)
  }

  /** Bytes of a segment that are not data and that every one has: headers and timestamps. */
  get overhead(): number {
    return this.#ipBytes + TCP_HEADER_BYTES + (this.timestamps ? TCP_TIMESTAMP_BYTES : 0)
  }

  get headerBytes(): number {
    return this.#ipBytes + TCP_HEADER_BYTES
  }

  /** Bytes that a SACK option would take in the next segment. */
  sackBytes(ranges: ReceivedRanges): number {
    if (!this.sack || !ranges.hasNews) return 0
    return 4 + 8 * ranges.count(this.timestamps ? 3 : 4)
  }

  /**
   * Appends a segment to the batch; false when it has no room.
   * @param plan the data, with its sender, or null for none
   */
  write(
    batch: PacketBatch,
    sequence: number,
    acknowledgment: number,
    flags: number,
    window: number,
    timestamp: number,
    timestampEcho: number,
    ranges: ReceivedRanges,
    sender: Sender,
    plan: Plan | null,
  ): boolean {
    const sackBytes = this.sackBytes(ranges)
    const optionBytes = (this.timestamps ? TCP_TIMESTAMP_BYTES : 0) + sackBytes
    const dataBytes = plan === null ? 0 : plan.length
    const tcpBytes = TCP_HEADER_BYTES + optionBytes + dataBytes
    const length = this.#ipBytes + tcpBytes
    const at = batch.reserve(length)
    if (at < 0) return false
    const { view } = batch
    batch.bytes.set(this.#template, at)
    const tcpAt = at + this.#ipBytes
    if (this.#is4) {
      view.setUint16(at + 2, length)
      view.setUint16(at + 10, foldChecksum(this.#headerSum + length))
    } else view.setUint16(at + 4, tcpBytes)
    view.setInt32(tcpAt + 4, sequence)
    view.setInt32(tcpAt + 8, acknowledgment)
    view.setUint16(tcpAt + 12, ((TCP_HEADER_BYTES + optionBytes) << 10) | flags)
    view.setUint16(tcpAt + 14, window)
    let next = tcpAt + TCP_HEADER_BYTES
    if (this.timestamps) {
      view.setInt32(next, 0x0101_080a)
      view.setInt32(next + 4, timestamp)
      view.setInt32(next + 8, timestampEcho)
      next += TCP_TIMESTAMP_BYTES
    }
    if (sackBytes > 0) {
      const pairs = ranges.blocks(edges, this.timestamps ? 3 : 4)
      view.setUint16(next, 0x0101)
      view.setUint16(next + 2, (5 << 8) | (2 + 8 * pairs))
      next += 4
      for (let i = 0; i < 2 * pairs; i++, next += 4) view.setInt32(next, edges[i]!)
    }
    if (plan !== null && dataBytes > 0) sender.copy(plan, batch.bytes, next)
    const sum = this.#pseudoSum + pseudoSum(Protocol.tcp, tcpBytes) + sumRange(view, tcpAt, at + length)
    view.setUint16(tcpAt + 16, foldChecksum(sum))
    batch.commit(length)
    return true
  }
}

/** What a SYN or SYN-ACK says. */
export interface SynFields {
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly sequence: number
  /** Null: a SYN without ACK. */
  readonly acknowledgment: number | null
  readonly window: number
  readonly mss: number
  /** Options that are null or false are left out. */
  readonly windowScale: number | null
  readonly sack: boolean
  readonly timestamp: number | null
  readonly timestampEcho: number
}

/** Appends a SYN to the batch; false when it has no room. */
export function writeSyn(batch: PacketBatch, syn: SynFields): boolean {
  const options = {
    mss: syn.mss,
    ...(syn.sack ? { sackPermitted: true } : {}),
    ...(syn.timestamp === null ? {} : { timestamp: syn.timestamp, timestampEcho: syn.timestampEcho }),
    ...(syn.windowScale === null ? {} : { windowScale: syn.windowScale }),
  }
  const tcpBytes = TCP_HEADER_BYTES + tcpOptionBytes(options)
  const at = batch.reserve(ipHeaderBytes(syn.local.address.bytes.length) + tcpBytes)
  if (at < 0) return false
  const ip = { source: syn.local.address.bytes, destination: syn.remote.address.bytes, protocol: Protocol.tcp, hopLimit: HOP_LIMIT }
  const tcpAt = writeIp(batch.bytes, batch.view, at, ip, tcpBytes)
  const end = writeTcp(
    batch.view,
    tcpAt,
    {
      sourcePort: syn.local.port,
      destinationPort: syn.remote.port,
      sequence: syn.sequence,
      acknowledgment: syn.acknowledgment ?? 0,
      flags: TcpFlag.syn | (syn.acknowledgment === null ? 0 : TcpFlag.ack),
      window: syn.window,
    },
    options,
  )
  writeTransportChecksum(batch.view, at, Protocol.tcp, tcpAt, end, tcpAt + 16)
  batch.commit(end - at)
  return true
}
