import { equalBytes, formatHostPort, formatIp, type IpAddress, ipFromBytes, MalformedError, parseHostPort } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'

/** "ADDRESS:PORT", an IPv6 address in brackets. */
export function formatEndpoint({ ip, port }: Endpoint): string {
  return formatHostPort(formatIp(ip), port)
}

/** "ADDRESS:PORT", an IPv6 address in brackets; names are refused. @throws MalformedError */
export function parseEndpoint(text: string): Endpoint {
  const { host, port } = parseHostPort(text)
  if (host.type !== 'ip') throw new MalformedError('endpoint', 'not of the form ADDRESS:PORT')
  return { ip: host.ip, port }
}

export function sameIp(a: IpAddress, b: IpAddress): boolean {
  return equalBytes(a.bytes, b.bytes)
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && sameIp(a.ip, b.ip)
}

/** A copy that no longer shares memory with a datagram. */
export function ownEndpoint(endpoint: Endpoint): Endpoint {
  return { ip: ipFromBytes(endpoint.ip.bytes.slice()), port: endpoint.port }
}

/** Where an address can be meant for: two addresses of different scopes do not belong to one server. */
export type Scope = 'none' | 'loopback' | 'link-local' | 'private' | 'multicast' | 'public'

/** RFC 6890, as far as it matters for whom a datagram may be sent to. */
export function scopeOf({ family, bytes }: IpAddress): Scope {
  const [a = 0, b = 0] = bytes
  if (family === 4) {
    if (a === 0) return 'none'
    if (a === 127) return 'loopback'
    if (a >= 224) return a === 255 ? 'none' : 'multicast'
    if (a === 169 && b === 254) return 'link-local'
    const isPrivate = a === 10 || (a === 172 && (b & 0xf0) === 16) || (a === 192 && b === 168) || (a === 100 && (b & 0xc0) === 64)
    return isPrivate ? 'private' : 'public'
  }
  if (bytes.subarray(0, 15).every((byte) => byte === 0)) return bytes[15] === 1 ? 'loopback' : 'none'
  if (a === 0xff) return 'multicast'
  if (a === 0xfe && (b & 0xc0) === 0x80) return 'link-local'
  return (a & 0xfe) === 0xfc ? 'private' : 'public'
}
