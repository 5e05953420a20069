import type { PacketBatch } from './batch.ts'
import type { Medium, PacketPort, PacketPortHandlers } from './port.ts'
import { PortAround } from './port-around.ts'

/** LINKTYPE_RAW (IPv4 or IPv6 without a link header) and LINKTYPE_ETHERNET of tcpdump.org's list. */
const linkTypes: Readonly<Record<Medium, number>> = { ip: 101, ethernet: 1 }
const FILE_HEADER_BYTES = 24
const RECORD_HEADER_BYTES = 16

/** Where a capture is written: a file, or memory in a test. */
export interface PcapSink {
  /** Takes the bytes over. False: it has enough for now; records are left out (and counted) until it says true again at a later record. */
  write(bytes: Uint8Array): boolean
  /** Whether it would take more. */
  readonly ready: boolean
}

export interface PcapOptions {
  readonly sink: PcapSink
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Bytes kept of each packet, default all (65535). */
  readonly snapLength?: number
  /** Bytes written in all before the capture stops, default 1 GiB. */
  readonly maxBytes?: number
}

/** A capture file (libpcap's classic format, microseconds, big-endian) written to a sink, bounded. */
export class PcapWriter {
  readonly #options: PcapOptions
  readonly #snapLength: number
  readonly #maxBytes: number
  #written = 0
  /** Packets that were left out: the sink was not ready, or the capture full. */
  missed = 0

  constructor(medium: Medium, options: PcapOptions) {
    this.#options = options
    this.#snapLength = options.snapLength ?? 65_535
    this.#maxBytes = options.maxBytes ?? 2 ** 30
    const header = new Uint8Array(FILE_HEADER_BYTES)
    const view = new DataView(header.buffer)
    view.setUint32(0, 0xa1b2_c3d4)
    view.setUint16(4, 2)
    view.setUint16(6, 4)
    view.setUint32(16, this.#snapLength)
    view.setUint32(20, linkTypes[medium])
    this.#written = header.length
    options.sink.write(header)
  }

  /** Writes packets [from, to) of a batch, copied, in one piece. */
  record(batch: PacketBatch, from = 0, to = batch.count): void {
    this.write(this.prepare(batch, from, to), batch, from, to)
  }

  /** Copies packets [from, to) as they are now, with the time; null when they can't be kept. */
  prepare(batch: PacketBatch, from: number, to: number): Uint8Array | null {
    const { sink, now } = this.#options
    const bytes = this.#recordBytes(batch, from, to)
    if (bytes === 0 || !sink.ready || this.#written + bytes > this.#maxBytes) return null
    const at = now()
    const seconds = Math.floor(at / 1000)
    const micros = Math.floor((at - seconds * 1000) * 1000)
    const records = new Uint8Array(bytes)
    const view = new DataView(records.buffer)
    let next = 0
    for (let i = from; i < to; i++) {
      const length = batch.end(i) - batch.start(i)
      const kept = Math.min(this.#snapLength, length)
      view.setUint32(next, seconds)
      view.setUint32(next + 4, micros)
      view.setUint32(next + 8, kept)
      view.setUint32(next + 12, length)
      records.set(batch.bytes.subarray(batch.start(i), batch.start(i) + kept), next + RECORD_HEADER_BYTES)
      next += RECORD_HEADER_BYTES + kept
    }
    return records
  }

  /** Writes what was prepared of packets from `from` on, as far as `to`. */
  write(records: Uint8Array | null, batch: PacketBatch, from: number, to: number): void {
    if (from === to) return
    if (records === null) {
      this.missed += to - from
      return
    }
    const bytes = this.#recordBytes(batch, from, to)
    this.#written += bytes
    this.#options.sink.write(bytes === records.length ? records : records.slice(0, bytes))
  }

  #recordBytes(batch: PacketBatch, from: number, to: number): number {
    let bytes = 0
    for (let i = from; i < to; i++) bytes += RECORD_HEADER_BYTES + Math.min(this.#snapLength, batch.end(i) - batch.start(i))
    return bytes
  }
}

/** A port whose packets, both ways, are written to a capture as they pass. A packet that is sent is recorded once the port has taken it. */
export class PcapTracer extends PortAround {
  readonly #writer: PcapWriter

  constructor(port: PacketPort, options: PcapOptions) {
    super(port)
    this.#writer = new PcapWriter(port.medium, options)
  }

  /** Packets that are not in the capture. */
  get missed(): number {
    return this.#writer.missed
  }

  attach(handlers: PacketPortHandlers): void {
    this.port.attach({
      packets: (batch) => {
        this.#writer.record(batch)
        handlers.packets(batch)
      },
      drained: () => handlers.drained(),
      ended: (error) => handlers.ended(error),
    })
  }

  override send(batch: PacketBatch, from = 0): number {
    // As it was sent: the port may change the bytes of a batch that it is lent.
    const records = this.#writer.prepare(batch, from, batch.count)
    const taken = this.port.send(batch, from)
    this.#writer.write(records, batch, from, from + taken)
    return taken
  }
}
