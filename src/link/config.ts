import { z } from 'zod'

/** Limits of links and channels, by name. Sizes in bytes, times in milliseconds. */
export const linkLimits = z.strictObject({
  maxLinks: z.int().min(1).default(4096).describe('direct links in all; beyond it new ones are refused'),
  maxInboundPerAddress: z.int().min(1).default(64).describe('connections that one remote address may hold'),
  inboundPerSecondPerAddress: z
    .int()
    .min(1)
    .default(20)
    .describe('new connections a second that one remote address may open, with twice as many at once'),
  maxLinksPerPeer: z.int().min(1).default(4).describe('direct links with one and the same peer'),
  maxHandshakes: z.int().min(1).default(256).describe('inbound connections that have not proven their identity yet'),
  maxChannelsPerLink: z.int().min(1).default(8192).describe('channels on one link, both directions together'),
  maxChannelsPerPeer: z.int().min(1).default(4096).describe('channels that one peer may have open to this node'),
  maxWindowBytes: z
    .int()
    .min(196_608)
    .max(268_435_456)
    .default(8_388_608)
    .describe('the most a peer may send on one channel before it was taken'),
  connectTimeoutMs: z.int().min(1).default(10_000).describe('from the first dial to a proven identity, all addresses together'),
  dialStaggerMs: z.int().min(1).default(300).describe('wait before the next address of a peer is tried beside the one before'),
  handshakeTimeoutMs: z.int().min(1).default(10_000).describe('an inbound connection that has not proven its identity by then is closed'),
  closeTimeoutMs: z.int().min(1).default(10_000).describe('a closing channel that could not send what it had queued by then is aborted'),
  idleLinkMs: z.int().min(1).default(180_000).describe('a link without channels is closed after this time'),
  keepIdleLinks: z.int().min(0).default(32).describe('so many of the most recently used links stay open though they carry no channel'),
  pingAfterMs: z.int().min(1).default(20_000).describe('a link on which nothing came in for this long is asked for a sign of life'),
  pingTimeoutMs: z.int().min(1).default(20_000).describe('a link that gives no sign of life for this long after being asked is closed'),
  probeAfterMs: z
    .int()
    .min(1)
    .default(1_000)
    .describe('a link on which cells were sent, and nothing came in for this long, is asked for a sign of life'),
  probeTimeoutMs: z
    .int()
    .min(1)
    .default(4_000)
    .describe('such a link is closed when it gives no sign of life for this long (or for four round trips): every circuit on it ends then'),
  suspectTimeoutMs: z
    .int()
    .min(1)
    .default(2_000)
    .describe(
      'the same where there is another reason to think that it is dead: a newer connection with the peer, or a network that has changed',
    ),
  writeStallMs: z.int().min(1).default(60_000).describe('a link whose peer takes nothing in for this long is closed'),
  maxPunches: z.int().min(1).default(16).describe('peers behind NAT that are being met by hole punching at the same time'),
  maxLibp2pConnections: z.int().min(1).default(2048).describe('libp2p connections; beyond it those that carry nothing are closed'),
})
export type LinkLimits = z.output<typeof linkLimits>

export const linkConfig = z.strictObject({
  listen: z
    .array(z.string())
    .default([])
    .describe('where to listen, as multiaddrs: /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT; libp2p and direct links share the port'),
  outboundAddress: z
    .union([z.literal('auto'), z.ipv4(), z.ipv6()])
    .default('auto')
    .describe(
      "the local address to dial from; 'auto' lets the system choose, or takes the address listened on when that is a 127.x.x.x one",
    ),
  limits: linkLimits.prefault({}).describe('limits of links and channels'),
})
export type LinkConfig = z.output<typeof linkConfig>

/** All limits at their defaults. */
export const defaultLinkLimits: LinkLimits = linkLimits.parse({})
