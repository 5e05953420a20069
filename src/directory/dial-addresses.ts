import type { Descriptor } from './descriptor.ts'
import type { View } from './view.ts'

/** Whether others can be reached through this node: it has the role `relay` and is itself reached directly. */
export function carriesOthers(descriptor: Descriptor): boolean {
  return descriptor.reach.kind === 'direct' && descriptor.roles.includes('relay')
}

/**
 * Where a node of the view is dialled: a direct one at its own addresses; one behind NAT at each of its NAT relays that is known and carries
 * others, as `/ip4/A/tcp/P/p2p/RELAY/p2p-circuit`. Its own addresses are its NAT's, where nobody answers who did not punch first.
 * @param throughRelays whether the caller dials through NAT relays at all; a client never does
 * @returns multiaddrs; none when there is no way but a connection that stands already
 */
export function dialAddresses(view: Pick<View, 'get' | 'isKnown'>, descriptor: Descriptor, throughRelays = true): readonly string[] {
  const { reach } = descriptor
  if (reach.kind === 'direct') return descriptor.addresses
  if (!throughRelays) return []
  return reach.via.flatMap((id) => {
    const relay = view.isKnown(id) ? view.get(id)!.descriptor : null
    if (relay === null || !carriesOthers(relay)) return []
    return relay.addresses.filter((address) => !address.endsWith('/tls')).map((address) => `${address}/p2p/${id}/p2p-circuit`)
  })
}
