import type { Uint8ArrayList } from 'uint8arraylist'
import type { ChannelEnd } from '../onion/index.ts'
import { CellStream, type CellStreamOptions } from './cell-stream.ts'
import type { Asking, Way, WayHandlers } from './way.ts'

export interface MovingStreamOptions extends CellStreamOptions {
  readonly rank: number
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
export class MovingStream extends CellStream<WayHandlers> implements Way {
  readonly kind = 'libp2p'
  readonly rank: number
  readonly #told: (way: MovingStream) => void
  #writing: 'open' | 'leaving' | 'closing' | 'done' = 'open'
  #isReadingDone = false
  #asking: Asking | null
  #hasLeft = false
  #isOver = false

  constructor(options: MovingStreamOptions) {
    super(options)
    this.rank = options.rank
    this.#told = options.over
    this.#asking = options.asking ?? null
    if (options.initial !== undefined) this.received.append(options.initial)
  }

  protected get isOpen(): boolean {
    return this.#writing === 'open'
  }

  protected get isClosing(): boolean {
    return this.#writing === 'closing'
  }

  protected get isWritten(): boolean {
    return this.#writing === 'done'
  }

  protected get isRead(): boolean {
    return this.#isReadingDone
  }

  protected get isOver(): boolean {
    return this.#isOver
  }

  protected override get isAsking(): boolean {
    return this.#asking !== null
  }

  leave(): void {
    if (this.#writing !== 'open') return
    this.#writing = 'leaving'
    this.turns.output(this)
  }

  close(): void {
    if (this.#writing !== 'open') return
    this.#writing = 'closing'
    this.closeInput()
  }

  finish(): void {
    this.dropOutput()
    if (this.#writing === 'open') this.#writing = 'leaving'
    this.resetLater()
    this.turns.output(this)
  }

  protected override answered(): void {
    const answer = this.received.take(1)
    if (answer === null) return
    const asking = this.#asking!
    this.#asking = null
    if (answer[0] !== AGREED) {
      this.fail('violation')
      return
    }
    asking.agreed()
    if (this.inbox.isPaused) this.pauseStream()
  }

  protected sent(): void {
    const isClosing = this.#writing === 'closing'
    this.#writing = 'done'
    this.stream.close().then(
      () => {
        if (this.#isOver) return
        if (isClosing) this.#stop('fin')
        else this.#gone(true)
      },
      () => this.fail('reset'),
    )
  }

  protected peerEnded(): void {
    if (this.isReset || this.received.bytes > 0 || this.#asking !== null) {
      this.fail(this.isReset ? 'reset' : 'violation')
      return
    }
    this.#isReadingDone = true
    if (this.#writing !== 'closing') this.inbox.finish('fin')
  }

  protected streamClosed(): void {
    // What the peer's reset says before any answer is that it does not agree.
    const asking = this.#asking
    this.#asking = null
    if (asking !== null && this.stream.status === 'reset') asking.refused()
    if (!this.isWhole) this.fail('reset')
  }

  protected over(): void {
    this.#told(this)
  }

  /** What is left behind is still read: the stream's own end tells. */
  protected override tooLate(): void {
    this.stream.abort(new Error('the peer did not end its side'))
  }

  protected fail(how: ChannelEnd): void {
    if (this.#isOver) return
    const wasReadToEnd = this.inbox.isEnded
    this.#writing = 'done'
    this.#stop(how)
    if (how !== 'fin') this.stream.abort(new Error('the channel was aborted'))
    if (wasReadToEnd) this.#gone(false)
  }

  #gone(isWhole: boolean): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    this.handlers?.left(isWhole)
  }

  /** Nothing more is delivered or sent by us; a stream that was closed may still wait for the peer's FIN. */
  #stop(how: ChannelEnd): void {
    this.#isOver = true
    this.#isReadingDone = true
    this.dropAll()
    this.inbox.stop(how)
    this.measure()
  }
}
