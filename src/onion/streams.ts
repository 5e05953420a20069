import type { PacketBatch } from '../packet/index.ts'
import type { Reassembler } from './datagrams.ts'
import type { PacketTerms } from './packets.ts'

/**
 * One byte stream between the client and a hop: what may be sent, what may come in, and how each direction ends. The same at both ends.
 * docs/spec/streams.md
 *
 *            done sent              done received
 *     open ------------> half ------------------------> over
 *       \  any other END, sent or received, ends both directions; it is over once each side has said some END
 */

/** Credit that each direction has from the start, without a WINDOW. docs/spec/streams.md §2 */
export const INITIAL_WINDOW_BYTES = 256 * 1024
/** A DATA message uses at least this much credit, so that a flood of tiny ones can't fill a memory with their overhead. §2 */
export const LEAST_DATA_CHARGE_BYTES = 256

/** What autotuning may do with a window. The numbers are an implementation's own: the wire only knows grants. */
export const windowLimits = {
  /** A window is never tuned below this. */
  floorBytes: 64 * 1024,
  /** Nor above this: 80 MB/s over 150 ms is 12 MB. */
  mostBytes: 16 * 1024 * 1024,
  /** What all windows of one circuit may be above INITIAL_WINDOW_BYTES each, in sum. */
  circuitBytes: 32 * 1024 * 1024,
} as const

/** A grant waits until it is worth a message: this share of the window, or this many bytes. */
const GRANT_SHARE = 4
const GRANT_BYTES = 256 * 1024
/** Queueing along the path that a window allows for beyond the round trip itself. */
const QUEUE_ALLOWANCE_MS = 50
/** Rates are measured over a quarter of the round trip, but not over less than this. */
const LEAST_MEASURE_MS = 5
const MEASURES_PER_ROUND_TRIP = 4
/** While the rate still grows the window is this many times what a round trip delivered; then 2 times. */
const GROWING_GAIN = 3
const STEADY_GAIN = 2
/** Growth is over when the rate has not risen by a quarter within three round trips. */
const GROWTH = 1.25
const ROUND_TRIPS_WITHOUT_GROWTH = 3
/** A pause of this many round trips says that the sender had nothing to say: no measurement. */
const IDLE_ROUND_TRIPS = 2
/** A falling target is followed by this share a measurement. */
const FALL_SHARE = 8

/** What a window borrows from: the sum over a circuit. */
export interface WindowBudget {
  /** Bytes above the initial windows that are still free. */
  free: number
}

/**
 * The receiving side's credit. Invariant: what the peer may still send (`granted`) and what was delivered and is not consumed never
 * exceed the largest `window` there was when it was granted. All amounts are charges (a DATA message counts at least LEAST_DATA_CHARGE_BYTES).
 */
export class ReceiveWindow {
  window = INITIAL_WINDOW_BYTES
  /** What the peer may still send. */
  granted = INITIAL_WINDOW_BYTES
  /** Delivered and not consumed: data bytes, and what they were charged. */
  #bytes = 0
  #charge = 0
  #borrowed = 0
  readonly #budget: WindowBudget
  #tuning: Tuning | null = null

  constructor(budget: WindowBudget) {
    this.#budget = budget
  }

  /** Data came in. False when the peer had no credit for it. */
  receive(length: number): boolean {
    const charge = Math.max(length, LEAST_DATA_CHARGE_BYTES)
    if (charge > this.granted) return false
    this.granted -= charge
    this.#bytes += length
    this.#charge += charge
    return true
  }

  /** The application took `length` bytes (at most what is outstanding counts). */
  consume(length: number): void {
    if (length >= this.#bytes) {
      this.#bytes = 0
      this.#charge = 0
    } else if (length > 0) {
      this.#charge -= Math.floor((this.#charge * length) / this.#bytes)
      this.#bytes -= length
    }
  }

  /** What a WINDOW should grant now; 0 when it is not worth a message. */
  get grant(): number {
    const grant = this.window - this.granted - this.#charge
    return grant >= Math.min(GRANT_BYTES, this.window / GRANT_SHARE) ? grant : 0
  }

