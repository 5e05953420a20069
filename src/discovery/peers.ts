import type { Connection, Libp2p, PeerId, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { messageOf, type NodeId, parseNodeId, ShallotError } from '../base/index.ts'
import type { Descriptor } from '../directory/index.ts'

/** What discovery needs of libp2p. */
export type DiscoveryHost = Pick<Libp2p, 'peerId' | 'dial' | 'getConnections' | 'handle' | 'unhandle' | 'hangUp'>

/** A node that can be spoken to: its identity, and its libp2p addresses (`/ip4/…/tcp/…`) when they are known. */
export interface PeerSource {
  readonly id: NodeId
  readonly addresses: readonly string[]
  /** Where it is known from. */
  readonly from: 'bootstrap' | 'view' | 'stale' | 'guard' | 'connection'
}

/** The libp2p addresses of a descriptor. None behind NAT: such a node is asked for views over a connection that stands, and never dialled for them. */
export function libp2pAddresses(descriptor: Descriptor): string[] {
  return descriptor.reach.kind === 'direct' ? descriptor.addresses.filter((address) => !address.endsWith('/tls')) : []
}

/** Opens streams to peers, over the connection there is or a new one. */
export class Peers {
  readonly #host: DiscoveryHost
  readonly #dialTimeoutMs: number

  constructor(host: DiscoveryHost, dialTimeoutMs: number) {
    this.#host = host
    this.#dialTimeoutMs = dialTimeoutMs
  }

  /** The identity of a connection's peer, or null when it is none of ours (another kind of key). */
  static idOf(connection: Pick<Connection, 'remotePeer'>): NodeId | null {
    try {
      return parseNodeId(connection.remotePeer.toString())
    } catch {
      return null
    }
  }

  isConnected(id: NodeId): boolean {
    return this.#connection(peerIdFromString(id)) !== null
  }

  /**
   * A fresh stream. The peer's identity has been proven.
   * @throws ShallotError 'peer-unreachable', 'protocol-refused'
   */
  async openStream(source: Pick<PeerSource, 'id' | 'addresses'>, protocol: string, signal: AbortSignal): Promise<Stream> {
    const peer = peerIdFromString(source.id)
    const limited = AbortSignal.any([signal, AbortSignal.timeout(this.#dialTimeoutMs)])
    const connection = this.#connection(peer) ?? (await this.#dial(source, limited))
    let stream: Stream
    try {
      stream = await connection.newStream(protocol, { signal: limited })
    } catch (error) {
      throw new ShallotError('protocol-refused', `a peer does not speak ${protocol}: ${messageOf(error)}`, {
        kind: 'link',
        retry: 'elsewhere',
        cause: error,
      })
    }
    // Over the peer's limit of streams, libp2p gives a stream that is already reset.
    if (stream.status !== 'open')
      throw new ShallotError('protocol-refused', `a peer has no room for ${protocol}`, { kind: 'link', retry: 'later' })
    return stream
  }

  /** A connection that goes directly: views and gossip are no load for a NAT relay, and have no stream on its connections. */
  #connection(peer: PeerId): Connection | null {
    return this.#host.getConnections(peer).find(({ status, limits }) => status === 'open' && limits === undefined) ?? null
  }

  async #dial(source: Pick<PeerSource, 'id' | 'addresses'>, signal: AbortSignal): Promise<Connection> {
    if (source.addresses.length === 0)
      throw new ShallotError('peer-unreachable', 'no address of the peer is known', { kind: 'link', retry: 'elsewhere' })
    try {
      return await this.#host.dial(
        source.addresses.map((address) => multiaddr(`${address}/p2p/${source.id}`)),
        { signal },
      )
    } catch (error) {
      throw new ShallotError('peer-unreachable', `a peer could not be reached: ${messageOf(error)}`, {
        kind: 'link',
        retry: 'later',
        cause: error,
      })
    }
  }
}
