import { type IpNetwork, networkContains, parseIp, parseNetwork } from '../../../src/base/index.ts'
import { colons, dotted } from '../lab/index.ts'

/** What an Ethernet frame says, read apart from the project's own codecs. What is cut or makes no sense has no protocol. */
export interface Frame {
  readonly etherType: number
  readonly ip: IpPart | null
  /** Of ARP: operation and the address asked for or told. */
  readonly arp: { readonly operation: number; readonly target: string } | null
}

export interface IpPart {
  readonly family: 4 | 6
  readonly source: string
  readonly destination: string
  readonly hopLimit: number
  /** The upper protocol's number. */
  readonly protocol: number
  readonly isFragment: boolean
  /** Of TCP and UDP, where there. */
  readonly sourcePort: number | null
  readonly destinationPort: number | null
  /** Of ICMP and ICMPv6. */
  readonly icmp: IcmpPart | null
}

export interface IcmpPart {
  readonly type: number
  readonly code: number
  /** Of neighbour discovery. */
  readonly target: string | null
  /** Of an MLD report: the groups it names; null when they are not all there to be read. */
  readonly groups: readonly string[] | null
}

const ARP = 0x0806
const IPV4 = 0x0800
const IPV6 = 0x86dd
const TCP = 6
const UDP = 17
const ICMP = 1
const ICMP6 = 58
const etherBytes = 14

export function parseFrame(frame: Buffer): Frame {
  const etherType = frame.length >= etherBytes ? frame.readUInt16BE(12) : -1
  const rest = frame.subarray(etherBytes)
  return { etherType, ip: parseIpPart(etherType, rest), arp: etherType === ARP ? parseArp(rest) : null }
}

/** RFC 826 for Ethernet and IPv4. */
function parseArp(bytes: Buffer): Frame['arp'] {
  if (bytes.length < 28 || bytes.readUInt16BE(2) !== IPV4) return null
  const operation = bytes.readUInt16BE(6)
  // A reply tells the sender's address, a request asks for the target's.
  return { operation, target: dotted(bytes, operation === 1 ? 24 : 14) }
}

function parseIpPart(etherType: number, bytes: Buffer): IpPart | null {
  if (etherType === IPV4 && bytes.length >= 20 && bytes[0]! >> 4 === 4) {
    const isFragment = (bytes.readUInt16BE(6) & 0x3fff) !== 0
    const start = (bytes[0]! & 15) * 4
    const ends = { family: 4, source: dotted(bytes, 12), destination: dotted(bytes, 16), hopLimit: bytes[8]! } as const
    return { ...ends, protocol: bytes[9]!, isFragment, ...upper(bytes[9]!, bytes.subarray(start), isFragment) }
  }
  if (etherType === IPV6 && bytes.length >= 40 && bytes[0]! >> 4 === 6) {
    const { protocol, start, isFragment } = walkExtensions(bytes)
    const ends = { family: 6, source: colons(bytes, 8), destination: colons(bytes, 24), hopLimit: bytes[7]! } as const
    return { ...ends, protocol, isFragment, ...upper(protocol, bytes.subarray(start), isFragment) }
  }
  return null
}

/** RFC 8200 §4. */
function walkExtensions(bytes: Buffer): { protocol: number; start: number; isFragment: boolean } {
  let protocol = bytes[6]!
  let start = 40
  let isFragment = false
  while ([0, 43, 44, 60].includes(protocol) && bytes.length >= start + 8) {
    if (protocol === 44) isFragment = true
    const length = protocol === 44 ? 8 : (bytes[start + 1]! + 1) * 8
    protocol = bytes[start]!
    start += length
  }
  return { protocol, start, isFragment }
}

function upper(protocol: number, bytes: Buffer, isFragment: boolean): Pick<IpPart, 'sourcePort' | 'destinationPort' | 'icmp'> {
  const none = { sourcePort: null, destinationPort: null, icmp: null }
  if (isFragment || bytes.length < 8) return none
  if (protocol === TCP || protocol === UDP) return { ...none, sourcePort: bytes.readUInt16BE(0), destinationPort: bytes.readUInt16BE(2) }
  if (protocol === ICMP || protocol === ICMP6) {
    const [type, code] = [bytes[0]!, bytes[1]!]
    const target = protocol === ICMP6 && (type === 135 || type === 136) && bytes.length >= 24 ? colons(bytes, 8) : null
    return { ...none, icmp: { type, code, target, groups: protocol === ICMP6 ? groupsOf(bytes) : null } }
  }
  return none
}

