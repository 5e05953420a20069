import type { TrafficSample, ViewCount } from './network-types.ts'

/** Ten minutes of seconds, a day of minutes. */
const MAX_SAMPLES = 600
const MAX_COUNTS = 1_440
const COUNT_INTERVAL_MS = 60_000

/** What a sample is made of: counts are totals since the start. */
export type Totals = Omit<TrafficSample, 'at'>

/** Keys that are counts. */
const COUNTS = ['sent', 'received', 'circuitsBuilt', 'circuitsFailed', 'cells', 'exitBytesIn', 'exitBytesOut'] as const

/** What a node did in the last minutes, and how its view grew. Times are wall-clock ms. */
export class History {
  readonly #samples: TrafficSample[] = []
  readonly #counts: ViewCount[] = []
  #before: Totals | null = null

  /** Takes what was done until now; what was done since the last call is the sample. */
  sample(at: number, now: Totals): TrafficSample {
    const before = this.#before ?? now
    this.#before = now
    const since = Object.fromEntries(COUNTS.map((key) => [key, Math.max(0, now[key] - before[key])]))
    const sample: TrafficSample = { ...now, ...since, at }
    putBefore(this.#samples, at)
    this.#samples.push(sample)
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift()
    return sample
  }

  /** Notes how many relays there are, once a minute. */
  countView(at: number, count: () => Omit<ViewCount, 'at'>): void {
    const last = this.#counts.at(-1)
    if (last !== undefined && at >= last.at && at - last.at < COUNT_INTERVAL_MS) return
    putBefore(this.#counts, at)
    this.#counts.push({ at, ...count() })
    if (this.#counts.length > MAX_COUNTS) this.#counts.shift()
  }

  /** Oldest first. */
  samples(): readonly TrafficSample[] {
    return [...this.#samples]
  }

  counts(): readonly ViewCount[] {
    return [...this.#counts]
  }
}

/** A clock that was put back: what was noted before it is dated again, as long ago as it was, so that times rise. */
function putBefore(noted: { at: number }[], at: number): void {
  const last = noted.at(-1)
  if (last === undefined || at > last.at) return
  const back = last.at - at + 1
  for (const [i, one] of noted.entries()) noted[i] = { ...one, at: one.at - back }
}
