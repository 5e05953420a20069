import { MalformedError, type NodeId, parseNodeId } from '../../base/index.ts'

/** An address through a relay: `/ip4/R/tcp/P/p2p/RELAY/p2p-circuit/p2p/TARGET`. */
export interface RelayedAddress {
  /** Where the relay is, with its `/p2p/RELAY`. */
  readonly relayAddress: string
  readonly relay: NodeId
  readonly target: NodeId
}

/** Null when it is an address of another form: not through exactly one relay, or one of them is not named. */
export function parseRelayedAddress(text: string): RelayedAddress | null {
  const parts = /^((?:\/[^/]+)*\/p2p\/([^/]+))\/p2p-circuit\/p2p\/([^/]+)$/.exec(text)
  if (parts === null || parts[1]!.includes('/p2p-circuit')) return null
  try {
    return { relayAddress: parts[1]!, relay: parseNodeId(parts[2]!), target: parseNodeId(parts[3]!) }
  } catch (error) {
    if (error instanceof MalformedError) return null
    throw error
  }
}

/** @param relayAddress the relay's multiaddr, with or without its `/p2p/` part */
export function formatRelayedAddress(relayAddress: string, relay: NodeId, target: NodeId): string {
  const named = relayAddress.endsWith(`/p2p/${relay}`) ? relayAddress : `${relayAddress}/p2p/${relay}`
  return `${named}/p2p-circuit/p2p/${target}`
}
