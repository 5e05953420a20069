import { equalBytes } from '../base/index.ts'

/** When nothing was measured yet, windows are tuned as if this were the round trip. */
const ASSUMED_ROUND_TRIP_MS = 100
/** While bulk data comes in, the round trip is measured this often, and not for less than so many bytes. */
const MEASURE_INTERVAL_MS = 1000
const MEASURE_BYTES = 64 * 1024
/** Weight of a new measurement in the smoothed one (RFC 6298 §2). */
const SMOOTHING = 1 / 8
/** Measurements of which the least is what the way takes now: the others waited somewhere. */
const LAST_FEW = 5

interface HopRoundTrip {
  smoothedMs: number | null
  minMs: number | null
  /** The last few, oldest first. */
  readonly lastMs: number[]
  /** An upper bound from elsewhere (a handshake), until there is a measurement. */
  boundMs: number | null
  pingedAt: number
  bytesSince: number
}

interface PendingPing {
  readonly hop: number
  readonly cookie: Uint8Array
  /** When it went into a cell; null while it waits. */
  sentAt: number | null
}

/** Round trips to the hops of a circuit, by PING and PONG. */
export class RoundTrips {
  readonly #hops: HopRoundTrip[] = []
  readonly #pending: PendingPing[] = []
  readonly #mostPending: number

  constructor(mostPending: number) {
    this.#mostPending = mostPending
  }

  /** Nothing measured, nothing awaited. */
  get isBlank(): boolean {
    return this.#hops.length === 0 && this.#pending.length === 0
  }

  smoothedMs(hop: number): number | null {
    return this.#hops[hop]?.smoothedMs ?? null
  }

  minMs(hop: number): number | null {
    return this.#hops[hop]?.minMs ?? null
  }

  /** The least of the last few: hops that are measured apart can be compared by it. */
  recentMs(hop: number): number | null {
    const known = this.#hops[hop]
    return known === undefined || known.lastMs.length === 0 ? null : Math.min(...known.lastMs)
  }

  /** The round trip that windows are tuned by. */
  tuningMs(hop: number): number {
    const known = this.#hops[hop]
    return known?.minMs ?? known?.boundMs ?? ASSUMED_ROUND_TRIP_MS
  }

  bound(hop: number, ms: number): void {
    this.#of(hop).boundMs = ms
  }

  isUnmeasured(hop: number): boolean {
    return this.minMs(hop) === null && !this.#pending.some((ping) => ping.hop === hop)
  }

  /** Notes bulk data; true when it is time to measure again. */
  isDue(hop: number, bytes: number, now: number): boolean {
    const known = this.#of(hop)
    known.bytesSince += bytes
    return known.bytesSince >= MEASURE_BYTES && now - known.pingedAt >= MEASURE_INTERVAL_MS
  }

  /** Begins a measurement; false when too many run. */
  begin(hop: number, cookie: Uint8Array, now: number): boolean {
    const known = this.#of(hop)
    known.pingedAt = now
    known.bytesSince = 0
    if (this.#pending.length >= this.#mostPending) return false
    this.#pending.push({ hop, cookie, sentAt: null })
    return true
  }

  /** The PING with this cookie went into a cell. */
  sent(cookie: Uint8Array, now: number): void {
    const ping = this.#pending.find((pending) => pending.cookie === cookie)
    if (ping) ping.sentAt = now
  }

  /** A PONG came in: the round trip, or null when nobody asked this hop for it. */
  finish(hop: number, cookie: Uint8Array, now: number): number | null {
    const index = this.#pending.findIndex((ping) => ping.hop === hop && ping.sentAt !== null && equalBytes(ping.cookie, cookie))
    if (index < 0) return null
    const ms = Math.max(0, now - this.#pending[index]!.sentAt!)
    this.#pending.splice(index, 1)
    const known = this.#of(hop)
    known.smoothedMs = known.smoothedMs === null ? ms : known.smoothedMs + (ms - known.smoothedMs) * SMOOTHING
    known.minMs = known.minMs === null ? ms : Math.min(known.minMs, ms)
    known.lastMs.push(ms)
    if (known.lastMs.length > LAST_FEW) known.lastMs.shift()
    return ms
  }

  #of(hop: number): HopRoundTrip {
    const known = this.#hops[hop]
    if (known) return known
    const fresh = { smoothedMs: null, minMs: null, lastMs: [], boundMs: null, pingedAt: Number.NEGATIVE_INFINITY, bytesSince: 0 }
    this.#hops[hop] = fresh
    return fresh
  }
}
