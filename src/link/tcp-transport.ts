import net, { type AddressInfo, type Server, type Socket } from 'node:net'
import {
  AbortError,
  type ComponentLogger,
  type Connection,
  type CreateListenerOptions,
  type DialTransportOptions,
  type Listener,
  type ListenerEvents,
  type MultiaddrConnection,
  serviceCapabilities,
  type Transport,
  TypedEventEmitter,
  transportSymbol,
} from '@libp2p/interface'
import { AbstractMultiaddrConnection, getThinWaistAddresses, ipPortToMultiaddr } from '@libp2p/utils'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import type { Uint8ArrayList } from 'uint8arraylist'
import type { Listeners, ListeningPort, SilentConnection } from './listeners.ts'
import { parseTcpAddress, type TcpAddress } from './multiaddrs.ts'

/** A TLS record of the handshake begins with this byte (RFC 8446 §5.1); libp2p's first byte is multistream-select's length. */
const TLS_HANDSHAKE_BYTE = 0x16
/** Inbound connections of one address that have sent nothing yet: an honest one is among them for a round trip. */
const MAX_SILENT_PER_ADDRESS = 32

export interface TcpTransportOptions {
  /** The local address to dial a host from. */
  readonly outboundAddressFor: (host: string) => string | undefined
  /** A connection from the listening port, where that is wanted and possible. */
  readonly dialFromPort: (host: string, port: number, signal: AbortSignal) => Promise<Socket> | null
  /** Told of connections that were dialled from the listening port. */
  readonly dialledFromPort: (connection: Connection, localPort: number) => void
  readonly listeners: Listeners
  /** Takes inbound connections that begin with TLS. */
  readonly takeTls: (socket: Socket) => void
  /** Inbound connections that have sent nothing by then are closed. */
  readonly firstByteTimeoutMs: number
  /** Inbound connections that may not have sent anything yet. */
  readonly maxSilent: number
  /** A port that could not be listened on. */
  readonly listenFailed: (address: TcpAddress, error: NodeJS.ErrnoException) => void
}

/**
 * libp2p over TCP on a port that direct links share: the first byte tells them apart. Our own transport, because the listening socket
 * must be ours, and the local address of a dial is ours to choose.
 */
export function tcpTransport(options: TcpTransportOptions): (components: { logger: ComponentLogger }) => Transport {
  return (components) => new TcpTransport(options, components.logger)
}

class TcpTransport implements Transport {
  readonly [transportSymbol] = true as const
  readonly [Symbol.toStringTag] = 'shallot/tcp'
  readonly [serviceCapabilities]: string[] = ['@libp2p/transport']
  readonly #options: TcpTransportOptions
  readonly #logger: ComponentLogger

  constructor(options: TcpTransportOptions, logger: ComponentLogger) {
    this.#options = options
    this.#logger = logger
  }

  async dial(address: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    const fromPort = await this.#connectFromPort(address, options.signal)
    const socket = fromPort ?? (await this.#connect(address, options.signal))
    const connection = new TcpConnection(socket, address, 'outbound', this.#logger)
    try {
      const upgraded = await options.upgrader.upgradeOutbound(connection, options)
      if (fromPort?.localPort !== undefined) this.#options.dialledFromPort(upgraded, fromPort.localPort)
      return upgraded
    } catch (error) {
      connection.abort(error as Error)
      throw error
    }
  }

  createListener(options: CreateListenerOptions): Listener {
    return new TcpListener(this.#options, options, this.#logger)
  }

  listenFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses.filter((address) => plainTcp(address) !== null)
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return this.listenFilter(addresses)
  }

  /** Null where it is not wanted, or not possible: there can be only one connection of two and the same ports. */
  async #connectFromPort(address: Multiaddr, signal: AbortSignal): Promise<Socket | null> {
    const { host, port } = plainTcp(address)!
    try {
      return (await this.#options.dialFromPort(host, port, signal)) ?? null
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EADDRNOTAVAIL' || code === 'EADDRINUSE') return null
      throw error
    }
  }

  #connect(address: Multiaddr, signal: AbortSignal): Promise<Socket> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted()
      const { host, port } = plainTcp(address)!
      const localAddress = this.#options.outboundAddressFor(host)
      const socket = net.connect({ host, port, noDelay: true, keepAlive: true, ...(localAddress === undefined ? {} : { localAddress }) })
      const settle = (): void => {
        signal.removeEventListener('abort', onAbort)
        socket.off('error', onError).off('connect', onConnect)
      }
      const onError = (error: Error): void => {
        settle()
        socket.destroy()
        reject(error)
      }
      const onAbort = (): void => onError(new AbortError())
      const onConnect = (): void => {
        settle()
        resolve(socket)
      }
      signal.addEventListener('abort', onAbort, { once: true })
      socket.on('error', onError).once('connect', onConnect)
    })
  }
}

class TcpListener extends TypedEventEmitter<ListenerEvents> implements Listener, ListeningPort {
  readonly #options: TcpTransportOptions
  readonly #upgrader: CreateListenerOptions['upgrader']
  readonly #logger: ComponentLogger
  readonly #server: Server
  readonly #silent: Map<Socket, SilentConnection> = new Map()
  readonly #connections: Set<Socket> = new Set()
  readonly #shutdown = new AbortController()
  #address: Multiaddr | null = null

