import { formatIp, type IpAddress, MalformedError, parseHost } from '../base/index.ts'
import type { Target } from '../onion/index.ts'
import type { DatagramPort } from '../relaying/index.ts'
import type { Endpoint, ExitBackend, UdpPort } from './backend.ts'
import type { ExitConfig } from './config.ts'
import type { ExitPolicy } from './policy.ts'
import type { Resolver } from './resolver.ts'
import type { ByteRate } from './throttle.ts'

/** Datagrams that wait for the address of one name. */
export const MAX_DATAGRAMS_PER_NAME = 8
/** Names under way at once in one association. */
export const MAX_NAMES_UNDER_WAY = 8
/** How long the way to a target is remembered before policy and name are asked again. */
const ROUTE_MS = 30_000
/** Bytes that may wait in a UDP socket's queue. */
const SEND_QUEUE_BYTES = 262_144

export interface DatagramCounts {
  sent: number
  received: number
  /** By policy, limits, rates, missing names, and strangers. */
  dropped: number
}

export interface ExitDatagramsModules {
  readonly config: Pick<ExitConfig, 'udpIdleTimeoutMs' | 'maxUdpPeers'>
  readonly backend: ExitBackend
  readonly resolver: Resolver
  readonly policy: ExitPolicy
  readonly rates: readonly ByteRate[]
  readonly counts: DatagramCounts
  readonly receive: (from: Target, bytes: Uint8Array) => void
  /** Called once when it is closed, by whomever. */
  readonly closed: () => void
  readonly now: () => number
}

/** Where datagrams to a target go: an address, nowhere, or not known yet. */
type Route =
  | { readonly is: 'open'; readonly to: Endpoint; readonly until: number }
  | { readonly is: 'refused'; readonly until: number }
  | { readonly is: 'asking'; readonly waiting: Uint8Array[]; readonly until: number }

/**
 * A UDP association: one socket a family, whose source port is the same for every peer (endpoint-independent mapping, RFC 4787 REQ-1), open to
 * answers from the addresses that the client has sent to (address-dependent filtering, REQ-8).
 */
export class ExitDatagrams implements DatagramPort {
  readonly #m: ExitDatagramsModules
  readonly #ports = new Map<4 | 6, UdpPort>()
  /** By target, in the order of making. */
  readonly #routes = new Map<string, Route>()
  /** When each address was last sent to, the oldest first. */
  readonly #peers = new Map<string, number>()
  readonly #asking = new AbortController()
  #namesUnderWay = 0
  #lastActive: number
  #closed = false

  constructor(modules: ExitDatagramsModules) {
    this.#m = modules
    this.#lastActive = modules.now()
  }

  send(to: Target, bytes: Uint8Array): void {
    if (this.#closed) return
    const now = this.#m.now()
    this.#lastActive = now
    const key = `${to.host} ${to.port}`
    let route = this.#routes.get(key)
    if (!route || route.until <= now) {
      route = this.#makeRoute(to, now)
      this.#keepRoute(key, route)
      if (route.is === 'asking') void this.#ask(key, to, route)
    }
    if (route.is === 'open') this.#sendTo(route.to, new Uint8Array(bytes), now)
    else if (route.is === 'asking' && route.waiting.length < MAX_DATAGRAMS_PER_NAME) route.waiting.push(new Uint8Array(bytes))
    else this.#m.counts.dropped++
  }

  /** Gives the sockets back when nothing has moved for long; the next datagram opens new ones. */
  sweep(now: number): void {
    if (now - this.#lastActive < this.#m.config.udpIdleTimeoutMs) return
    this.#closePorts()
    this.#peers.clear()
    this.#routes.clear()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#asking.abort()
    this.#closePorts()
    this.#m.closed()
  }

  #makeRoute(to: Target, now: number): Route {
    const until = now + ROUTE_MS
    try {
      const host = parseHost(to.host)
      if (host.type === 'ip') return this.#routeTo(host.ip, to.port, until)
      const askable = this.#m.policy.checkPort(to.port).allowed && this.#namesUnderWay < MAX_NAMES_UNDER_WAY
      return askable ? { is: 'asking', waiting: [], until: Number.POSITIVE_INFINITY } : { is: 'refused', until: now }
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      return { is: 'refused', until }
    }
  }

  #routeTo(address: IpAddress, port: number, until: number): Route {
    return port > 0 && this.#m.policy.check(address, port).allowed ? { is: 'open', to: { address, port }, until } : { is: 'refused', until }
  }

  #keepRoute(key: string, route: Route): void {
    this.#routes.delete(key)
    this.#routes.set(key, route)
    if (this.#routes.size > this.#m.config.maxUdpPeers) this.#routes.delete(this.#routes.keys().next().value!)
  }

  async #ask(key: string, to: Target, asked: Extract<Route, { is: 'asking' }>): Promise<void> {
    this.#namesUnderWay++
    let route: Route = { is: 'refused', until: this.#m.now() + 1000 }
    try {
      const host = parseHost(to.host)
      const found = await this.#m.resolver.addresses(host.text, this.#asking.signal)
      const until = this.#m.now() + ROUTE_MS
      const allowed = found.value.find((address) => this.#m.policy.check(address, to.port).allowed)
      route = allowed ? { is: 'open', to: { address: allowed, port: to.port }, until } : { is: 'refused', until }
    } catch {
      // Not resolved: what waits is lost, as UDP is, and the name may be tried again after a second.
    }
    this.#namesUnderWay--
    if (this.#closed) return
    if (this.#routes.get(key) === asked) this.#keepRoute(key, route)
    for (const bytes of asked.waiting) {
      if (route.is === 'open') this.#sendTo(route.to, bytes, this.#m.now())
      else this.#m.counts.dropped++
    }
  }

  #sendTo(to: Endpoint, bytes: Uint8Array, now: number): void {
    const port = this.#port(to.address.family)
    if (port.queuedBytes > SEND_QUEUE_BYTES || !this.#m.rates.every((rate) => rate.take(bytes.length))) {
      this.#m.counts.dropped++
      return
    }
    const peer = formatIp(to.address)
    this.#peers.delete(peer)
    this.#peers.set(peer, now)
    if (this.#peers.size > this.#m.config.maxUdpPeers) this.#peers.delete(this.#peers.keys().next().value!)
    this.#m.counts.sent++
    port.send(bytes, to)
  }

  #port(family: 4 | 6): UdpPort {
    let port = this.#ports.get(family)
    if (!port) {
      const opened = this.#m.backend.openUdp(
        family,
        (bytes, from) => this.#receive(bytes, from),
        () => {
          if (this.#ports.get(family) === opened) this.#ports.delete(family)
        },
      )
      port = opened
      this.#ports.set(family, port)
    }
    return port
  }

  #receive(bytes: Uint8Array, from: Endpoint): void {
    if (this.#closed) return
    const now = this.#m.now()
    const peer = formatIp(from.address)
    const sentAt = this.#peers.get(peer)
    const known = sentAt !== undefined && now - sentAt < this.#m.config.udpIdleTimeoutMs
    if (!known || !this.#m.rates.every((rate) => rate.take(bytes.length))) {
      this.#m.counts.dropped++
      return
    }
    this.#lastActive = now
    this.#m.counts.received++
    this.#m.receive({ host: peer, port: from.port }, bytes)
  }

  #closePorts(): void {
    for (const port of this.#ports.values()) port.close()
    this.#ports.clear()
  }
}
