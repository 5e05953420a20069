import type { ShallotError } from '../base/index.ts'
import type { PacketBatch } from './batch.ts'

/** What a port's packets are: IP packets, or Ethernet frames without preamble and check sequence. */
export type Medium = 'ip' | 'ethernet'

/**
 * A thing that takes and gives packets in batches: a TUN device, a tunnel, a netstack, one end of a pair in memory.
 * Every implementation passes `test/compliance/packet-port`.
 *
 * Ownership: a batch is **lent for the call, both ways**. Who wants to keep a packet copies it; after the call the batch's maker clears
 * and fills it again. The receiver may change the bytes of a lent batch (a filter, a NAT), never its bounds.
 *
 * Order is kept. Nothing is delivered within `send`, `pause`, `resume`, `attach` or `close`: always in a later turn, so that a handler is never re-entered.
 */
export interface PacketPort {
  /** For people: the device's name, or what the port stands for. */
  readonly name: string
  readonly medium: Medium
  /** The largest packet that goes through now, in bytes. A larger one that is sent is dropped and counted. May change. */
  readonly mtu: number
  readonly stats: Readonly<PortStats>

  /** Sets the handlers, once, before anything is delivered. */
  attach(handlers: PacketPortHandlers): void

  /**
   * Sends packets `from` … of the batch, as many as there is room for.
   * @returns how many were taken, dropped ones included. Fewer than were offered: the port is full, and `drained` will be called once it has room.
   * After the end all are taken and go nowhere.
   */
  send(batch: PacketBatch, from?: number): number

  /** Stops delivery. What comes meanwhile waits in a bounded queue, then waits or is dropped at its source, as the medium has it. */
  pause(): void
  resume(): void

  /** Ends the port at once: what is queued is lost, `ended(null)` follows. A second call does nothing. */
  close(): void
}

/** Whom a port tells. */
export interface PacketPortHandlers {
  /** At least one packet; the batch is lent for the call. */
  packets(batch: PacketBatch): void
  /** After `send` took fewer than it was given: there is room again. */
  drained(): void
  /** Exactly once, the last call. Null: closed here or by the other side in order. */
  ended(error: ShallotError | null): void
}

/** Counters of a port, from its start. */
export interface PortStats {
  sentPackets: number
  sentBytes: number
  receivedPackets: number
  receivedBytes: number
  /** Larger than the MTU, or refused by the medium. */
  droppedPackets: number
}

/** All at zero. */
export function newPortStats(): PortStats {
  return { sentPackets: 0, sentBytes: 0, receivedPackets: 0, receivedBytes: 0, droppedPackets: 0 }
}
