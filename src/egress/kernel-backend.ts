import { createSocket } from 'node:dgram'
import { connect as connectTcp } from 'node:net'
import { formatIp, type IpAddress, messageOf, parseIp } from '../base/index.ts'
import { closeWhereResetFails } from '../drive/index.ts'
import { ExitRefusal, endReasonOf } from '../relaying/index.ts'
import type { Endpoint, ExitBackend, ExitSocket, UdpPort } from './backend.ts'

export interface KernelBackendOptions {
  /** Source addresses; '' lets the system choose. */
  readonly outboundIpv4?: string
  readonly outboundIpv6?: string
  /** Source address towards IPv4 loopback addresses, where `outboundIpv4` names none. */
  readonly loopbackIpv4?: string | undefined
}

/** How long a connection is silent before the kernel asks whether the server still lives. */
const KEEP_ALIVE_MS = 120_000

/** The kernel's own sockets: no privileges, this machine's addresses. */
export class KernelBackend implements ExitBackend {
  readonly name = 'kernel'
  readonly #source: Readonly<Record<4 | 6, string>>
  readonly #loopback: string

  constructor(options: KernelBackendOptions = {}) {
    this.#source = { 4: options.outboundIpv4 ?? '', 6: options.outboundIpv6 ?? '' }
    this.#loopback = options.loopbackIpv4 ?? ''
  }

  connect(to: Endpoint, signal: AbortSignal): Promise<ExitSocket> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason)
        return
      }
      const { family } = to.address
      const localAddress = this.#sourceFor(to.address)
      const socket = connectTcp({
        host: formatIp(to.address),
        port: to.port,
        family,
        autoSelectFamily: false,
        allowHalfOpen: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
        ...(localAddress !== '' && { localAddress }),
      })
      closeWhereResetFails(socket)
      const aborted = (): void => {
        socket.destroy()
        reject(signal.reason)
      }
      signal.addEventListener('abort', aborted, { once: true })
      socket.on('error', (error) => {
        signal.removeEventListener('abort', aborted)
        reject(new ExitRefusal(endReasonOf(error), `connecting failed: ${messageOf(error)}`, error))
      })
      socket.once('connect', () => {
        signal.removeEventListener('abort', aborted)
        resolve(socket)
      })
    })
  }

  #sourceFor({ family, bytes }: IpAddress): string {
    return this.#source[family] || (family === 4 && bytes[0] === 127 ? this.#loopback : '')
  }

  openUdp(family: 4 | 6, receive: (bytes: Uint8Array, from: Endpoint) => void, failed: (error: Error) => void): UdpPort {
    const socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', ipv6Only: family === 6 })
    let open = true
    const close = (): void => {
      if (!open) return
      open = false
      socket.close()
    }
    socket.on('error', (error) => {
      if (!open) return
      close()
      failed(error)
    })
    socket.on('message', (bytes, from) => receive(bytes, { address: parseIp(from.address.replace(/%.*$/, '')), port: from.port }))
    socket.bind({ port: 0, exclusive: true, ...(this.#source[family] !== '' && { address: this.#source[family] }) })
    return {
      send: (bytes, to) => {
        // What can't be sent (no route, too long) is lost, as UDP is.
        if (open) socket.send(bytes, to.port, formatIp(to.address), () => {})
      },
      get queuedBytes() {
        return open ? socket.getSendQueueSize() : 0
      },
      close,
    }
  }
}
