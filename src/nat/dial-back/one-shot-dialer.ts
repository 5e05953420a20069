import net, { type Socket } from 'node:net'
import {
  type ComponentLogger,
  type Connection,
  type DialTransportOptions,
  type Listener,
  type Transport,
  transportSymbol,
} from '@libp2p/interface'
import { noise } from '@libp2p/noise'
import { AbstractMultiaddrConnection, lpStream } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import type { Uint8ArrayList } from 'uint8arraylist'
import { type NodeId, ShallotError } from '../../base/index.ts'
import { formatTcpAddress } from '../../link/index.ts'
import { DIAL_BACK_PROTOCOL, dialStatus, encodeDialBack, isDialBackOk } from './messages.ts'

/**
 * The most that one dial-back may write into its TCP connection; beyond it the connection is cut. An honest one takes about 700 bytes:
 * multistream-select, Noise (a ClientHello of TLS with a post-quantum key is several times that), yamux, the nonce.
 */
export const DIAL_BACK_PAYLOAD_MAX = 2048
/**
 * What one dial-back sends at most, in IP packets, to an address that does everything to get more: four SYNs of 80 bytes, the payload twice for
 * what is sent again within the time-outs, and 60 bytes of headers for each of 48 packets. An asker pays for it in advance.
 */
export const DIAL_BACK_COST_BYTES = 4 * 80 + 2 * DIAL_BACK_PAYLOAD_MAX + 48 * 60
/** For everything after the TCP connection is there: about eight round trips. */
const TALK_TIMEOUT_MS = 5_000
const RESPONSE_BYTES_MAX = 64

export interface DialBackTarget {
  readonly host: string
  readonly port: number
  /** The identity that must answer there. */
  readonly id: NodeId
  readonly nonce: bigint
  /** The local address to dial from; undefined: the system chooses. The port is always a fresh one, or a NAT would take it for an answer. */
  readonly localAddress?: string | undefined
  readonly connectTimeoutMs: number
}

/** How it went, as the protocol's DialStatus, and how many bytes were written into the connection. */
export interface DialBackResult {
  readonly status: number
  readonly sentBytes: number
}

/**
 * Dials an address once, proves that `id` answers there, and hands over the nonce: under an identity made for this and from a port made for
 * this. A libp2p of its own, so that nothing of it touches the node's connections, limits and tables; nothing of it is left.
 */
export async function dialBackOnce(target: DialBackTarget, signal: AbortSignal): Promise<DialBackResult> {
  const transport = new OneShotTransport(target)
  const libp2p = await createLibp2p({
    addresses: { listen: [] },
    transports: [(components: { logger: ComponentLogger }) => transport.with(components.logger)],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ maxInboundStreams: 4, maxEarlyStreams: 4, enableKeepAlive: false })],
    connectionMonitor: { enabled: false },
    connectionManager: { maxConnections: 1, reconnectRetries: 0 },
    connectionGater: { denyDialMultiaddr: () => false },
  })
  const patience = AbortSignal.any([signal, AbortSignal.timeout(target.connectTimeoutMs + TALK_TIMEOUT_MS)])
  try {
    const address = multiaddr(`${formatTcpAddress(target.host, target.port, false)}/p2p/${target.id}`)
    const connection = await libp2p.dial(address, { signal: patience })
    const stream = await connection.newStream(DIAL_BACK_PROTOCOL, { signal: patience })
    const messages = lpStream(stream, { maxDataLength: RESPONSE_BYTES_MAX, maxBufferSize: 4 * RESPONSE_BYTES_MAX })
    await messages.write(encodeDialBack(target.nonce), { signal: patience })
    const response = await messages.read({ signal: patience })
    const status = isDialBackOk(response.subarray()) ? dialStatus.ok : dialStatus.dialBackError
    return { status, sentBytes: transport.sentBytes }
  } catch {
    const status = transport.isConnected ? dialStatus.dialBackError : dialStatus.dialError
    return { status, sentBytes: transport.sentBytes }
  } finally {
    transport.end()
    await Promise.resolve(libp2p.stop()).catch(() => {})
  }
}

