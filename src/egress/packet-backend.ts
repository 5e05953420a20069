import type { Duplex } from 'node:stream'
import type { IpAddress } from '../base/index.ts'
import type { DatagramPort, ExitPacketLease } from '../relaying/index.ts'
import type { Endpoint } from './backend.ts'

/**
 * Where an exit's raw IP packets leave: a TUN with NAT, or a userspace stack over kernel sockets.
 * Every implementation passes `test/compliance/packet-backend.ts`.
 */
export interface PacketBackend {
  readonly name: 'netstack' | 'tun'
  /** Which families it serves; known after `start`. */
  readonly families: readonly (4 | 6)[]
  /** @throws ShallotError when this machine or user can't */
  start(): Promise<void>
  stop(): Promise<void>
  /** Addresses and a port for one circuit. @param use what policy, limits and counts the circuit's packets come under @throws ExitRefusal */
  open(use: PacketUse, mtu: number, signal: AbortSignal): Promise<ExitPacketLease>
  /** Leases open now, and what was dropped and why since the start. */
  readonly counts: PacketCounts
}

/** Counters of a packet backend, without a word of where to. */
export interface PacketCounts {
  readonly leases: number
  /** In: from clients; out: to clients. */
  readonly packetsIn: number
  readonly packetsOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** By reason, such as 'source', 'policy', 'malformed', 'fragment', 'rate', 'limit', 'protocol', 'hop-limit', 'queue' (the client takes nothing), 'forbidden' (this machine gives no ping sockets); the kernel's rules have their own, such as 'flow-limit'. */
  readonly dropped: Readonly<Record<string, number>>
  /** What the userspace stack holds and did; null where the kernel has the connections. */
  readonly stack: StackCounts | null
}

/** Connections that the exit ends itself, of all leases. */
export interface StackCounts {
  readonly tcpConnections: number
  readonly udpPorts: number
  /** Echo requests without an answer yet. */
  readonly echoes: number
  /** Memory of the connections, and how much of it there may be. */
  readonly bufferBytes: number
  readonly bufferLimitBytes: number
  /** Segments to clients that were sent again. */
  readonly retransmissions: number
}

/** What the exit lends a backend for one circuit. */
export interface PacketUse {
  /** Whether the policy allows it; port null where the protocol has none. */
  allows(address: IpAddress, port: number | null): boolean
  /** Takes bytes from the circuit's and the exit's rates; false: over, to be dropped. */
  takeRate(bytes: number): boolean
  /** A TCP connection under the policy, limits, time-outs and counts of a stream. @throws ExitRefusal */
  connect(to: Endpoint, signal: AbortSignal): Promise<Duplex>
  /** A UDP association under the same. @throws ExitRefusal */
  openDatagrams(receive: (from: { readonly host: string; readonly port: number }, bytes: Uint8Array) => void): DatagramPort
}
