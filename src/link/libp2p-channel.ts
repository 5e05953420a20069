import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import type { NodeId } from '../base/index.ts'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import { BatchQueue } from './batch-queue.ts'
import { ByteMeter } from './byte-meter.ts'
import type { CellChannel, CellChannelHandlers } from './channel.ts'
import { Inbox } from './inbox.ts'
import { CellAssembler, STREAM_DRAINED_CELLS, STREAM_QUEUE_CELLS, sendQueued } from './stream-cells.ts'
import type { Turns, TurnTask } from './turns.ts'

/** One libp2p stream of this protocol is one channel: cells back to back, nothing else. docs/spec/link.md §6 */
export const CIRCUIT_PROTOCOL = '/shallot/circuit/1'

export interface Libp2pChannelOptions {
  readonly stream: Stream
  readonly peer: NodeId
  readonly remoteAddress: string | null
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly closeTimeoutMs: number
  /** Monotonic ms. */
  readonly now: () => number
  /** Called once, when the stream is over. */
  readonly over: (channel: Libp2pChannel) => void
}

/** A channel over one libp2p stream: works wherever libp2p connects, relayed and browser transports included. */
export class Libp2pChannel implements CellChannel, TurnTask {
  readonly kind = 'libp2p'
  readonly peer: NodeId
  readonly remoteAddress: string | null
  readonly #options: Libp2pChannelOptions
  readonly #stream: Stream
  readonly #own = new ByteMeter()
  readonly #outbox: BatchQueue
  readonly #inbox: Inbox
  #handlers: CellChannelHandlers | null = null
  #state: 'open' | 'closing' | 'ended' = 'open'
  #wantsDrain = false
  readonly #received = new CellAssembler()
  #finSeen = false
  #atEnd = false
  /** What of the shared meter is ours. */
  #charged = 0
  #busySince: number | null = null
  #timer: NodeJS.Timeout | null = null