  /** Takes what `grant` said as sent. */
  give(grant: number): void {
    this.granted += grant
  }

  /** Fits the window to what is delivered: `length` bytes were consumed at `now`. @param minRttMs the least round trip seen */
  tune(length: number, now: number, minRttMs: number): void {
    const tuning = this.#tuning
    if (!tuning) {
      this.#tuning = { since: now, last: now, bytes: 0, rate: 0, best: 0, bestAt: now, growing: true }
      return
    }
    const measureMs = Math.max(LEAST_MEASURE_MS, minRttMs / MEASURES_PER_ROUND_TRIP)
    if (now - tuning.last > Math.max(measureMs, minRttMs * IDLE_ROUND_TRIPS)) {
      tuning.since = now
      tuning.bytes = 0
      tuning.bestAt += now - tuning.last
    } else tuning.bytes += length
    tuning.last = now
    const elapsed = now - tuning.since
    if (tuning.growing) {
      // What has come already, as if a whole round trip had been needed for it, is the least the rate can be. A window's worth comes
      // in one burst: to wait until the next burst closes the measurement would make every step of the growth last two round trips.
      const least = tuning.bytes / Math.max(elapsed, minRttMs, LEAST_MEASURE_MS)
      const target = windowFor(least, GROWING_GAIN, minRttMs)
      if (target > this.window) this.#resize(target)
    }
    if (elapsed < measureMs) return
    const rate = tuning.bytes / elapsed
    tuning.since = now
    tuning.bytes = 0
    if (rate > tuning.best * GROWTH) {
      tuning.best = rate
      tuning.bestAt = now
      tuning.growing = true
    } else if (now - tuning.bestAt > Math.max(measureMs, minRttMs) * ROUND_TRIPS_WITHOUT_GROWTH) {
      tuning.growing = false
      // A rate that is seen again later counts as growth only against the recent past.
      tuning.best += (rate - tuning.best) / FALL_SHARE
    }
    tuning.rate = tuning.growing ? rate : tuning.rate + (rate - tuning.rate) / 2
    const gain = tuning.growing ? GROWING_GAIN : STEADY_GAIN
    const target = windowFor(tuning.rate, gain, minRttMs)
    if (target > this.window) this.#resize(target)
    // While it grows, a low measurement is only the gap between two bursts.
    else if (!tuning.growing) this.#resize(this.window - (this.window - target) / FALL_SHARE)
  }

  /** Gives the budget back what this window borrowed. */
  release(): void {
    this.#budget.free += this.#borrowed
    this.#borrowed = 0
  }

  #resize(target: number): void {
    const budget = this.#budget.free + this.#borrowed
    const window = Math.floor(Math.min(target, windowLimits.mostBytes, INITIAL_WINDOW_BYTES + budget))
    const borrow = Math.max(0, window - INITIAL_WINDOW_BYTES)
    this.#budget.free -= borrow - this.#borrowed
    this.#borrowed = borrow
    this.window = Math.max(windowLimits.floorBytes, window)
  }
}

/** @param rate bytes a millisecond */
function windowFor(rate: number, gain: number, minRttMs: number): number {
  return rate * (gain * minRttMs + QUEUE_ALLOWANCE_MS) + windowLimits.floorBytes
}

interface Tuning {
  /** The measurement that runs. */
  since: number
  last: number
  bytes: number
  /** Bytes a millisecond. */
  rate: number
  best: number
  bestAt: number
  growing: boolean
}

/** Bytes offered and not yet sent: a queue of the arrays themselves. */
export class SendQueue {
  readonly #parts: Uint8Array[] = []
  #first = 0
  /** How much of the first part is gone. */
  #gone = 0
  length = 0
  readonly #release: ((bytes: Uint8Array) => void) | null