/** Makes one TCP connection and counts what it sends. */
class OneShotTransport implements Transport {
  readonly [transportSymbol] = true as const
  readonly [Symbol.toStringTag] = 'shallot/dial-back'
  readonly #target: DialBackTarget
  #logger: ComponentLogger | null = null
  #socket: Socket | null = null
  isConnected = false

  constructor(target: DialBackTarget) {
    this.#target = target
  }

  with(logger: ComponentLogger): this {
    this.#logger = logger
    return this
  }

  get sentBytes(): number {
    return this.#socket?.bytesWritten ?? 0
  }

  /** Ends the connection in order, and lets go of it soon whatever the other side does. */
  end(): void {
    const socket = this.#socket
    if (socket === null || socket.destroyed) return
    socket.resetAndDestroy()
  }

  async dial(address: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    const socket = await this.#connect(options.signal)
    this.isConnected = true
    const connection = new CountedConnection(socket, address, this.#logger!)
    try {
      return await options.upgrader.upgradeOutbound(connection, options)
    } catch (error) {
      connection.abort(error as Error)
      throw error
    }
  }

  createListener(): Listener {
    throw new ShallotError('not-listening', 'a dial-back listens to nothing', { kind: 'process', retry: 'never' })
  }

  listenFilter(): Multiaddr[] {
    return []
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses
  }

  #connect(signal: AbortSignal): Promise<Socket> {
    if (this.#socket !== null)
      throw new ShallotError('dialled-twice', 'a dial-back makes one connection', { kind: 'process', retry: 'never' })
    const { host, port, localAddress, connectTimeoutMs } = this.#target
    const socket = net.connect({ host, port, noDelay: true, ...(localAddress === undefined ? {} : { localAddress }) })
    this.#socket = socket
    return new Promise((resolve, reject) => {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(connectTimeoutMs)])
      const fail = (error: Error): void => {
        settle()
        socket.destroy()
        reject(error)
      }
      const onAbort = (): void => fail(new Error('not connected in time'))
      const onConnect = (): void => {
        settle()
        resolve(socket)
      }
      const settle = (): void => {
        patience.removeEventListener('abort', onAbort)
        socket.off('connect', onConnect)
      }
      patience.addEventListener('abort', onAbort, { once: true })
      // Stays for good: a socket without a listener would throw.
      socket.on('error', fail).once('connect', onConnect)
    })
  }
}

class CountedConnection extends AbstractMultiaddrConnection {
  readonly #socket: Socket

  constructor(socket: Socket, remoteAddr: Multiaddr, logger: ComponentLogger) {
    super({ remoteAddr, direction: 'outbound', log: logger.forComponent('shallot:dial-back') })
    this.#socket = socket
    socket.on('data', (chunk) => this.onData(chunk))
    socket.on('error', (error) => this.abort(error))
    socket.once('end', () => this.onTransportClosed())
    socket.once('close', () => this.onTransportClosed())
    socket.on('drain', () => this.safeDispatchEvent('drain'))
  }

  sendData(data: Uint8ArrayList): { sentBytes: number; canSendMore: boolean } {
    const socket = this.#socket
    if (socket.bytesWritten + data.byteLength > DIAL_BACK_PAYLOAD_MAX) {
      socket.destroy()
      throw new ShallotError('dial-back-too-long', 'a dial-back wanted to send more than it may', { kind: 'peer', retry: 'never' })
    }
    socket.cork()
    let canSendMore = true
    for (const chunk of data) canSendMore = socket.write(chunk)
    socket.uncork()
    return { sentBytes: data.byteLength, canSendMore }
  }

  async sendClose(): Promise<void> {
    this.#socket.end()
  }

  sendReset(): void {
    this.#socket.resetAndDestroy()
  }

  sendPause(): void {
    this.#socket.pause()
  }

  sendResume(): void {
    this.#socket.resume()
  }
}
