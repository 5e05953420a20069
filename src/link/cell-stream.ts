import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import { BatchQueue } from './batch-queue.ts'
import { ByteMeter } from './byte-meter.ts'
import type { CellChannelHandlers } from './channel.ts'
import { Inbox } from './inbox.ts'
import { CellAssembler, STREAM_DRAINED_CELLS, STREAM_QUEUE_CELLS, sendQueued } from './stream-cells.ts'
import type { Turns, TurnTask } from './turns.ts'

/** What every use of a libp2p stream for cells needs. */
export interface CellStreamOptions {
  readonly stream: Stream
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly closeTimeoutMs: number
  /** Monotonic ms. */
  readonly now: () => number
}

/**
 * Cells over one libp2p stream: their queues, the flow both ways and what they are charged. When each direction is over, and what the stream's
 * end means, is for who extends it.
 */
export abstract class CellStream<Handlers extends CellChannelHandlers = CellChannelHandlers> implements TurnTask {
  protected readonly stream: Stream
  protected readonly turns: Turns
  protected readonly inbox: Inbox
  /** What came in and is not a whole cell yet, or not looked at. */
  protected readonly received = new CellAssembler()
  protected handlers: Handlers | null = null
  /** Whether the peer's FIN has been seen: an end without it is a loss. */
  protected finSeen = false
  readonly #options: CellStreamOptions
  readonly #own = new ByteMeter()
  readonly #outbox: BatchQueue
  #wantsDrain = false
  #atEnd = false
  /** What of the shared meter is ours. */
  #charged = 0
  #busySince: number | null = null
  #timer: NodeJS.Timeout | null = null

