import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'
import type { TokenBucket } from '../../base/index.ts'

/** Why a relayed connection ended. */
export type PumpEnd =
  | 'done' // both sides have ended in order
  | 'reset' // one side broke it off, or was lost
  | 'bytes' // all that it may carry was carried
  | 'time' // its time is over
  | 'idle' // nothing was sent for long
  | 'stalled' // a receiver took nothing in for long
  | 'buffer' // more was held for a receiver than may be
  | 'stopping' // the relay ends

export interface PumpOptions {
  /** Who asked for the connection. The stream is paused; what it holds is passed on first. */
  readonly dialler: Stream
  /** Who has the reservation. The same. */
  readonly target: Stream
  readonly maxBytes: number
  readonly maxHeldBytes: number
  /** Of this connection, and of all. */
  readonly rates: readonly TokenBucket[]
  /** Monotonic ms. */
  readonly now: () => number
  /** Called once. */
  readonly over: (pump: Pump, end: PumpEnd) => void
}

/** Bytes are handed on in pieces of this size: what a receiver that needs a pause gets beyond it. */
const PIECE_BYTES = 65_536

/**
 * A relayed connection: two streams, each one's bytes passed to the other unseen, with backpressure both ways. The end of one direction
 * is passed on when all before it has been; the other direction goes on. A reset of either side is a reset of both.
 */
export class Pump {
  readonly openedAt: number
  readonly #options: PumpOptions
  readonly #up: Direction
  readonly #down: Direction
  #lastByteAt: number
  #isOver = false

  constructor(options: PumpOptions) {
    this.#options = options
    this.openedAt = this.#lastByteAt = options.now()
    const events: DirectionEvents = {
      arrived: () => this.#arrived(),
      charge: (count) => this.#charge(count),
      finished: () => {
        if (this.#up.isFinished && this.#down.isFinished) this.#over('done')
      },
      broken: () => this.close('reset'),
    }
    this.#up = new Direction(options.dialler, options.target, events)
    this.#down = new Direction(options.target, options.dialler, events)
  }

  /** Begins to pass on. */
  start(): void {
    this.#up.start()
    this.#down.start()
  }

  /** Bytes that came from the dialler, and from who has the reservation. */
  get bytesUp(): number {
    return this.#up.received
  }

  get bytesDown(): number {
    return this.#down.received
  }

  get lastByteAt(): number {
    return this.#lastByteAt
  }

  /** Bytes that have come in and are still here. */
  get heldBytes(): number {
    return this.#up.heldBytes + this.#down.heldBytes
  }

  /** Since when (monotonic ms) bytes are held and none of them moves; null when nothing is stuck. Looks anew at each call. */
  stuckSince(now: number): number | null {
    const since = [this.#up.stuckSince(now), this.#down.stuckSince(now)].filter((time) => time !== null)
    return since.length === 0 ? null : Math.min(...since)
  }

  /** Ends both streams at once. */
  close(end: PumpEnd): void {
    if (this.#isOver) return
    this.#over(end)
    const why = new Error(`the relayed connection ended: ${end}`)
    this.#options.dialler.abort(why)
    this.#options.target.abort(why)
  }

  #over(end: PumpEnd): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#up.stop()
    this.#down.stop()
    this.#options.over(this, end)
  }

  #arrived(): void {
    const { maxBytes, maxHeldBytes, now } = this.#options
    this.#lastByteAt = now()
    if (this.bytesUp + this.bytesDown > maxBytes) this.close('bytes')
    else if (this.heldBytes > maxHeldBytes) this.close('buffer')
  }

  /** Charges the rates. Returns how long the next bytes have to wait, ms. */
  #charge(count: number): number {
    const now = this.#options.now()
    const waitMs = Math.max(...this.#options.rates.map((rate) => rate.spend(count, now)))
    // Being held back is not being idle.
    this.#lastByteAt = Math.max(this.#lastByteAt, now + waitMs)
    return waitMs
  }
}

interface DirectionEvents {
  /** Bytes came in. */
  arrived(): void
  /** So many bytes are handed on. Returns for how long the next ones have to wait, ms. */
  charge(count: number): number
  /** The end of this direction has been passed on. */
  finished(): void
  broken(): void
}

/** One direction: from one stream to the other. */
class Direction {
  readonly #from: Stream
  readonly #to: Stream
  readonly #events: DirectionEvents
  /** Came in, and was not handed to the other stream. */
  #held = new Uint8ArrayList()
  #received = 0
  #isResuming = false
  #isStopped = false
  #isFinSeen = false
  #isEnding = false
  #isFinished = false
  #timer: NodeJS.Timeout | null = null
  /** How much had gone out when it was last looked at, and since when nothing moves. */
  #goneBefore = 0
  #stuckSince: number | null = null

