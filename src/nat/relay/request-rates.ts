import { TokenBucket } from '../../base/index.ts'

/** Buckets that are kept; the ones not used for longest are forgotten, which only ever is in the asker's favour. */
const BUCKETS_MAX = 8192
/** So many seconds' worth at once. */
const BURST_SECONDS = 4

/** A rate for each of many keys, in bounded memory. Pure: the time is an argument (monotonic ms). */
export class RequestRates {
  #perSecond: number
  readonly #buckets = new Map<string, TokenBucket>()

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /** Another rate from now on. What single keys have used is forgotten. */
  configure(perSecond: number): void {
    if (perSecond === this.#perSecond) return
    this.#perSecond = perSecond
    this.#buckets.clear()
  }

  /** Whether one more is within the key's rate. */
  take(key: string, now: number): boolean {
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.#perSecond, this.#perSecond * BURST_SECONDS, now)
    this.#buckets.delete(key)
    this.#buckets.set(key, bucket)
    const oldest = this.#buckets.size > BUCKETS_MAX ? this.#buckets.keys().next().value : undefined
    if (oldest !== undefined) this.#buckets.delete(oldest)
    return bucket.take(1, now)
  }
}
