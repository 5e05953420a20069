import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, messageOf } from '../../base/index.ts'
import type { Host, ObservedEndpoint } from '../../link/index.ts'

/** So many peers should see the listening port: two tell a NAT that gives each destination another port from one that does not. */
const WITNESSES = 2
const DIAL_MS = 10_000
/** One that could not be dialled from the listening port is left alone this long: the system keeps a closed connection's ports for a minute. */
const AGAIN_MS = 60_000

export interface WitnessModules {
  readonly host: Host
  /** libp2p multiaddrs, `/p2p/ID` at the end, of nodes with public addresses, the best first. */
  readonly addresses: () => readonly string[]
  readonly logger: Logger
  /** Monotonic ms. */
  readonly now: () => number
}

/**
 * Peers that have been dialled from the listening port, say how they see it, and whose connections keep the NAT's mapping of it alive. The relays in
 * front of this node are such peers by themselves; when they are too few, others are dialled.
 */
export class Witnesses {
  readonly #modules: WitnessModules
  readonly #tried: Map<string, number> = new Map()
  #dialling: AbortController | null = null

  constructor(modules: WitnessModules) {
    this.#modules = modules
  }

  /** What those say whose connection is up: what was seen over one that is gone may not hold any more. */
  get observed(): readonly ObservedEndpoint[] {
    const { host } = this.#modules
    const connected = new Set(host.libp2p.getConnections().map((connection) => connection.remotePeer.toString()))
    return host.observed().filter(({ observer }) => connected.has(observer))
  }

  /** Looks for one more if there are too few. */
  sweep(): void {
    const { host, addresses, now } = this.#modules
    if (this.#dialling !== null || host.punching.unavailable !== null) return
    const seen = this.observed
    if (new Set(seen.map(({ observer }) => observer)).size >= WITNESSES) return
    const isFree = (address: string): boolean =>
      now() - (this.#tried.get(address) ?? Number.NEGATIVE_INFINITY) > AGAIN_MS &&
      !seen.some(({ observer }) => address.endsWith(`/p2p/${observer}`))
    const next = addresses().find(isFree)
    if (next !== undefined) void this.#dial(next)
  }

  /** This node is somewhere else. */
  forget(): void {
    this.#tried.clear()
  }

  stop(): void {
    this.#dialling?.abort()
  }

  async #dial(address: string): Promise<void> {
    const { host, logger, now } = this.#modules
    if (this.#tried.size > MAX_TRIED) this.#tried.clear()
    this.#tried.set(address, now())
    const abort = new AbortController()
    this.#dialling = abort
    try {
      // An existing connection may come from another port.
      const options = { signal: AbortSignal.any([abort.signal, AbortSignal.timeout(DIAL_MS)]), force: true }
      await host.libp2p.dial(multiaddr(address), options)
    } catch (error) {
      logger.debug('a witness of the public port could not be dialled', { why: messageOf(error) })
    } finally {
      this.#dialling = null
    }
  }
}

const MAX_TRIED = 256
