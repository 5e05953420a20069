/** Everything of a stack that could grow, by name. */
export interface StackLimits {
  /** TCP connections in any state but TIME-WAIT. Beyond it SYNs are dropped and dials fail. */
  readonly connections: number
  /** Connections that were asked for and are not established: the SYN queue of all listeners. Beyond it the oldest gives way. */
  readonly halfOpen: number
  /** TIME-WAIT entries; beyond it the oldest is forgotten (a reused port may then meet old segments: RFC 7323's timestamps still refuse them). */
  readonly timeWaits: number
  readonly listeners: number
  /**
   * Memory of all connections' buffers together, in bytes. What does not fit is not taken, and not acknowledged. When it runs out, the
   * little that lies behind large gaps is thrown away, then connections whose peers have taken nothing for `stalledMs` give way, the longest stalled first.
   */
  readonly bufferBytes: number
  /** How long a peer may keep its window shut (or not answer) before its connection may give way to others, when memory has run out. */
  readonly stalledMs: number
  /** Memory of all packets being reassembled, in bytes, bookkeeping included. */
  readonly reassemblyBytes: number
  /** Packets being reassembled. */
  readonly reassemblies: number
  /** Parts that one packet may come in. */
  readonly fragmentsPerPacket: number
  /** Received datagrams, echoes and ICMP errors that wait to be polled: their number and bytes. What comes beyond is dropped. */
  readonly queuedEvents: number
  readonly queuedEventBytes: number
  /** Packets that are not of a connection and wait to leave: RSTs, ICMP, datagrams. */
  readonly outboxPackets: number
  readonly outboxBytes: number
  /** ICMP errors made per second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f). */
  readonly icmpErrorsPerSecond: number
  /** RSTs per second for segments that belong to nothing. */
  readonly resetsPerSecond: number
  /** Destinations whose path MTU is remembered. */
  readonly pathMtus: number
}

/** For a client's machine or one exit. A stack per circuit takes less. */
export const defaultLimits: StackLimits = {
  connections: 16_384,
  halfOpen: 1024,
  timeWaits: 8192,
  listeners: 1024,
  bufferBytes: 256 << 20,
  stalledMs: 60_000,
  reassemblyBytes: 4 << 20,
  reassemblies: 256,
  fragmentsPerPacket: 64,
  queuedEvents: 4096,
  queuedEventBytes: 4 << 20,
  outboxPackets: 1024,
  outboxBytes: 2 << 20,
  icmpErrorsPerSecond: 200,
  resetsPerSecond: 1000,
  pathMtus: 1024,
}

/** How TCP behaves, for all connections of a stack. */
export interface TcpSettings {
  /** Most bytes received and not yet consumed, per connection: the window. */
  readonly receiveBufferBytes: number
  /** Most bytes written and not yet acknowledged, per connection. */
  readonly sendBufferBytes: number
  readonly timestamps: boolean
  readonly sack: boolean
  readonly windowScaling: boolean
  /** Nagle's algorithm (RFC 896, RFC 9293 §3.7.4), of new connections. Off: what relays a stream has gathered its bytes already. */
  readonly nagle: boolean
  /** RFC 1122 §4.2.3.2: at most 500. */
  readonly delayedAckMs: number
  /** RFC 6298 §2.4 says 1000; 200 is what Linux has used for decades, and timestamps and tail-loss probes make it safe. */
  readonly minRtoMs: number
  readonly maxRtoMs: number
  /** Before there is a sample, and for SYNs (RFC 6298 §2.1). */
  readonly initialRtoMs: number
  /** How long a SYN or SYN-ACK is repeated before the connection is given up. */
  readonly connectTimeoutMs: number
  /** How long unacknowledged data, or a zero window whose probes nobody answers, is borne: RFC 9293's R2. */
  readonly retransmitTimeoutMs: number
  /** 2 MSL. */
  readonly timeWaitMs: number
  /** Keep-alive of new connections: idle time before the first probe; 0: off (RFC 9293 §3.8.4 wants off as the default). */
  readonly keepAliveMs: number
  readonly keepAliveIntervalMs: number
  readonly keepAliveProbes: number
  /** How long a connection that was released (`release`) waits for the peer's FIN. */
  readonly finWaitMs: number
  /** Initial window in segments (RFC 6928). */
  readonly initialWindowSegments: number
  /** Challenge ACKs per connection in five seconds (RFC 5961 §7; per connection, since a shared count is a side channel: CVE-2016-5696). */
  readonly challengeAcks: number
}

export const defaultTcpSettings: TcpSettings = {
  receiveBufferBytes: 1 << 20,
  sendBufferBytes: 1 << 20,
  timestamps: true,
  sack: true,
  windowScaling: true,
  nagle: false,
  delayedAckMs: 40,
  minRtoMs: 200,
  maxRtoMs: 60_000,
  initialRtoMs: 1000,
  connectTimeoutMs: 60_000,
  retransmitTimeoutMs: 120_000,
  timeWaitMs: 60_000,
  keepAliveMs: 0,
  keepAliveIntervalMs: 15_000,
  keepAliveProbes: 8,
  finWaitMs: 60_000,
  initialWindowSegments: 10,
  challengeAcks: 10,
}
