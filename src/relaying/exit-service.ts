import type { Duplex } from 'node:stream'
import type { IpAddress } from '../base/index.ts'
import type { ResolveAnswer, Target } from '../onion/index.ts'
import type { PacketPort } from '../packet/index.ts'

/**
 * What the relay engine wants of an exit. `egress` implements it: policy first, then resolution, policy again, then a backend.
 * Every refusal is an ExitRefusal that names the END reason the client is told.
 */
export interface ExitService {
  /** One per circuit; its limits (streams, rates) are the circuit's. */
  openCircuit(): ExitCircuit
}

export interface ExitCircuit {
  /**
   * Connects to the target. The Duplex keeps half-close (allowHalfOpen) and backpressure; `address` is the address connected to.
   * @throws ExitRefusal
   */
  connect(target: Target, signal: AbortSignal): Promise<{ socket: Duplex; address: string }>
  /** A name to its addresses, or an address to its names. @throws ExitRefusal */
  resolve(name: string, signal: AbortSignal): Promise<readonly ResolveAnswer[]>
  /** Opens a UDP association. @throws ExitRefusal */
  openDatagrams(receive: (from: Target, bytes: Uint8Array) => void): DatagramPort
  /** A stream of DNS messages, each after its length in two bytes (RFC 7766), answered by the exit's resolver. @throws ExitRefusal */
  connectResolver(): Duplex
  /** Leases addresses for raw IP packets. @param mtu the largest packet a cell carries @throws ExitRefusal */
  openPackets(mtu: number, signal: AbortSignal): Promise<ExitPacketLease>
  /** Ends everything of this circuit. */
  close(): void
}

/** What an exit gives for raw packets: addresses, and a port whose packets are the client's. Closing the port gives the lease back. */
export interface ExitPacketLease {
  readonly address4: IpAddress | null
  readonly address6: IpAddress | null
  readonly port: PacketPort
}

export interface DatagramPort {
  /** Sends one datagram; what policy or limits refuse is dropped and counted. Names are resolved here. Bytes are borrowed. */
  send(to: Target, bytes: Uint8Array): void
  close(): void
}
