import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import tls from 'node:tls'
import { MalformedError, messageOf, type NodeId, ShallotError } from '../base/index.ts'
import { identityMismatch, type LinkCertificate, verifyCertificate } from './certificate.ts'
import type { Wire } from './link-output.ts'

/** ALPN of version 1 of the direct link. docs/spec/link.md §1 */
export const LINK_PROTOCOL = 'shallot-link/1'

/** docs/spec/link.md §1: TLS 1.3 only, hybrid key exchange first, no resumption. */
const TLS_OPTIONS = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256',
  ecdhCurve: 'X25519MLKEM768:X25519',
  sigalgs: 'ecdsa_secp256r1_sha256',
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const

/** A TLS connection to a peer of proven identity. Nothing has been sent on it. */
export interface ProvenSocket {
  readonly socket: tls.TLSSocket
  readonly peer: NodeId
  readonly remoteAddress: string
}

export interface DialTarget {
  readonly host: string
  readonly port: number
  readonly localAddress?: string | undefined
  /** A connection that is up already and silent: the handshake begins on it. It is destroyed when that fails. */
  readonly socket?: Socket
  /** The identity that must be proven. */
  readonly id: NodeId
}

/**
 * Connects and proves who is there.
 * @throws ShallotError 'connect-failed', 'identity-mismatch', 'aborted'
 */
export function dialTls(target: DialTarget, certificate: LinkCertificate, signal: AbortSignal): Promise<ProvenSocket> {
  return new Promise((resolve, reject) => {
    const { host, port, localAddress, socket: under } = target
    if (signal.aborted) {
      under?.destroy()
      reject(aborted())
      return
    }
    // Stays for good: a socket without a listener would throw.
    under?.on('error', () => {})
    const way: object = under === undefined ? { host, port, noDelay: true, keepAlive: true } : { socket: under }
    const socket = tls.connect({
      ...TLS_OPTIONS,
      ...way,
      ...(localAddress === undefined ? {} : { localAddress }),
      servername: '',
      key: certificate.keyPem,
      cert: certificate.certificatePem,
      ALPNProtocols: [LINK_PROTOCOL],
      rejectUnauthorized: false,
    } as tls.ConnectionOptions)
    const settle = (): void => {
      signal.removeEventListener('abort', onAbort)
      socket.off('close', onClose).off('secureConnect', onSecure)
    }
    const fail = (error: ShallotError): void => {
      settle()
      socket.destroy()
      under?.destroy()
      reject(error)
    }
    const onAbort = (): void => fail(aborted())
    const onClose = (): void => fail(connectFailed('the connection was closed during the handshake'))
    const onSecure = (): void => {
      try {
        const peer = proveIdentity(socket)
        if (peer !== target.id) throw identityMismatch()
        settle()
        resolve({ socket, peer, remoteAddress: host })
      } catch (error) {
        fail(error instanceof ShallotError && !(error instanceof MalformedError) ? error : connectFailed(messageOf(error), error))
      }
    }
    signal.addEventListener('abort', onAbort, { once: true })
    // Stays for good: a socket without a listener would throw.
    socket.on('error', (error) => fail(connectFailed(messageOf(error), error)))
    socket.once('close', onClose)
    socket.once('secureConnect', onSecure)
  })
}

/** Takes inbound connections through the TLS handshake. It listens to nothing itself: connections are given to it. */
export class TlsAcceptor {
  readonly #server: tls.Server

  /**
   * @param accepted a peer has proven its identity
   * @param failed a handshake failed; the connection is gone
   */
  constructor(
    certificate: LinkCertificate,
    handshakeTimeoutMs: number,
    accepted: (proven: ProvenSocket) => void,
    failed: (why: string) => void,
  ) {
    this.#server = tls.createServer({
      ...TLS_OPTIONS,
      key: certificate.keyPem,
      cert: certificate.certificatePem,
      ALPNProtocols: [LINK_PROTOCOL],
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: handshakeTimeoutMs,
    } as tls.TlsOptions)
    this.#server.on('secureConnection', (socket) => {
      try {
        const peer = proveIdentity(socket)
        accepted({ socket, peer, remoteAddress: plainAddress(socket.remoteAddress) })
      } catch (error) {
        if (!(error instanceof MalformedError)) throw error
        socket.on('error', () => {})
        socket.destroy()
        failed(error.message)
      }
    })
    this.#server.on('tlsClientError', (error, socket) => {
      socket.destroy()
      failed(messageOf(error))
    })
  }

  /** Starts the handshake on a connection; bytes already read may have been put back by `unshift`. */
  take(socket: Socket): void {
    socket.setNoDelay(true)
    socket.setKeepAlive(true)
    this.#server.emit('connection', socket)
  }
}

/** @throws MalformedError */
function proveIdentity(socket: tls.TLSSocket): NodeId {
  if (socket.alpnProtocol !== LINK_PROTOCOL) throw new MalformedError('link handshake', `the peer does not speak ${LINK_PROTOCOL}`)
  if (socket.isSessionReused()) throw new MalformedError('link handshake', 'a resumed session proves no identity')
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) throw new MalformedError('link handshake', 'the peer showed no certificate')
  return verifyCertificate(certificate.raw, Date.now())
}

/** The wire of a link over a TLS socket. @param written called for each `write`, in order, when the system has taken it */
export function wireOver(socket: tls.TLSSocket, written: () => void): Wire {
  const done = (error?: Error | null): void => {
    if (!error) written()
  }
  return {
    write(chunks) {
      const last = chunks.length - 1
      if (last === 0) {
        socket.write(chunks[0]!, done)
        return
      }
      socket.cork()
      for (let i = 0; i < last; i++) socket.write(chunks[i]!)
      socket.write(chunks[last]!, done)
      socket.uncork()
    },
    end: () => {
      socket.end()
      // A peer that neither reads nor closes is not waited for.
      setTimeout(() => socket.destroy(), ORDERLY_END_MS).unref()
    },
    destroy: () => socket.destroy(),
  }
}

const ORDERLY_END_MS = 1000

function plainAddress(address: string | undefined): string {
  const text = address ?? ''
  return text.startsWith('::ffff:') && text.includes('.') ? text.slice(7) : text
}

export function connectFailed(why: string, cause?: unknown): ShallotError {
  return new ShallotError('connect-failed', `no link to the peer: ${why}`, { kind: 'link', retry: 'later', cause })
}

export function aborted(): ShallotError {
  return new ShallotError('aborted', 'opening the channel was aborted', { kind: 'link', retry: 'now' })
}
