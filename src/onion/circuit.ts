import type { PacketBatch } from '../packet/index.ts'
import type { CellBatch } from './cell.ts'
import type { PacketGrant, PacketTerms } from './packets.ts'

/**
 * The circuit machines' vocabulary: what goes in and what comes out. Both machines are pure: no clock, no socket, no await.
 * `now` is monotonic milliseconds. After any call, the driver drains `pollOutput()`, sends what `pollCells()` gives while
 * the channel has room, and sets one timer for `pollTimeout()`.
 */

/** Why a circuit ended. The wire numbers are in docs/spec/messages.md. */
export type CloseReason =
  | 'requested' // the client closed it
  | 'finished' // served its time
  | 'protocol' // somebody broke the protocol, or a cell was changed
  | 'internal'
  | 'resource-limit' // a named limit was reached
  | 'overloaded' // closed to free memory under pressure
  | 'timeout'
  | 'shutting-down'
  | 'unknown-relay' // EXTEND named a relay that is not in the view
  | 'not-allowed' // EXTEND to itself, to the previous hop, or a second time
  | 'connect-failed' // the next relay could not be reached
  | 'identity-mismatch'
  | 'handshake-failed' // CREATE or CREATED did not authenticate
  | 'channel-lost' // the channel to a neighbour ended without CLOSED

/** Why a stream ended. 'done' ends one direction in order (like TCP's FIN); every other reason ends the whole stream at once (RST). */
export type EndReason =
  | 'done'
  | 'reset'
  | 'refused' // ECONNREFUSED
  | 'unreachable' // no route
  | 'timeout'
  | 'resolve-failed' // the name has no address
  | 'policy' // the exit's policy refuses it
  | 'resource-limit'
  | 'not-exit' // this hop serves no streams
  | 'internal'
  | 'circuit-lost' // local only: the circuit ended under the stream

/** Where a stream or a datagram goes: a name or an IP address in text, and a port. */
export interface Target {
  readonly host: string
  readonly port: number
}

/** One answer to RESOLVE: an address (text), or a name for a pointer question. */
export interface ResolveAnswer {
  readonly type: 'address' | 'name'
  readonly value: string
  readonly ttlSeconds: number
}

/** What the client knows of a relay it extends to. */
export interface HopTarget {
  /** Ed25519 identity, 32 bytes. */
  readonly id: Uint8Array
  readonly onionKey: OnionPublicKey
}

/** The relay's onion key. The ML-KEM key of a handshake is the client's and ephemeral, so it is not here. */
export interface OnionPublicKey {
  /** B, 32 bytes. */
  readonly x25519: Uint8Array
}

/** An output of either machine. Exactly one thing to do for each. */
export type CircuitOutput =
  // --- to a channel, at once and in this order: these cells are encrypted already
  | { readonly type: 'cells'; readonly to: 'client' | 'next'; readonly batch: CellBatch }
  // --- client
  | { readonly type: 'hop'; readonly index: number; readonly rttMs: number } // hop `index` (from 0) is established
  | { readonly type: 'connected'; readonly stream: number; readonly address: string | null }
  | { readonly type: 'resolved'; readonly stream: number; readonly answers: readonly ResolveAnswer[]; readonly error: EndReason | null }
  | { readonly type: 'rtt'; readonly hop: number; readonly rttMs: number }
  | { readonly type: 'packets-opened'; readonly stream: number; readonly grant: PacketGrant }
  // --- relay
  | { readonly type: 'extend'; readonly target: Uint8Array } // open a channel to this identity, then handleNextOpen or handleNextFailed
  | { readonly type: 'begin'; readonly stream: number; readonly target: Target } // then accept or end
  | { readonly type: 'resolve'; readonly stream: number; readonly name: string } // a name, or an address in text for a pointer; then answer
  | { readonly type: 'dns-open'; readonly stream: number } // a byte stream to the own resolver: then accept or end
  | { readonly type: 'datagrams-open'; readonly stream: number }
  | { readonly type: 'packets-open'; readonly stream: number; readonly terms: PacketTerms } // then acceptPackets or closePackets
  // --- both
  // owned by the driver; give credit back by `consume`. `memory`, where given, is the batch whose only view `bytes` is: for `BatchMemory.recycle`
  | { readonly type: 'data'; readonly stream: number; readonly bytes: Uint8Array; readonly memory: CellBatch | null }
  | { readonly type: 'writable'; readonly stream: number } // `offer` or `sendPackets` takes more
  | { readonly type: 'end'; readonly stream: number; readonly reason: EndReason } // the other side ended: 'done' its direction, else all
  | { readonly type: 'datagram'; readonly stream: number; readonly peer: Target; readonly bytes: Uint8Array }
  | { readonly type: 'datagrams-closed'; readonly stream: number }
  // packets of one lease that came together. Lent: the batch is the machine's again with the next call of `pollOutput`
  | { readonly type: 'packets'; readonly stream: number; readonly batch: PacketBatch }
  | { readonly type: 'packets-closed'; readonly stream: number; readonly reason: EndReason } // 'done': in order
  | { readonly type: 'closed'; readonly reason: CloseReason; readonly origin: 'local' | 'remote'; readonly hop: number | null }

/** How a channel ended. 'fin': in order; 'reset': by the other side or a failure; 'violation': it broke the cell framing. */
export type ChannelEnd = 'fin' | 'reset' | 'violation'

/** What a machine counts. */
export interface CircuitCounts {
  readonly datagramsDropped: number
  readonly packetsDropped: number
  readonly openStreams: number
}

