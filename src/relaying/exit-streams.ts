import type { Duplex } from 'node:stream'
import { type Logger, messageOf, sensitive } from '../base/index.ts'
import { type ReadBuffers, readInto } from '../drive/index.ts'
import type { BatchMemory, CellBatch, CircuitOutput, EndReason, RelayCircuitMachine } from '../onion/index.ts'
import { ExitPackets } from './exit-packets.ts'
import { endReasonOf } from './exit-refusal.ts'
import type { DatagramPort, ExitCircuit } from './exit-service.ts'

/** The outputs of a relay's machine that concern streams, datagrams and packets. */
export type ExitOutput = Extract<
  CircuitOutput,
  {
    type:
      | 'begin'
      | 'dns-open'
      | 'resolve'
      | 'datagrams-open'
      | 'packets-open'
      | 'data'
      | 'writable'
      | 'end'
      | 'datagram'
      | 'datagrams-closed'
      | 'packets'
      | 'packets-closed'
  }
>

interface ExitStream {
  /** Null while connecting. */
  socket: Duplex | null
  readonly connecting: AbortController
  /** Data that came before the connection stood; bounded by the stream's initial credit. */
  early: { readonly bytes: Uint8Array; readonly memory: CellBatch | null }[]
  /** The client's direction has ended. */
  inputEnded: boolean
  /** This side has said END. */
  outputEnded: boolean
}

export interface ExitStreamsModules {
  readonly machine: RelayCircuitMachine
  readonly exit: ExitCircuit
  readonly memory: BatchMemory
  /** Where the machine's `release` gives back to. */
  readonly buffers: ReadBuffers
  /** Called when the machine has something to send or to tell: the driver drains it soon. */
  readonly wake: () => void
  readonly now: () => number
  readonly logger: Logger
}

/** Joins the streams, datagram associations and packet leases of one circuit to an exit's sockets and ports. It only carries; meaning is the machine's. */
export class ExitStreams {
  readonly #m: ExitStreamsModules
  readonly #streams = new Map<number, ExitStream>()
  readonly #resolving = new Map<number, AbortController>()
  readonly #ports = new Map<number, DatagramPort>()
  readonly #packets: ExitPackets
  #closed = false

  constructor(modules: ExitStreamsModules) {
    this.#m = modules
    this.#packets = new ExitPackets(modules)
  }

  handle(output: ExitOutput): void {
    switch (output.type) {
      case 'begin':
        void this.#connect(output.stream, output.target)
        break
      case 'dns-open':
        this.#connectResolver(output.stream)
        break
      case 'resolve':
        void this.#resolve(output.stream, output.name)
        break
      case 'data':
        this.#write(output.stream, output.bytes, output.memory)
        break
      case 'writable':
        this.#streams.get(output.stream)?.socket?.resume()
        this.#packets.writable(output.stream)
        break
      case 'end':
        this.#ended(output.stream, output.reason)
        break
      case 'datagrams-open':
        this.#openPort(output.stream)
        break
      case 'datagram':
        this.#ports.get(output.stream)?.send(output.peer, output.bytes)
        break
      case 'datagrams-closed':
        this.#ports.get(output.stream)?.close()
        this.#ports.delete(output.stream)
        break
      case 'packets-open':
        void this.#packets.open(output.stream, output.terms)
        break
      case 'packets':
        this.#packets.deliver(output.stream, output.batch)
        break
      case 'packets-closed':
        this.#packets.close(output.stream)
        break
    }
  }