  constructor(options: TcpTransportOptions, listener: CreateListenerOptions, logger: ComponentLogger) {
    super()
    this.#options = options
    this.#upgrader = listener.upgrader
    this.#logger = logger
    this.#server = net.createServer({ noDelay: true, keepAlive: true }, (socket) => this.#peek(socket))
  }

  async listen(address: Multiaddr): Promise<void> {
    const tcp = plainTcp(address)!
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        this.#options.listenFailed(tcp, error)
        reject(error)
      })
      this.#server.listen({ host: tcp.host, port: tcp.port, ipv6Only: tcp.host.includes(':') }, resolve)
    })
    this.#server.on('error', (error) => this.safeDispatchEvent('error', { detail: error }))
    this.#address = address
    this.#options.listeners.add(this)
    this.safeDispatchEvent('listening')
  }

  get host(): string {
    return plainTcp(this.#address!)!.host
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get fd(): number | null {
    const { fd } = (this.#server as unknown as { _handle?: { fd?: number } })._handle ?? {}
    return typeof fd === 'number' && fd >= 0 ? fd : null
  }

  silent(): Iterable<SilentConnection> {
    return this.#silent.values()
  }

  getAddrs(): Multiaddr[] {
    const bound = this.#server.address()
    if (this.#address === null || bound === null || typeof bound === 'string') return []
    return getThinWaistAddresses(this.#address, bound.port)
  }

  updateAnnounceAddrs(): void {}

  async close(): Promise<void> {
    // Direct links that came in here are not ours to end, and are not waited for; the port is free at once.
    this.#options.listeners.remove(this)
    this.#server.close()
    this.#shutdown.abort()
    for (const socket of [...this.#silent.keys(), ...this.#connections]) socket.destroy()
    // Not within the call: libp2p's list of listeners is being gone through.
    queueMicrotask(() => this.safeDispatchEvent('close'))
  }

  /** Waits for the first byte and hands the connection on, the byte put back. */
  #peek(socket: Socket): void {
    if (this.#silent.size >= this.#options.maxSilent || this.#silentOf(socket.remoteAddress) >= MAX_SILENT_PER_ADDRESS) {
      socket.destroy()
      return
    }
    const release = (): Socket => {
      socket.pause()
      socket.off('data', onData).off('close', onGone).off('timeout', onSilence)
      socket.setTimeout(0)
      this.#silent.delete(socket)
      return socket
    }
    const { remoteAddress = '', remotePort = 0 } = socket
    this.#silent.set(socket, { remoteAddress, remotePort, since: performance.now(), release })
    const onSilence = (): void => {
      socket.destroy()
    }
    const onGone = (): void => {
      this.#silent.delete(socket)
      socket.destroy()
    }
    const onData = (chunk: Buffer): void => {
      release()
      socket.unshift(chunk)
      if (chunk[0] === TLS_HANDSHAKE_BYTE) this.#options.takeTls(socket)
      else this.#upgrade(socket)
    }
    // Stays for good: a socket without a listener would throw.
    socket.on('error', onGone)
    socket.once('close', onGone)
    socket.setTimeout(this.#options.firstByteTimeoutMs, onSilence)
    socket.on('data', onData)
  }

  #silentOf(address: string | undefined): number {
    let count = 0
    for (const socket of this.#silent.keys()) if (socket.remoteAddress === address) count++
    return count
  }

  #upgrade(socket: Socket): void {
    const { remoteAddress, remotePort } = socket
    if (remoteAddress === undefined || remotePort === undefined) {
      socket.destroy()
      return
    }
    const connection = new TcpConnection(socket, ipPortToMultiaddr(remoteAddress, remotePort), 'inbound', this.#logger)
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
    this.#upgrader.upgradeInbound(connection, { signal: this.#shutdown.signal }).catch((error: Error) => connection.abort(error))
  }
}

/** A TCP socket as libp2p wants it. */
class TcpConnection extends AbstractMultiaddrConnection implements MultiaddrConnection {
  readonly #socket: Socket

  constructor(socket: Socket, remoteAddr: Multiaddr, direction: 'inbound' | 'outbound', logger: ComponentLogger) {
    super({ remoteAddr, direction, log: logger.forComponent('shallot:tcp') })
    this.#socket = socket
    socket.on('data', (chunk) => this.onData(chunk))
    socket.on('error', (error) => this.abort(error))
    socket.once('end', () => this.onTransportClosed())
    socket.once('close', (hadError) => {
      if (hadError) this.abort(new Error('the connection failed'))
      else this.onTransportClosed()
    })
    socket.on('drain', () => this.safeDispatchEvent('drain'))
    socket.resume()
  }

  sendData(data: Uint8ArrayList): { sentBytes: number; canSendMore: boolean } {
    let sentBytes = 0
    let canSendMore = true
    this.#socket.cork()
    for (const chunk of data) {
      sentBytes += chunk.byteLength
      canSendMore = this.#socket.write(chunk)
    }
    this.#socket.uncork()
    return { sentBytes, canSendMore }
  }

  async sendClose(): Promise<void> {
    if (this.#socket.destroyed) return
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()))
    this.#socket.destroySoon()
    await closed
  }

  sendReset(): void {
    this.#socket.destroy()
  }

  sendPause(): void {
    this.#socket.pause()
  }

  sendResume(): void {
    this.#socket.resume()
  }
}

/** The address when it is plain TCP on an IP address, else null. */
function plainTcp(address: Multiaddr): TcpAddress | null {
  const tcp = parseTcpAddress(multiaddr(address).toString())
  return tcp === null || tcp.isDirect ? null : tcp
}
