import { type IpAddress, isIpText, type NodeId, networkKey, parseIp } from '../base/index.ts'
import { carriesOthers, type Descriptor, type PolicySummary } from '../directory/index.ts'
import { PACKET_VERSIONS } from './constraints.ts'

/** A place in a circuit, in the order of the hops. */
export type Position = 'guard' | 'middle' | 'exit'
export const POSITIONS: readonly Position[] = ['guard', 'middle', 'exit']

/** Two relays within one network of this size never share a path. Design §8, the sizes Tor (path-spec §2.2) uses. */
export const DIVERSITY_BITS_IPV4 = 16
export const DIVERSITY_BITS_IPV6 = 32

/** Addresses of one descriptor that are looked at; a descriptor holds fewer. */
const MAX_ADDRESSES = 32

/** What the choice of a path needs to know of a relay. Immutable; made once per descriptor and view entry. */
export interface RelayFacts {
  readonly id: NodeId
  readonly positions: readonly Position[]
  /** Bytes a second the chooser believes: the lower of the claim and the cap (or, once there is one, of the claim and the measured rate). */
  readonly weight: number
  /** Second tier of the view: good enough for one's own paths. */
  readonly eligible: boolean
  /** The same as a guard, which must have been known for longer. */
  readonly eligibleAsGuard: boolean
  /** `punchable`: behind NAT, with direct links once a hole is punched; `relayed`: behind NAT, only ever through its NAT relays. */
  readonly reach: 'direct' | 'punchable' | 'relayed'
  /** Whether others can be reached through it: only then does it count as a NAT relay that works. */
  readonly canRelay: boolean
  /** The IP addresses it is at: its own, or behind NAT those of its NAT. */
  readonly addresses: readonly IpAddress[]
  /** Keys of the /16 and /32 networks of those addresses, without repetition. */
  readonly networks: readonly string[]
  /** Whom it declares as its family. Counts only where the other declares it too. */
  readonly family: readonly NodeId[]
  /** The NAT relays in front of it; empty when it is reached directly. */
  readonly via: readonly NodeId[]
  readonly exitPolicy: PolicySummary | null
  readonly circuitVersions: readonly number[]
  /** Whether it serves raw packets in a version of ours. */
  readonly servesPackets: boolean
}

/** What the view adds to a descriptor. */
export interface RelayExtra {
  /** Bytes a second, 0 or more. `beliefOf` makes it from claim, cap and measurement. */
  readonly weight: number
  readonly eligible: boolean
  /** As `eligible` when not given. */
  readonly eligibleAsGuard?: boolean
}

/** The facts of a descriptor. Addresses that hold no IP (names) are left out. */
export function factsOf(descriptor: Descriptor, extra: RelayExtra): RelayFacts {
  const addresses: IpAddress[] = []
  const networks = new Set<string>()
  for (const text of descriptor.addresses.slice(0, MAX_ADDRESSES)) {
    const address = addressOf(text)
    if (!address) continue
    addresses.push(address)
    networks.add(diversityNetwork(address))
  }
  return {
    id: descriptor.id,
    positions: POSITIONS.filter((position) => descriptor.roles.includes(position)),
    weight: extra.weight,
    eligible: extra.eligible,
    eligibleAsGuard: extra.eligible && (extra.eligibleAsGuard ?? true),
    addresses,
    networks: [...networks],
    family: descriptor.family,
    reach: descriptor.reach.kind === 'direct' ? 'direct' : descriptor.reach.punchable ? 'punchable' : 'relayed',
    canRelay: carriesOthers(descriptor),
    via: descriptor.reach.kind === 'relayed' ? descriptor.reach.via : [],
    exitPolicy: descriptor.exitPolicy,
    circuitVersions: descriptor.protocols.circuit,
    servesPackets: descriptor.protocols.packet.some((version) => PACKET_VERSIONS.includes(version)),
  }
}

/** The weight rule of design §7: the lower of claim and cap until measured, then the lower of claim and measurement. Bytes a second. */
export function beliefOf(claim: number, cap: number, measured: number | null): number {
  return Math.max(0, Math.min(claim, measured ?? cap))
}

/** The key of the network that diversity rules compare: the /16 of an IPv4, the /32 of an IPv6 address. */
export function diversityNetwork(address: IpAddress): string {
  return networkKey(address, address.family === 4 ? DIVERSITY_BITS_IPV4 : DIVERSITY_BITS_IPV6)
}

/** The IP address a multiaddr text begins with (`/ip4/…`, `/ip6/…`), or null. */
export function addressOf(multiaddr: string): IpAddress | null {
  const [empty, protocol, host] = multiaddr.split('/', 3)
  if (empty !== '' || (protocol !== 'ip4' && protocol !== 'ip6') || host === undefined || !isIpText(host)) return null
  return parseIp(host)
}