  constructor(from: Stream, to: Stream, events: DirectionEvents) {
    this.#from = from
    this.#to = to
    this.#events = events
  }

  start(): void {
    this.#from.addEventListener('message', (event) => this.#message(event.data))
    this.#from.addEventListener('remoteCloseWrite', () => {
      this.#isFinSeen = true
    })
    this.#from.addEventListener('end', () => this.#turn())
    this.#from.addEventListener('close', () => {
      // A stream that closes after both its ends did is no loss; its own end is passed on by `end`.
      const isLoss = this.#from.status !== 'closed' || !this.#isFinSeen
      if (isLoss && !this.#isFinished) this.#broken()
    })
    this.#to.addEventListener('drain', () => this.#turn())
    this.#to.addEventListener('close', () => {
      if (!this.#isEnding) this.#broken()
    })
    this.#isFinSeen = this.#from.remoteWriteStatus === 'closed' && this.#from.status === 'open'
    if (this.#from.status !== 'open') this.#broken()
    else this.#turn()
  }

  stop(): void {
    this.#isStopped = true
    this.#held = new Uint8ArrayList()
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  get isFinished(): boolean {
    return this.#isFinished
  }

  get received(): number {
    return this.#received
  }

  get heldBytes(): number {
    return this.#isStopped ? 0 : this.#held.byteLength + this.#from.readBufferLength + this.#to.writeBufferLength
  }

  stuckSince(now: number): number | null {
    const gone = this.#received - this.#held.byteLength - this.#to.writeBufferLength
    // What its rate holds back is not stuck.
    const isWaiting = this.#to.writeBufferLength > 0 || (this.#held.byteLength > 0 && this.#timer === null)
    if (!isWaiting || gone !== this.#goneBefore) this.#stuckSince = null
    if (isWaiting) this.#stuckSince ??= now
    this.#goneBefore = gone
    return this.#stuckSince
  }

  #message(data: Uint8Array | Uint8ArrayList): void {
    if (this.#isStopped) return
    this.#held.append(data)
    this.#received += data.byteLength
    this.#events.arrived()
    this.#turn()
  }

  /** Hands on no more, and reads no more, for a while. */
  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = null
      this.#turn()
    }, Math.ceil(ms))
    this.#timer.unref()
  }

  /** Hands on what can be, then reads on or holds the sender back. */
  #turn(): void {
    // A stream that is paused while it resumes would be read on all the same: whoever resumed looks again afterwards.
    while (!this.#isStopped && !this.#isResuming) {
      this.#sendHeld()
      if (this.#isStopped) return
      if (this.#held.byteLength > 0 || this.#to.writableNeedsDrain || this.#timer !== null) {
        if (this.#from.readStatus === 'readable') this.#from.pause()
        break
      }
      if (this.#from.readStatus !== 'paused') break
      this.#isResuming = true
      this.#from.resume()
      this.#isResuming = false
      if (this.#held.byteLength === 0) break
    }
    if (this.#from.readableEnded && this.#held.byteLength === 0) this.#end()
  }

  #sendHeld(): void {
    try {
      while (this.#held.byteLength > 0 && !this.#to.writableNeedsDrain && this.#timer === null) {
        const piece = this.#held.sublist(0, Math.min(PIECE_BYTES, this.#held.byteLength))
        this.#held.consume(piece.byteLength)
        const waitMs = this.#events.charge(piece.byteLength)
        if (waitMs > 0) this.#wait(waitMs)
        this.#to.send(piece)
      }
    } catch {
      // The stream closed between two sends.
      this.#broken()
    }
  }

  /** All was handed on, and no more comes. */
  #end(): void {
    if (this.#isStopped || this.#isEnding) return
    if (!this.#isFinSeen) {
      this.#broken()
      return
    }
    this.#isEnding = true
    // Waits for the receiver to take in what is left; one that does not is noticed as stalled.
    this.#to.close().then(
      () => {
        this.#isFinished = true
        if (!this.#isStopped) this.#events.finished()
      },
      () => this.#broken(),
    )
  }

  #broken(): void {
    if (!this.#isStopped) this.#events.broken()
  }
}
