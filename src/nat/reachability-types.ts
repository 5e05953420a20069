import type { IpAddress, NodeId } from '../base/index.ts'
import type { TcpAddress } from '../link/index.ts'
import type { CheckState, DialBackVerdict } from './address-checks.ts'
import type { NatBehaviour } from './behaviour.ts'
import type { MappingFacts, Reachability as ReachState, ReservationFacts } from './facts.ts'

/** What `Reachability` is told, with the time. */
export type ReachabilityEvent =
  /** The plain multiaddrs that are listened on, wildcard ones as the addresses of the interfaces (`host.addresses()`). */
  | { readonly type: 'listening'; readonly addresses: readonly string[] }
  /** What the operator says to announce (`node.advertise`). */
  | { readonly type: 'advertise'; readonly addresses: readonly string[] }
  /** STUN servers of the family were asked over UDP; null when none answered. Not sent when there was none to ask; IPv4 before IPv6. */
  | { readonly type: 'stun'; readonly family: 4 | 6; readonly behaviour: NatBehaviour | null }
  /** A peer in this network (`networkKey`) says that it sees this node at the address. */
  | { readonly type: 'observed'; readonly ip: IpAddress; readonly network: string }
  /** A round of dial-backs to one address. `available`: how many peers of different networks could have been asked. */
  | {
      readonly type: 'dial-back'
      readonly address: string
      readonly available: number
      readonly verdicts: readonly DialBackVerdict[]
    }
  /** A port mapping was gained, renewed or lost; `problem` says in plain words why there is none. */
  | { readonly type: 'mapping'; readonly mapping: MappingFacts | null; readonly problem: string | null }
  /** All reservations held with relays now. */
  | { readonly type: 'reservations'; readonly reservations: readonly ReservationFacts[] }
  /** Whether this node can punch holes by TCP or UDP at all. */
  | { readonly type: 'punching'; readonly tcp: boolean; readonly udp: boolean }
  /** This machine is somewhere else, or was asleep. */
  | { readonly type: 'network-changed' }

export interface ReachabilityOptions {
  /** `network.admission.privateAddresses`: private addresses may be announced as they are. */
  readonly privateAddresses: boolean
  /** Whether the router may be asked for a port. */
  readonly mapping: boolean
  /** Reservations to hold while others need a relay to reach this node; 0 when relays may not be used. */
  readonly reservations: number
  readonly advertise?: readonly string[]
  /** Wall-clock ms, as everywhere here. */
  readonly now: number
}

/** What the descriptor may say. */
export interface Announcement {
  /** At most one address of each family, each for libp2p and, with `/tls`, for direct links; IPv4 first. */
  readonly addresses: readonly string[]
  readonly reach: { readonly kind: 'direct' } | { readonly kind: 'relayed'; readonly via: readonly NodeId[]; readonly punchable: boolean }
}

/** What the node should do now. */
export interface Wants {
  readonly mapping: boolean
  readonly reservations: number
  /** Addresses to have dialled from outside now. One stays here until its `dial-back` event comes. */
  readonly dialBacks: readonly string[]
  /** Whether STUN should be asked (again). */
  readonly stun: boolean
}

/** Where a direct address comes from. */
export type DirectSource = 'advertised' | 'interface' | 'mapping' | 'forward'

/** What is known of one address family. */
export interface FamilyView {
  readonly family: 4 | 6
  readonly state: ReachState
  /** Multiaddrs of this machine in the family, without loopback and link-local ones. */
  readonly local: readonly TcpAddress[]
  /** By STUN, else by what peers say, else the own interface. */
  readonly publicIp: IpAddress | null
  readonly behaviour: NatBehaviour | null
  /** STUN was asked, and nobody answered. */
  readonly isSilent: boolean
  readonly direct: { readonly address: string; readonly source: DirectSource; readonly check: CheckState } | null
  /** An own public address that peers outside could not connect to. */
  readonly isFirewalled: boolean
}

/** What words are made of. */
export interface Situation {
  readonly state: ReachState
  readonly families: readonly FamilyView[]
  readonly announce: Announcement | null
  readonly mapping: MappingFacts | null
  readonly mappingProblem: string | null
  readonly mappingEnabled: boolean
  readonly reservations: number
  /** Whether relays may be used at all. */
  readonly usesRelays: boolean
  readonly punching: { readonly tcp: boolean; readonly udp: boolean }
  readonly port: number | null
  readonly warning: string | null
}
