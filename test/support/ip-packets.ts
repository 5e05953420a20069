import { formatIp, ipFromBytes, parseIp } from '../../src/base/index.ts'
import {
  IcmpHeader,
  IpHeader,
  Protocol,
  transportChecksumHolds,
  UdpHeader,
  writeIcmp,
  writeIp,
  writeTransportChecksum,
  writeUdp,
} from '../../src/packet/index.ts'

export interface PacketFields {
  readonly from: string
  readonly to: string
  readonly hopLimit?: number
  readonly dontFragment?: boolean
}

/** A UDP packet. */
export function udpPacket(
  fields: PacketFields & { readonly fromPort: number; readonly toPort: number; readonly data?: Uint8Array },
): Uint8Array {
  const data = fields.data ?? new Uint8Array(0)
  return packetOf(fields, Protocol.udp, 8 + data.length, (view, bytes, at) => {
    bytes.set(data, writeUdp(view, at, fields.fromPort, fields.toPort, data.length))
    return at + 6
  })
}

/** A TCP segment without options. */
export function tcpPacket(
  fields: PacketFields & { readonly fromPort: number; readonly toPort: number; readonly flags?: number; readonly sequence?: number },
): Uint8Array {
  return packetOf(fields, Protocol.tcp, 20, (view, _bytes, at) => {
    view.setUint16(at, fields.fromPort)
    view.setUint16(at + 2, fields.toPort)
    view.setUint32(at + 4, fields.sequence ?? 1000)
    view.setUint8(at + 12, 0x50)
    view.setUint8(at + 13, fields.flags ?? 2)
    view.setUint16(at + 14, 0xffff)
    return at + 16
  })
}

/** A packet of another protocol. */
export function otherPacket(fields: PacketFields & { readonly protocol: number; readonly data: Uint8Array }): Uint8Array {
  return packetOf(fields, fields.protocol, fields.data.length, (_view, bytes, at) => {
    bytes.set(fields.data, at)
    return null
  })
}

/** An echo request or reply. */
export function echoPacket(
  fields: PacketFields & {
    readonly kind?: 'echo-request' | 'echo-reply'
    readonly id?: number
    readonly sequence?: number
    readonly data?: Uint8Array
  },
): Uint8Array {
  const data = fields.data ?? new Uint8Array(8)
  const is4 = !fields.from.includes(':')
  return packetOf(fields, is4 ? Protocol.icmp : Protocol.icmp6, 8 + data.length, (view, bytes, at) => {
    bytes.set(data, at + 8)
    writeIcmp(view, 0, at, fields.kind ?? 'echo-request', ((fields.id ?? 1) << 16) | (fields.sequence ?? 1), data.length)
    return null
  })
}

/** An ICMP error that quotes a packet. */
export function errorPacket(
  fields: PacketFields & {
    readonly kind: 'time-exceeded' | 'port-unreachable' | 'packet-too-big' | 'prohibited'
    readonly quoted: Uint8Array
  },
): Uint8Array {
  const is4 = !fields.from.includes(':')
  return packetOf(fields, is4 ? Protocol.icmp : Protocol.icmp6, 8 + fields.quoted.length, (view, bytes, at) => {
    bytes.set(fields.quoted, at + 8)
    writeIcmp(view, 0, at, fields.kind, 0, fields.quoted.length)
    return null
  })
}

function packetOf(
  fields: PacketFields,
  protocol: number,
  length: number,
  write: (view: DataView, bytes: Uint8Array, at: number) => number | null,
): Uint8Array {
  const source = parseIp(fields.from).bytes
  const bytes = new Uint8Array((source.length === 4 ? 20 : 40) + length)
  const view = new DataView(bytes.buffer)
  const at = writeIp(
    bytes,
    view,
    0,
    { source, destination: parseIp(fields.to).bytes, protocol, hopLimit: fields.hopLimit ?? 64, dontFragment: fields.dontFragment ?? true },
    length,
  )
  const checksumAt = write(view, bytes, at)
  if (checksumAt !== null) writeTransportChecksum(view, 0, protocol, at, bytes.length, checksumAt)
  return bytes
}

export interface SeenPacket {
  readonly from: string
  readonly to: string
  readonly protocol: number
  readonly hopLimit: number
  readonly bytes: Uint8Array
  readonly icmp: { readonly kind: string; readonly mtu: number; readonly identifier: number; readonly quoted: Uint8Array } | null
  readonly udp: { readonly fromPort: number; readonly toPort: number; readonly data: Uint8Array } | null
  /** Whether every checksum is right. */
  readonly sound: boolean
}

/** Reads a packet as a test looks at it. */
export function seePacket(bytes: Uint8Array): SeenPacket {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const ip = new IpHeader()
  const problem = ip.parse(view, 0, bytes.length)
  const text = (at: number): string => formatIp(ipFromBytes(bytes.slice(at, at + ip.addressBytes)))
  const icmp = new IcmpHeader()
  const udp = new UdpHeader()
  const isIcmp = ip.protocol === Protocol.icmp || ip.protocol === Protocol.icmp6
  const readIcmp = isIcmp && icmp.parse(view, ip.payloadStart, ip.end, ip.version) === null
  const readUdp = ip.protocol === Protocol.udp && !ip.isFragment && udp.parse(view, ip.payloadStart, ip.end, ip.version) === null
  return {
    from: text(ip.sourceAt),
    to: text(ip.destinationAt),
    protocol: ip.protocol,
    hopLimit: ip.hopLimit,
    bytes,
    icmp: readIcmp
      ? { kind: icmp.kind, mtu: icmp.mtu, identifier: icmp.identifier, quoted: bytes.subarray(icmp.bodyStart, icmp.end) }
      : null,
    udp: readUdp ? { fromPort: udp.sourcePort, toPort: udp.destinationPort, data: bytes.subarray(udp.payloadStart, udp.end) } : null,
    sound: problem === null && (isIcmp && ip.version === 4 ? readIcmp : !hasChecksum(ip.protocol) || transportChecksumHolds(view, ip)),
  }
}

function hasChecksum(protocol: number): boolean {
  return protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.icmp6
}
