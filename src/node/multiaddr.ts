import { isIpText, parseHostPort, parseNodeId } from '../base/index.ts'

/** The forms of address that people write: `/ip4/A/tcp/P` or `/ip6/A/tcp/P`, with `/p2p/ID` where a node is named. */
export interface NodeAddress {
  readonly family: 4 | 6
  readonly host: string
  /** 0 where any free port is meant. */
  readonly port: number
  readonly id: string | null
}

/** Null when the text is none of the forms. */
export function parseNodeAddress(text: string): NodeAddress | null {
  const match = /^\/(ip4|ip6)\/([^/]+)\/tcp\/(\d{1,5})(?:\/p2p\/([^/]+))?$/.exec(text)
  if (!match) return null
  const [, protocol, host = '', portText, id] = match
  const port = Number(portText)
  if (!isIpText(host) || host.includes(':') !== (protocol === 'ip6') || port > 65_535) return null
  if (id !== undefined && !isNodeId(id)) return null
  return { family: protocol === 'ip4' ? 4 : 6, host, port, id: id ?? null }
}

/** "ADDRESS:PORT" or "[IPv6]:PORT" taken apart; null when it is neither. */
export function parseIpPort(text: string): { readonly host: string; readonly port: number } | null {
  try {
    const { host, port } = parseHostPort(text)
    return host.type === 'ip' ? { host: host.text, port } : null
  } catch {
    return null
  }
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
