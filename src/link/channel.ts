import type { NodeId } from '../base/index.ts'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'

/**
 * A channel carries the cells of one circuit between two neighbours, in order, both ways, with backpressure.
 * Its end is the circuit's end. Implementations: a libp2p stream (`libp2p`), a channel of a direct TLS link (`tls`), one that moves from the
 * former to the latter, and memory pipes for tests (`memory`); all pass `test/compliance/cell-channel`.
 */
export interface CellChannel {
  /** The peer's proven identity. A client's is fresh for every start. */
  readonly peer: NodeId
  /** The network address the peer was seen at first (text, for admission only; sensitive): through a relay, the relay's. Null in memory. */
  readonly remoteAddress: string | null
  /** What it runs over now. */
  readonly kind: 'tls' | 'libp2p' | 'memory'
  /** Bytes held for this channel on this side: sent but not yet given to the kernel, and received but not delivered while paused. */
  readonly queuedBytes: number
  /** When (monotonic ms) the oldest byte that is still queued was queued; null when nothing is. */
  readonly queuedSince: number | null

  /** Sets the handlers. Must be called in the turn the channel is obtained in; nothing is delivered before. */
  attach(handlers: CellChannelHandlers): void

  /**
   * Takes the batch over and sends it. Never refuses: a sender that goes on when `room` is 0 only grows the queue it is charged for.
   * After the channel's end it does nothing. A whole batch's memory is used again once it is on its way: nothing may look at it any more.
   */
  send(batch: CellBatch): void
  /** How many cells fit now before the send queue is full (about 64 KiB). Once full it stays 0 until `drained` is called, with room for a batch. */
  readonly room: number

  /** Stops delivery; the peer is held back by flow control, and at most the channel's receive window is queued here. */
  pause(): void
  resume(): void

  /**
   * Sends what is queued, then FIN; aborts by itself when that takes longer than `closeTimeoutMs`. Nothing more is delivered.
   * `ended` is called once, here too, never within the call.
   */
  close(): void
  /** Ends both directions at once; what is queued is lost. `ended` is called once, here too, never within the call. */
  abort(): void
}

export interface CellChannelHandlers {
  /** Whole cells, in order. The handler owns the batch. */
  cells(batch: CellBatch): void
  drained(): void
  /** Called exactly once, after the last `cells`. A FIN from the peer ends both directions. */
  ended(how: ChannelEnd): void
}

/** Opens channels to relays. One physical link a peer is shared by all its channels. */
export interface ChannelDialer {
  /**
   * A fresh channel to the relay, over an existing link or a new one to one of the addresses. The peer's identity has been proven to be `id`.
   * @param addresses multiaddrs as text: `/ip4/…/tcp/…/tls` is a direct link, `/ip4/…/tcp/…` libp2p, `/…/p2p/RELAY/p2p-circuit` libp2p through a relay
   * @throws ShallotError of kind 'link': 'connect-failed', 'identity-mismatch', 'link-limit', 'aborted'
   */
  openChannel(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel>
}

/** Called with each channel that a peer opens. Returning false refuses it (the channel is aborted by the link). */
export type ChannelAcceptor = (channel: CellChannel) => boolean