  /** The circuit is gone: sockets are reset, never closed as if the data were complete. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const stream of this.#streams.values()) reset(stream)
    this.#streams.clear()
    for (const question of this.#resolving.values()) question.abort()
    this.#resolving.clear()
    for (const port of this.#ports.values()) port.close()
    this.#ports.clear()
    this.#packets.closeAll()
    this.#m.exit.close()
  }

  async #connect(id: number, target: { host: string; port: number }): Promise<void> {
    const { exit, logger } = this.#m
    const stream = this.#begin(id)
    try {
      const { socket, address } = await exit.connect(target, stream.connecting.signal)
      if (this.#streams.get(id) !== stream) {
        socket.destroy()
        return
      }
      this.#accept(id, stream, socket, address)
    } catch (error) {
      logger.debug('stream not opened', { target: sensitive(`${target.host}:${target.port}`), error: sensitive(messageOf(error)) })
      if (this.#streams.get(id) === stream) this.#finish(id, endReasonOf(error))
    }
    this.#m.wake()
  }

  #connectResolver(id: number): void {
    const stream = this.#begin(id)
    try {
      this.#accept(id, stream, this.#m.exit.connectResolver(), null)
    } catch (error) {
      this.#m.logger.debug('resolver not opened', { error: sensitive(messageOf(error)) })
      this.#finish(id, endReasonOf(error))
    }
    this.#m.wake()
  }

  #begin(id: number): ExitStream {
    const stream: ExitStream = { socket: null, connecting: new AbortController(), early: [], inputEnded: false, outputEnded: false }
    this.#streams.set(id, stream)
    return stream
  }

  #accept(id: number, stream: ExitStream, socket: Duplex, address: string | null): void {
    const { machine, wake } = this.#m
    stream.socket = socket
    machine.accept(id, address)
    readInto(socket, this.#m.buffers, (bytes) => {
      if (!machine.offer(id, bytes)) socket.pause()
      wake()
    })
    socket.on('end', () => {
      if (stream.outputEnded) return
      stream.outputEnded = true
      machine.end(id, 'done')
      if (stream.inputEnded) this.#streams.delete(id)
      wake()
    })
    socket.on('error', (error) => this.#failed(id, stream, endReasonOf(error)))
    socket.on('close', () => {
      // A close without an 'end' before it lost data: the client must not take it for a complete stream.
      if (!stream.outputEnded) this.#failed(id, stream, 'reset')
    })
    const early = stream.early
    stream.early = []
    for (const { bytes, memory } of early) this.#writeTo(id, stream, socket, bytes, memory)
    if (stream.inputEnded) socket.end()
  }

  #write(id: number, bytes: Uint8Array, memory: CellBatch | null): void {
    const stream = this.#streams.get(id)
    if (!stream) return
    if (stream.socket) this.#writeTo(id, stream, stream.socket, bytes, memory)
    else stream.early.push({ bytes, memory })
  }

  #writeTo(id: number, stream: ExitStream, socket: Duplex, bytes: Uint8Array, memory: CellBatch | null): void {
    if (socket.destroyed) return
    socket.write(bytes, (error) => {
      if (memory && !error) this.#m.memory.recycle(memory)
      if (error || this.#streams.get(id) !== stream) return
      this.#m.machine.consume(id, bytes.length, this.#m.now())
      this.#m.wake()
    })
  }

  #ended(id: number, reason: EndReason): void {
    const question = this.#resolving.get(id)
    if (question) {
      question.abort()
      this.#resolving.delete(id)
    }
    const stream = this.#streams.get(id)
    if (!stream) return
    if (reason !== 'done') {
      this.#streams.delete(id)
      reset(stream)
      return
    }
    stream.inputEnded = true
    stream.socket?.end()
    if (stream.outputEnded) this.#streams.delete(id)
  }

  #failed(id: number, stream: ExitStream, reason: EndReason): void {
    if (this.#streams.get(id) !== stream) return
    this.#finish(id, reason)
    this.#m.wake()
  }

  #finish(id: number, reason: EndReason): void {
    const stream = this.#streams.get(id)
    if (!stream) return
    this.#streams.delete(id)
    stream.outputEnded = true
    this.#m.machine.end(id, reason)
    reset(stream)
  }

  async #resolve(id: number, name: string): Promise<void> {
    const asking = new AbortController()
    this.#resolving.set(id, asking)
    try {
      const answers = await this.#m.exit.resolve(name, asking.signal)
      if (this.#resolving.get(id) === asking) this.#m.machine.answer(id, answers)
    } catch (error) {
      if (this.#resolving.get(id) === asking) this.#m.machine.answer(id, endReasonOf(error))
    }
    if (this.#resolving.get(id) === asking) this.#resolving.delete(id)
    if (!this.#closed) this.#m.wake()
  }

  #openPort(id: number): void {
    const { machine, exit, wake, now } = this.#m
    try {
      const port = exit.openDatagrams((from, bytes) => {
        machine.sendDatagram(id, from, bytes, now())
        wake()
      })
      this.#ports.set(id, port)
    } catch {
      machine.closeDatagrams(id)
      wake()
    }
  }
}

function reset(stream: ExitStream): void {
  const socket = stream.socket as (Duplex & { resetAndDestroy?: () => void }) | null
  // A signal that outlives the connecting would close the socket in order.
  if (!socket) stream.connecting.abort()
  if (!socket || socket.destroyed) return
  if (socket.resetAndDestroy) socket.resetAndDestroy()
  else socket.destroy()
}
