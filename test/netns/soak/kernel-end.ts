import net from 'node:net'
import { type Digests, FlowEnd, HEADER_BYTES, readHeader, writeHeader } from './flow.ts'

/** What the kernel's end is asked to do, and what it answers: messages between the soak and its child. */
export type ToKernelEnd = {
  readonly type: 'dial'
  readonly id: number
  readonly bytes: number
  readonly host: string
  readonly port: number
}
export type FromKernelEnd =
  | { readonly type: 'ready'; readonly port: number }
  | { readonly type: 'progress'; readonly bytes: number }
  | { readonly type: 'closed'; readonly digests: Digests; readonly whole: boolean }
  | { readonly type: 'failed'; readonly message: string }

let received = 0
const tell = (message: FromKernelEnd): void => void process.send?.(message)

/** Sends and receives on a socket of the kernel's, until both directions have ended. */
function carry(socket: net.Socket, end: FlowEnd): void {
  const more = (): void => {
    while (end.left > 0) {
      const data = end.next()
      end.sent(data.length)
      if (!socket.write(data)) {
        socket.once('drain', more)
        return
      }
    }
    socket.end()
  }
  socket.on('data', (data) => {
    end.take(data)
    received += data.length
  })
  socket.on('end', () => {
    end.ended = true
  })
  socket.on('close', (failed) => tell({ type: 'closed', digests: end.digests(), whole: !failed && end.ended && end.left === 0 }))
  more()
}

function accept(socket: net.Socket): void {
  const failed = (error: Error): void => tell({ type: 'failed', message: `accepted: ${error.message}` })
  socket.on('error', failed)
  const begin = (): void => {
    const header = socket.read(HEADER_BYTES) as Buffer | null
    if (header === null) return
    socket.off('readable', begin)
    const { id, bytes } = readHeader(header)
    carry(socket, new FlowEnd(id, bytes, 'theirs'))
    socket.resume()
  }
  socket.on('readable', begin)
}

function dial({ id, bytes, host, port }: ToKernelEnd): void {
  const socket = net.connect({ host, port, allowHalfOpen: true }, () => {
    socket.write(writeHeader(id, bytes))
    carry(socket, new FlowEnd(id, bytes, 'theirs'))
  })
  socket.on('error', (error) => tell({ type: 'failed', message: `dialed: ${error.message}` }))
}

const server = net.createServer({ allowHalfOpen: true }, accept)
server.listen({ host: '::', port: 0, backlog: 1024 }, () => tell({ type: 'ready', port: (server.address() as net.AddressInfo).port }))
process.on('message', (message: ToKernelEnd) => dial(message))
process.on('disconnect', () => process.exit(0))
setInterval(() => tell({ type: 'progress', bytes: received }), 200).unref()
