import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import type { Duplex } from 'node:stream'

/** A TCP port on loopback whose connections are each joined to a stream of `open`: what `DirectClientService.resolverPort` wants of an exit. */
export class ResolverBridge {
  readonly #server: Server
  readonly #streams = new Set<Duplex>()

  static async start(open: () => Duplex): Promise<ResolverBridge> {
    const streams = new Set<Duplex>()
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      let stream: Duplex
      try {
        stream = open()
      } catch {
        socket.resetAndDestroy()
        return
      }
      for (const one of [socket, stream]) {
        streams.add(one)
        one.on('close', () => streams.delete(one))
        one.on('error', () => {})
      }
      socket.pipe(stream)
      stream.pipe(socket)
      socket.on('close', () => stream.destroy())
      stream.on('close', () => {
        if (!stream.readableEnded || !stream.writableFinished) socket.resetAndDestroy()
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new ResolverBridge(server, streams)
  }

  private constructor(server: Server, streams: Set<Duplex>) {
    this.#server = server
    this.#streams = streams
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  close(): void {
    this.#server.close()
    for (const stream of this.#streams) stream.destroy()
  }
}
