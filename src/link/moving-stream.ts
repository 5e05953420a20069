import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import { BatchQueue } from './batch-queue.ts'
import { ByteMeter } from './byte-meter.ts'
import { Inbox } from './inbox.ts'
import { CellAssembler, STREAM_DRAINED_CELLS, STREAM_QUEUE_CELLS, sendQueued } from './stream-cells.ts'
import type { Turns, TurnTask } from './turns.ts'
import type { Asking, Way, WayHandlers } from './way.ts'

export interface MovingStreamOptions {
  readonly stream: Stream
  readonly rank: number
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly closeTimeoutMs: number
  /** Monotonic ms. */
  readonly now: () => number
  /** Bytes that came after the preamble, owned. */
  readonly initial?: Uint8Array | Uint8ArrayList | undefined
  /** Given on the side that asks: the answer comes before the peer's cells. */
  readonly asking?: Asking | undefined
  /** Called once, when the stream is over. */
  readonly over: (way: MovingStream) => void
}

/** What a side that is asked answers by when it agrees; one that refuses resets the stream. docs/spec/link.md §7 */
export const AGREED = 1

/**
 * A way over a libp2p stream, after its preamble: cells back to back, each direction with an end of its own.
 *
 *   writing:  open --(leave)--> leaving --(queue sent, FIN)--> done          reading:  open --(peer's FIN)--> done
 *             open --(close)--> closing --(queue sent, FIN)--> done                    nothing is delivered after `close`
 *   a reset, the loss of the connection, `abort` and a partial cell end both
 */
export class MovingStream implements Way, TurnTask {
  readonly kind = 'libp2p'
  readonly rank: number
  readonly #options: MovingStreamOptions
  readonly #stream: Stream
  readonly #own = new ByteMeter()
  readonly #outbox: BatchQueue
  readonly #inbox: Inbox
  readonly #received = new CellAssembler()
  #handlers: WayHandlers | null = null
  #writing: 'open' | 'leaving' | 'closing' | 'done' = 'open'
  #isReadingDone = false
  #asking: Asking | null
  #wantsDrain = false
  #finSeen = false
  #atEnd = false
  #hasLeft = false
  #isOver = false
  #charged = 0
  #busySince: number | null = null
  #timer: NodeJS.Timeout | null = null