  constructor(options: Libp2pChannelOptions) {
    this.#options = options
    this.#stream = options.stream
    this.peer = options.peer
    this.remoteAddress = options.remoteAddress
    this.#outbox = new BatchQueue(this.#own)
    this.#inbox = new Inbox(this.#own, () => {})
    const { stream } = options
    stream.addEventListener('message', (event) => this.#message(event.data))
    stream.addEventListener('drain', () => this.#options.turns.output(this))
    stream.addEventListener('remoteCloseWrite', () => {
      this.#finSeen = true
    })
    stream.addEventListener('end', () => {
      this.#atEnd = true
      this.#options.turns.input(this)
    })
    stream.addEventListener('close', () => this.#closed())
  }

  get queuedBytes(): number {
    this.measure()
    return this.#charged
  }

  get queuedSince(): number | null {
    this.measure()
    return this.#outbox.since ?? this.#inbox.since ?? this.#busySince
  }

  get room(): number {
    if (this.#state !== 'open' || this.#wantsDrain) return 0
    return STREAM_QUEUE_CELLS - this.#outbox.cells
  }

  attach(handlers: CellChannelHandlers): void {
    this.#handlers = handlers
    this.#inbox.attach(handlers)
    this.#options.turns.input(this)
  }

  send(batch: CellBatch): void {
    if (this.#state !== 'open') return
    this.#outbox.push(batch, this.#options.now())
    if (this.#outbox.cells >= STREAM_QUEUE_CELLS) this.#wantsDrain = true
    this.#options.turns.output(this)
  }

  pause(): void {
    this.#inbox.pause()
    if (this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  resume(): void {
    this.#inbox.resume()
    this.#options.turns.input(this)
  }

  close(): void {
    if (this.#state === 'ended') this.#stopSoon('fin')
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#inbox.close()
    this.#received.clear()
    // What still comes in is not wanted, but must be read for the peer's end to be seen.
    if (this.#stream.readStatus === 'paused') this.#stream.resume()
    this.#abortLater()
    this.#options.turns.output(this)
  }

  abort(): void {
    this.#fail('reset')
  }

  /** Brings the meter up to date: the stream's own buffers change without telling. Called by the host about once a second. */
  measure(): void {
    const { readBufferLength, writeBufferLength } = this.#stream
    const isOver = this.#state === 'ended' && this.#inbox.isEnded
    const held = isOver ? 0 : this.#own.total + readBufferLength + writeBufferLength + this.#received.bytes
    if (held === this.#charged) return
    this.#options.meter.add(held - this.#charged)
    this.#charged = held
    if (held === 0) this.#busySince = null
    else this.#busySince ??= this.#options.now()
  }

  // ---- once a turn

  runInput(): void {
    this.#assemble()
    this.#inbox.deliver()
    if (this.#state === 'open' && !this.#inbox.isPaused && this.#stream.readStatus === 'paused') {
      this.#stream.resume()
      this.#assemble()
    }
    // An end is passed on only when nothing is left behind it.
    if (this.#atEnd && this.#stream.readBufferLength === 0) this.#ended()
    this.measure()
  }

  runOutput(): void {
    if (this.#state === 'ended') return
    try {
      sendQueued(this.#outbox, this.#stream)
    } catch {
      this.#fail('reset')
      return
    }
    this.measure()
    if (this.#state === 'closing') {
      if (this.#outbox.cells === 0) this.#fin()
    } else if (this.#wantsDrain && STREAM_QUEUE_CELLS - this.#outbox.cells >= STREAM_DRAINED_CELLS) {
      this.#wantsDrain = false
      this.#handlers?.drained()
    }
  }

  // ---- the stream's events

  #message(data: Uint8Array | Uint8ArrayList): void {
    if (this.#state !== 'open') return
    this.#received.append(data)
    this.#options.turns.input(this)
  }

  /** The peer's end: a FIN, or the connection is gone. */
  #ended(): void {
    this.#atEnd = false
    if (this.#state === 'ended') return
    const isClosing = this.#state === 'closing'
    const isReset = !this.#finSeen || this.#stream.status === 'reset' || this.#stream.status === 'aborted'
    const how: ChannelEnd = isReset ? 'reset' : this.#received.bytes > 0 ? 'violation' : 'fin'
    this.#end()
    if (how === 'fin' && !isClosing) this.#inbox.finish('fin')
    else this.#inbox.stop(how)
    if (how === 'fin') {
      this.#abortLater()
      this.#stream.close().catch(() => {})
    } else {
      this.#stream.abort(new Error('the channel ended'))
    }
    this.measure()
  }

  #closed(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    // A stream that closed after the peer's FIN still has its end to deliver; any other end is a loss.
    if (this.#state !== 'ended' && !(this.#finSeen && this.#stream.status === 'closed')) {
      this.#end()
      this.#inbox.stop('reset')
    }
    this.#options.turns.input(this)
    this.#options.over(this)
  }

  // ----

  #assemble(): void {
    const now = this.#options.now()
    this.#received.drain((batch) => {
      this.#inbox.push(batch, now)
      return this.#state !== 'ended'
    })
  }

  #fin(): void {
    this.#stream.close({ signal: AbortSignal.timeout(this.#options.closeTimeoutMs) }).then(
      () => this.#fail('fin'),
      () => this.#fail('reset'),
    )
    this.#state = 'ended'
    this.#outbox.clear()
  }

  #fail(how: ChannelEnd): void {
    this.#end()
    this.#stopSoon(how)
    if (how !== 'fin') this.#stream.abort(new Error('the channel was aborted'))
  }

  /** Ends this side after the caller's turn of work; what is queued here is lost now. */
  #stopSoon(how: ChannelEnd): void {
    this.#inbox.close()
    queueMicrotask(() => {
      this.#inbox.stop(how)
      this.measure()
    })
  }

  #end(): void {
    this.#state = 'ended'
    this.#outbox.clear()
    this.#received.clear()
    this.measure()
  }

  /** A peer that does not end its side either is not waited for. */
  #abortLater(): void {
    this.#timer ??= setTimeout(() => this.#fail('reset'), this.#options.closeTimeoutMs)
    this.#timer.unref()
  }
}
