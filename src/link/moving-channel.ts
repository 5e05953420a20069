import { assert, type NodeId } from '../base/index.ts'
import type { CellBatch, ChannelEnd } from '../onion/index.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { CellChannel, CellChannelHandlers } from './channel.ts'
import { Inbox } from './inbox.ts'
import type { Turns, TurnTask } from './turns.ts'
import type { Asking, Way, WayHandlers } from './way.ts'

/**
 * What the way that is being left may still bring is taken in though the user has paused, up to this much: its time may be short. A stream's
 * window and a send queue fit.
 */
const MAX_HELD_BYTES = 1_310_720

export interface MovingChannelOptions {
  readonly peer: NodeId
  readonly remoteAddress: string
  readonly way: Way
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly closeTimeoutMs: number
  /** Monotonic ms. */
  readonly now: () => number
  /** A move is through: another one may begin. */
  readonly rested: (channel: MovingChannel) => void
  /** Called once, when the channel is over, at least on this side. */
  readonly over: (channel: MovingChannel) => void
}

/**
 * A channel that changes the connection it runs over, without a gap: each side ends the old way after what it had sent there and goes on on
 * the new one; each reads the old way to its end first. docs/spec/link.md §7
 *
 *   resting --(ask)--> asking --(refused, way lost)--> resting                        the opener's side
 *   asking --(agreed)--> moving;   resting --(move)--> moving                         the latter: the side that is asked
 *   moving --(peer's end of the old way read, and ours sent)--> resting
 *   any --(a way lost or reset that still mattered)--> ended
 */
export class MovingChannel implements CellChannel, TurnTask {
  readonly peer: NodeId
  /** As first seen: admission counts by it. */
  readonly remoteAddress: string
  readonly #options: MovingChannelOptions
  readonly #inbox: Inbox
  #handlers: CellChannelHandlers | null = null
  #state: 'open' | 'closing' | 'ended' = 'open'
  /** Where cells are sent. */
  #out: Way
  /** What is read now, and what after its end. */
  #reading: Way
  #next: Way | null = null
  /** The peer's end of the next way came before that of the one being read. */
  #isNextEnded = false
  /** A way that the peer was asked to move to, before its answer, and who waits for that. */
  #asked: Way | null = null
  #settled: ((moves: boolean) => void) | null = null
  /** The peer's end of the only way, which the answer will say the meaning of: the circuit's end, or that it has moved. */
  #isEndHeld = false
  /** A way was lost before the peer's answer: should it have agreed, its end of the old way is no longer the circuit's. */
  #isEndDoubtful = false
  /** The old way while our end of it is on its way. */
  #leaving: Way | null = null
  #isOutClosed = false
  #owesDrain = false
  #closeTimer: NodeJS.Timeout | null = null

