import { once } from 'node:events'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import {
  type ConnectionEncrypter,
  type MessageStream,
  type PeerId,
  type SecureConnectionOptions,
  type SecuredConnection,
  type StreamCloseEvent,
  type StreamMessageEvent,
  type StreamMuxerFactory,
  serviceCapabilities,
  UnexpectedPeerError,
} from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { AbstractMessageStream, type SendResult } from '@libp2p/utils'
import type { Uint8ArrayList } from 'uint8arraylist'
import { MalformedError } from '../base/index.ts'
import { type LinkCertificate, verifyCertificate } from './certificate.ts'

/** libp2p TLS handshake specification: the name in multistream-select, and the ALPN of a peer that chooses no muxer in the handshake. */
const PROTOCOL = '/tls/1.0.0'
const NO_MUXER = 'libp2p'

interface Components {
  readonly upgrader: { getStreamMuxers(): Map<string, StreamMuxerFactory> }
}

/**
 * libp2p's TLS 1.3 with this node's certificate, the one of its direct links. It speaks what @libp2p/tls speaks; that makes a new certificate for
 * each connection and brings three hundred modules of an X.509 library to do it (docs/decisions/2026-11-20-memory-of-a-node.md).
 */
export function libp2pTls(certificate: LinkCertificate): (components: Components) => ConnectionEncrypter {
  // The upgrader is there only when connections are: libp2p makes the encrypters first.
  return (components) => ({
    protocol: PROTOCOL,
    [Symbol.toStringTag]: 'shallot/libp2p-tls',
    [serviceCapabilities]: ['@libp2p/connection-encryption'],
    secureInbound: (connection: MessageStream, options?: SecureConnectionOptions) =>
      secure(connection, 'inbound', certificate, muxersOf(components, options), options),
    secureOutbound: (connection: MessageStream, options?: SecureConnectionOptions) =>
      secure(connection, 'outbound', certificate, muxersOf(components, options), options),
  })
}

function muxersOf(components: Components, options?: SecureConnectionOptions): Map<string, StreamMuxerFactory> {
  return options?.skipStreamMuxerNegotiation === true ? new Map() : components.upgrader.getStreamMuxers()
}

/** @throws MalformedError, UnexpectedPeerError, the signal's reason, or what ended the connection; it is aborted then */
function secure(
  connection: MessageStream,
  direction: 'inbound' | 'outbound',
  certificate: LinkCertificate,
  muxers: Map<string, StreamMuxerFactory>,
  options: SecureConnectionOptions = {},
): Promise<SecuredConnection> {
  const { signal, remotePeer: wanted } = options
  const protocols = [...muxers.keys(), NO_MUXER]
  const carrier = new Carrier(connection)
  const shared = {
    key: certificate.keyPem,
    cert: certificate.certificatePem,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    // No chain leads to anybody: the certificate itself proves the identity, see verifyCertificate.
    rejectUnauthorized: false,
  } as const
  // The client's order decides.
  const choose = ({ protocols: offered }: { protocols: string[] }): string | undefined => offered.find((one) => protocols.includes(one))
  const socket =
    direction === 'inbound'
      ? new tls.TLSSocket(carrier, { ...shared, isServer: true, requestCert: true, ALPNCallback: choose })
      : tls.connect({ ...shared, socket: carrier, ALPNProtocols: protocols })
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      signal?.removeEventListener('abort', onAbort)
      socket.off('close', onClose)
    }
    const fail = (error: Error): void => {
      settle()
      socket.destroy()
      connection.abort(error)
      reject(error)
    }
    const onAbort = (): void => fail(signal?.reason as Error)
    const onClose = (): void => fail(new Error('the connection was closed during the TLS handshake'))
    const onSecure = (): void => {
      try {
        const remotePeer = provenPeer(socket, wanted)
        settle()
        const streamMuxer = muxers.get(socket.alpnProtocol || '')
        resolve({ connection: new SecuredStream(connection, socket), remotePeer, ...(streamMuxer ? { streamMuxer } : {}) })
      } catch (error) {
        fail(error as Error)
      }
    }
    carrier.on('error', (error) => socket.destroy(error))
    // Stays for good: a socket without a listener would throw.
    socket.on('error', fail)
    socket.once('close', onClose)
    // Node tells a client 'secureConnect' and the server's side only 'secure'; the peer's certificate is there at both.
    socket.once('secure', onSecure)
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
  })
}

