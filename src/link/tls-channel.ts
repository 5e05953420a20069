import type { NodeId } from '../base/index.ts'
import { BATCH_HEADROOM, CELL_BYTES, type CellBatch, type ChannelEnd } from '../onion/index.ts'
import { type BatchPool, OWN_MEMORY_CELLS, POOL_BYTES, POOL_CELLS, uninitialised } from './batch-pool.ts'
import { BatchQueue } from './batch-queue.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { CellChannel, CellChannelHandlers } from './channel.ts'
import { INITIAL_WINDOW_CELLS, MAX_CREDIT_CELLS, ResetReason } from './frames.ts'
import { Inbox } from './inbox.ts'
import type { Turns, TurnTask } from './turns.ts'
import type { Asking } from './way.ts'

/** What a channel wants of the link it runs over. */
export interface ChannelLink {
  readonly peer: NodeId
  readonly remoteAddress: string
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly pool: BatchPool
  readonly maxWindowCells: number
  /** The least round trip seen, ms. */
  readonly minRttMs: number
  now(): number
  /** Whether cells may be written past no other channel's and within the socket's budget. */
  mayWrite(): boolean
  /**
   * Writes CELLS; the link counts their bytes in `inFlightBytes` until the system has taken them.
   * @param finished the batch whose last cells these are, and whose memory may then be used again; null when there are more
   */
  writeCells(channel: TlsChannel, batch: CellBatch, finished: CellBatch | null): void
  /** Puts the channel in line for `writeSome`. */
  enqueue(channel: TlsChannel): void
  sendWindow(channel: TlsChannel, cells: number): void
  sendFin(channel: TlsChannel): void
  sendReset(channel: TlsChannel, reason: number): void
  /** The channel has ended: frames of it that still come are skipped. */
  remove(channel: TlsChannel): void
  /** When the oldest bytes of the channel that the system has not taken were written, or null. */
  inFlightSince(channel: TlsChannel): number | null
}

/** The send queue of a channel, in cells: about 64 KiB. */
const SEND_QUEUE_CELLS = 42
/** `drained` is called when this much of the send queue is free, so that what follows is a batch and not a cell. */
const DRAINED_CELLS = 21
/** Credit is given back when this part of the window has been taken. */
const GRANT_PARTS = 4
/** Added to the round trip when the window is judged: what a busy machine may take to get round to a process. */
const SCHEDULING_SLACK_MS = 10
/** Below this, about 768 KiB, the window grows faster: a distant link should not take many round trips to get going. */
const SMALL_WINDOW_CELLS = 2048
/** How a small receive buffer grows. */
const GROWTH = 4
/** The longest round trip believed. */
const MAX_RTT_MS = 500

/**
 * One channel of a direct link. docs/spec/link.md §4
 *
 *   open --(close)--> closing --(queue sent, FIN)--> ended
 *   open, closing --(abort, violation, peer's FIN or RESET, link lost)--> ended     what the peer sent before a FIN is still delivered
 */
export class TlsChannel implements CellChannel, TurnTask {
  readonly kind = 'tls'
  /** 0 until the first frame is written. */
  id: number
  /** Cell bytes written to the socket and not taken by the system yet; the link keeps it. */
  inFlightBytes = 0
  readonly #link: ChannelLink
  readonly #outbox: BatchQueue
  readonly #inbox: Inbox
  #handlers: CellChannelHandlers | null = null
  #state: 'open' | 'closing' | 'ended' = 'open'
  #closingSince = 0
  #wantsDrain = false
  /** Cells that may be sent. */
  #credit = INITIAL_WINDOW_CELLS
  /** Cells that the peer may send. */
  #allowance = INITIAL_WINDOW_CELLS
  /** allowance + cells received and not taken + cells taken and not granted anew. */
  #window = INITIAL_WINDOW_CELLS
  #taken = 0
  #epochAt: number
  #epochCells = 0
  /** When cells were last handed over (monotonic ms). */
  #deliveredAt = 0
  /** The buffer that cells are being received into, and how far it is filled. */
  #filling: Uint8Array | null = null
  #filledTo = BATCH_HEADROOM
  /** Buffers that are full, until the end of the turn. */
  #full: Uint8Array[] | null = null
  /** Cells of the frame that is coming in. */
  #frameCells = 1
  /** A part of a cell that came in before this turn. */
  #rest: Uint8Array | null = null
  /** Asked for by MOVE, and not answered yet: nothing else may come before the answer. */
  #asking: Asking | null

  constructor(link: ChannelLink, id: number, asking: Asking | null = null) {
    this.#link = link
    this.id = id
    this.#asking = asking
    this.#outbox = new BatchQueue(link.meter)
    this.#inbox = new Inbox(link.meter, (cells) => this.#delivered(cells))
    this.#epochAt = link.now()
  }

  get peer(): NodeId {
    return this.#link.peer
  }

  get remoteAddress(): string {
    return this.#link.remoteAddress
  }

  get queuedBytes(): number {
    return this.#inbox.bytes + this.#outbox.bytes + this.inFlightBytes
  }