/** What both machines share: streams, datagrams and packets between the client and one hop. */
export interface CircuitMachine {
  /** Drains what happened. Call until null after every other call. */
  pollOutput(): CircuitOutput | null
  /** When (monotonic ms) `handleTimeout` wants to be called, or null. */
  pollTimeout(): number | null
  handleTimeout(now: number): void
  /**
   * Cells that this endpoint originates, encrypted, at most `most` of them: control messages first, then datagrams and packets, then
   * the streams' data in turn. Null when there is nothing to send. Whoever calls it must send the batch at once: cells are encrypted in wire order.
   * A relay's go to the client's side.
   */
  pollCells(most: number, now: number): CellBatch | null
  /** Bytes offered or owed and not yet in cells. */
  readonly queuedBytes: number

  /** Hands over bytes for a stream (ownership passes). Returns whether more may be offered now; otherwise wait for 'writable'. */
  offer(stream: number, bytes: Uint8Array): boolean
  /** Ends a stream: 'done' ends this direction after what was offered; any other reason drops what was offered and ends both. */
  end(stream: number, reason: EndReason): void
  /** `length` bytes that 'data' gave out have been taken by the application: the peer may be given credit for more. */
  consume(stream: number, length: number, now: number): void
  /** Queues a datagram (bytes are borrowed); false when it was dropped at once because the queue is full. What waits too long is dropped. */
  sendDatagram(stream: number, peer: Target, bytes: Uint8Array, now: number): boolean
  /** Closes a datagram association. */
  closeDatagrams(stream: number): void
  /**
   * Queues packets `from` to `to` - 1 of a batch (borrowed), as far as there is room. Those that no cell of the lease may carry, and all of a
   * lease that is closed, are taken and dropped; what waits too long is dropped later.
   * @returns how many were taken. When fewer than were given, or when `hasPacketRoom` is false then, 'writable' follows.
   */
  sendPackets(stream: number, batch: PacketBatch, from: number, to: number, now: number): number
  /** False while the queue is half full or more: who can wait for 'writable' loses nothing. */
  hasPacketRoom(stream: number): boolean
  /** Gives a packet lease back ('done'), or refuses it; 'packets-closed' does not follow. */
  closePackets(stream: number, reason: EndReason): void
  /** Counters for `status` and tests. */
  readonly counts: CircuitCounts
}

export interface ClientCircuitMachine extends CircuitMachine {
  readonly hops: number
  /** True from 'closed' on: nothing goes in or out any more. */
  readonly isClosed: boolean
  /** Begins the handshake with the first hop (CREATE) or, through the circuit, the next (EXTEND). 'hop' or 'closed' follows. */
  extend(target: HopTarget, now: number): void
  /** Opens a stream at the last hop (or another) and returns its id; data may be offered at once. @throws ShallotError 'resource-limit' when ids or limits are used up */
  open(target: Target, now: number, hop?: number): number
  /** Asks the last hop to resolve. Answered by 'resolved'. @throws ShallotError 'resource-limit' */
  resolve(name: string, now: number): number
  /** Opens a byte stream to the last hop's own resolver; otherwise as `open`. @throws ShallotError 'resource-limit' */
  openResolver(now: number): number
  /** Opens a datagram association at the last hop. @throws ShallotError 'resource-limit' */
  openDatagrams(now: number): number
  /** Asks the last hop for addresses for raw packets. Answered by 'packets-opened' or 'packets-closed'. @throws ShallotError 'resource-limit' */
  openPackets(terms: PacketTerms, now: number): number
  /** Measures the round trip to a hop (default the last). Answered by 'rtt'. */
  ping(now: number, hop?: number): void
  /** How many cells the hop has sent: what tells a relay that is there from one that is silent. */
  cellsFrom(hop: number): number
  /** Sends CLOSED to the first hop and ends. */
  close(reason: CloseReason, now: number): void
  handleCells(batch: CellBatch, now: number): void
  handleChannelEnd(how: ChannelEnd, now: number): void
  /** The measured round trip to the last hop, smoothed, and the least seen; null before the first measurement. */
  readonly rttMs: number | null
  readonly minRttMs: number | null
  /** That of any hop: the least of the last few measurements, so that hops can be compared. */
  hopRttMs(hop: number): number | null
}

export interface RelayCircuitMachine extends CircuitMachine {
  /** Cells from one side. Passed-on cells come out as 'cells'. */
  handleCells(from: 'client' | 'next', batch: CellBatch, now: number): void
  /** The channel to the next relay is open: the CREATE cell comes out as 'cells' to 'next'. */
  handleNextOpen(now: number): void
  handleNextFailed(reason: CloseReason, now: number): void
  handleChannelEnd(side: 'client' | 'next', how: ChannelEnd, now: number): void
  /** Answers 'begin' and 'dns-open': the stream is connected. @param address null where there is none to tell */
  accept(stream: number, address: string | null): void
  /** Answers 'packets-open'. @param grant of no family that was not asked for, and with no larger MTU */
  acceptPackets(stream: number, grant: PacketGrant): void
  /** Answers 'resolve'. */
  answer(stream: number, answers: readonly ResolveAnswer[] | EndReason): void
  /** Says CLOSED towards the client (with this relay as the origin) and ends. */
  close(reason: CloseReason, now: number): void
  readonly state: 'awaiting-create' | 'open' | 'extending' | 'extended' | 'closed'
}
