import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect as connectTcp, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isIpText } from '../../src/base/index.ts'
import {
  type ClientService,
  type DatagramAssociation,
  type PacketLease,
  StreamError,
  type StreamErrorReason,
  type StreamOptions,
} from '../../src/client/index.ts'
import type { ResolveAnswer, Target } from '../../src/onion/index.ts'

const reasons: Readonly<Record<string, StreamErrorReason>> = {
  ECONNREFUSED: 'refused',
  ETIMEDOUT: 'timeout',
  ENETUNREACH: 'unreachable',
  EHOSTUNREACH: 'unreachable',
}

/**
 * A ClientService without a mesh: connects directly on loopback. Names are looked up in `names` only, so no test asks a real resolver.
 * Remembers what was asked, for tests to look at.
 */
export class DirectClientService implements ClientService {
  readonly names = new Map<string, string>([['localhost', '127.0.0.1']])
  readonly pointers = new Map<string, string>()
  /** Targets that fail, as `host:port`, and why. */
  readonly failures = new Map<string, StreamErrorReason>()
  readonly asked: { readonly what: 'connect' | 'resolve' | 'datagrams'; readonly target: string; readonly isolation: string }[] = []
  readonly streams = new Set<Duplex>()
  associations = 0
  #closeAssociations: (() => void)[] = []

  async connect(target: Target, options: StreamOptions): Promise<{ stream: Duplex; address: string | null }> {
    const where = `${target.host}:${target.port}`
    this.asked.push({ what: 'connect', target: where, isolation: options.isolation })
    const failure = this.failures.get(where)
    if (failure) throw new StreamError(failure)
    const address = this.#address(target.host)
    const stream = await new Promise<Duplex>((resolve, reject) => {
      const socket = connectTcp({ host: address, port: target.port, allowHalfOpen: true, noDelay: true })
      const abort = (): void => {
        socket.destroy()
        reject(new StreamError('aborted'))
      }
      if (options.signal?.aborted) return abort()
      options.signal?.addEventListener('abort', abort)
      socket.once('error', (error: NodeJS.ErrnoException) => reject(new StreamError(reasons[error.code ?? ''] ?? 'internal')))
      socket.once('connect', () => {
        options.signal?.removeEventListener('abort', abort)
        resolve(socket)
      })
    })
    endLikeACircuit(stream as Socket)
    this.streams.add(stream)
    stream.on('close', () => this.streams.delete(stream))
    return { stream, address }
  }

  async resolve(name: string, options: StreamOptions): Promise<readonly ResolveAnswer[]> {
    this.asked.push({ what: 'resolve', target: name, isolation: options.isolation })
    const found = isIpText(name) ? this.pointers.get(name) : this.names.get(name)
    if (!found) throw new StreamError('resolve-failed')
    return [{ type: isIpText(name) ? 'name' : 'address', value: found, ttlSeconds: 60 }]
  }

  /** Where `connectResolver` connects to on 127.0.0.1, by TCP; null: the exit has no resolver. */
  resolverPort: number | null = null
  /** What `openPackets` gives; null: the exit serves no packets. */
  packets: (() => PacketLease) | null = null

  async connectResolver(options: StreamOptions): Promise<{ stream: Duplex }> {
    if (this.resolverPort === null) throw new StreamError('not-exit')
    return this.connect({ host: '127.0.0.1', port: this.resolverPort }, options)
  }

  async openPackets(): Promise<PacketLease> {
    if (this.packets === null) throw new StreamError('not-exit')
    return this.packets()
  }

  async openDatagrams(
    options: StreamOptions,
    receive: (from: Target, bytes: Uint8Array) => void,
    closed: () => void,
  ): Promise<DatagramAssociation> {
    this.asked.push({ what: 'datagrams', target: '', isolation: options.isolation })
    const socket: UdpSocket = createSocket('udp4')
    socket.on('message', (bytes, from) => receive({ host: from.address, port: from.port }, bytes))
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
    this.associations++
    let open = true
    const close = (): void => {
      if (!open) return
      open = false
      this.associations--
      socket.close()
    }
    this.#closeAssociations.push(() => {
      close()
      closed()
    })
    return {
      send: (to, bytes) => {
        if (open) socket.send(bytes, to.port, this.#address(to.host))
      },
      close,
    }
  }

  /** What happens when every circuit dies at once. */
  loseCircuits(): void {
    for (const stream of this.streams) stream.destroy(new StreamError('circuit-lost'))
    for (const close of this.#closeAssociations.splice(0)) close()
  }

  #address(host: string): string {
    if (isIpText(host)) return host
    const address = this.names.get(host)
    if (!address) throw new StreamError('resolve-failed')
    return address
  }
}

/** A stream of a circuit that is destroyed before both directions are over says END 'reset', where a TCP socket would send FIN. */
function endLikeACircuit(socket: Socket): void {
  const { destroy } = socket
  socket.destroy = (error) => {
    socket.destroy = destroy
    // What resetAndDestroy() sets; that one has no room for an error.
    if (!socket.readableEnded || !socket.writableFinished) Object.assign(socket, { resetAndClosing: true })
    return socket.destroy(error)
  }
}
