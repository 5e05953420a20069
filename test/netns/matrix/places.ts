import type { HomePlan, LinkLabel, NatKind } from '../lab/index.ts'
import { possibleLink } from '../support/expectations.ts'

/** The places that are matched against each other. `ipv6-firewalled`: IPv6 behind a firewall beside IPv4 behind a port-restricted NAT. */
export const kinds = [
  'public',
  'full-cone',
  'address-restricted',
  'port-restricted',
  'port-changing',
  'symmetric',
  'ipv6-firewalled',
] as const
export type PlaceKind = (typeof kinds)[number]

/** Two kinds; there are two places of each, so that a kind can meet itself. */
export interface Pair {
  readonly a: PlaceKind
  readonly b: PlaceKind
}

/** All kinds against all, each pair once. */
export const allPairs: readonly Pair[] = kinds.flatMap((a, i) => kinds.slice(i).map((b) => ({ a, b })))

/** What the pair has to reach: `open`: one of them needs no punching; `punched`: both let in only who was asked; `relayed`: no way but a relay. */
export type Demand = 'open' | 'punched' | 'relayed'

export function demandOf({ a, b }: Pair): Demand {
  if (a === 'public' || b === 'public') return 'open'
  if (a === 'ipv6-firewalled' && b === 'ipv6-firewalled') return 'punched'
  const [one, other] = [natOf(a), natOf(b)]
  const link = possibleLink(one, other)
  if (link === 'relayed') return 'relayed'
  // A full cone lets strangers in. A symmetric one gets into it or an address-restricted one by itself, once that has sent something.
  if (link === 'from-symmetric' || one === 'full-cone' || other === 'full-cone') return 'open'
  return 'punched'
}

/** Labels that satisfy a demand. */
export const satisfying: Readonly<Record<Demand, readonly LinkLabel[]>> = {
  open: ['direct', 'reversed', 'punched-tcp', 'punched-udp'],
  punched: ['punched-tcp', 'punched-udp'],
  relayed: ['relayed'],
}

export function homePlanOf(kind: Exclude<PlaceKind, 'public'>): HomePlan {
  return { nat: natOf(kind), ipv6: kind === 'ipv6-firewalled' ? 'firewalled' : 'none' }
}

/** The NAT that IPv4 goes through. */
function natOf(kind: Exclude<PlaceKind, 'public'>): NatKind {
  return kind === 'ipv6-firewalled' ? 'port-restricted' : kind
}
