import { assert } from '../base/index.ts'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import type { TlsChannel } from './tls-channel.ts'

/** How good a way is: a moving channel only moves to a better one. */
export const WayRank = { limited: 0, stream: 1, direct: 2 } as const

/**
 * One of the connections that a moving channel runs over, one after the other. Like a channel, but a stream's two directions end apart:
 * what is left behind must still be read to its end while the other direction goes on elsewhere.
 */
export interface Way {
  readonly kind: 'tls' | 'libp2p'
  readonly rank: number
  readonly queuedBytes: number
  readonly queuedSince: number | null
  readonly room: number
  attach(handlers: WayHandlers): void
  send(batch: CellBatch): void
  pause(): void
  resume(): void
  /** Sends what is queued, then FIN, and goes on reading; `left` tells how that went. Never for a direct link. */
  leave(): void
  /** As a channel's `close`. */
  close(): void
  /** The peer has ended its half, and nothing more is to be said: drops what is queued and ends ours. */
  finish(): void
  abort(): void
}

export interface WayHandlers {
  cells(batch: CellBatch): void
  drained(): void
  /** Once, after the last `cells`: with 'fin' the peer ended its half (or `close` is through), else both directions are over. */
  ended(how: ChannelEnd): void
  /** Once, after `leave`, or when what was sent may be lost though the peer's half had ended well: whether all of it has gone out. */
  left(isWhole: boolean): void
}

/** The opener's question whether a channel may move here. */
export interface Asking {
  /** The peer reads this way from now on, after the end of the old one. */
  agreed(): void
  /** It does not, and never will: the old way goes on. Not called when the way is lost without an answer. */
  refused(): void
}

/** A channel of a direct link as a way. It is the best there is: nobody moves on from it. */
export class DirectWay implements Way {
  readonly kind = 'tls'
  readonly rank = WayRank.direct
  readonly #channel: TlsChannel

  constructor(channel: TlsChannel) {
    this.#channel = channel
  }

  get queuedBytes(): number {
    return this.#channel.queuedBytes
  }

  get queuedSince(): number | null {
    return this.#channel.queuedSince
  }

  get room(): number {
    return this.#channel.room
  }

  attach(handlers: WayHandlers): void {
    this.#channel.attach(handlers)
  }

  send(batch: CellBatch): void {
    this.#channel.send(batch)
  }

  pause(): void {
    this.#channel.pause()
  }

  resume(): void {
    this.#channel.resume()
  }

  leave(): void {
    assert(false, 'a direct link is not left for another way')
  }

  close(): void {
    this.#channel.close()
  }

  /** The peer's FIN has ended both directions. */
  finish(): void {}

  abort(): void {
    this.#channel.abort()
  }
}
