import { formatIp, type IpAddress, networkKey } from '../../base/index.ts'
import { addressScope } from '../../directory/index.ts'
import type { Endpoint } from '../behaviour.ts'
import { decodeEndpoint, encodeEndpoint } from './hole-punch.ts'

/** Endpoints of one kind (public IPv4, public IPv6, home network) that are told, or taken from a peer. */
export const MAX_ENDPOINTS_PER_KIND = 2
/** Below this port are the services of others. */
const FIRST_PORT = 1024

/** Where this node's listening port may be met. */
export interface OwnEndpoints {
  /** Public, as the NAT would show it; also IPv6 addresses behind a firewall. */
  readonly public: readonly Endpoint[]
  /** Whether the NAT of IPv4 gives each destination another port, so that those ports of `public` are a guess. */
  readonly isPortUnpredictable: boolean
  /** Whether that NAT is known to let in only what comes from exactly where something was sent to. */
  readonly isStrict: boolean
  /** In the home network. */
  readonly local: readonly Endpoint[]
}

/** What the peer's signed descriptor says of where it is. */
export interface PeerPlace {
  /** Its public addresses, with the ports named there. */
  readonly endpoints: readonly Endpoint[]
}

/**
 * Whether two NATs can be expected to meet. `poor`: one of them gives each destination another port; then it works only where the other lets in any
 * port of an address that was sent to. `none`: where it does not, or both are like that. `unknown`: the peer named nothing.
 */
export type Prospects = 'good' | 'poor' | 'none' | 'unknown'

/** What a peer offered, after the rules. */
export interface Accepted {
  readonly endpoints: readonly Endpoint[]
  readonly prospects: Prospects
  /** How many of its addresses the rules turned away: for the log. */
  readonly refused: number
}

/**
 * What this peer is told, as addresses of a CONNECT. Addresses of the home network are told only to a peer with the same public address: it is
 * in the same home, or behind the same carrier's NAT, and perhaps can't be met from outside. docs/spec/punching.md §3
 */
export function addressesFor(own: OwnEndpoints, peer: PeerPlace): Uint8Array[] {
  const told: Endpoint[] = []
  for (const family of [6, 4] as const) told.push(...own.public.filter(({ ip }) => ip.family === family).slice(0, MAX_ENDPOINTS_PER_KIND))
  if (isSamePlace(own, peer)) told.push(...own.local.slice(0, MAX_ENDPOINTS_PER_KIND))
  if (own.isPortUnpredictable) told.push(...own.public.filter(({ ip }) => ip.family === 4).map(({ ip }) => ({ ip, port: 0 })))
  return told.map(encodeEndpoint)
}

/**
 * Which of the peer's addresses this node will send SYNs to. The rule that keeps it from being turned on others: an address must be one that the
 * peer's signed descriptor names, at a port of 1024 or above or one named there; or, for a peer with our own public address, lie in our home
 * network. Everything else is left out, and so is what exceeds the count. docs/spec/punching.md §4
 * @param privateAllowed whether the network's rules let relays be at private addresses (a network on one machine)
 */
export function acceptAddresses(offered: readonly Uint8Array[], own: OwnEndpoints, peer: PeerPlace, privateAllowed: boolean): Accepted {
  const endpoints: Endpoint[] = []
  const counts = { public4: 0, public6: 0, local: 0 }
  const seen = new Set<string>()
  const homes = isSamePlace(own, peer) ? new Set(own.local.map(({ ip }) => homeOf(ip))) : new Set<string>()
  let isPortUnpredictable = false
  let refused = 0
  for (const bytes of offered) {
    const endpoint = decodeEndpoint(bytes)
    const kind = endpoint === null ? null : kindOf(endpoint, peer, homes, privateAllowed)
    if (endpoint === null || kind === null || isOwn(endpoint, own)) {
      refused++
      continue
    }
    if (endpoint.port === 0) {
      isPortUnpredictable = true
      continue
    }
    const key = `${formatIp(endpoint.ip)} ${endpoint.port}`
    if (seen.has(key)) continue
    if (counts[kind] === MAX_ENDPOINTS_PER_KIND) {
      refused++
      continue
    }
    seen.add(key)
    counts[kind]++
    endpoints.push(endpoint)
  }
  return { endpoints, prospects: prospectsOf(endpoints, isPortUnpredictable, own, peer), refused }
}

function prospectsOf(endpoints: readonly Endpoint[], isPeerUnpredictable: boolean, own: OwnEndpoints, peer: PeerPlace): Prospects {
  if (endpoints.length === 0 && !isPeerUnpredictable) return 'unknown'
  const isAway = ({ ip }: Endpoint): boolean => peer.endpoints.some((named) => isEqual(named.ip, ip))
  // IPv6 has no NAT, only firewalls; at home there is neither.
  const hasOwn6 = own.public.some(({ ip }) => ip.family === 6)
  if (endpoints.some((endpoint) => !isAway(endpoint) || (endpoint.ip.family === 6 && hasOwn6))) return 'good'
  const { isPortUnpredictable, isStrict } = own
  if (isPeerUnpredictable) return isPortUnpredictable || isStrict ? 'none' : 'poor'
  return isPortUnpredictable ? 'poor' : 'good'
}

/** Whether both are seen at the same public address: behind the same router, or the same carrier's. */
export function isSamePlace(own: OwnEndpoints, peer: PeerPlace): boolean {
  return own.public.some(({ ip }) => ip.family === 4 && peer.endpoints.some((other) => isEqual(other.ip, ip)))
}

/** The endpoint as `host.punch` takes it. */
export function hostAndPort(endpoint: Endpoint): { readonly host: string; readonly port: number } {
  return { host: formatIp(endpoint.ip), port: endpoint.port }
}

function kindOf(endpoint: Endpoint, peer: PeerPlace, homes: ReadonlySet<string>, privateAllowed: boolean): keyof Counts | null {
  const { ip, port } = endpoint
  const scope = addressScope(ip)
  if (scope === 'unusable') return null
  const named = peer.endpoints.filter((other) => isEqual(other.ip, ip))
  if (named.length > 0 && (scope === 'public' || privateAllowed)) {
    const isUsable = port === 0 || port >= FIRST_PORT || named.some((other) => other.port === port)
    return isUsable ? (ip.family === 4 ? 'public4' : 'public6') : null
  }
  if (scope === 'private' && port >= FIRST_PORT && homes.has(homeOf(ip))) return 'local'
  return null
}

interface Counts {
  readonly public4: number
  readonly public6: number
  readonly local: number
}

/** What counts as the same home network: routers at home give out /24s, now and then a /16; a site has a /64. */
function homeOf(ip: IpAddress): string {
  return networkKey(ip, ip.family === 4 ? 16 : 64)
}

function isOwn(endpoint: Endpoint, own: OwnEndpoints): boolean {
  return [...own.public, ...own.local].some(({ ip, port }) => port === endpoint.port && isEqual(ip, endpoint.ip))
}

function isEqual(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && a.bytes.every((byte, i) => byte === b.bytes[i])
}
