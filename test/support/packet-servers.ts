import { createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { bytesOf } from './web-server.ts'

/** Where the servers of the packet tests listen; always in a namespace of the test's own. */
export const packetPorts = {
  /** TCP: gives back what it gets, and ends when that ends. */
  echo: 4701,
  /** TCP: tells "ADDRESS PORT" of its peer, and ends. */
  who: 4702,
  /** TCP: reads "N\n", gives N bytes of `bytesOf`, and ends. */
  source: 4703,
  /** TCP: reads to the end, then tells the bytes' SHA-256 in hex. */
  sink: 4704,
  /** TCP: resets the connection at the first byte. */
  reset: 4705,
  /** TCP: reads nothing, ever. */
  deaf: 4706,
  /** UDP: answers "ADDRESS PORT " and what it got. */
  udp: 4711,
  /** UDP: answers with as many bytes as the number it got says. */
  udpBig: 4712,
  /** Nobody listens. */
  closed: 4799,
  /** TCP: like `echo`, on a port that the policy closes. */
  mail: 25,
} as const

/** Listens on all ports of these addresses. @returns what ends it */
export async function startPacketServers(hosts: readonly string[]): Promise<() => void> {
  const closers: (() => void)[] = []
  const tcp = async (host: string, port: number, handler: (socket: Socket) => void) => {
    const sockets = new Set<Socket>()
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => sockets.delete(socket))
      handler(socket)
    })
    server.listen({ port, host, backlog: 1024 })
    await once(server, 'listening')
    closers.push(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
  }
  const udp = async (host: string, port: number, answer: (bytes: Buffer, address: string, from: number) => Buffer) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.on('message', (bytes, from) => socket.send(answer(bytes, from.address, from.port), from.port, from.address, () => {}))
    socket.bind(port, host)
    await once(socket, 'listening')
    closers.push(() => socket.close())
  }
  for (const host of hosts) {
    await tcp(host, packetPorts.echo, (socket) => socket.pipe(socket))
    await tcp(host, packetPorts.mail, (socket) => socket.pipe(socket))
    await tcp(host, packetPorts.who, (socket) => socket.end(`${socket.remoteAddress} ${socket.remotePort}`))
    await tcp(host, packetPorts.source, give)
    await tcp(host, packetPorts.sink, take)
    await tcp(host, packetPorts.reset, (socket) => socket.once('data', () => socket.resetAndDestroy()))
    await tcp(host, packetPorts.deaf, (socket) => socket.pause())
    await udp(host, packetPorts.udp, (bytes, address, port) => Buffer.concat([Buffer.from(`${address} ${port} `), bytes]))
    await udp(host, packetPorts.udpBig, (bytes) => [...bytesOf(Number(bytes.toString()))].reduce((a, b) => Buffer.concat([a, b])))
  }
  return () => {
    for (const close of closers) close()
  }
}

function give(socket: Socket): void {
  socket.once('data', (line) => {
    const pieces = bytesOf(Number(line.toString()))
    const more = (): void => {
      for (;;) {
        const { value, done } = pieces.next()
        if (done) {
          socket.end()
          return
        }
        if (!socket.write(value)) return
      }
    }
    socket.on('drain', more)
    more()
  })
}

function take(socket: Socket): void {
  const hash = createHash('sha256')
  socket.on('data', (bytes) => hash.update(bytes))
  socket.on('end', () => socket.end(hash.digest('hex')))
}

// As a program, for another namespace: packet-servers.ts ADDRESS…
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await startPacketServers(process.argv.slice(2))
  process.stdout.write('ready\n')
}
