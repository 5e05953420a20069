import { parseIp } from '../../../src/base/index.ts'
import { Protocol, writeIp, writeTransportChecksum, writeUdp } from '../../../src/packet/index.ts'

/** Frames that a machine may, and may not, send on its uplink while a VPN is up. */
export interface UplinkAddresses {
  readonly ipv4: string
  readonly ipv6: string
  readonly router4: string
  readonly router6: string
}

/** A place beyond the link that nobody allowed. */
export const elsewhere = { ipv4: '11.99.0.1', ipv6: '2a0f:99::1' } as const

const types = { ipv4: 0x0800, ipv6: 0x86dd, arp: 0x0806, lldp: 0x88cc, vlan: 0x8100 } as const

/** Everything of these is to be found by the check, each one alone. Names say what it is. */
export function strayFrames(on: UplinkAddresses): Readonly<Record<string, Uint8Array>> {
  const { ipv4, ipv6, router4, router6 } = on
  const first = tcpSyn(ipv4, elsewhere.ipv4, 443)
  return {
    'UDP over IPv4': udp(ipv4, elsewhere.ipv4, 40_000, 443),
    'UDP over IPv6': udp(ipv6, elsewhere.ipv6, 40_000, 443),
    'a SYN over IPv4': first,
    'a SYN over IPv6': tcpSyn(ipv6, elsewhere.ipv6, 443),
    'a DNS question to the router': udp(ipv4, router4, 40_000, 53),
    'a DNS question to somebody': udp(ipv6, elsewhere.ipv6, 40_000, 53),
    'mDNS over IPv4': udp(ipv4, '224.0.0.251', 5353, 5353),
    'mDNS over IPv6': udp(ipv6, 'ff02::fb', 5353, 5353),
    'an echo request over IPv4': ip(ipv4, elsewhere.ipv4, Protocol.icmp, Uint8Array.of(8, 0, 0, 0, 0, 1, 0, 1)),
    'an echo request over IPv6': ip(ipv6, elsewhere.ipv6, Protocol.icmp6, Uint8Array.of(128, 0, 0, 0, 0, 1, 0, 1)),
    'a port unreachable': ip(ipv4, elsewhere.ipv4, Protocol.icmp, Uint8Array.of(3, 3, 0, 0, 0, 0, 0, 0)),
    'an IGMP report': ip(ipv4, '224.0.0.22', 2, Uint8Array.of(0x22, 0, 0, 0, 0, 0, 0, 0)),
    'an MLD report of mDNS': mldReport(ipv6, 'ff02::fb'),
    'an MLD report of a solicited node and mDNS': mldReport(ipv6, 'ff02::1:ff00:a', 'ff02::fb'),
    'an MLD report that is cut': mldReport(ipv6, 'ff02::1:ff00:a', 'ff02::1:ff00:b').subarray(0, -10),
    'a router advertisement': ip(ipv6, 'ff02::1', Protocol.icmp6, new Uint8Array(16).fill(134, 0, 1)),
    'a solicitation for an address beyond the link': ip(ipv6, 'ff02::1:ff00:1', Protocol.icmp6, solicitation(elsewhere.ipv6)),
    'a solicitation that came from elsewhere': ip(ipv6, router6, Protocol.icmp6, solicitation(router6), 64),
    'an ARP request for an address beyond the link': arp(ipv4, elsewhere.ipv4),
    'DHCP to a server beyond the link': udp(ipv4, elsewhere.ipv4, 68, 67),
    GRE: ip(ipv4, elsewhere.ipv4, 47, new Uint8Array(8)),
    'a frame of another kind': frame(types.lldp, new Uint8Array(46)),
    'a frame in a VLAN': frame(types.vlan, Buffer.concat([Buffer.from([0, 5, 0x08, 0x00]), first.subarray(14)])),
    'a frame that is cut': frame(types.ipv4, first.subarray(14, 26)),
  }
}

