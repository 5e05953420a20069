import { isIpText, parseNodeId } from '../base/index.ts'

/** The forms of address a node has: `/ip4/A/tcp/P`, with `/tls` for direct links, and with `/p2p/ID` where a node is named. */
export interface NodeAddress {
  readonly family: 4 | 6
  readonly host: string
  readonly port: number
  readonly tls: boolean
  readonly id: string | null
}

/** Null when the text is none of the forms. */
export function parseNodeAddress(text: string): NodeAddress | null {
  const match = /^\/(ip4|ip6)\/([^/]+)\/tcp\/(\d{1,5})(\/tls)?(?:\/p2p\/([^/]+))?$/.exec(text)
  if (!match) return null
  const [, protocol, host = '', portText, tls, id] = match
  const port = Number(portText)
  if (!isIpText(host) || host.includes(':') !== (protocol === 'ip6') || port > 65_535) return null
  if (id !== undefined && !isNodeId(id)) return null
  return { family: protocol === 'ip4' ? 4 : 6, host, port, tls: tls !== undefined, id: id ?? null }
}

/** "HOST:PORT", with brackets around IPv6. */
export function hostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** "HOST:PORT" or "[IPv6]:PORT" taken apart; null when it is neither or the host is not an IP address. */
export function parseHostPort(text: string): { readonly host: string; readonly port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text)
  if (!match) return null
  const host = match[1] ?? match[2]!
  const port = Number(match[3])
  return isIpText(host) && port <= 65_535 ? { host, port } : null
}

/** Whether an IP address in text only reaches this machine. */
export function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1'
}

/** Whether an IP address in text stands for all of this machine's. */
export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || /^[0:]+$/.test(host)
}

function isNodeId(text: string): boolean {
  try {
    parseNodeId(text)
    return true
  } catch {
    return false
  }
}
