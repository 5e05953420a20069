import type { NodeId } from '../base/index.ts'
import type { FilteringBehaviour, MappingBehaviour } from './behaviour.ts'

/**
 * How others reach this node. `public`: at an address of its own; `mapped`: at a port that the router forwards on request; `punchable`: through a
 * relay first, then directly by hole punching; `relayed`: only through a relay.
 */
export type Reachability = 'unknown' | 'public' | 'mapped' | 'punchable' | 'relayed'

/** What `shallot netcheck` and the control API show of reachability: plain JSON. Wall-clock ms. */
export interface NatFacts {
  readonly state: Reachability
  /** Why, one plain sentence each, the deciding one first. */
  readonly reasons: readonly string[]
  readonly since: number
  readonly ipv4: FamilyFacts | null
  readonly ipv6: FamilyFacts | null
  /** Multiaddrs listened on, and those that the descriptor names. */
  readonly listening: readonly string[]
  readonly announced: readonly string[]
  readonly mapping: MappingFacts | null
  readonly relays: readonly ReservationFacts[]
  readonly stun: readonly StunServerFacts[]
  /** What this node can be for others as it is reached now. */
  readonly serves: readonly ServiceFacts[]
  /** What a person could do to be reached better. */
  readonly advice: readonly string[]
  /** What is missing on this machine and what that costs: "no WebRTC: …". */
  readonly lost: readonly string[]
}

export interface FamilyFacts {
  readonly local: readonly string[]
  /** "ADDRESS:PORT" as STUN servers see it. */
  readonly public: string | null
  /** The NAT in plain words: "no NAT", "full cone", "address-restricted", "port-restricted", "symmetric", "firewall" … */
  readonly kind: string
  readonly mapping: MappingBehaviour | null
  readonly filtering: FilteringBehaviour | null
  readonly portPreserved: boolean | null
  readonly hairpin: boolean | null
  readonly bindingLifetimeMs: number | null
  /** Whether dial-backs from outside came in; null when none was tried. */
  readonly dialBack: boolean | null
}

export interface MappingFacts {
  readonly protocol: 'upnp' | 'nat-pmp' | 'pcp'
  /** "ADDRESS:PORT". */
  readonly external: string
  readonly expiresAt: number
}

export interface ReservationFacts {
  readonly relay: NodeId
  readonly since: number
  readonly expiresAt: number
}

export interface StunServerFacts {
  /** "ADDRESS:PORT". */
  readonly server: string
  /** believed, did not answer, or said something else than the majority. */
  readonly verdict: 'believed' | 'silent' | 'lying' | 'alone'
  /** What it said: "ADDRESS:PORT"; null when it was silent. */
  readonly said: string | null
}

export interface ServiceFacts {
  readonly role: 'guard' | 'middle' | 'exit' | 'relay'
  readonly possible: boolean
  /** Plain words: why not, or under which condition. */
  readonly why: string
}

/** How a peer was reached: what `shallot netcheck --peer ID` shows. */
export interface ReachFacts {
  readonly peer: NodeId
  /** `direct`: this node opened the connection. `reversed`: the peer did, of itself or because it was asked to. */
  readonly how: 'direct' | 'reversed' | 'punched-tcp' | 'punched-udp' | 'relayed' | 'unreachable'
  /** From the start until cells could flow, and until they flowed as they do now, without a relay; null when that did not happen. */
  readonly reachedMs: number | null
  readonly upgradedMs: number | null
  readonly steps: readonly string[]
}