  constructor(options: MovingChannelOptions) {
    this.#options = options
    this.peer = options.peer
    this.remoteAddress = options.remoteAddress
    this.#out = options.way
    this.#reading = options.way
    this.#inbox = new Inbox(options.meter, () => {})
    options.way.attach(this.#handlersOf(options.way))
  }

  get kind(): 'tls' | 'libp2p' {
    return this.#out.kind
  }

  /** How good the way is that cells are sent on. */
  get rank(): number {
    return this.#out.rank
  }

  /** Whether a move may begin. */
  get isResting(): boolean {
    return this.#state === 'open' && this.#asked === null && this.#next === null && this.#leaving === null
  }

  get queuedBytes(): number {
    return this.#ways().reduce((sum, way) => sum + way.queuedBytes, this.#inbox.bytes)
  }

  get queuedSince(): number | null {
    let oldest = this.#inbox.since
    for (const way of this.#ways()) {
      const since = way.queuedSince
      if (since !== null && (oldest === null || since < oldest)) oldest = since
    }
    return oldest
  }

  get room(): number {
    return this.#state !== 'open' || this.#owesDrain ? 0 : this.#out.room
  }

  attach(handlers: CellChannelHandlers): void {
    this.#handlers = handlers
    this.#inbox.attach(handlers)
    this.#options.turns.input(this)
  }

  send(batch: CellBatch): void {
    if (this.#state === 'open') this.#out.send(batch)
  }

  pause(): void {
    this.#inbox.pause()
    this.#flow()
  }

  resume(): void {
    if (this.#inbox.resume()) this.#options.turns.input(this)
    else this.#flow()
  }

  close(): void {
    if (this.#state === 'ended') this.#stopSoon('fin')
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#inbox.close()
    this.#closeTimer = setTimeout(() => this.abort(), this.#options.closeTimeoutMs)
    this.#closeTimer.unref()
    // What the answer will say decides which way the end goes.
    if (this.#asked === null) this.#out.close()
    this.#flow()
  }

  abort(): void {
    this.#drop()
    this.#stopSoon('reset')
  }

  /**
   * Begins a move as the opener. Only while `isResting`.
   * @param make makes the way and puts the question to the peer
   * @param settled called once with whether the channel moves; with false when it ends before that too
   */
  ask(make: (asking: Asking) => Way, settled: (moves: boolean) => void): void {
    assert(this.isResting, 'a channel moves once at a time')
    const way = make({
      agreed: () => {
        if (this.#asked !== way) return
        this.#asked = null
        this.#switchTo(way)
        this.#settle(true)
      },
      refused: () => {
        if (this.#asked !== way) return
        this.#asked = null
        this.#stay()
        this.#settle(false)
      },
    })
    this.#asked = way
    this.#settled = settled
    way.attach(this.#handlersOf(way))
    way.pause()
  }

  /** Moves as the side that is asked, having answered. Only while `isResting`. */
  move(way: Way): void {
    assert(this.isResting, 'a channel moves once at a time')
    way.attach(this.#handlersOf(way))
    way.pause()
    this.#switchTo(way)
  }

  // ---- once a turn

  runInput(): void {
    this.#inbox.deliver()
    this.#flow()
  }

  runOutput(): void {
    if (!this.#owesDrain || this.#state !== 'open') return
    this.#owesDrain = false
    if (this.#out.room > 0) this.#handlers?.drained()
  }

  // ---- moving

  #switchTo(way: Way): void {
    const old = this.#out
    // A sender that waits for room on the old way has it on the new one.
    if (this.#state === 'open' && old.room === 0) {
      this.#owesDrain = true
      this.#options.turns.output(this)
    }
    this.#out = way
    this.#next = way
    this.#leaving = old
    old.leave()
    const wasReadToEnd = this.#isEndHeld
    this.#isEndHeld = false
    // Who agrees now has not agreed before.
    this.#isEndDoubtful = false
    if (wasReadToEnd) this.#readNext()
    else this.#flow()
    if (this.#state === 'closing') this.#out.close()
  }

  #settle(moves: boolean): void {
    const settled = this.#settled
    this.#settled = null
    settled?.(moves)
  }

  /** The old way goes on, as the peer's refusal says. */
  #stay(): void {
    if (this.#isEndHeld) this.#oldWayEnded()
    else if (this.#state === 'closing') this.#out.close()
  }

  /** The peer's end of the only way: the circuit's, unless it can have been that of a move which we know nothing of. */
  #oldWayEnded(): void {
    if (this.#isEndDoubtful) this.#fail('reset')
    else this.#peerClosed()
  }

  #readNext(): void {
    this.#reading = this.#next!
    this.#next = null
    this.#flow()
    if (this.#isNextEnded) this.#peerClosed()
    else if (this.isResting) this.#options.rested(this)
  }

  /** Lets in what may come in. */
  #flow(): void {
    if (this.#state === 'ended') return
    const isClosing = this.#state === 'closing'
    const mayHold = this.#next !== null && this.#inbox.bytes < MAX_HELD_BYTES
    if (isClosing || !this.#inbox.isPaused || mayHold) this.#reading.resume()
    else this.#reading.pause()
    if (isClosing) this.#next?.resume()
  }

  // ---- what the ways tell

  #handlersOf(way: Way): WayHandlers {
    return {
      cells: (batch) => this.#cells(batch),
      drained: () => {
        if (way === this.#out && this.#state === 'open' && !this.#owesDrain) this.#handlers?.drained()
      },
      ended: (how) => this.#wayEnded(way, how),
      left: (isWhole) => this.#wayLeft(way, isWhole),
    }
  }

  #cells(batch: CellBatch): void {
    if (this.#state !== 'open') return
    this.#inbox.push(batch, this.#options.now())
    if (this.#inbox.isPaused) this.#flow()
  }

  #wayEnded(way: Way, how: ChannelEnd): void {
    if (this.#state === 'ended') return
    if (way === this.#asked) {
      this.#asked = null
      this.#isEndDoubtful = true
      this.#stay()
      this.#settle(false)
      return
    }
    // One that was refused, or has been left and read to its end.
    if (way !== this.#out && way !== this.#reading && way !== this.#next) return
    if (how !== 'fin') {
      this.#fail(how)
      return
    }
    if (way === this.#out && this.#state === 'closing') {
      this.#isOutClosed = true
      this.#closedWhenLeft()
    } else if (way === this.#next) {
      this.#isNextEnded = true
    } else if (way === this.#reading) {
      if (this.#next !== null) this.#readNext()
      else if (this.#asked !== null) this.#isEndHeld = true
      else this.#oldWayEnded()
    }
  }

  #wayLeft(way: Way, isWhole: boolean): void {
    if (this.#state === 'ended') return
    if (!isWhole) {
      this.#fail('reset')
    } else if (way === this.#leaving) {
      this.#leaving = null
      if (this.#state === 'closing') this.#closedWhenLeft()
      else if (this.isResting) this.#options.rested(this)
    }
  }

  // ---- the end

  /** The peer has closed, and all that it sent before has been handed to the inbox. */
  #peerClosed(): void {
    if (this.#state === 'ended') return
    const wasClosing = this.#state === 'closing'
    const ways = this.#ways()
    this.#end()
    for (const way of ways) way.finish()
    if (wasClosing) this.#inbox.stop('fin')
    else this.#inbox.finish('fin')
  }

  #closedWhenLeft(): void {
    if (!this.#isOutClosed || this.#leaving !== null) return
    const ways = this.#ways()
    this.#end()
    // An old way whose end the peer has not sent yet is not waited for long.
    for (const way of ways) if (way !== this.#out) way.finish()
    this.#inbox.stop('fin')
  }

  #fail(how: ChannelEnd): void {
    this.#drop()
    this.#inbox.stop(how)
  }

  #drop(): void {
    if (this.#state === 'ended') return
    const ways = this.#ways()
    this.#end()
    for (const way of ways) way.abort()
  }

  #end(): void {
    this.#state = 'ended'
    if (this.#closeTimer !== null) clearTimeout(this.#closeTimer)
    this.#closeTimer = null
    this.#settle(false)
    this.#options.over(this)
  }

  /** Ends this side after the caller's turn of work; what is queued here is lost now. */
  #stopSoon(how: ChannelEnd): void {
    this.#inbox.close()
    queueMicrotask(() => this.#inbox.stop(how))
  }

  #ways(): Way[] {
    if (this.#asked === null && this.#next === null && this.#leaving === null) return [this.#out]
    return [...new Set([this.#out, this.#reading, this.#next, this.#asked, this.#leaving])].filter((way) => way !== null)
  }
}
