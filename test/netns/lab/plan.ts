import type { HomeIpv6, NatKind } from './nat-kinds.ts'
import type { WireOptions } from './wire.ts'

/** What a lab is built from. Names are lower-case letters, digits and dashes, unique in the lab. */
export interface LabPlan {
  /** Machines with public addresses, each in a /16 (and a /32 of IPv6) of its own. */
  readonly hosts?: Readonly<Record<string, HostPlan>>
  /** Machines behind a router, each router in a /16 of its own. */
  readonly homes?: Readonly<Record<string, HomePlan>>
}

export interface HostPlan {
  /** How many IPv4 addresses it has, all of its /16. Default 1. */
  readonly addresses?: number
  /** Default true. */
  readonly ipv6?: boolean
  /** Routers in a row between the internet and the host, `NAME-router1` next to the internet: hops for a traceroute. Default none, at most 8. */
  readonly routers?: number
  readonly wire?: WireOptions
}

export interface HomePlan {
  /** How IPv4 leaves the home; null: the home has no IPv4. */
  readonly nat: NatKind | null
  /** Default none. */
  readonly ipv6?: HomeIpv6
  /** Names of the machines at home; the first is the one meant when none is named. Default one: "pc". */
  readonly machines?: readonly string[]
  /** A carrier's NAT between the router and the internet (RFC 6598): then the router's own address is 100.64.0.2. */
  readonly carrier?: NatKind
  /** How long a silent UDP mapping lives, seconds. Default 60. */
  readonly mappingTimeoutS?: number
  /** The wire between the router (or the carrier) and the internet. Default: one that neither delays nor loses. */
  readonly wire?: WireOptions
}

/** Addresses of the n-th place on the public net. libp2p takes 11.0.0.0/8 and 2000::/3 for public, as the world does. */
export function publicNet(n: number): PublicNet {
  const hex = n.toString(16)
  return {
    gateway: `11.${n}.0.1`,
    address: (i) => `11.${n}.0.${2 + i}`,
    gateway6: `2a0f:${hex}::1`,
    address6: `2a0f:${hex}::2`,
    home6: `2a0f:${hex}:1::`,
  }
}

export interface PublicNet {
  readonly gateway: string
  /** @param i which of its addresses, from 0 */
  readonly address: (i: number) => string
  readonly gateway6: string
  readonly address6: string
  /** The /64 that is delegated to a home, as the beginning of addresses. */
  readonly home6: string
}
