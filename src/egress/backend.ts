import type { Duplex } from 'node:stream'
import type { IpAddress } from '../base/index.ts'

/** An address and a port: what is left of a target when policy and resolution are done. */
export interface Endpoint {
  readonly address: IpAddress
  readonly port: number
}

/** A connected stream of a backend. */
export type ExitSocket = Duplex & {
  /** Bytes moved so far: how idle streams are found without work per chunk. */
  readonly bytesRead: number
  readonly bytesWritten: number
  /** Ends at once with a reset towards the server, never in order. */
  resetAndDestroy(): unknown
}

/**
 * How an exit reaches the internet with streams and datagrams: kernel sockets (raw packets have `PacketBackend`). It decides nothing: policy, limits and names are above it.
 * Every implementation passes `test/compliance/exit-backend.ts`.
 */
export interface ExitBackend {
  readonly name: string
  /**
   * Connects to one address. The Duplex allows half-open both ways; a reset by the server is an 'error', never an 'end'; nothing is read
   * beyond its buffer while nobody reads. It has an 'error' listener of its own, so that a late error finds one.
   * @throws ExitRefusal with the END reason; the signal's reason when that aborts first
   */
  connect(to: Endpoint, signal: AbortSignal): Promise<ExitSocket>
  /**
   * A UDP socket with one source port for all peers (RFC 4787 REQ-1). Sending may begin at once. `failed` is called at most once, when the socket
   * can't be had or breaks; it is closed then.
   */
  openUdp(family: 4 | 6, receive: (bytes: Uint8Array, from: Endpoint) => void, failed: (error: Error) => void): UdpPort
}

export interface UdpPort {
  /** Sends one datagram, best effort (ownership passes). */
  send(bytes: Uint8Array, to: Endpoint): void
  /** Bytes not yet given to the network. */
  readonly queuedBytes: number
  close(): void
}
