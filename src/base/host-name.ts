import { domainToASCII } from 'node:url'
import { MalformedError } from './errors.ts'
import { formatIp, type IpAddress, isIpText, parseIp } from './ip.ts'

/** The longest name, in ASCII and without the final dot. RFC 1035 §2.3.4 */
export const HOST_NAME_CHARACTERS = 253

/** A host as it was asked for: an address, or a name. `text` is canonical: what goes into a Target. */
export type Host = { readonly type: 'ip'; readonly text: string; readonly ip: IpAddress } | { readonly type: 'name'; readonly text: string }

// RFC 1035 §2.3.1 and RFC 1123 §2.1, and the underscore of service names (RFC 8552), which is in wide use.
const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/

/**
 * Reads the host of a request: an IPv4 address, an IPv6 address with or without brackets, or a name (its final dot is dropped, capitals are lowered,
 * and international names become their ASCII form). What a resolver would take for an address in another notation (`127.1`, `0x7f000001`) is refused.
 * @throws MalformedError
 */
export function parseHost(given: string): Host {
  const bare = given.startsWith('[') && given.endsWith(']') ? given.slice(1, -1) : given
  if (isIpText(bare) && (bare === given || bare.includes(':'))) {
    const ip = parseIp(bare)
    return { type: 'ip', text: formatIp(ip), ip }
  }
  if (given.length === 0) throw new MalformedError('host', 'is empty')
  // Long before any conversion: what is far above the limit is not worth the work.
  if (given.length > HOST_NAME_CHARACTERS * 4) throw new MalformedError('host', `is longer than ${HOST_NAME_CHARACTERS} characters`)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is what is asked for
  let name = /^[\x00-\x7f]*$/.test(given) ? given.toLowerCase() : domainToASCII(given)
  if (name.endsWith('.')) name = name.slice(0, -1)
  if (name.length > HOST_NAME_CHARACTERS) throw new MalformedError('host', `is longer than ${HOST_NAME_CHARACTERS} characters`)
  const labels = name.split('.')
  if (!labels.every((part) => label.test(part))) throw new MalformedError('host', 'is neither an IP address nor a host name')
  // A last label that is a number marks an address in an old notation: inet_aton(3), WHATWG URL "ends in a number".
  if (/^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1)!)) throw new MalformedError('host', 'is a number, not a host name')
  return { type: 'name', text: name }
}

/** `host:port`, `1.2.3.4:port` or `[v6]:port`; a missing port is `defaultPort`, or refused when that is null. @throws MalformedError */
export function parseHostPort(given: string, defaultPort: number | null = null): { readonly host: Host; readonly port: number } {
  const parts = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d{1,5}))?$/.exec(given)
  if (!parts) throw new MalformedError('address', 'not of the form HOST:PORT (IPv6 addresses in brackets)')
  const port = parts[2] === undefined ? defaultPort : Number(parts[2])
  if (port === null) throw new MalformedError('address', 'has no port')
  if (port > 65535) throw new MalformedError('address', 'port is above 65535')
  return { host: parseHost(parts[1]!), port }
}

/** `host:port`, with brackets about an IPv6 address. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
