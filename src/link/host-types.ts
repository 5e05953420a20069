import type { Libp2p, ServiceMap, Transport } from '@libp2p/interface'
import type { ServiceFactoryMap } from 'libp2p'
import type { Logger, NodeId } from '../base/index.ts'
import type { BatchMemory } from '../onion/index.ts'
import type { BatchPool } from './batch-pool.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { ChannelAcceptor, ChannelDialer } from './channel.ts'
import type { LinkLimits } from './config.ts'

export interface HostOptions<Services extends ServiceMap = ServiceMap> {
  /** Ed25519 seed, 32 bytes, borrowed. A client gives a fresh one at every start. */
  readonly key: Uint8Array
  /** A client listens to nothing, advertises nothing and takes no channels. */
  readonly mode: 'client' | 'server'
  /** Multiaddrs `/ip4/A/tcp/P`, `/ip6/A/tcp/P`; port 0 takes a free one. Not for clients. */
  readonly listen?: readonly string[]
  /** The local address to dial from, or 'auto' (the default). */
  readonly outboundAddress?: string
  /** Further libp2p services (DHT, gossip …). */
  readonly services?: ServiceFactoryMap<Services>
  /** Further libp2p transports. */
  readonly transports?: readonly ((components: never) => Transport)[]
  readonly limits?: LinkLimits
  readonly meter?: ByteMeter
  readonly memory?: BatchPool
  readonly logger?: Logger
  /** Asked before libp2p dials: false forbids it. Channels that are opened by `dialer` are not asked for. */
  readonly mayDial?: (peer: NodeId | null, address: string | null) => boolean
}

/** What is known of a link or connection that may carry channels: for status. */
export interface LinkStatus {
  readonly peer: NodeId
  readonly kind: 'tls' | 'libp2p'
  readonly direction: 'inbound' | 'outbound'
  /** How it came about: `punched` is a direct link whose connection came up while both sides were punching. */
  readonly origin: 'dialed' | 'accepted' | 'punched'
  /** The relay that a libp2p connection goes through; null for every direct one. */
  readonly via: NodeId | null
  /** Sensitive. */
  readonly remoteAddress: string
  readonly channels: number
  /** Null where it is not counted. */
  readonly bytesIn: number | null
  readonly bytesOut: number | null
  /** Wall-clock ms. */
  readonly since: number
  readonly rttMs: number | null
}

/** A peer to meet in the middle: both sides call `punch` at about the same time. */
export interface PunchTarget {
  readonly id: NodeId
  /** Where the peer's own connection attempts may be seen to come from: public addresses, IPv4 or IPv6 text. */
  readonly endpoints: readonly { readonly host: string; readonly port: number }[]
  /** Which side of TLS this node takes, whoever's SYN came first. One side must be client, the other server. */
  readonly tlsRole: 'client' | 'server'
}

/** A public endpoint of a listening port, as a peer that was dialled from that port saw it. */
export interface ObservedEndpoint {
  readonly host: string
  readonly port: number
  /** The port listened on. */
  readonly localPort: number
  /** Who says so. */
  readonly observer: NodeId
  /** Wall-clock ms. */
  readonly at: number
}

export interface Host<Services extends ServiceMap = ServiceMap> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  /** All bytes queued by channels. */
  readonly meter: ByteMeter
  /** The memory of large batches: machines take theirs from here too, so that what was sent is used again. */
  readonly memory: BatchMemory
  readonly dialer: ChannelDialer
  /** Who is given the channels that peers open; before it is set, and with null, they are refused. */
  onChannel(acceptor: ChannelAcceptor | null): void
  links(): LinkStatus[]
  /** Where the node listens, as multiaddrs: for libp2p and, with `/tls`, for direct links. */
  addresses(): string[]
  /** Keeps the peer's libp2p connection from being pruned; counted, so that each `tag` wants its `untag`. */
  tag(peer: NodeId): void
  untag(peer: NodeId): void
  /** Why this node can't dial from its listening port, in a sentence; null when it can. Known after `preparePunching`. */
  readonly punching: { readonly unavailable: string | null }
  /**
   * Loads what punching needs and tries it; from then on libp2p dials from the listening port too, which keeps the NAT's mapping of it alive and
   * lets peers say how they see it (`observed`). Only nodes behind NAT call it. Never throws: see `punching`.
   */
  preparePunching(): Promise<void>
  /**
   * The TCP endpoints that peers dialled from the listening port say they see, the newest last; only of connections that are still up, since
   * nothing else keeps a mapping alive. Empty before `preparePunching`.
   */
  observed(): readonly ObservedEndpoint[]
  /**
   * A direct link to the peer at one of its public addresses; one that is up already is enough.
   * @param addresses multiaddrs; those of other forms than `/ip4|ip6/A/tcp/P` with or without `/tls` are skipped
   * @throws ShallotError as `openChannel` does
   */
  connectDirect(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<void>
  /**
   * Dials from the listening port until a direct link to the peer is up, by our connection or by the peer's, or the signal says stop.
   * @throws ShallotError 'not-prepared', 'punch-failed', 'punch-limit', 'aborted'
   */
  punch(target: PunchTarget, signal: AbortSignal): Promise<void>
  /** The direct link to the peer that a new channel would take, or null. */
  directLink(id: NodeId): LinkStatus | null
  /** Told of every new direct link, whoever began it. Returns what ends the telling. */
  onDirectLink(listener: (link: LinkStatus) => void): () => void
  /**
   * Told whenever a peer has opened a channel here that is not on a direct link and moves to one as soon as there is one: for a peer that can be
   * dialled, `connectDirect` is all it takes. Returns what ends the telling.
   */
  onMovingChannel(listener: (peer: NodeId) => void): () => void
  /**
   * There is a reason to think that connections are dead: with the peer, or all where none is named. Each is asked for a sign of life at once, and ended
   * when none comes within `limits.suspectTimeoutMs`.
   */
  suspect(id?: NodeId): void
  stop(): Promise<void>
}
