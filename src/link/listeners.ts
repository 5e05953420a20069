import type { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { formatIp, parseIp } from '../base/index.ts'
import type { BoundListener } from './port-sockets.ts'

/** An inbound connection that has sent nothing yet. */
export interface SilentConnection {
  readonly remoteAddress: string
  readonly remotePort: number
  /** Monotonic ms. */
  readonly since: number
  /** Takes the connection out of the listener's hands. */
  release(): Socket
}

/** A port that is listened on. */
export interface ListeningPort extends BoundListener {
  silent(): Iterable<SilentConnection>
}

/** The ports of a node that are listened on now. The TCP transport adds and removes them. */
export class Listeners {
  readonly #open: Set<ListeningPort> = new Set()

  add(port: ListeningPort): void {
    this.#open.add(port)
  }

  remove(port: ListeningPort): void {
    this.#open.delete(port)
  }

  [Symbol.iterator](): Iterator<ListeningPort> {
    return this.#open[Symbol.iterator]()
  }

  /** The port that a dial to `host` (an IP address) would come from: of its family, and not a loopback one for the world or the reverse. */
  portFor(host: string): ListeningPort | null {
    const ip = parseIp(host)
    const isLoopback = isLoopbackHost(host)
    let found: ListeningPort | null = null
    for (const port of this.#open) {
      if (parseIp(port.host).family !== ip.family) continue
      if (isWildcard(port.host)) found ??= port
      else if (isLoopbackHost(port.host) === isLoopback) return port
    }
    return found
  }

  /** Each address at which a port can be reached on this machine: a wildcard stands for those of all interfaces. */
  addresses(): { readonly host: string; readonly port: number }[] {
    const found = new Map<string, { host: string; port: number }>()
    for (const { host, port } of this.#open) {
      for (const one of isWildcard(host) ? interfaceAddresses(parseIp(host).family) : [host]) {
        found.set(`${one} ${port}`, { host: one, port })
      }
    }
    return [...found.values()]
  }
}

/** All addresses of the interfaces but link-local ones, which mean nothing without an interface; loopback ones only when there are no others. */
function interfaceAddresses(family: 4 | 6): string[] {
  const usable = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter((address) => address.family === `IPv${family}` && !isLinkLocalHost(address.address))
  const outer = usable.filter((address) => !address.internal)
  return (outer.length > 0 ? outer : usable).map((address) => formatIp(parseIp(address.address)))
}

/** RFC 4291 §2.5.6 fe80::/10, RFC 3927 169.254/16. */
export function isLinkLocalHost(host: string): boolean {
  const { family, bytes } = parseIp(host.replace(/%.*$/, ''))
  return family === 6 ? bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80 : bytes[0] === 169 && bytes[1] === 254
}

function isLoopbackHost(host: string): boolean {
  const ip = parseIp(host)
  return ip.family === 4 ? ip.bytes[0] === 127 : formatIp(ip) === '::1'
}

/** 0.0.0.0 or ::. */
export function isWildcard(host: string): boolean {
  return parseIp(host).bytes.every((byte) => byte === 0)
}
