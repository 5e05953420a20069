import type { Connection, Stream } from '@libp2p/interface'
import { type Logger, MalformedError, messageOf, type NodeId } from '../../base/index.ts'
import type { Host } from '../../link/index.ts'
import type { ReservationsConfig } from './config.ts'
import { readMessage, writeMessage } from './handshake.ts'
import { decodeStop, encodeStop, STATUS, STOP_PROTOCOL, type Status, type StopMessage } from './messages.ts'
import { RequestRates } from './request-rates.ts'
import { isOwnConnection, type RelayTransport } from './transport.ts'

type StopServiceConfig = Pick<ReservationsConfig, 'maxInbound' | 'inboundPerSecond' | 'relays'>

export interface StopServiceModules {
  readonly host: Pick<Host, 'id' | 'libp2p'>
  readonly transport: Pick<RelayTransport, 'take'>
  /** Whether a relay may bring connections: there is a reservation with it, or one is being made. */
  readonly mayBring: (relay: NodeId) => boolean
  readonly logger: Logger
  /** Monotonic ms. */
  readonly now: () => number
}

/** From a relay's request until the peer's identity is proven. */
const TAKE_TIMEOUT_MS = 10_000
/** Calls of peers that are no relays of this node, until they are refused. */
const UNWANTED_MAX = 16

/** Takes the connections that relays bring: only those of relays that were asked to. */
export class StopService {
  readonly #config: StopServiceConfig
  readonly #modules: StopServiceModules
  readonly #rates: RequestRates
  /** Streams of such relays that carry, or are to carry, a connection. */
  readonly #streams = new Set<Stream>()
  readonly #unwanted = new Set<Stream>()
  #closing = new AbortController()

  constructor(config: StopServiceConfig, modules: StopServiceModules) {
    this.#config = config
    this.#modules = modules
    this.#rates = new RequestRates(config.inboundPerSecond)
  }

  /** Connections through relays to this node, open or being opened. */
  get open(): number {
    return this.#streams.size
  }

  async start(): Promise<void> {
    this.#closing = new AbortController()
    await this.#modules.host.libp2p.handle(STOP_PROTOCOL, (stream, connection) => this.#stop(stream, connection), {
      // No relay can take the places of the others.
      maxInboundStreams: Math.ceil(this.#config.maxInbound / this.#config.relays),
    })
  }

  async stop(): Promise<void> {
    this.#closing.abort(new Error('stopping'))
    await this.#modules.host.libp2p.unhandle(STOP_PROTOCOL)
    for (const stream of [...this.#streams, ...this.#unwanted]) stream.abort(new Error('stopping'))
  }

  async #stop(stream: Stream, connection: Connection): Promise<void> {
    const { mayBring, now, transport, logger } = this.#modules
    const relay = connection.remotePeer.toString() as NodeId
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(TAKE_TIMEOUT_MS)])
    const isWanted = isOwnConnection(connection) && mayBring(relay)
    // Those of others are only read to be refused, a few at a time, and don't take the places of those that are wanted.
    const streams = isWanted ? this.#streams : this.#unwanted
    if (streams.size >= (isWanted ? this.#config.maxInbound : UNWANTED_MAX)) {
      stream.abort(new Error('too many relayed connections'))
      return
    }
    streams.add(stream)
    stream.addEventListener('close', () => streams.delete(stream))
    try {
      const request = await readRequest(stream, signal)
      if (request === null) return refuse(stream, STATUS.malformedMessage)
      if (!isWanted) return refuse(stream, STATUS.permissionDenied)
      if (request.type !== 'connect') return refuse(stream, STATUS.unexpectedMessage)
      if (request.peer === null) return refuse(stream, STATUS.malformedMessage)
      if (!this.#rates.take(relay, now())) return refuse(stream, STATUS.resourceLimitExceeded)
      writeMessage(stream, encodeStop({ type: 'status', status: STATUS.ok }))
      await transport.take(stream, connection, request.peer, request.limit, signal)
    } catch (error) {
      logger.debug('a relayed connection was not taken', { why: messageOf(error) })
      stream.abort(error as Error)
    }
  }
}

async function readRequest(stream: Stream, signal: AbortSignal): Promise<StopMessage | null> {
  try {
    return decodeStop(await readMessage(stream, signal))
  } catch (error) {
    if (error instanceof MalformedError) return null
    throw error
  }
}

function refuse(stream: Stream, status: Status): void {
  writeMessage(stream, encodeStop({ type: 'status', status }))
  if (stream.readStatus === 'readable') stream.pause()
  const timer = setTimeout(() => stream.abort(new Error('not closed')), TAKE_TIMEOUT_MS)
  timer.unref()
  stream.addEventListener('close', () => clearTimeout(timer))
  stream.close({ signal: AbortSignal.timeout(TAKE_TIMEOUT_MS) }).catch((error) => stream.abort(error))
}