  constructor(options: MovingStreamOptions) {
    this.#options = options
    this.#stream = options.stream
    this.rank = options.rank
    this.#asking = options.asking ?? null
    this.#outbox = new BatchQueue(this.#own)
    this.#inbox = new Inbox(this.#own, () => {})
    if (options.initial !== undefined) this.#received.append(options.initial)
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
    stream.addEventListener('close', () => this.#streamClosed())
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
    if (this.#writing !== 'open' || this.#wantsDrain) return 0
    return STREAM_QUEUE_CELLS - this.#outbox.cells
  }

  attach(handlers: WayHandlers): void {
    this.#handlers = handlers
    this.#inbox.attach(handlers)
    this.#options.turns.input(this)
  }

  send(batch: CellBatch): void {
    if (this.#writing !== 'open') return
    this.#outbox.push(batch, this.#options.now())
    if (this.#outbox.cells >= STREAM_QUEUE_CELLS) this.#wantsDrain = true
    this.#options.turns.output(this)
  }

  pause(): void {
    this.#inbox.pause()
    this.#pauseStream()
  }

  resume(): void {
    this.#inbox.resume()
    this.#options.turns.input(this)
  }

  leave(): void {
    if (this.#writing !== 'open') return
    this.#writing = 'leaving'
    this.#options.turns.output(this)
  }

  close(): void {
    if (this.#writing !== 'open') return
    this.#writing = 'closing'
    this.#inbox.close()
    this.#received.clear()
    this.#resumeStream()
    this.#abortLater()
    this.#options.turns.output(this)
  }

  finish(): void {
    this.#outbox.clear()
    if (this.#writing === 'open') this.#writing = 'leaving'
    this.#abortLater()
    this.#options.turns.output(this)
  }

  abort(): void {
    this.#fail('reset')
  }

  /** Brings the meter up to date: the stream's own buffers change without telling. Called by the host about once a second. */
  measure(): void {
    const { readBufferLength, writeBufferLength } = this.#stream
    const held = this.#isOver ? 0 : this.#own.total + readBufferLength + writeBufferLength + this.#received.bytes
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
    if (!this.#isReadingDone && !this.#inbox.isPaused && this.#stream.readStatus === 'paused') {
      this.#resumeStream()
      this.#assemble()
    }
    // An end is passed on only when nothing is left behind it.
    if (this.#atEnd && this.#stream.readBufferLength === 0) this.#peerEnded()
    this.measure()
  }

  runOutput(): void {
    if (this.#writing === 'done') return
    try {
      sendQueued(this.#outbox, this.#stream)
    } catch {
      this.#fail('reset')
      return
    }
    this.measure()
    if (this.#writing !== 'open') {
      if (this.#outbox.cells === 0) this.#fin()
    } else if (this.#wantsDrain && STREAM_QUEUE_CELLS - this.#outbox.cells >= STREAM_DRAINED_CELLS) {
      this.#wantsDrain = false
      this.#handlers?.drained()
    }
  }

  // ---- the stream's events

  #message(data: Uint8Array | Uint8ArrayList): void {
    if (this.#isReadingDone || this.#writing === 'closing') return
    this.#received.append(data)
    if (this.#asking !== null) this.#answer()
    this.#options.turns.input(this)
  }

  #answer(): void {
    const answer = this.#received.take(1)
    if (answer === null) return
    const asking = this.#asking
    this.#asking = null
    if (answer[0] !== AGREED) {
      this.#fail('violation')
      return
    }
    asking!.agreed()
    if (this.#inbox.isPaused) this.#pauseStream()
  }

  #peerEnded(): void {
    this.#atEnd = false
    if (this.#isReadingDone) return
    const { status } = this.#stream
    const isReset = !this.#finSeen || status === 'reset' || status === 'aborted'
    if (isReset || this.#received.bytes > 0 || this.#asking !== null) {
      this.#fail(isReset ? 'reset' : 'violation')
      return
    }
    this.#isReadingDone = true
    if (this.#writing === 'closing') return
    this.#inbox.finish('fin')
  }

  #streamClosed(): void {
    // What the peer's reset says before any answer is that it does not agree.
    const asking = this.#asking
    this.#asking = null
    if (asking !== null && this.#stream.status === 'reset') asking.refused()
    // A stream that closed after the peer's FIN still has its end to deliver; any other end is a loss.
    const isWhole = this.#finSeen && this.#stream.status === 'closed'
    if (!isWhole) this.#fail('reset')
    this.#options.turns.input(this)
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#options.over(this)
  }

  // ----

  #assemble(): void {
    const now = this.#options.now()
    if (this.#asking !== null) return
    this.#received.drain((batch) => {
      this.#inbox.push(batch, now)
      return !this.#isOver
    })
  }

  #fin(): void {
    const isClosing = this.#writing === 'closing'
    this.#writing = 'done'
    this.#stream.close().then(
      () => {
        if (this.#isOver) return
        if (isClosing) this.#stop('fin')
        else this.#gone(true)
      },
      () => this.#fail('reset'),
    )
  }

  /** Both directions are over at once. */
  #fail(how: ChannelEnd): void {
    if (this.#isOver) return
    const wasReadToEnd = this.#inbox.isEnded
    this.#writing = 'done'
    this.#stop(how)
    if (how !== 'fin') this.#stream.abort(new Error('the channel was aborted'))
    if (wasReadToEnd) this.#gone(false)
  }

  #gone(isWhole: boolean): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    this.#handlers?.left(isWhole)
  }

  /** Nothing more is delivered or sent by us; a stream that was closed may still wait for the peer's FIN. */
  #stop(how: ChannelEnd): void {
    this.#isOver = true
    this.#isReadingDone = true
    this.#outbox.clear()
    this.#received.clear()
    this.#inbox.stop(how)
    this.measure()
  }

  /** Not while an answer is awaited. */
  #pauseStream(): void {
    if (this.#asking === null && this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  #resumeStream(): void {
    if (this.#stream.readStatus === 'paused') this.#stream.resume()
  }

  /** A peer that does not end its side either is not waited for. */
  #abortLater(): void {
    this.#timer ??= setTimeout(() => this.#stream.abort(new Error('the peer did not end its side')), this.#options.closeTimeoutMs)
    this.#timer.unref()
  }
}
