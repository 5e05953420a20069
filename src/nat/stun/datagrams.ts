import { createSocket, type Socket } from 'node:dgram'
import { formatIp, type IpAddress, parseIp, ShallotError } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'
import { formatEndpoint } from './endpoint.ts'

/** An open UDP socket, as the STUN client and server see one. */
export interface DatagramSocket {
  /** Where it is bound; the address is a wildcard when it was bound to one. */
  readonly local: Endpoint
  /** Sends one datagram, or loses it: what cannot be sent now is dropped. Borrowed until the next turn. */
  send(bytes: Uint8Array, to: Endpoint): void
  close(): Promise<void>
}

/** Opens a socket. Datagrams are lent to the listener, for the time of the call. @throws ShallotError `udp-port-in-use`, `udp-unavailable` */
export type DatagramOpener = (local: Endpoint, onDatagram: (bytes: Uint8Array, from: Endpoint) => void) => Promise<DatagramSocket>

/** Beyond so many bytes in the socket's queue answers are dropped: datagrams may be. */
const MAX_SEND_QUEUE_BYTES = 256 * 1024

/** A UDP socket of this machine. IPv6 ones carry no IPv4. */
export const openDatagrams: DatagramOpener = async (local, onDatagram) => {
  const socket = createSocket({
    type: local.ip.family === 4 ? 'udp4' : 'udp6',
    ipv6Only: local.ip.family === 6,
    // Addresses are always numbers here.
    lookup: (host, _options, done) => done(null, host, local.ip.family),
  })
  await bind(socket, local)
  // After bind, what a socket reports is the fate of single datagrams.
  socket.on('error', () => {})
  socket.on('message', (bytes, { address, port }) => {
    const ip = tryIp(address)
    if (ip !== null) onDatagram(bytes, { ip, port })
  })
  return {
    local: { ip: local.ip, port: socket.address().port },
    send: (bytes, to) => {
      if (to.ip.family !== local.ip.family || socket.getSendQueueSize() > MAX_SEND_QUEUE_BYTES) return
      socket.send(bytes, to.port, formatIp(to.ip), () => {})
    },
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  }
}

/** Whether this machine knows a way to the endpoint. Nothing is sent. */
export async function hasRoute(to: Endpoint): Promise<boolean> {
  const { family } = to.ip
  const socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', lookup: (host, _options, done) => done(null, host, family) })
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('error', () => resolve(false))
      socket.once('connect', () => resolve(true))
      // For UDP this only looks up the route.
      socket.connect(to.port, formatIp(to.ip))
    })
  } finally {
    socket.close()
  }
}

async function bind(socket: Socket, local: Endpoint): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ port: local.port, address: formatIp(local.ip), exclusive: true }, () => {
        socket.off('error', reject)
        resolve()
      })
    })
  } catch (cause) {
    socket.close()
    const code = (cause as NodeJS.ErrnoException).code
    const where = `UDP ${formatEndpoint(local)}`
    if (code === 'EADDRINUSE')
      throw new ShallotError('udp-port-in-use', `${where} is taken by another program, or by this one`, {
        kind: 'host',
        retry: 'later',
        cause,
      })
    throw new ShallotError('udp-unavailable', `${where} cannot be opened (${code ?? 'unknown error'})`, {
      kind: 'host',
      retry: 'later',
      cause,
    })
  }
}

/** Link-local IPv6 addresses come with a zone: nobody that far away needs us. */
function tryIp(text: string): IpAddress | null {
  try {
    return parseIp(text)
  } catch {
    return null
  }
}
