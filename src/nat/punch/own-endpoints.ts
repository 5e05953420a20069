import { formatIp, type IpAddress, isIpText, parseIp } from '../../base/index.ts'
import { addressScope } from '../../directory/index.ts'
import { type ObservedEndpoint, parseTcpAddress } from '../../link/index.ts'
import type { Endpoint, NatBehaviour } from '../behaviour.ts'
import type { OwnEndpoints } from './candidates.ts'

/** What this node knows of where it is. */
export interface OwnFacts {
  /** Multiaddrs listened on, wildcards as the interfaces' addresses (`host.addresses()`). */
  readonly listening: readonly string[]
  /** What STUN found out over UDP. */
  readonly behaviours: readonly NatBehaviour[]
  /** How peers see the listening port over TCP, of connections that are still up. */
  readonly observed: readonly ObservedEndpoint[]
  /** Whether relays of this network may be at private addresses. */
  readonly privateAllowed: boolean
}

/**
 * Where the listening port can be met. IPv6 has no NAT: what is listened on. IPv4 behind NAT: the public address with the port that peers see
 * connections from the listening port come from; where nobody has told, that of a NAT which keeps ports. Peers that see different ports tell of a
 * NAT that gives each destination another one. docs/spec/punching.md §3
 */
export function ownEndpoints(facts: OwnFacts): OwnEndpoints {
  const listening = facts.listening.flatMap(directEndpoint)
  const outer = listening.filter(({ ip }) => isOuter(ip, facts.privateAllowed))
  const local = listening.filter(({ ip }) => addressScope(ip) === 'private' && !isLoopback(ip))
  const public6 = outer.filter(({ ip }) => ip.family === 6)
  const public4 = outer.filter(({ ip }) => ip.family === 4)
  const behaviour = facts.behaviours.find(({ family, publicEndpoint }) => family === 4 && publicEndpoint !== null)
  const isStrict = behaviour?.filtering === 'address-and-port-dependent'
  if (public4.length > 0) {
    return { public: [...public6, ...public4], isPortUnpredictable: false, isStrict, local: facts.privateAllowed ? [] : local }
  }
  const inner = listening.find(({ ip }) => ip.family === 4)
  const mapped = inner === undefined ? { endpoints: [], isPortUnpredictable: false } : mappedEndpoints(facts, behaviour, inner.port)
  return { public: [...public6, ...mapped.endpoints], isPortUnpredictable: mapped.isPortUnpredictable, isStrict, local }
}

/** The fewest peers whose agreement on a port outweighs what STUN found out over UDP. */
const MIN_WITNESSES = 2

function mappedEndpoints(
  facts: OwnFacts,
  behaviour: NatBehaviour | undefined,
  port: number,
): { endpoints: Endpoint[]; isPortUnpredictable: boolean } {
  const isSymmetric = behaviour?.mapping === 'address-dependent' || behaviour?.mapping === 'address-and-port-dependent'
  const votes = new Map<string, { endpoint: Endpoint; count: number }>()
  for (const seen of facts.observed) {
    if (seen.localPort !== port || !isIpText(seen.host)) continue
    const ip = parseIp(seen.host)
    if (ip.family !== 4 || !isOuter(ip, facts.privateAllowed)) continue
    const key = `${formatIp(ip)} ${seen.port}`
    const vote = votes.get(key) ?? { endpoint: { ip, port: seen.port }, count: 0 }
    vote.count++
    votes.set(key, vote)
  }
  const ranked = [...votes.values()].sort((a, b) => b.count - a.count)
  const total = ranked.reduce((sum, { count }) => sum + count, 0)
  const [first] = ranked
  if (first !== undefined) {
    // One who says otherwise may be wrong or lie; several different answers are a NAT that makes a mapping for each destination.
    const isAgreed = (ranked.length === 1 || first.count * 2 > total) && (first.count >= MIN_WITNESSES || !isSymmetric)
    return { endpoints: isAgreed ? [first.endpoint] : ranked.map(({ endpoint }) => endpoint), isPortUnpredictable: !isAgreed }
  }
  // A NAT that gives out another port, and nobody who has seen which: better nothing than a wrong one.
  if (behaviour === undefined || (behaviour.portPreserved === false && !isSymmetric)) return { endpoints: [], isPortUnpredictable: false }
  return { endpoints: [{ ip: behaviour.publicEndpoint!.ip, port }], isPortUnpredictable: isSymmetric }
}

/** Of a multiaddr for direct links; others are of no use here. */
export function directEndpoint(address: string): Endpoint[] {
  const tcp = parseTcpAddress(address)
  return tcp === null || !tcp.isDirect ? [] : [{ ip: parseIp(tcp.host), port: tcp.port }]
}

/** Whether peers elsewhere can use it: where relays may be at private addresses, those too. */
function isOuter(ip: IpAddress, privateAllowed: boolean): boolean {
  const scope = addressScope(ip)
  return scope === 'public' || (scope === 'private' && privateAllowed)
}

function isLoopback(ip: IpAddress): boolean {
  return ip.family === 4 ? ip.bytes[0] === 127 : formatIp(ip) === '::1'
}
