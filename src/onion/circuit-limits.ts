/** What one circuit may cost, at either end. `createClientCircuit` and `createRelayCircuit` take others. */
export const circuitLimits = {
  /** Stream ids in use at once: byte streams, questions, datagram associations and packet leases. */
  streams: 256,
  /** Of these, datagram associations (each may hold an unfinished datagram). */
  datagramStreams: 64,
  /** Of these, packet leases (each holds addresses of the exit's). */
  packetStreams: 4,
  /** Relay: ids it has refused and whose END from the client is still outstanding. More closes the circuit. */
  refusedStreams: 256,
  /** Bytes of one stream that `offer` keeps; above half of it the answer is "wait". */
  offerBytes: 256 * 1024,
  /** PONGs owed and not yet sent. More PINGs close the circuit. */
  owedPongs: 64,
  /** PINGs sent and not answered. No more are sent. */
  pendingPings: 8,
  /** Client: from EXTEND (or CREATE) to its answer. Longer than a relay's own. */
  extendTimeoutMs: 15_000,
  /** Relay: from EXTEND to the next relay's CREATED. */
  nextHopTimeoutMs: 10_000,
  /** Client: from BEGIN or DNS to CONNECTED, and from PACKET_OPEN to PACKET_OPENED. 30 s beyond what an exit gives a connection. */
  connectTimeoutMs: 60_000,
  /** Client: from RESOLVE to RESOLVED. */
  resolveTimeoutMs: 30_000,
  /** Relay: from the opening of the channel to CREATE. */
  createTimeoutMs: 10_000,
} as const

export type CircuitLimits = { readonly [Limit in keyof typeof circuitLimits]: number }
