import { z } from 'zod'

/** What a node with the role `relay` does for nodes behind NAT, and how much. Sizes in bytes, times in milliseconds. */
export const relayServerConfig = z.strictObject({
  maxReservations: z
    .int()
    .min(1)
    .default(256)
    .describe('nodes behind NAT that are reachable through this relay at once; each costs a connection'),
  maxStrangerReservations: z
    .int()
    .min(0)
    .default(64)
    .describe('how many of them may be nodes that are not in the view (yet): a newcomer needs a relay before it can be announced'),
  reservationsPerAddress: z.int().min(1).default(8).describe('reservations of one address (IPv6: of one /64)'),
  reservationsPerNetwork: z.int().min(1).default(32).describe('reservations of one /24 (IPv4) or /48 (IPv6)'),
  reservationMs: z
    .int()
    .min(1000)
    .max(604_800_000)
    .default(3_600_000)
    .describe('how long a reservation lasts; its holder renews it at about half of that'),
  strangerGraceMs: z
    .int()
    .min(0)
    .default(1_800_000)
    .describe('how long a node that is not in the view may hold a reservation; by then it should have been announced'),
  maxConnections: z.int().min(1).default(1024).describe('relayed connections in all'),
  connectionsPerReservation: z.int().min(1).default(128).describe('relayed connections to one node behind NAT'),
  connectionsPerDialler: z.int().min(1).default(128).describe('relayed connections that one node has opened'),
  connectionsPerPair: z.int().min(1).default(2).describe('relayed connections from one node to one other'),
  connectionBytes: z
    .int()
    .min(1)
    .default(68_719_476_736)
    .describe('bytes of one relayed connection, both directions together; then it is closed, with every circuit on it'),
  connectionMs: z
    .int()
    .min(1000)
    .max(4_000_000_000_000)
    .default(86_400_000)
    .describe('how long a relayed connection lasts; then it is closed, with every circuit on it'),
  connectionBytesPerSecond: z
    .int()
    .min(1024)
    .default(4_194_304)
    .describe('rate of one relayed connection, both directions together; beyond it the sender is held back'),
  bytesPerSecond: z
    .int()
    .min(1024)
    .default(12_500_000)
    .describe('rate of all relayed connections together; each byte comes in and goes out once'),
  connectionBufferBytes: z
    .int()
    .min(262_144)
    .default(5_242_880)
    .describe('bytes held of one relayed connection whose receiver does not keep up; beyond it the connection is closed'),
  bufferBytes: z
    .int()
    .min(1_048_576)
    .default(67_108_864)
    .describe('bytes held of all relayed connections; beyond it those that have been stuck for longest are closed'),
  stallMs: z.int().min(100).default(60_000).describe('a relayed connection whose receiver takes nothing in for so long is closed'),
  idleMs: z
    .int()
    .min(1000)
    .default(120_000)
    .describe('a relayed connection on which nothing is sent for so long is closed; both ends send signs of life every 20 seconds'),
  maxHandshakes: z.int().min(1).default(256).describe('requests that are being read or answered, in all'),
  handshakesPerPeer: z.int().min(1).default(16).describe('requests of one peer that are being read or answered'),
  handshakeTimeoutMs: z
    .int()
    .min(100)
    .default(10_000)
    .describe('a request that is not complete, or could not be answered, by then is dropped'),
  requestsPerSecondPerPeer: z.int().min(1).default(5).describe('requests a second of one peer; the burst is four times that'),
  requestsPerSecondPerAddress: z
    .int()
    .min(1)
    .default(20)
    .describe('requests a second of one address (IPv6: of one /64); the burst is four times that'),
})
export type RelayServerConfig = z.output<typeof relayServerConfig>

/** How a node behind NAT keeps relays in front of itself. Times in milliseconds. */
export const reservationsConfig = z.strictObject({
  relays: z.int().min(1).max(4).default(2).describe('relays through which this node is reachable while it is behind NAT'),
  attemptTimeoutMs: z.int().min(100).default(5000).describe('from dialling a relay to its answer'),
  nextAfterMs: z
    .int()
    .min(50)
    .default(1000)
    .describe('a relay that has not answered by then is not waited for: another one is tried beside it'),
  probeMs: z.int().min(100).default(2000).describe('how often each relay is asked for a sign of life'),
  probeTimeoutMs: z.int().min(100).default(2000).describe('a relay that gives no sign of life by then is lost'),
  retryMs: z.int().min(10).default(2000).describe('a relay that failed is not tried again for so long; doubled with each failure'),
  maxRetryMs: z.int().min(10).default(600_000).describe('the longest of these times'),
  refusedRetryMs: z
    .int()
    .min(10)
    .default(60_000)
    .describe('a relay that refused is not tried again for so long; doubled with each refusal'),
  maxInbound: z.int().min(1).default(512).describe('connections through relays to this node at once'),
  inboundPerSecond: z.int().min(1).default(20).describe('connections a second that one relay may bring; the burst is four times that'),
})
export type ReservationsConfig = z.output<typeof reservationsConfig>
