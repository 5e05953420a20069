import {
  type ComponentLogger,
  type Connection,
  type ConnectionLimits,
  type DialTransportOptions,
  type Listener,
  type PeerId,
  type Stream,
  serviceCapabilities,
  type Transport,
  transportSymbol,
  type Upgrader,
} from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { assert, type NodeId, ShallotError } from '../../base/index.ts'
import { readMessage, writeMessage } from './handshake.ts'
import { decodeHop, encodeHop, HOP_PROTOCOL, type RelayLimit, STATUS, statusName } from './messages.ts'
import { formatRelayedAddress, parseRelayedAddress } from './relayed-address.ts'
import { RelayedWire } from './relayed-wire.ts'

/** What libp2p gives a transport that this one uses. */
interface Components {
  readonly peerId: PeerId
  readonly logger: ComponentLogger
  readonly upgrader: Upgrader
  readonly connectionManager: {
    getConnections(peer: PeerId): Connection[]
    openConnection(address: Multiaddr, options: { signal?: AbortSignal }): Promise<Connection>
  }
}

/** Streams to one relay at once: connections through it, and requests. */
const MAX_HOP_STREAMS = 4096

/**
 * libp2p connections through relays, as far as a node opens them (`factory`, for `createHost({ transports })`) or is brought them by a relay
 * that it has a reservation with (`take`). It reserves nothing and listens to nothing by itself. Such a connection is encrypted end to end,
 * and always marked as limited, so that only protocols made for it run there. Why not the library's: docs/spec/relay.md §6.
 */
export class RelayTransport {
  #components: Components | null = null

  /** Give it to one host. */
  readonly factory = (components: unknown): Transport => {
    assert(this.#components === null, 'a relay transport is for one host')
    this.#components = components as Components
    return new CircuitTransport(this.#components)
  }

  /**
   * Makes a connection of a stream that a relay has opened for somebody, after the relay was told OK.
   * @throws whatever made the upgrade fail: the peer is not who the relay said, the time is over
   */
  async take(stream: Stream, relay: Connection, peer: NodeId, limit: RelayLimit | null, signal: AbortSignal): Promise<void> {
    assert(this.#components !== null, 'the relay transport has no host')
    const { upgrader, peerId, logger } = this.#components
    const relayId = relay.remotePeer.toString() as NodeId
    const relayAddress = relay.remoteAddr.toString()
    const wire = new RelayedWire(
      stream,
      'inbound',
      multiaddr(formatRelayedAddress(relayAddress, relayId, peer)),
      multiaddr(formatRelayedAddress(relayAddress, relayId, peerId.toString() as NodeId)),
      logger.forComponent('shallot:relayed'),
    )
    try {
      await upgrader.upgradeInbound(wire, { signal, limits: limitsOf(limit) })
    } catch (error) {
      wire.abort(error as Error)
      throw error
    }
  }
}

/** The transport and its handle. */
export function relayTransport(): RelayTransport {
  return new RelayTransport()
}

class CircuitTransport implements Transport {
  readonly [transportSymbol] = true as const
  readonly [Symbol.toStringTag] = 'shallot/circuit'
  readonly [serviceCapabilities]: string[] = ['@libp2p/transport']
  readonly #components: Components

  constructor(components: Components) {
    this.#components = components
  }

  async dial(address: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    const parsed = parseRelayedAddress(address.toString())
    assert(parsed !== null, 'only addresses that passed the filter are dialled')
    const { peerId, logger } = this.#components
    const relay = await this.#relayConnection(parsed.relay, parsed.relayAddress, options.signal)
    const stream = await relay.newStream(HOP_PROTOCOL, { signal: options.signal, maxOutboundStreams: MAX_HOP_STREAMS })
    try {
      // Over the relay's limit of streams, one comes that is reset already.
      writeMessage(stream, encodeHop({ type: 'connect', peer: parsed.target }))
      const answer = decodeHop(await readMessage(stream, options.signal))
      if (answer.type !== 'status' || answer.status !== STATUS.ok) throw refused(answer.status)
      const wire = new RelayedWire(
        stream,
        'outbound',
        address,
        multiaddr(formatRelayedAddress(parsed.relayAddress, parsed.relay, peerId.toString() as NodeId)),
        logger.forComponent('shallot:relayed'),
      )
      return await options.upgrader.upgradeOutbound(wire, { ...options, limits: limitsOf(answer.limit) })
    } catch (error) {
      stream.abort(error as Error)
      throw error
    }
  }

  createListener(): Listener {
    throw new ShallotError('not-listening', 'relayed connections are brought by relays, not listened for', {
      kind: 'usage',
      retry: 'never',
    })
  }

  listenFilter(): Multiaddr[] {
    return []
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses.filter((address) => parseRelayedAddress(address.toString()) !== null)
  }

  /** A connection of our own with the relay: no relay is reached through another one. */
  async #relayConnection(relay: NodeId, address: string, signal: AbortSignal): Promise<Connection> {
    const { connectionManager } = this.#components
    const open = connectionManager.getConnections(peerIdFromString(relay)).find(isOwnConnection)
    const connection = open ?? (await connectionManager.openConnection(multiaddr(address), { signal }))
    if (!isOwnConnection(connection)) {
      throw new ShallotError('relay-unreachable', 'the relay is behind a relay itself', { kind: 'link', retry: 'elsewhere' })
    }
    return connection
  }
}

/** Whether the connection is with the peer itself, and without limits. */
export function isOwnConnection(connection: Connection): boolean {
  return connection.status === 'open' && connection.limits === undefined && connection.direct
}

/** A connection through a relay is limited even when the relay names no limit. */
function limitsOf(limit: RelayLimit | null): ConnectionLimits {
  return {
    ...(limit?.bytes == null ? {} : { bytes: BigInt(limit.bytes) }),
    ...(limit?.seconds == null ? {} : { seconds: limit.seconds }),
  }
}

function refused(status: number | null): ShallotError {
  return new ShallotError('relay-refused', `the relay refused: ${statusName(status)}`, { kind: 'link', retry: 'elsewhere' })
}
