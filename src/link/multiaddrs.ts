import { isIP } from 'node:net'
import { MalformedError, type NodeId, parseNodeId } from '../base/index.ts'

/** A TCP address of a node. */
export interface TcpAddress {
  /** An IP address in text. */
  readonly host: string
  readonly port: number
  /** Whether it is for direct links (`/tls`); else for libp2p. */
  readonly isDirect: boolean
  /** From a trailing `/p2p/ID`. */
  readonly id: NodeId | null
}

/**
 * Reads `/ip4/A/tcp/P`, `/ip6/A/tcp/P`, with `/tls` for a direct link, and optionally `/p2p/ID` at the end.
 * Null when it is a multiaddr of another form (a name, another transport).
 * @throws MalformedError when it is of this form, but its address, port or id is not one
 */
export function parseTcpAddress(text: string): TcpAddress | null {
  const parts = /^\/(ip4|ip6)\/([^/]+)\/tcp\/([^/]+)(\/tls)?(?:\/p2p\/([^/]+))?$/.exec(text)
  if (parts === null) return null
  const [, family, host = '', portText = '', tls, id] = parts
  if (isIP(host) !== (family === 'ip4' ? 4 : 6) || host.includes('%')) throw new MalformedError('multiaddr', `not an ${family} address`)
  const port = Number(portText)
  if (!/^\d{1,5}$/.test(portText) || port > 65535) throw new MalformedError('multiaddr', 'port is not 0 to 65535')
  return { host, port, isDirect: tls !== undefined, id: id === undefined ? null : parseNodeId(id) }
}

/** The same, with null for what is malformed too. */
export function tryTcpAddress(text: string): TcpAddress | null {
  try {
    return parseTcpAddress(text)
  } catch {
    return null
  }
}

/** The same in reverse. */
export function formatTcpAddress(host: string, port: number, isDirect: boolean): string {
  return `/${isIP(host) === 6 ? 'ip6' : 'ip4'}/${host}/tcp/${port}${isDirect ? '/tls' : ''}`
}

/** The local address to dial `host` from, or undefined to let the system choose. */
export function outboundAddressFor(host: string, outboundAddress: string, listen: readonly string[]): string | undefined {
  if (outboundAddress !== 'auto') return isIP(outboundAddress) === isIP(host) ? outboundAddress : undefined
  if (!host.startsWith('127.')) return undefined
  // On a testnet every node has a loopback address of its own: peers should see it.
  for (const text of listen) {
    const address = parseTcpAddress(text)
    if (address?.host.startsWith('127.') === true) return address.host
  }
  return undefined
}

/** The relay that a connection at this multiaddr goes through (`/…/p2p/RELAY/p2p-circuit`, and no transport of its own after it), or null. */
export function relayOf(text: string): NodeId | null {
  const relay = /\/p2p\/([^/]+)\/p2p-circuit(?:\/p2p\/[^/]+)?$/.exec(text)?.[1]
  if (relay === undefined) return null
  try {
    return parseNodeId(relay)
  } catch {
    return null
  }
}

/** The IP address that a multiaddr begins with: for one through a relay, the relay's. The whole text where it begins otherwise. */
export function hostOf(text: string): string {
  return /^\/ip[46]\/([^/]+)/.exec(text)?.[1] ?? text
}