/** RFC 3810 §5.2, and RFC 2710 §3: report (131) and done (132). */
function groupsOf(bytes: Buffer): readonly string[] | null {
  if ((bytes[0] === 131 || bytes[0] === 132) && bytes.length >= 24) return [colons(bytes, 8)]
  if (bytes[0] !== 143) return null
  const groups: string[] = []
  let at = 8
  for (let left = bytes.readUInt16BE(6); left > 0; left--) {
    if (bytes.length < at + 20) return null
    groups.push(colons(bytes, at + 4))
    at += 20 + bytes.readUInt16BE(at + 2) * 16 + bytes[at + 1]! * 4
  }
  return groups
}

/** What keeps a link itself going, and tells nobody beyond it anything. */
export type LinkControl = 'ARP' | 'neighbour discovery' | 'DHCP'

const linkLocal = ['169.254.0.0/16', 'fe80::/10'].map(parseNetwork)
const linkMulticast = parseNetwork('ff02::/16')
/** RFC 4291 §2.7.1: where neighbour solicitations for an address go. */
const solicitedNode = parseNetwork('ff02::1:ff00:0/104')

/**
 * The only place that decides what is link control; null: it is not. ARP and neighbour discovery for an address beyond the link tell where the
 * machine wants to go, so those are not; nor are IGMP, mDNS, and router advertisements, which a client has no reason to send. MLD is only for the
 * groups of neighbour discovery itself, without which a switch that listens to MLD (RFC 4541) withholds it: other groups tell which programs run.
 * @param networks the link's own
 */
export function linkControl({ arp, ip }: Frame, networks: readonly IpNetwork[]): LinkControl | null {
  const onLink = (text: string): boolean => [...networks, ...linkLocal].some((network) => networkContains(network, parseIp(text)))
  if (arp) return (arp.operation === 1 || arp.operation === 2) && onLink(arp.target) ? 'ARP' : null
  if (!ip || ip.isFragment) return null
  const stays = onLink(ip.destination) || networkContains(linkMulticast, parseIp(ip.destination))
  if (ip.protocol === ICMP6 && ip.icmp) {
    const { type, code, target, groups } = ip.icmp
    if (groups !== null && ip.hopLimit === 1 && stays && groups.every((group) => networkContains(solicitedNode, parseIp(group))))
      return 'neighbour discovery'
    // RFC 4861 §4.1, §4.3, §4.4: solicitations of routers and neighbours, advertisements of neighbours; from here, as the hop limit proves.
    const isDiscovery = type === 133 || ((type === 135 || type === 136) && target !== null && onLink(target))
    return isDiscovery && code === 0 && ip.hopLimit === 255 && stays ? 'neighbour discovery' : null
  }
  if (ip.protocol === UDP) {
    const four = ip.family === 4 && ip.sourcePort === 68 && ip.destinationPort === 67
    if (four && (ip.destination === '255.255.255.255' || onLink(ip.destination))) return 'DHCP'
    if (ip.family === 6 && ip.sourcePort === 546 && ip.destinationPort === 547 && stays) return 'DHCP'
  }
  return null
}

/** One line for a person. */
export function describeFrame({ etherType, ip, arp }: Frame): string {
  if (arp) return `ARP ${arp.operation === 1 ? 'who has' : 'says it is'} ${arp.target}`
  if (!ip) return `a frame of type 0x${etherType.toString(16).padStart(4, '0')}`
  const names: Readonly<Record<number, string>> = { [TCP]: 'TCP', [UDP]: 'UDP', [ICMP]: 'ICMP', [ICMP6]: 'ICMPv6', 2: 'IGMP' }
  const name = names[ip.protocol] ?? `protocol ${ip.protocol}`
  const groups = ip.icmp?.groups?.length ? ` of ${ip.icmp.groups.join(', ')}` : ''
  const more = ip.isFragment ? ' fragment' : ip.icmp ? ` type ${ip.icmp.type} code ${ip.icmp.code}${groups}` : ''
  const end = (address: string, port: number | null): string => (port === null ? address : `${address} port ${port}`)
  return `${name}${more} from ${end(ip.source, ip.sourcePort)} to ${end(ip.destination, ip.destinationPort)}`
}
