import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:net'
import { SeededRandom } from '../../../src/base/index.ts'
import { Deadline } from '../../../src/drive/index.ts'
import { Stack, type StackEvent, StackOnPort, type TcpConnection } from '../../../src/netstack/index.ts'
import type { PacketPort } from '../../../src/packet/index.ts'

/** What a peer asked for, and how far it is. */
class Exchange {
  #head = Buffer.alloc(0)
  way: 'down' | 'up' | null = null
  left = 0

  /** Takes bytes of the peer; true when an upload has just become complete. */
  take(bytes: Uint8Array): boolean {
    let rest = bytes.length
    if (this.way === null) {
      this.#head = Buffer.concat([this.#head, bytes])
      if (this.#head.length < 9) return false
      this.way = this.#head[0] === 0x64 ? 'down' : 'up'
      this.left = Number(this.#head.readBigUInt64BE(1))
      rest = this.#head.length - 9
    }
    if (this.way === 'down') return false
    this.left -= rest
    return this.left <= 0
  }
}

const piece = Buffer.alloc(1 << 16)

/** Ends connections in our netstack, over the port, and moves bytes as they ask. */
export function endInNetstack(port: PacketPort): void {
  const stack = new Stack({
    addresses: [],
    mtu: port.mtu,
    promiscuous: true,
    random: new SeededRandom(randomBytes(4).readUInt32BE(0)),
    hash: (bytes) => bytes.reduce((sum, byte) => Math.imul(sum ^ byte, 0x0100_0193), 0x811c_9dc5),
  })
  stack.listen({ address: null, port: null })
  const now = (): number => performance.now()
  const fill = (connection: TcpConnection, exchange: Exchange): void => {
    while (exchange.left > 0) {
      const wanted = Math.min(exchange.left, piece.length)
      const taken = connection.write(wanted === piece.length ? piece : piece.subarray(0, wanted))
      exchange.left -= taken
      if (taken < wanted) return
    }
  }
  const event = (one: StackEvent): void => {
    if (!('connection' in one)) return
    const { connection } = one
    if (one.type === 'incoming') {
      connection.context = new Exchange()
      connection.accept()
      return
    }
    const exchange = connection.context as Exchange
    if (one.type === 'readable') {
      while (connection.readable > 0) {
        const bytes = connection.peek()
        const complete = exchange.take(bytes)
        connection.consume(bytes.length)
        if (complete) connection.write(piece.subarray(0, 1))
      }
    } else if (one.type === 'remote-end') connection.end()
    if (exchange.way === 'down') fill(connection, exchange)
  }
  const driver: StackOnPort = new StackOnPort({
    stack,
    port,
    now,
    soon: queueMicrotask,
    event,
    timeoutChanged: () => deadline.update(),
    ended: () => deadline.stop(),
  })
  const deadline = new Deadline(driver, now, () => driver.expired())
  driver.start()
}

/** Ends connections in the kernel: a listener that moves bytes as they ask. */
export async function endInKernel(host: string): Promise<Server> {
  const server = createServer({ noDelay: true, highWaterMark: 1 << 20 }, (socket) => {
    const exchange = new Exchange()
    const fill = (): void => {
      while (exchange.left > 0) {
        const wanted = Math.min(exchange.left, piece.length)
        exchange.left -= wanted
        if (!socket.write(wanted === piece.length ? piece : piece.subarray(0, wanted))) {
          socket.once('drain', fill)
          return
        }
      }
    }
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      const complete = exchange.take(bytes)
      if (complete) socket.write(piece.subarray(0, 1))
      if (exchange.way === 'down') fill()
    })
  })
  await new Promise<void>((resolve) => {
    server.listen({ host, port: 0, backlog: 64 }, resolve)
  })
  return server
}
