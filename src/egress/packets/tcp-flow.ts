import type { Duplex } from 'node:stream'
import { READ_BYTES, type ReadBuffers, readInto } from '../../drive/index.ts'
import type { Refusal, TcpConnection } from '../../netstack/index.ts'
import type { EndReason } from '../../onion/index.ts'
import { endReasonOf } from '../../relaying/index.ts'
import type { PacketUse } from '../packet-backend.ts'

export interface TcpFlowModules {
  readonly use: Pick<PacketUse, 'connect'>
  readonly buffers: ReadBuffers
  /** Something was done to the connection: the stack has output or events. */
  readonly touch: () => void
  /** The SYN was turned down. */
  readonly refused: (reason: EndReason) => void
}

/** What a client is told by its SYN's answer. */
const refusals: Readonly<Record<EndReason, Refusal>> = {
  done: 'reset',
  refused: 'reset',
  reset: 'reset',
  timeout: 'host-unreachable',
  unreachable: 'host-unreachable',
  'resolve-failed': 'host-unreachable',
  policy: 'prohibited',
  'resource-limit': 'prohibited',
  'not-exit': 'prohibited',
  'circuit-lost': 'reset',
  internal: 'host-unreachable',
}

/**
 * A client's TCP connection joined to one of the exit's own: accepted only once that stands, half-closed and reset as the other side is. Neither
 * direction waits for the other; each reads only what the other has room for.
 */
export class TcpFlow {
  readonly #connection: TcpConnection
  readonly #m: TcpFlowModules
  readonly #connecting = new AbortController()
  /** Null before the exit is connected, and after the flow is over. */
  #socket: Duplex | null = null
  /** From the server, not yet taken by the connection. */
  #rest: Uint8Array | null = null
  #serverEnded = false
  #clientEnded = false
  #over = false

  constructor(connection: TcpConnection, modules: TcpFlowModules) {
    this.#connection = connection
    this.#m = modules
  }

  /** Connects, then accepts the client's connection; or turns it down with what went wrong. */
  async open(): Promise<void> {
    const { use, touch, refused } = this.#m
    try {
      const socket = await use.connect(this.#connection.local, this.#connecting.signal)
      if (this.#over || !this.#connection.accept()) reset(socket)
      else this.#join(socket)
    } catch (error) {
      if (this.#over) return
      this.#over = true
      const reason = endReasonOf(error)
      refused(reason)
      this.#connection.refuse(refusals[reason])
    }
    touch()
  }

  /** There is more from the client, or room for it. */
  readonly pump = (): void => {
    const socket = this.#socket
    if (socket === null) return
    const connection = this.#connection
    let moved = false
    while (connection.readable > 0 && !socket.writableNeedDrain && socket.writable) {
      const front = connection.peek()
      const bytes = this.#m.buffers.copy(front.length > READ_BYTES ? front.subarray(0, READ_BYTES) : front)
      connection.consume(bytes.length)
      moved = true
      socket.write(bytes, () => this.#m.buffers.release(bytes))
    }
    if (!this.#clientEnded && connection.remoteEnded) {
      this.#clientEnded = true
      socket.end()
    }
    if (moved) this.#m.touch()
  }

  /** The connection has room again. */
  drained(): void {
    const rest = this.#rest
    if (rest === null) return
    this.#rest = null
    this.#toClient(rest)
    if (this.#rest === null) this.#socket?.resume()
  }

  /** The connection is over. @param complete both directions ended in order */
  closed(complete: boolean): void {
    if (this.#over) return
    this.#over = true
    this.#connecting.abort()
    const socket = this.#socket
    this.#socket = null
    this.#rest = null
    if (socket === null) return
    if (complete) socket.resume()
    else reset(socket)
  }

  #join(socket: Duplex): void {
    this.#socket = socket
    socket.on('drain', this.pump)
    socket.on('error', () => this.#lost())
    socket.on('end', () => {
      this.#serverEnded = true
      this.#endIfAllIsGiven()
      this.#m.touch()
    })
    // A close without an end before it lost data: the client must not take it for a complete stream.
    socket.on('close', () => {
      if (!this.#serverEnded || !socket.writableFinished) this.#lost()
    })
    readInto(socket, this.#m.buffers, (bytes) => {
      this.#toClient(bytes)
      if (this.#rest !== null) socket.pause()
      this.#m.touch()
    })
    this.pump()
  }

  #toClient(bytes: Uint8Array): void {
    const taken = this.#connection.write(bytes)
    if (taken === bytes.length) {
      this.#m.buffers.release(bytes)
      this.#endIfAllIsGiven()
    } else this.#rest = bytes.subarray(taken)
  }

  #endIfAllIsGiven(): void {
    if (this.#serverEnded && this.#rest === null) this.#connection.end()
  }

  #lost(): void {
    if (this.#over) return
    this.#over = true
    this.#socket = null
    this.#rest = null
    this.#connection.abort()
    this.#m.touch()
  }
}

function reset(socket: Duplex): void {
  // An error that comes late finds a listener.
  socket.on('error', () => {})
  const resettable = socket as Duplex & { resetAndDestroy?: () => void }
  if (resettable.resetAndDestroy) resettable.resetAndDestroy()
  else socket.destroy()
}
