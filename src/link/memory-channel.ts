import type { NodeId } from '../base/index.ts'
import { BATCH_HEADROOM, batchCells, batchOf, CELL_BYTES, type CellBatch, type ChannelEnd } from '../onion/index.ts'
import { BatchQueue } from './batch-queue.ts'
import { ByteMeter } from './byte-meter.ts'
import type { CellChannel, CellChannelHandlers } from './channel.ts'
import { Inbox } from './inbox.ts'

export interface MemoryPairOptions {
  /** The identity each side sees of the other: `peers[0]` is what the first channel shows as its peer. */
  readonly peers: readonly [NodeId, NodeId]
  readonly meters?: readonly [ByteMeter, ByteMeter]
  /** Runs `task` after the latency of one way; the default is the next turn of the event loop. A simulation gives its own. Must keep the order. */
  readonly carry?: (task: () => void) => void
  /** Monotonic ms. */
  readonly now?: () => number
  /** Cells the receiver may hold (on its way or queued while paused), default 128. */
  readonly windowCells?: number
  /** Send queue of one side in cells, default 42 (about 64 KiB). */
  readonly queueCells?: number
  /** When a close that can't send what is queued gives up, default 10 s; null: never. */
  readonly closeTimeoutMs?: number | null
}

/** Two channels joined in memory: what one side sends, the other receives. For tests and simulations. */
export function memoryChannelPair(options: MemoryPairOptions): readonly [MemoryChannel, MemoryChannel] {
  const settings: Settings = {
    carry: options.carry ?? ((task) => void setImmediate(task)),
    now: options.now ?? (() => performance.now()),
    windowCells: options.windowCells ?? 128,
    queueCells: options.queueCells ?? 42,
    closeTimeoutMs: options.closeTimeoutMs === undefined ? 10_000 : options.closeTimeoutMs,
  }
  const [meterA, meterB] = options.meters ?? [new ByteMeter(), new ByteMeter()]
  const a = new MemoryChannel(options.peers[0], meterA, settings)
  const b = new MemoryChannel(options.peers[1], meterB, settings)
  a.join(b)
  b.join(a)
  return [a, b]
}

interface Settings {
  readonly carry: (task: () => void) => void
  readonly now: () => number
  readonly windowCells: number
  readonly queueCells: number
  readonly closeTimeoutMs: number | null
}

/** One side of a pair; made by `memoryChannelPair`. */
export class MemoryChannel implements CellChannel {
  readonly peer: NodeId
  readonly remoteAddress = null
  readonly kind = 'memory'
  readonly #settings: Settings
  readonly #outbox: BatchQueue
  readonly #inbox: Inbox
  #handlers: CellChannelHandlers | null = null
  #other: MemoryChannel | null = null
  #credit: number
  #wantsDrain = false
  #state: 'open' | 'closing' | 'ended' = 'open'
  #closeTimer: NodeJS.Timeout | null = null

  constructor(peer: NodeId, meter: ByteMeter, settings: Settings) {
    this.peer = peer
    this.#settings = settings
    this.#credit = settings.windowCells
    this.#outbox = new BatchQueue(meter)
    this.#inbox = new Inbox(meter, (cells) => this.#carry((other) => other.#receiveCredit(cells)))
  }

  join(other: MemoryChannel): void {
    this.#other = other
  }

  get queuedBytes(): number {
    return this.#outbox.bytes + this.#inbox.bytes
  }

  get queuedSince(): number | null {
    const sent = this.#outbox.since
    const received = this.#inbox.since
    if (sent === null || received === null) return sent ?? received
    return Math.min(sent, received)
  }

  get room(): number {
    if (this.#state !== 'open' || this.#wantsDrain) return 0
    return this.#settings.queueCells - this.#outbox.cells
  }

  attach(handlers: CellChannelHandlers): void {
    this.#handlers = handlers
    this.#inbox.attach(handlers)
  }

  send(batch: CellBatch): void {
    if (this.#state !== 'open') return
    this.#outbox.push(batch, this.#settings.now())
    this.#pump()
    if (this.#outbox.cells >= this.#settings.queueCells) this.#wantsDrain = true
  }

  pause(): void {
    this.#inbox.pause()
  }

  resume(): void {
    if (this.#inbox.resume()) queueMicrotask(() => this.#inbox.deliver())
  }

  close(): void {
    if (this.#state === 'ended') this.#stopSoon('fin')
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#inbox.close()
    if (this.#settings.closeTimeoutMs !== null && this.#outbox.cells > 0) {
      this.#closeTimer = setTimeout(() => this.abort(), this.#settings.closeTimeoutMs)
    }
    this.#pump()
  }

  abort(): void {
    this.#fail('reset')
  }

  /** For tests: what a real link does when the peer's framing breaks, as when it ends within a cell. */
  violate(): void {
    this.#fail('violation')
  }

  #fail(how: ChannelEnd): void {
    if (this.#state !== 'ended') {
      this.#carry((other) => other.#receiveReset())
      this.#end()
    }
    this.#stopSoon(how)
  }

  /** Ends this side outside of the caller's turn of work; what is queued here is lost now. */
  #stopSoon(how: ChannelEnd): void {
    this.#inbox.close()
    queueMicrotask(() => this.#inbox.stop(how))
  }

  #pump(): void {
    for (;;) {
      const batch = this.#outbox.take(this.#credit)
      if (batch === null) break
      this.#credit -= batch.count
      // A part of a batch shares its buffer with the rest: the receiver gets one of its own.
      const whole = batch.start === BATCH_HEADROOM && batch.bytes.length === BATCH_HEADROOM + batch.count * CELL_BYTES
      const sent = whole ? batch : batchOf(batchCells(batch))
      this.#carry((other) => other.#receive(sent))
    }
    if (this.#state === 'closing' && this.#outbox.cells === 0) {
      this.#carry((other) => other.#receiveFin())
      this.#end()
      this.#stopSoon('fin')
    }
  }

  #carry(task: (other: MemoryChannel) => void): void {
    const other = this.#other
    if (other !== null) this.#settings.carry(() => task(other))
  }

  #receive(batch: CellBatch): void {
    if (this.#state === 'open') this.#inbox.push(batch, this.#settings.now())
  }

  #receiveCredit(cells: number): void {
    if (this.#state === 'ended') return
    this.#credit += cells
    this.#pump()
    if (this.#state === 'open' && this.#wantsDrain && this.#outbox.cells * 2 <= this.#settings.queueCells) {
      this.#wantsDrain = false
      this.#handlers?.drained()
    }
  }

  #receiveFin(): void {
    if (this.#state === 'ended') return
    const closing = this.#state === 'closing'
    this.#end()
    if (closing) this.#inbox.stop('fin')
    else this.#inbox.finish('fin')
  }

  #receiveReset(): void {
    if (this.#state === 'ended') return
    this.#end()
    this.#inbox.stop('reset')
  }

  #end(): void {
    this.#state = 'ended'
    this.#outbox.clear()
    if (this.#closeTimer !== null) clearTimeout(this.#closeTimer)
    this.#closeTimer = null
  }
}
