import type { Duplex } from 'node:stream'
import type { IpAddress } from '../base/index.ts'
import type { ResolveAnswer, Target } from '../onion/index.ts'
import type { PacketPort } from '../packet/index.ts'

/** A stream as ingress has it. */
export interface ClientStream extends Duplex {
  /** A reader that took a whole chunk (by 'data') and holds it no more may say so: its memory is used again. Never necessary. */
  release?(chunk: Uint8Array): void
}

/** What ingress (SOCKS, HTTP proxy, `fetch`) asks of the client. Errors are ShallotErrors; `retry` says whether another try may help. */
export interface ClientService {
  /**
   * A byte stream to the target through a circuit. Resolves once the exit is connected. The Duplex allows half-open; a lost circuit
   * destroys it with an error (never a clean end), so the caller resets its application socket.
   * @throws StreamError with `reason` (an EndReason, or 'no-circuit')
   */
  connect(target: Target, options: StreamOptions): Promise<{ stream: ClientStream; address: string | null }>
  /** Resolved at the exit. A name gives addresses; an address in text gives names. @throws StreamError */
  resolve(name: string, options: StreamOptions): Promise<readonly ResolveAnswer[]>
  /** Datagrams on a circuit of their own. @throws StreamError */
  openDatagrams(
    options: StreamOptions,
    receive: (from: Target, bytes: Uint8Array) => void,
    closed: () => void,
  ): Promise<DatagramAssociation>
  /**
   * A byte stream to the exit's own resolver: DNS messages both ways, each after its length in two bytes (RFC 1035 §4.2.2). Questions may
   * follow each other without waiting, answers come in any order (RFC 7766), and the exit closes what idles. @throws StreamError
   */
  connectResolver(options: StreamOptions): Promise<{ stream: ClientStream }>
  /** Raw IP packets on a circuit of their own, at an exit that serves them. @throws StreamError */
  openPackets(options: StreamOptions): Promise<PacketLease>
}

/** Addresses at an exit that raw IP packets come from and go to, for as long as the port is open. */
export interface PacketLease {
  /** Source of what is sent, destination of what comes; null where the exit does not serve the family. What has another source is dropped. */
  readonly address4: IpAddress | null
  readonly address6: IpAddress | null
  /** Medium IP. Best effort, as IP is: what waits too long is dropped before encryption. Ends when its circuit does; close it to give the lease back. */
  readonly port: PacketPort
}

export interface StreamOptions {
  /** Streams with different isolation never share a circuit. Made by `isolationKey`. Held as an opaque value, never logged. */
  readonly isolation: string
  readonly signal?: AbortSignal
}

export interface DatagramAssociation {
  /** Best effort: dropped before encryption when it would wait longer than about 100 ms. Bytes are borrowed. */
  send(to: Target, bytes: Uint8Array): void
  close(): void
}
