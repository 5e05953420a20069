import type { IpAddress } from '../base/index.ts'

/** How a NAT gives out public addresses and ports for one inner socket (RFC 4787 §4.1, RFC 5780 §4.3). `none`: there is no NAT. */
export type MappingBehaviour = 'none' | 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent'
/** Whose packets a NAT or firewall lets in to a socket that has sent some (RFC 4787 §5, RFC 5780 §4.4). */
export type FilteringBehaviour = 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent'

/** A public transport address. */
export interface Endpoint {
  readonly ip: IpAddress
  readonly port: number
}

/** What STUN found out about one address family over UDP. Null is "not found out". */
export interface NatBehaviour {
  readonly family: 4 | 6
  /** Where the servers believed by the majority saw the probe come from. */
  readonly publicEndpoint: Endpoint | null
  readonly mapping: MappingBehaviour | null
  readonly filtering: FilteringBehaviour | null
  /** Whether the public port is the local one. */
  readonly portPreserved: boolean | null
  /** Whether a packet to the own public endpoint comes back in. */
  readonly hairpin: boolean | null
  /** The longest silence, ms, after which a mapping was still there; at least this long it lives. */
  readonly bindingLifetimeMs: number | null
}

/** Whether a peer that is no worse can be met by sending at the same time: the public port must not depend on the destination. */
export function isPunchable(behaviour: NatBehaviour): boolean {
  return behaviour.mapping === 'none' || behaviour.mapping === 'endpoint-independent'
}