  constructor(options: CellStreamOptions) {
    this.#options = options
    this.stream = options.stream
    this.turns = options.turns
    this.#outbox = new BatchQueue(this.#own)
    this.inbox = new Inbox(this.#own, () => {})
    const { stream, turns } = options
    stream.addEventListener('message', (event) => this.#message(event.data))
    stream.addEventListener('drain', () => turns.output(this))
    stream.addEventListener('remoteCloseWrite', () => {
      this.finSeen = true
    })
    stream.addEventListener('end', () => {
      this.#atEnd = true
      turns.input(this)
    })
    stream.addEventListener('close', () => {
      this.streamClosed()
      if (this.#timer !== null) clearTimeout(this.#timer)
      this.#timer = null
      turns.input(this)
      this.over()
    })
  }

  // ---- where it stands

  /** Cells may be sent. */
  protected abstract readonly isOpen: boolean
  /** What still comes in is not wanted. */
  protected abstract readonly isClosing: boolean
  /** Nothing more goes out. */
  protected abstract readonly isWritten: boolean
  /** Nothing more is read. */
  protected abstract readonly isRead: boolean
  /** Nothing is held here any more. */
  protected abstract readonly isOver: boolean
  /** What comes in is not cells yet, and the stream may not be paused. */
  protected get isAsking(): boolean {
    return false
  }

  // ---- what is told

  /** Something that is not cells came in, while `isAsking`. */
  protected answered(): void {}
  /** All that was queued has been sent, and nothing more is to be. */
  protected abstract sent(): void
  /** The peer's end, once nothing is left behind it: a FIN, or the connection is gone. */
  protected abstract peerEnded(): void
  /** The stream is gone. */
  protected abstract streamClosed(): void
  /** After all else. */
  protected abstract over(): void
  /** Ends both directions. */
  protected abstract fail(how: ChannelEnd): void

  // ----

  get queuedBytes(): number {
    this.measure()
    return this.#charged
  }

  get queuedSince(): number | null {
    this.measure()
    return this.#outbox.since ?? this.inbox.since ?? this.#busySince
  }

  get room(): number {
    if (!this.isOpen || this.#wantsDrain) return 0
    return STREAM_QUEUE_CELLS - this.#outbox.cells
  }

  attach(handlers: Handlers): void {
    this.handlers = handlers
    this.inbox.attach(handlers)
    this.turns.input(this)
  }

  send(batch: CellBatch): void {
    if (!this.isOpen) return
    this.#outbox.push(batch, this.#options.now())
    if (this.#outbox.cells >= STREAM_QUEUE_CELLS) this.#wantsDrain = true
    this.turns.output(this)
  }

  pause(): void {
    this.inbox.pause()
    this.pauseStream()
  }

  resume(): void {
    this.inbox.resume()
    this.turns.input(this)
  }

  abort(): void {
    this.fail('reset')
  }

  /** Brings the meter up to date: the stream's own buffers change without telling. Called by the host about once a second. */
  measure(): void {
    const { readBufferLength, writeBufferLength } = this.stream
    const held = this.isOver ? 0 : this.#own.total + readBufferLength + writeBufferLength + this.received.bytes
    if (held === this.#charged) return
    this.#options.meter.add(held - this.#charged)
    this.#charged = held
    if (held === 0) this.#busySince = null
    else this.#busySince ??= this.#options.now()
  }

  runInput(): void {
    this.#assemble()
    this.inbox.deliver()
    if (!this.isRead && !this.inbox.isPaused && this.stream.readStatus === 'paused') {
      this.stream.resume()
      this.#assemble()
    }
    // An end is passed on only when nothing is left behind it.
    if (this.#atEnd && this.stream.readBufferLength === 0) {
      this.#atEnd = false
      if (!this.isRead) this.peerEnded()
    }
    this.measure()
  }

  runOutput(): void {
    if (this.isWritten) return
    try {
      sendQueued(this.#outbox, this.stream)
    } catch {
      this.fail('reset')
      return
    }
    this.measure()
    if (!this.isOpen) {
      if (this.#outbox.cells === 0) this.sent()
    } else if (this.#wantsDrain && STREAM_QUEUE_CELLS - this.#outbox.cells >= STREAM_DRAINED_CELLS) {
      this.#wantsDrain = false
      this.handlers?.drained()
    }
  }

  // ---- for who extends it

  /** Whether the stream ended otherwise than by the peer's FIN. */
  protected get isReset(): boolean {
    const { status } = this.stream
    return !this.finSeen || status === 'reset' || status === 'aborted'
  }

  /** Whether the stream closed after the peer's FIN: its end may still have to be delivered. */
  protected get isWhole(): boolean {
    return this.finSeen && this.stream.status === 'closed'
  }

  protected pauseStream(): void {
    if (!this.isAsking && this.stream.readStatus === 'readable') this.stream.pause()
  }

  /** After `isClosing` is set: what still comes in is not wanted, but must be read for the peer's end to be seen. */
  protected closeInput(): void {
    this.inbox.close()
    this.received.clear()
    if (this.stream.readStatus === 'paused') this.stream.resume()
    this.resetLater()
    this.turns.output(this)
  }

  /** Drops what waits to be sent. */
  protected dropOutput(): void {
    this.#outbox.clear()
  }

  /** Drops what waits here; what the inbox holds is for who extends it. */
  protected dropAll(): void {
    this.#outbox.clear()
    this.received.clear()
    this.measure()
  }

  /** A peer that does not end its side either is not waited for. */
  protected resetLater(): void {
    this.#timer ??= setTimeout(() => this.tooLate(), this.#options.closeTimeoutMs)
    this.#timer.unref()
  }

  /** The peer has not ended its side in time. */
  protected tooLate(): void {
    this.fail('reset')
  }

  // ----

  #message(data: Uint8Array | Uint8ArrayList): void {
    if (this.isRead || this.isClosing) return
    this.received.append(data)
    if (this.isAsking) this.answered()
    this.turns.input(this)
  }

  #assemble(): void {
    if (this.isAsking) return
    const now = this.#options.now()
    this.received.drain((batch) => {
      this.inbox.push(batch, now)
      return !this.isRead
    })
  }
}
