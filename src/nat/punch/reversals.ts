import { type Logger, messageOf, type NodeId, sensitive } from '../../base/index.ts'
import { type Host, MOVING_PROTOCOL } from '../../link/index.ts'
import type { PunchingConfig } from './config.ts'
import { isPlain } from './current-link.ts'
import { Failures } from './failures.ts'

/** Peers that are looked after at the same time; the channels of others stay where they are. */
const MAX_WANTED = 256

export interface ReversalModules {
  readonly host: Host
  readonly config: PunchingConfig
  /** Where a peer can be dialled from anywhere, by the view; none when it can't, or is not known. */
  readonly directAddresses: (peer: NodeId) => readonly string[]
  readonly logger: Logger
  /** Monotonic ms. */
  readonly now: () => number
}

/**
 * Gives a direct link to peers that have none and can't dial one, since this node is behind NAT: they open their channels on whatever libp2p connection
 * there is, mostly one that this node has dialled. Those channels cost several times what they do on a direct link, and move. docs/spec/punching.md §2
 */
export class Reversals {
  readonly #modules: ReversalModules
  readonly #failures: Failures
  readonly #wanted: Set<NodeId> = new Set()
  readonly #dialling: Map<NodeId, AbortController> = new Map()

  constructor(modules: ReversalModules) {
    this.#modules = modules
    this.#failures = new Failures(modules.config)
  }

  /** The peer has opened a channel that moves to a direct link when there is one. */
  wanted(peer: NodeId): void {
    if (this.#wanted.size >= MAX_WANTED || !this.#isNeeded(peer)) return
    this.#wanted.add(peer)
    this.#begin(peer)
  }

  /** Tries again what may be tried again, and forgets the others. */
  sweep(): void {
    for (const peer of this.#wanted) {
      if (this.#isNeeded(peer)) this.#begin(peer)
      else this.#wanted.delete(peer)
    }
  }

  /** This node is somewhere else. */
  forget(): void {
    this.#failures.clear()
  }

  stop(): void {
    this.#wanted.clear()
    for (const dial of this.#dialling.values()) dial.abort()
  }

  /** Whether channels of the peer run over an ordinary libp2p connection; those through a relay have their own way out. */
  #isNeeded(peer: NodeId): boolean {
    const { host } = this.#modules
    if (host.directLink(peer) !== null) return false
    return host.libp2p
      .getConnections()
      .some(
        (connection) =>
          connection.remotePeer.toString() === peer &&
          isPlain(connection) &&
          connection.streams.some(({ protocol, direction }) => protocol === MOVING_PROTOCOL && direction === 'inbound'),
      )
  }

  #begin(peer: NodeId): void {
    const { config, directAddresses, now } = this.#modules
    if (this.#dialling.has(peer) || this.#dialling.size >= config.maxConcurrent || !this.#failures.mayTry(peer, now())) return
    // A peer that is not in the view yet may be there by the next sweep.
    const addresses = directAddresses(peer)
    if (addresses.length > 0) void this.#dial(peer, addresses)
  }

  async #dial(peer: NodeId, addresses: readonly string[]): Promise<void> {
    const { host, config, logger, now } = this.#modules
    const abort = new AbortController()
    this.#dialling.set(peer, abort)
    try {
      await host.connectDirect(peer, addresses, AbortSignal.any([abort.signal, AbortSignal.timeout(config.reverseTimeoutMs)]))
      this.#failures.met(peer)
      this.#wanted.delete(peer)
    } catch (error) {
      if (abort.signal.aborted) return
      this.#failures.failed(peer, now())
      logger.debug('a peer could not be given a direct link', { why: messageOf(error), peer: sensitive(peer) })
    } finally {
      this.#dialling.delete(peer)
    }
  }
}
