import type { StackLimits, TcpSettings } from '../../netstack/index.ts'

/** Bounds of the netstack backend, for one lease where nothing else is said. */
export const netstackLimits = {
  /** Packets of one delivery to the client. */
  batchPackets: 64,
  /** Deliveries before the event loop gets its turn. */
  turnBatches: 8,
  /** ICMP messages of ours that wait for the client; more are dropped. */
  ownPackets: 64,
  /** ICMP errors that a client is answered with, a second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f). */
  icmpErrorsPerSecond: 100,
  /** Echo requests a second, lasting and at once. */
  echoesPerSecond: 200,
  echoBurst: 400,
  /** Echo requests without an answer yet. */
  pendingEchoes: 1024,
  /** The same over all leases; a request's number at the exit is one of 65536. */
  pendingEchoesInAll: 32_768,
  /** How long an answer is waited for. */
  echoTimeoutMs: 30_000,
  /** Echo requests that wait while the ping sockets are being made. */
  waitingEchoes: 16,
  /** After so long a machine that refused ping sockets is asked again. */
  pingRetryMs: 60_000,
  /** How often idle leases and UDP ports are looked for. */
  sweepMs: 5000,
  /** A UDP port that only asked port 53 is of no use for long: RFC 4787 REQ-5 b. */
  dnsIdleTimeoutMs: 15_000,
} as const

/** A circuit's stack: small, since there may be many. What a lease may have open at once, streams and UDP associations of the circuit bound before. */
export const leaseStackLimits: Partial<StackLimits> = {
  connections: 1024,
  halfOpen: 256,
  timeWaits: 1024,
  listeners: 1,
  bufferBytes: 64 << 20,
  reassemblyBytes: 512 << 10,
  reassemblies: 32,
  fragmentsPerPacket: 64,
  queuedEvents: 512,
  queuedEventBytes: 1 << 20,
  // Taken when the stack is made, so kept small; a full one is emptied at once.
  outboxPackets: 64,
  outboxBytes: 96 << 10,
  icmpErrorsPerSecond: netstackLimits.icmpErrorsPerSecond,
  resetsPerSecond: 200,
  // There is one destination: the client.
  pathMtus: 1,
}

/** The window must let a client far away send at full speed: 1 MiB is 5 MB/s at 200 ms. */
export const leaseTcpSettings: Partial<TcpSettings> = {
  receiveBufferBytes: 1 << 20,
  sendBufferBytes: 1 << 20,
}
