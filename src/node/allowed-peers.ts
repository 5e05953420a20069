import { formatIp } from '../base/index.ts'
import type { Descriptor } from '../directory/index.ts'
import { addressOf } from '../path/index.ts'
import type { AllowedPeer } from '../vpn/index.ts'
import { isLoopback, parseNodeAddress } from './multiaddr.ts'

/** SSDP's group and port, where UPnP routers are looked for. UPnP Device Architecture 1.1 §1 */
const SSDP = { ip: '239.255.255.250', port: 1900 } as const
/** PCP and NAT-PMP. RFC 6887 §19 */
const PCP_PORT = 5351

/** What decides whom a node talks to besides through circuits. */
export interface PeersInput {
  /** `network.bootstrap`: multiaddrs with ids. */
  readonly bootstrap: readonly string[]
  /** The guards of the sample that the view holds: one may come into use at any moment. */
  readonly guards: readonly Descriptor[]
  /** Of a serving node: every relay it knows, since each may extend to it or ask it for the view. Null for a pure client. */
  readonly relays: readonly Descriptor[] | null
  /** Further STUN servers, ADDRESS and port, that a serving node asks; its bootstrap nodes' own are found by their addresses. */
  readonly stun: readonly { readonly ip: string; readonly port: number }[]
  /** The default gateway, where a serving node asks for a forwarded port; null when it does not. */
  readonly router: string | null
}

/**
 * Everywhere that a node itself sends to while everything else of its machine goes through circuits: each address, protocol and port once, the
 * most telling reason kept. Loopback is not of this kind: nothing of it is on a wire.
 */
export function allowedPeers(input: PeersInput): readonly AllowedPeer[] {
  const found = new Map<string, AllowedPeer>()
  const add = (ip: string, protocol: AllowedPeer['protocol'], port: number | null, why: AllowedPeer['why']): void => {
    const key = `${ip} ${protocol} ${port}`
    if (!isLoopback(ip) && !found.has(key)) found.set(key, { ip, protocol, port, why })
  }
  const addRelay = ({ addresses }: Descriptor, why: AllowedPeer['why']): void => {
    for (const { ip, protocol, port } of peersAt(addresses, why)) add(ip, protocol, port, why)
  }
  for (const guard of input.guards) addRelay(guard, 'guard')
  for (const text of input.bootstrap) {
    const address = parseNodeAddress(text)
    if (address === null) continue
    add(address.host, 'tcp', address.port, 'bootstrap')
    if (input.relays === null) continue
    // RFC 5780: the bootstrap role's server has a second port beside the first.
    add(address.host, 'udp', address.port, 'stun')
    add(address.host, 'udp', address.port + 1, 'stun')
  }
  for (const relay of input.relays ?? []) addRelay(relay, 'peer')
  for (const { ip, port } of input.stun) add(ip, 'udp', port, 'stun')
  if (input.router !== null) {
    add(input.router, 'udp', PCP_PORT, 'router')
    add(SSDP.ip, 'udp', SSDP.port, 'router')
    // A UPnP router says itself on which port it takes requests.
    add(input.router, 'tcp', null, 'router')
  }
  return [...found.values()]
}

/** The places that these multiaddrs are; those of other forms than `/ip4|ip6/A/tcp/P…` are left out. */
export function peersAt(addresses: readonly string[], why: AllowedPeer['why']): readonly AllowedPeer[] {
  return addresses.flatMap((address): AllowedPeer[] => {
    const ip = addressOf(address)
    const port = portOf(address)
    if (ip === null || port === null || isLoopback(formatIp(ip))) return []
    return [{ ip: formatIp(ip), protocol: 'tcp', port, why }]
  })
}

function portOf(multiaddr: string): number | null {
  const port = Number(/\/tcp\/(\d{1,5})(?:\/|$)/.exec(multiaddr)?.[1])
  return Number.isInteger(port) && port > 0 && port <= 65_535 ? port : null
}