  get queuedSince(): number | null {
    const sent = (this.inFlightBytes > 0 ? this.#link.inFlightSince(this) : null) ?? this.#outbox.since
    const received = this.#inbox.since
    if (sent === null || received === null) return sent ?? received
    return Math.min(sent, received)
  }

  /** The receive window in cells: for status and tests. */
  get windowCells(): number {
    return this.#window
  }

  /** Since when the channel has been closing (monotonic ms), or null. */
  get closingSince(): number | null {
    return this.#state === 'closing' ? this.#closingSince : null
  }

  /** Whether there are cells to send and the credit to send them, or a FIN that is due. */
  get canWrite(): boolean {
    return this.#outbox.cells > 0 && this.#credit > 0
  }

  get room(): number {
    if (this.#state !== 'open' || this.#wantsDrain) return 0
    return SEND_QUEUE_CELLS - this.#outbox.cells
  }

  attach(handlers: CellChannelHandlers): void {
    this.#handlers = handlers
    this.#inbox.attach(handlers)
    if (this.#inbox.cells > 0) this.#link.turns.input(this)
  }

  send(batch: CellBatch): void {
    if (this.#state !== 'open' || batch.count === 0) return
    if (this.#outbox.cells === 0 && this.#credit >= batch.count && this.#link.mayWrite()) {
      this.#credit -= batch.count
      this.#link.writeCells(this, batch, batch)
      return
    }
    this.#outbox.push(batch, this.#link.now())
    if (this.#outbox.cells >= SEND_QUEUE_CELLS) this.#wantsDrain = true
    if (this.#credit > 0) this.#link.enqueue(this)
  }

  pause(): void {
    this.#inbox.pause()
  }

  resume(): void {
    if (this.#inbox.resume()) this.#link.turns.input(this)
  }

  close(): void {
    if (this.#state === 'ended') this.#stopSoon('fin')
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#closingSince = this.#link.now()
    this.#dropReceived()
    this.#finWhenSent()
  }

  abort(): void {
    this.reset('reset', ResetReason.aborted)
  }

  /** Ends the channel from this side, telling the peer. */
  reset(how: ChannelEnd, reason: number): void {
    if (this.#state !== 'ended') {
      this.#link.sendReset(this, reason)
      this.#end()
    }
    this.#stopSoon(how)
  }

  /** Delivers what was held back while paused. */
  runInput(): void {
    this.#inbox.deliver()
  }

  // ---- what the link calls

  /** A CELLS frame begins. Returns false, and ends the channel, when the peer overran its credit. */
  receiveFrame(count: number): boolean {
    if (this.#state === 'closing') return false
    if (count > this.#allowance || this.#asking !== null) {
      this.reset('violation', ResetReason.violation)
      return false
    }
    this.#allowance -= count
    this.#frameCells = count
    return true
  }

  /** Bytes of its cells, borrowed for the call: copied to where they will be delivered from. */
  receiveBytes(chunk: Uint8Array, from: number, to: number): void {
    if (this.#state !== 'open') return
    let at = from
    while (at < to) {
      const filling = this.#roomToFill()
      const size = Math.min(to - at, filling.length - this.#filledTo)
      filling.set(chunk.subarray(at, at + size), this.#filledTo)
      at += size
      this.#filledTo += size
    }
  }

  /** Delivers the whole cells received so far; called once a turn. */
  assemble(): void {
    const now = this.#link.now()
    const full = this.#full
    this.#full = null
    if (full !== null) for (const buffer of full) this.#inbox.push(this.#link.pool.lend(buffer, POOL_CELLS), now)
    const filling = this.#filling
    if (filling === null) return
    this.#filling = null
    const count = Math.floor((this.#filledTo - BATCH_HEADROOM) / CELL_BYTES)
    const end = BATCH_HEADROOM + count * CELL_BYTES
    if (this.#filledTo > end) this.#rest = filling.slice(end, this.#filledTo)
    if (filling.length === POOL_BYTES) {
      if (count === 0) this.#link.pool.put(filling)
      else this.#inbox.push(this.#link.pool.lend(filling, count), now)
    } else if (count > 0) {
      const bytes = filling.length > 2 * end ? filling.slice(0, end) : filling
      this.#inbox.push({ bytes, start: BATCH_HEADROOM, count }, now)
    }
  }

  /** The buffer to receive into, not full. A few cells get as much memory as they need; many get a buffer of the pool. */
  #roomToFill(): Uint8Array {
    const filling = this.#filling
    if (filling !== null && this.#filledTo < filling.length) return filling
    if (filling !== null && filling.length < POOL_BYTES) return this.#replaceFilling(bufferFor(this.#link.pool, filling.length * GROWTH))
    if (filling !== null) {
      this.#full ??= []
      this.#full.push(filling)
      this.#filling = null
    }
    return this.#replaceFilling(bufferFor(this.#link.pool, BATCH_HEADROOM + this.#frameCells * CELL_BYTES))
  }

  /** Goes on in another buffer, with what was received before. */
  #replaceFilling(next: Uint8Array): Uint8Array {
    if (this.#filling !== null) {
      next.set(this.#filling.subarray(BATCH_HEADROOM, this.#filledTo), BATCH_HEADROOM)
    } else {
      this.#filledTo = BATCH_HEADROOM
      if (this.#rest !== null) {
        next.set(this.#rest, BATCH_HEADROOM)
        this.#filledTo += this.#rest.length
        this.#rest = null
      }
    }
    this.#filling = next
    return next
  }

  receiveWindow(cells: number): boolean {
    this.#credit += cells
    if (this.#credit > MAX_CREDIT_CELLS) {
      this.reset('violation', ResetReason.violation)
      return false
    }
    if (this.#outbox.cells > 0) this.#link.enqueue(this)
    return true
  }

  receiveFin(): void {
    if (this.#state === 'ended') return
    if (this.#state === 'open') this.assemble()
    if ((this.#state as string) === 'ended') return
    const wasClosing = this.#state === 'closing'
    this.#end()
    if (wasClosing) this.#inbox.stop('fin')
    else this.#inbox.finish('fin')
  }

  /** MOVED. Returns false when nothing was asked. */
  receiveMoved(): boolean {
    const asking = this.#asking
    this.#asking = null
    asking?.agreed()
    return asking !== null
  }

  receiveReset(): void {
    if (this.#state === 'ended') return
    const asking = this.#asking
    this.#asking = null
    this.#end()
    asking?.refused()
    this.#inbox.stop('reset')
  }

  /** The link is gone. */
  linkEnded(how: ChannelEnd): void {
    if (this.#state === 'ended') return
    this.#end()
    this.#inbox.stop(how)
  }

  /** Writes at most `most` cells, as credit allows. */
  writeSome(most: number): void {
    let left = Math.min(most, this.#credit)
    while (left > 0) {
      const batch = this.#outbox.take(left)
      if (batch === null) break
      left -= batch.count
      this.#credit -= batch.count
      this.#link.writeCells(this, batch, this.#outbox.finished)
    }
    if (this.#state === 'closing') this.#finWhenSent()
  }

  /** Whether `drained` is owed. */
  get isDrained(): boolean {
    return this.#wantsDrain && this.#state === 'open' && SEND_QUEUE_CELLS - this.#outbox.cells >= DRAINED_CELLS
  }

  callDrained(): void {
    if (!this.isDrained) return
    this.#wantsDrain = false
    this.#handlers?.drained()
  }

  // ----

  #delivered(cells: number): void {
    if (this.#state !== 'open') return
    this.#taken += cells
    const now = this.#link.now()
    // After a pause the sender had nothing to say: what came before tells nothing of how fast it is now.
    if (now - this.#deliveredAt > this.#judgedWithinMs) {
      this.#epochAt = now
      this.#epochCells = 0
    }
    this.#deliveredAt = now
    this.#epochCells += cells
    if (this.#taken * GRANT_PARTS < this.#window) return
    if (this.#epochCells >= this.#window) this.#judgeWindow(now)
    this.#allowance += this.#taken
    this.#link.sendWindow(this, this.#taken)
    this.#taken = 0
  }

  /**
   * The window doubles (a small one quadruples) when all of it was taken within two round trips: then it, and not the consumer, was
   * the limit. So it stays at a few times what the consumer takes in a round trip.
   */
  #judgeWindow(now: number): void {
    if (now - this.#epochAt < this.#judgedWithinMs && !this.#inbox.isPaused) {
      const factor = this.#window < SMALL_WINDOW_CELLS ? 4 : 2
      const more = Math.min(this.#window * (factor - 1), this.#link.maxWindowCells - this.#window)
      this.#window += more
      this.#taken += more
    }
    this.#epochAt = now
    this.#epochCells = 0
  }

  /** Two round trips. */
  get #judgedWithinMs(): number {
    return 2 * (Math.min(this.#link.minRttMs, MAX_RTT_MS) + SCHEDULING_SLACK_MS)
  }

  #finWhenSent(): void {
    if (this.#outbox.cells > 0) return
    this.#link.sendFin(this)
    this.#end()
    this.#stopSoon('fin')
  }

  /** Ends this side after the caller's turn of work; what is queued here is lost now. */
  #stopSoon(how: ChannelEnd): void {
    this.#dropReceived()
    queueMicrotask(() => this.#inbox.stop(how))
  }

  #dropReceived(): void {
    this.#inbox.close()
    this.#dropFilling()
  }

  #dropFilling(): void {
    if (this.#filling?.length === POOL_BYTES) this.#link.pool.put(this.#filling)
    this.#filling = null
    this.#full = null
    this.#rest = null
  }

  #end(): void {
    this.#state = 'ended'
    this.#outbox.clear()
    this.#dropFilling()
    this.#link.remove(this)
  }
}

function bufferFor(pool: BatchPool, bytes: number): Uint8Array {
  return bytes > BATCH_HEADROOM + OWN_MEMORY_CELLS * CELL_BYTES ? pool.take() : uninitialised(bytes)
}
