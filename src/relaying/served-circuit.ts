import { type Logger, nodeIdFromKey, ShallotError } from '../base/index.ts'
import { Deadline, flushCells, type ReadBuffers } from '../drive/index.ts'
import type { CellChannel, ChannelDialer } from '../link/index.ts'
import type { BatchMemory, CellBatch, ChannelEnd, CircuitOutput, CloseReason, RelayCircuitMachine } from '../onion/index.ts'
import type { RelayDirectory } from './engine.ts'
import type { ExitService } from './exit-service.ts'
import { ExitStreams } from './exit-streams.ts'

export interface ServedCircuitModules {
  readonly machine: RelayCircuitMachine
  readonly client: CellChannel
  readonly dialer: ChannelDialer
  readonly directory: RelayDirectory
  /** Null where this circuit may not exit here. */
  readonly exit: ExitService | null
  readonly memory: BatchMemory
  readonly buffers: ReadBuffers
  readonly extendTimeoutMs: number
  readonly now: () => number
  readonly logger: Logger
  /** Asks for `flush` at the end of this turn of the event loop. */
  readonly schedule: (circuit: ServedCircuit) => void
  /** Cells went out in a direction (for counters). */
  readonly count: (cells: number) => void
  readonly closed: (circuit: ServedCircuit, reason: CloseReason) => void
}

/** One circuit that this node serves: two channels, the machine between them, and the exit's streams. It only carries. */
export class ServedCircuit {
  readonly #m: ServedCircuitModules
  readonly #machine: RelayCircuitMachine
  readonly #client: CellChannel
  #next: CellChannel | null = null
  #streams: ExitStreams | null = null
  #dialing: AbortController | null = null
  readonly #deadline: Deadline
  #isClosed = false
  readonly openedAt: number

  constructor(modules: ServedCircuitModules) {
    this.#m = modules
    this.#machine = modules.machine
    this.#client = modules.client
    this.openedAt = modules.now()
    this.#deadline = new Deadline(modules.machine, modules.now, () => {
      this.#machine.handleTimeout(this.#m.now())
      this.flush()
    })
    modules.client.attach({
      cells: (batch) => this.#cells('client', batch),
      drained: () => {
        this.#next?.resume()
        this.flush()
      },
      ended: (how) => this.#channelEnded('client', how),
    })
    this.#deadline.update()
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  get state(): RelayCircuitMachine['state'] {
    return this.#machine.state
  }

  get openStreams(): number {
    return this.#machine.counts.openStreams
  }

  get queuedBytes(): number {
    return this.#client.queuedBytes + (this.#next?.queuedBytes ?? 0) + this.#machine.queuedBytes
  }

  /** Monotonic ms since which the oldest queued byte waits, or null. */
  get queuedSince(): number | null {
    const client = this.#client.queuedSince
    const next = this.#next?.queuedSince ?? null
    if (client === null) return next
    return next === null ? client : Math.min(client, next)
  }

  /** Drains the machine: outputs first, then what it originates, while the client's channel has room. */
  flush(): void {
    if (this.#isClosed) return
    if (flushCells(this.#machine, this.#client, this.#m.now(), () => this.#drain(), this.#m.count)) this.#deadline.update()
  }

  close(reason: CloseReason): void {
    if (this.#isClosed) return
    this.#machine.close(reason, this.#m.now())
    this.#drain()
  }

  /** Frees what is queued at once: the neighbours see a reset. */
  abort(reason: CloseReason): void {
    if (this.#isClosed) return
    this.#machine.close(reason, this.#m.now())
    // The cells of CLOSED go the usual way where the channel moves; a stuck one is aborted with its queue.
    const stuck = [this.#client, this.#next].filter((channel) => channel !== null && channel.queuedBytes > 0)
    for (const channel of stuck) channel?.abort()
    this.#drain()
    this.#finish(reason)
  }

  #cells(from: 'client' | 'next', batch: CellBatch): void {
    if (this.#isClosed) return
    this.#machine.handleCells(from, batch, this.#m.now())
    this.flush()
    const out = from === 'client' ? this.#next : this.#client
    if (out && out.room <= 0 && !this.#isClosed) (from === 'client' ? this.#client : this.#next)?.pause()
  }

  /** False once the circuit has ended. */
  #drain(): boolean {
    for (;;) {
      const output = this.#machine.pollOutput()
      if (!output) return !this.#isClosed
      this.#handle(output)
    }
  }

  #handle(output: CircuitOutput): void {
    switch (output.type) {
      case 'cells':
        this.#m.count(output.batch.count)
        if (output.to === 'client') this.#client.send(output.batch)
        else this.#next?.send(output.batch)
        return
      case 'extend':
        void this.#extend(output.target)
        return
      case 'closed':
        this.#finish(output.reason)
        return
      case 'begin':
      case 'resolve':
      case 'dns-open':
      case 'datagrams-open':
      case 'packets-open':
      case 'data':
      case 'writable':
      case 'end':
      case 'datagram':
      case 'datagrams-closed':
      case 'packets':
      case 'packets-closed':
        this.#exitStreams()?.handle(output)
        return
      default: // the client's outputs, which a relay's machine never gives
        return
    }
  }

  #exitStreams(): ExitStreams | null {
    if (!this.#streams && this.#m.exit && !this.#isClosed) {
      this.#streams = new ExitStreams({
        machine: this.#machine,
        exit: this.#m.exit.openCircuit(),
        memory: this.#m.memory,
        buffers: this.#m.buffers,
        wake: () => this.#m.schedule(this),
        now: this.#m.now,
        logger: this.#m.logger,
      })
    }
    return this.#streams
  }

  async #extend(target: Uint8Array): Promise<void> {
    const id = nodeIdFromKey(target)
    const addresses = this.#m.directory.addressesOf(id)
    if (!addresses) {
      this.#machine.handleNextFailed('unknown-relay', this.#m.now())
      return
    }
    this.#dialing = new AbortController()
    const timeout = AbortSignal.timeout(this.#m.extendTimeoutMs)
    try {
      const next = await this.#m.dialer.openChannel(id, addresses, AbortSignal.any([this.#dialing.signal, timeout]))
      if (this.#isClosed) {
        next.abort()
        return
      }
      this.#next = next
      next.attach({
        cells: (batch) => this.#cells('next', batch),
        drained: () => this.#client.resume(),
        ended: (how) => this.#channelEnded('next', how),
      })
      this.#machine.handleNextOpen(this.#m.now())
    } catch (error) {
      if (this.#isClosed) return
      const mismatch = error instanceof ShallotError && error.code === 'identity-mismatch'
      this.#machine.handleNextFailed(timeout.aborted ? 'timeout' : mismatch ? 'identity-mismatch' : 'connect-failed', this.#m.now())
    }
    this.#dialing = null
    this.flush()
  }

  #channelEnded(side: 'client' | 'next', how: ChannelEnd): void {
    if (this.#isClosed) return
    this.#machine.handleChannelEnd(side, how, this.#m.now())
    this.flush()
  }

  #finish(reason: CloseReason): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#deadline.stop()
    this.#dialing?.abort()
    this.#streams?.close()
    this.#client.resume()
    this.#next?.resume()
    this.#client.close()
    this.#next?.close()
    this.#m.closed(this, reason)
  }
}