  /** @param release told of each array that is not used any more */
  constructor(release: ((bytes: Uint8Array) => void) | null = null) {
    this.#release = release
  }

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#parts.push(bytes)
    this.length += bytes.length
  }

  /** Moves `length` bytes (at most what is there) to `out` at `at`. */
  take(out: Uint8Array, at: number, length: number): void {
    this.length -= length
    let to = at
    let left = length
    while (left > 0) {
      const part = this.#parts[this.#first]!
      const from = this.#gone
      const count = Math.min(left, part.length - from)
      out.set(from === 0 && count === part.length ? part : part.subarray(from, from + count), to)
      to += count
      left -= count
      if (from + count < part.length) this.#gone = from + count
      else this.#drop()
    }
  }

  clear(): void {
    if (this.#release) for (let i = this.#first; i < this.#parts.length; i++) this.#release(this.#parts[i]!)
    this.#parts.length = 0
    this.#first = 0
    this.#gone = 0
    this.length = 0
  }

  #drop(): void {
    this.#gone = 0
    this.#release?.(this.#parts[this.#first]!)
    // The slot is cleared at once; the array is cut when half of it is gone, so that a long queue costs no move a part.
    this.#parts[this.#first++] = nothing
    if (this.#first === this.#parts.length) {
      this.#parts.length = 0
      this.#first = 0
    } else if (this.#first >= 64 && this.#first * 2 >= this.#parts.length) {
      this.#parts.splice(0, this.#first)
      this.#first = 0
    }
  }
}

const nothing = new Uint8Array(0)

/** What a stream id stands for. */
export type StreamKind = 'stream' | 'resolve' | 'datagrams' | 'packets'

/** How far a direction's end has got. 'reset' stands for every reason but 'done'. */
export type EndState = 'none' | 'done' | 'reset'

/** One id in use. The parts that only byte streams need are made when they are needed. */
export class StreamState {
  readonly id: number
  readonly hop: number
  readonly kind: StreamKind
  /** A stream: CONNECTED was said; a packet lease: PACKET_OPENED. */
  connected = false
  /** Relay: it was never taken on; it only waits for the other side's END. */
  refused = false
  /** Client: when the wait for CONNECTED, PACKET_OPENED or RESOLVED is over; 0 when it does not wait. */
  deadline = 0

  /** What the other side's END (or UDP_CLOSE, PACKET_CLOSE) said, and what this side's said when it went into a cell. */
  receivedEnd: EndState = 'none'
  sentEnd: EndState = 'none'
  /** 'done' was asked for and follows the queued data. */
  finishing = false
  /** An END that is not 'done' (or answers one) waits for a cell. */
  ending = false
  /** The driver was told, or has said itself, that nothing more comes of this stream. */
  silent = false

  sendCredit = INITIAL_WINDOW_BYTES
  queue: SendQueue | null = null
  /** An offer was answered with false, or packets should wait: 'writable' is owed. */
  wantsWritable = false
  receive: ReceiveWindow | null = null
  reassembler: Reassembler | null = null
  /** A packet lease: what was asked for, and (once it is opened) the MTU agreed on. */
  terms: PacketTerms | null = null
  packetMtu = 0
  /** Packets that came with the batch of cells at hand. */
  arrived: PacketBatch | null = null

  constructor(id: number, hop: number, kind: StreamKind) {
    this.id = id
    this.hop = hop
    this.kind = kind
  }

  get isOver(): boolean {
    return this.sentEnd !== 'none' && this.receivedEnd !== 'none'
  }

  /** Whether data, or the END after it, could go into a cell now. */
  get isSendable(): boolean {
    const { queue } = this
    if (queue !== null && queue.length > 0) return this.sendCredit >= LEAST_DATA_CHARGE_BYTES
    return this.finishing
  }

  /** How many queued bytes the credit allows. */
  get sendable(): number {
    const { queue } = this
    if (queue === null || this.sendCredit < LEAST_DATA_CHARGE_BYTES) return 0
    return Math.min(queue.length, this.sendCredit)
  }

  /** `length` bytes go into one DATA message. */
  charge(length: number): void {
    this.sendCredit -= Math.max(length, LEAST_DATA_CHARGE_BYTES)
  }
}
