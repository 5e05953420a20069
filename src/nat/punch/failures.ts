import type { NodeId } from '../../base/index.ts'

/** Pairs remembered as failed; the oldest are forgotten. */
const MAX_REMEMBERED = 4096

export interface FailureOptions {
  readonly retryAfterMs: number
  readonly retryAfterMaxMs: number
}

/** Whom this node could not meet, and when it may try again: longer each time. Pure: times are monotonic milliseconds. */
export class Failures {
  readonly #options: FailureOptions
  readonly #failed: Map<NodeId, { count: number; until: number }> = new Map()

  constructor(options: FailureOptions) {
    this.#options = options
  }

  mayTry(peer: NodeId, now: number): boolean {
    return (this.#failed.get(peer)?.until ?? 0) <= now
  }

  /** @param weight how many failures it counts as: a peer that broke the protocol is left alone for longer */
  failed(peer: NodeId, now: number, weight = 1): void {
    const count = (this.#failed.get(peer)?.count ?? 0) + weight
    const { retryAfterMs, retryAfterMaxMs } = this.#options
    this.#failed.delete(peer)
    if (this.#failed.size >= MAX_REMEMBERED) this.#failed.delete(this.#failed.keys().next().value!)
    this.#failed.set(peer, { count, until: now + Math.min(retryAfterMaxMs, retryAfterMs * 2 ** Math.min(count - 1, 20)) })
  }

  met(peer: NodeId): void {
    this.#failed.delete(peer)
  }

  /** This node is somewhere else: what failed may work. */
  clear(): void {
    this.#failed.clear()
  }
}
