import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import tls from 'node:tls'
import { type LinkCertificate, makeCertificate } from '../../src/link/certificate.ts'
import { parseTcpAddress } from '../../src/link/multiaddrs.ts'

export interface LinkPeerOptions {
  /** null shows none. */
  readonly certificate?: LinkCertificate | null
  readonly protocol?: string | null
  readonly options?: tls.ConnectionOptions
}

/** A peer of direct links without a mux: what it writes is what a test says. Never fails by itself. */
export async function newLinkPeer(
  address: string,
  given: LinkPeerOptions = {},
): Promise<{ socket: tls.TLSSocket; error: Promise<Error | null> }> {
  const { host, port } = parseTcpAddress(address)!
  const certificate = given.certificate === undefined ? makeCertificate(randomBytes(32), Date.now()) : given.certificate
  const protocol = given.protocol === undefined ? 'shallot-link/1' : given.protocol
  const socket = tls.connect({
    host,
    port,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
    ...(protocol === null ? {} : { ALPNProtocols: [protocol] }),
    ...(certificate === null ? {} : { key: certificate.keyPem, cert: certificate.certificatePem }),
    ...given.options,
  })
  const over = Promise.withResolvers<Error | null>()
  socket.on('error', (error) => over.resolve(error))
  socket.on('close', () => over.resolve(null))
  // It reads, and ignores what it reads.
  socket.on('data', () => {})
  await Promise.race([once(socket, 'secureConnect'), over.promise])
  return { socket, error: over.promise }
}