/** Frames of these belong to the link. */
export function linkFrames({ ipv4, ipv6, router4, router6 }: UplinkAddresses): Readonly<Record<string, Uint8Array>> {
  return {
    'an ARP request for the router': arp(ipv4, router4),
    'a solicitation for the router': ip(ipv6, router6, Protocol.icmp6, solicitation(router6)),
    'a solicitation of routers': ip(ipv6, 'ff02::2', Protocol.icmp6, Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0)),
    'an MLD report of solicited nodes': mldReport(ipv6, 'ff02::1:ff00:a', 'ff02::1:ff00:b'),
    'DHCP to everybody': udp('0.0.0.0', '255.255.255.255', 68, 67),
    'DHCPv6 to everybody': udp(ipv6, 'ff02::1:2', 546, 547),
  }
}

export function udp(from: string, to: string, fromPort: number, toPort: number, bytes = 20): Uint8Array {
  const payload = new Uint8Array(8 + bytes)
  writeUdp(new DataView(payload.buffer), 0, fromPort, toPort, bytes)
  return ip(from, to, Protocol.udp, payload, 64, 6)
}

export function tcpSyn(from: string, to: string, toPort: number): Uint8Array {
  const payload = new Uint8Array(20)
  const view = new DataView(payload.buffer)
  view.setUint16(0, 40_000)
  view.setUint16(2, toPort)
  view.setUint16(12, 0x5002)
  view.setUint16(14, 64_240)
  return ip(from, to, Protocol.tcp, payload, 64, 16)
}

/** The second part of a packet, IPv4 or IPv6 by the addresses. */
export function fragment(from: string, to: string): Uint8Array {
  if (from.includes(':')) return ip(from, to, Protocol.fragment, Uint8Array.of(6, 0, 0x02, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8))
  const whole = Buffer.from(ip(from, to, Protocol.tcp, new Uint8Array(40)))
  whole.writeUInt16BE(0x0040, 14 + 6)
  return whole
}

function ip(from: string, to: string, protocol: number, payload: Uint8Array, hopLimit = 255, checksumAt?: number): Uint8Array {
  const [source, destination] = [parseIp(from).bytes, parseIp(to).bytes]
  const packet = new Uint8Array((source.length === 4 ? 20 : 40) + payload.length)
  const view = new DataView(packet.buffer)
  const start = writeIp(packet, view, 0, { source, destination, protocol, hopLimit }, payload.length)
  packet.set(payload, start)
  if (checksumAt !== undefined) writeTransportChecksum(view, 0, protocol, start, packet.length, start + checksumAt)
  return frame(source.length === 4 ? types.ipv4 : types.ipv6, packet)
}

function solicitation(target: string): Uint8Array {
  return Buffer.concat([Uint8Array.of(135, 0, 0, 0, 0, 0, 0, 0), parseIp(target).bytes])
}

/** RFC 3810 §5.2, with the router alert of §5 in front. */
function mldReport(from: string, ...groups: readonly string[]): Uint8Array {
  const records = groups.map((group) => Buffer.concat([Uint8Array.of(4, 0, 0, 0), parseIp(group).bytes]))
  const report = Buffer.concat([Uint8Array.of(58, 0, 5, 2, 0, 0, 1, 0), Uint8Array.of(143, 0, 0, 0, 0, 0, 0, groups.length), ...records])
  return ip(from, 'ff02::16', Protocol.hopByHop, report, 1)
}

function arp(from: string, target: string): Uint8Array {
  const head = Uint8Array.of(0, 1, 0x08, 0, 6, 4, 0, 1)
  return frame(types.arp, Buffer.concat([head, locally, parseIp(from).bytes, new Uint8Array(6), parseIp(target).bytes]))
}

/** A locally administered address. */
const locally = Uint8Array.of(2, 0, 0, 0, 0, 1)

function frame(type: number, payload: Uint8Array): Uint8Array {
  return Buffer.concat([new Uint8Array(6).fill(0xff), locally, Uint8Array.of(type >> 8, type & 0xff), payload])
}
