import { type IpAddress, type NodeId, networkKey, type Random } from '../../base/index.ts'
import { parseRelayAddress, type RelayEntry, type View } from '../../directory/index.ts'

/** A relay that could stand in front of this node. */
export interface RelayCandidate {
  readonly id: NodeId
  /** libp2p multiaddrs, `/ip4/A/tcp/P`. */
  readonly addresses: readonly string[]
  readonly ips: readonly IpAddress[]
  /** Relays it says are run by the same people. */
  readonly family: readonly NodeId[]
  /** It is chosen in proportion to this. */
  readonly weight: number
}

/** Like path's rules: two relays in one of these networks may well be one operator's. */
const NETWORK_BITS = { 4: 16, 6: 32 } as const

/**
 * The relays of the view that a node behind NAT may reserve with: role `relay`, reached directly, good enough for one's own paths.
 * In a view where none is, those that are merely known: a node that nobody reaches is worse.
 */
export function relayCandidates(view: View, now: number, self: NodeId): RelayCandidate[] {
  const isUsable = ({ id, descriptor }: RelayEntry): boolean =>
    id !== self && descriptor.roles.includes('relay') && descriptor.reach.kind === 'direct' && descriptor.expiresAt > now
  const eligible = view.eligible(now, 'relay').filter(isUsable)
  const entries = eligible.length > 0 ? eligible : view.relays().filter(isUsable)
  return entries
    .map(({ id, descriptor }) => {
      const addresses = descriptor.addresses.filter((text) => !text.endsWith('/tls'))
      return { id, addresses, ips: addresses.map((text) => parseRelayAddress(text).ip), family: descriptor.family, weight: view.weight(id) }
    })
    .filter(({ addresses }) => addresses.length > 0)
}

/** Whether two relays look like one operator's: the same /16 (IPv4) or /32 (IPv6), or a family that both declare. */
export function areNeighbours(a: RelayCandidate, b: RelayCandidate): boolean {
  if (a.family.includes(b.id) && b.family.includes(a.id)) return true
  const networks = new Set(a.ips.map(network))
  return b.ips.some((ip) => networks.has(network(ip)))
}

export interface RelayChoice {
  readonly candidates: readonly RelayCandidate[]
  /** Those that are in front of the node already, or being asked. */
  readonly taken: readonly RelayCandidate[]
  /** Relays to come back to, the best first. */
  readonly preferred: readonly NodeId[]
  /** Whether a relay may be tried now. */
  readonly isUsable: (id: NodeId) => boolean
}

/**
 * The relay to ask next, or null: of those that are no neighbours of the ones taken (when there is any), one that is preferred, else one drawn by
 * weight.
 */
export function chooseRelay({ candidates, taken, preferred, isUsable }: RelayChoice, random: Random): RelayCandidate | null {
  const left = candidates.filter(({ id }) => isUsable(id) && !taken.some((other) => other.id === id))
  const diverse = left.filter((candidate) => !taken.some((other) => areNeighbours(candidate, other)))
  // Two relays of one operator are no worse than the one alone, and one of them may fail.
  const choice = diverse.length > 0 ? diverse : left
  for (const id of preferred) {
    const found = choice.find((candidate) => candidate.id === id)
    if (found) return found
  }
  return draw(choice, random)
}

function draw(candidates: readonly RelayCandidate[], random: Random): RelayCandidate | null {
  if (candidates.length === 0) return null
  // What was never measured has its chance too.
  const weights = candidates.map(({ weight }) => Math.max(1, weight))
  let at = random.unit() * weights.reduce((sum, weight) => sum + weight, 0)
  for (const [i, weight] of weights.entries()) {
    at -= weight
    if (at < 0) return candidates[i]!
  }
  return candidates.at(-1)!
}

function network(ip: IpAddress): string {
  return networkKey(ip, NETWORK_BITS[ip.family])
}
