/** A packet as the internet's router took it in: what left a router or a host, whether or not the other side let it in. */
export interface SeenPacket {
  /** Wall-clock ms, with microseconds behind the point. */
  readonly at: number
  readonly protocol: 'tcp' | 'udp'
  readonly from: SeenEndpoint
  readonly to: SeenEndpoint
  /** TCP's SYN and ACK bits; false for UDP. */
  readonly syn: boolean
  readonly ack: boolean
}

export interface SeenEndpoint {
  readonly ip: string
  readonly port: number
}

const fileHeaderBytes = 24
const recordHeaderBytes = 16
/** LINKTYPE_LINUX_SLL2: protocol, reserved, interface, ARP type, packet type, address length, address. */
const linkHeaderBytes = 20
const linkType = 276
const littleMicroseconds = 0xa1b2c3d4

/** One record of a capture: what was kept of a frame. */
export interface PcapRecord {
  /** Wall-clock ms, with microseconds behind the point. */
  readonly at: number
  readonly frame: Buffer
  /** Bytes of the frame before it was cut. */
  readonly length: number
}

/** The records of a growing pcap file, read piece by piece: what is not yet whole waits. */
export class PcapRecords {
  readonly #linkType: number
  #rest: Buffer = Buffer.alloc(0)
  #begun = false

  /** @param linkType of tcpdump.org's list */
  constructor(linkType: number) {
    this.#linkType = linkType
  }

  read(piece: Buffer): readonly PcapRecord[] {
    let bytes = Buffer.concat([this.#rest, piece])
    const records: PcapRecord[] = []
    if (!this.#begun && bytes.length >= fileHeaderBytes) {
      if (bytes.readUInt32LE(0) !== littleMicroseconds || bytes.readUInt32LE(20) !== this.#linkType)
        throw new Error('not the pcap that was asked for')
      this.#begun = true
      bytes = bytes.subarray(fileHeaderBytes)
    }
    while (this.#begun && bytes.length >= recordHeaderBytes) {
      const kept = bytes.readUInt32LE(8)
      if (bytes.length < recordHeaderBytes + kept) break
      const at = bytes.readUInt32LE(0) * 1000 + bytes.readUInt32LE(4) / 1000
      records.push({ at, frame: bytes.subarray(recordHeaderBytes, recordHeaderBytes + kept), length: bytes.readUInt32LE(12) })
      bytes = bytes.subarray(recordHeaderBytes + kept)
    }
    this.#rest = Buffer.from(bytes)
    return records
  }
}

/** The TCP and UDP packets of a growing capture of `any` interface. */
export class PcapReader {
  readonly #records = new PcapRecords(linkType)

  /** Those in what was read so far and is whole now. */
  read(piece: Buffer): readonly SeenPacket[] {
    return this.#records.read(piece).flatMap(({ at, frame }) => parse(at, frame) ?? [])
  }
}

function parse(at: number, frame: Buffer): SeenPacket | null {
  if (frame.length < linkHeaderBytes + 40) return parseShort(at, frame)
  const type = frame.readUInt16BE(0)
  const ip = frame.subarray(linkHeaderBytes)
  if (type === 0x0800) return transport(at, ip[9]!, dotted(ip, 12), dotted(ip, 16), ip.subarray((ip[0]! & 15) * 4))
  if (type === 0x86dd) return transport(at, ip[6]!, colons(ip, 8), colons(ip, 24), ip.subarray(40))
  return null
}

/** An IPv4 packet of UDP can be shorter than an IPv6 header. */
function parseShort(at: number, frame: Buffer): SeenPacket | null {
  if (frame.length < linkHeaderBytes + 28 || frame.readUInt16BE(0) !== 0x0800) return null
  const ip = frame.subarray(linkHeaderBytes)
  return transport(at, ip[9]!, dotted(ip, 12), dotted(ip, 16), ip.subarray((ip[0]! & 15) * 4))
}

function transport(at: number, protocol: number, from: string, to: string, segment: Buffer): SeenPacket | null {
  if (segment.length < 8 || (protocol !== 6 && protocol !== 17)) return null
  const ends = { from: { ip: from, port: segment.readUInt16BE(0) }, to: { ip: to, port: segment.readUInt16BE(2) } }
  if (protocol === 17) return { at, protocol: 'udp', ...ends, syn: false, ack: false }
  const flags = segment[13] ?? 0
  return { at, protocol: 'tcp', ...ends, syn: (flags & 2) !== 0, ack: (flags & 16) !== 0 }
}

/** Four bytes as an IPv4 address. */
export function dotted(bytes: Buffer, at: number): string {
  return [...bytes.subarray(at, at + 4)].join('.')
}

/** Sixteen bytes as an IPv6 address, RFC 5952. */
export function colons(bytes: Buffer, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(at + 2 * i).toString(16))
  const text = groups.join(':')
  const zeros = [...text.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].sort((a, b) => b[0].length - a[0].length)[0]
  if (!zeros) return text
  return `${text.slice(0, zeros.index)}::${text.slice(zeros.index + zeros[0].length).replace(/^:/, '')}`
}