function provenPeer(socket: tls.TLSSocket, wanted: PeerId | undefined): PeerId {
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) throw new MalformedError('certificate', 'the peer showed none')
  const peer = peerIdFromString(verifyCertificate(certificate.raw, Date.now()))
  // Its own message: libp2p hands on nothing else of the error.
  if (wanted && !wanted.equals(peer)) throw new UnexpectedPeerError()
  return peer
}

/** A libp2p connection as the duplex that Node's TLS runs over. */
class Carrier extends Duplex {
  readonly #stream: MessageStream

  constructor(stream: MessageStream) {
    super()
    this.#stream = stream
    // Until TLS reads.
    stream.pause()
    stream.addEventListener('message', ({ data }: StreamMessageEvent) => {
      let more = true
      for (const chunk of data instanceof Uint8Array ? [data] : data) more = this.push(chunk)
      if (!more && !isOver(stream)) stream.pause()
    })
    stream.addEventListener('close', ({ error }: StreamCloseEvent) => this.destroy(error))
  }

  override _read(): void {
    if (!isOver(this.#stream)) this.#stream.resume()
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    try {
      if (this.#stream.send(chunk)) done()
      else this.#stream.onDrain().then(() => done(), done)
    } catch (error) {
      done(error as Error)
    }
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#stream.close().then(() => done(), done)
  }
}

/** Whether the stream can't be paused or resumed any more: it throws then. */
function isOver(stream: MessageStream & { readonly readStatus?: string }): boolean {
  return stream.readStatus === 'closing' || stream.readStatus === 'closed'
}

/** What libp2p sends and receives through the TLS socket. */
class SecuredStream extends AbstractMessageStream {
  readonly #carried: MessageStream
  readonly #socket: tls.TLSSocket
  #carriedClose: Promise<void> | null = null

  constructor(carried: MessageStream, socket: tls.TLSSocket) {
    const { log, inactivityTimeout, maxReadBufferLength, direction } = carried
    super({ log, inactivityTimeout, maxReadBufferLength, direction })
    this.#carried = carried
    this.#socket = socket
    socket.on('data', (bytes: Buffer) => this.onData(bytes))
    socket.on('drain', () => this.safeDispatchEvent('drain'))
    // The peer's end, or ours: the connection below goes with it, and its own 'close' ends this stream.
    socket.on('close', () => {
      this.#carriedClose = carried.close().catch((error) => carried.abort(error))
    })
    carried.addEventListener('close', ({ error, local }: StreamCloseEvent) => {
      socket.destroy()
      if (!error) this.onTransportClosed()
      else if (local) this.abort(error)
      else this.onRemoteReset()
    })
  }

  async close(options?: { signal?: AbortSignal }): Promise<void> {
    if (!this.#socket.closed) {
      this.#socket.destroySoon()
      // What went wrong at the end has ended the connection below.
      await once(this.#socket, 'close', options).catch(() => options?.signal?.throwIfAborted())
    }
    await this.#carriedClose
  }

  override sendData(data: Uint8ArrayList): SendResult {
    let sentBytes = 0
    let canSendMore = true
    this.#socket.cork()
    for (const chunk of data) {
      canSendMore = this.#socket.write(chunk)
      sentBytes += chunk.length
    }
    this.#socket.uncork()
    return { sentBytes, canSendMore }
  }

  override sendReset(error: Error): void {
    this.#socket.destroy()
    this.#carried.abort(error)
  }

  override sendPause(): void {
    this.#socket.pause()
  }

  override sendResume(): void {
    this.#socket.resume()
  }
}
