import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import type { AddressInfo, Socket } from 'node:net'
import { formatIp, isIpText, type Logger, MalformedError, messageOf, parseHost, parseIp, sensitive } from '../base/index.ts'
import type { ClientService, DatagramAssociation } from '../client/index.ts'
import type { Target } from '../onion/index.ts'
import { decodeUdp, encodeUdp } from './socks5-codec.ts'
import { announcedSource } from './socks5-handshake.ts'

/** Bytes that may wait in the kernel's or libuv's queue towards the application; replies beyond are dropped. */
const REPLY_QUEUE_BYTES = 1_048_576

export interface AssociateOptions {
  /** The TCP connection that asked; the association lives as long as it. */
  readonly control: Socket
  /** DST.ADDR and DST.PORT of the request. */
  readonly announced: Target
  readonly isolation: string
  readonly signal: AbortSignal
  readonly client: ClientService
  readonly logger: Logger
}

/**
 * A UDP association (RFC 1928 §7): one UDP socket on the address the application's TCP connection came to, joined to a datagram association of the
 * client. Only datagrams of that application are taken: its address, and the port it announced or else the first it sends from.
 */
export class SocksAssociation {
  /** BND.ADDR and BND.PORT. */
  readonly bound: Target
  readonly #socket: UdpSocket
  readonly #logger: Logger
  readonly #peerHost: string
  #peerPort: number | null
  #datagrams: DatagramAssociation | null = null
  #closed = false
  /** Datagrams that were not taken or not passed on. */
  dropped = 0

  /** Resolves when both ends stand. @throws StreamError, or the system's error when no UDP socket is to be had */
  static async open(options: AssociateOptions): Promise<SocksAssociation> {
    const { control, announced, isolation, signal, client, logger } = options
    const host = formatIp(parseIp(control.localAddress ?? '127.0.0.1'))
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', ipv6Only: host.includes(':') })
    let association: SocksAssociation | null = null
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject)
        socket.bind({ address: host, port: 0, exclusive: true }, () => {
          socket.off('error', reject)
          resolve()
        })
      })
      association = new SocksAssociation(socket, formatIp(parseIp(control.remoteAddress ?? host)), announcedSource(announced).port, logger)
      const opened = association
      opened.#datagrams = await client.openDatagrams(
        { isolation, signal },
        (from, bytes) => opened.#reply(from, bytes),
        () => {
          opened.close()
          control.resetAndDestroy()
        },
      )
      if (opened.#closed) opened.#datagrams.close()
      return opened
    } catch (error) {
      if (association) association.close()
      else socket.close()
      throw error
    }
  }

  private constructor(socket: UdpSocket, peerHost: string, peerPort: number | null, logger: Logger) {
    this.#socket = socket
    this.#peerHost = peerHost
    this.#peerPort = peerPort
    this.#logger = logger
    const { address, port } = socket.address() as AddressInfo
    this.bound = { host: address, port }
    socket.on('message', (bytes, from) => this.#send(bytes, from.address, from.port))
    socket.on('error', (error) => {
      logger.debug('association failed', { error: sensitive(messageOf(error)) })
      this.close()
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
    this.#datagrams?.close()
  }

  #send(packet: Uint8Array, host: string, port: number): void {
    if (!this.#datagrams || formatIp(parseIp(host)) !== this.#peerHost || (this.#peerPort !== null && this.#peerPort !== port)) {
      this.dropped++
      return
    }
    try {
      const { to, bytes } = decodeUdp(packet)
      const target = { host: parseHost(to.host).text, port: to.port }
      if (target.port === 0) throw new MalformedError('SOCKS datagram', 'the port is 0')
      this.#peerPort = port
      this.#datagrams.send(target, bytes)
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      this.dropped++
    }
  }

  #reply(from: Target, bytes: Uint8Array): void {
    if (this.#closed || this.#peerPort === null || this.#socket.getSendQueueSize() > REPLY_QUEUE_BYTES) {
      this.dropped++
      return
    }
    if (!isIpText(from.host)) this.#logger.trace('a datagram came from a name')
    this.#socket.send(encodeUdp(from, bytes), this.#peerPort, this.#peerHost, (error) => {
      if (error) this.dropped++
    })
  }
}
