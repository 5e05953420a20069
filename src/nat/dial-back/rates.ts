import { formatIp, type IpAddress, networkKey, TokenBucket } from '../../base/index.ts'

const MINUTE_MS = 60_000

/** A rate for each of many addresses, in bounded memory: who was not seen for longest is forgotten first. Times are monotonic ms. */
export class AddressRates {
  readonly #perMinute: number
  readonly #max: number
  readonly #buckets = new Map<string, { readonly bucket: TokenBucket; at: number }>()

  /** @param max addresses that are remembered */
  constructor(perMinute: number, max: number) {
    this.#perMinute = perMinute
    this.#max = max
  }

  get size(): number {
    return this.#buckets.size
  }

  /** Takes one, or returns false. */
  take(ip: IpAddress, now: number): boolean {
    // Who has an IPv6 address has a whole /64 of them.
    const key = ip.family === 4 ? formatIp(ip) : networkKey(ip, 64)
    const known = this.#buckets.get(key)
    this.#buckets.delete(key)
    const entry = known ?? { bucket: new TokenBucket(this.#perMinute / 60, this.#perMinute, now), at: now }
    entry.at = now
    this.#buckets.set(key, entry)
    this.#forget(now)
    return entry.bucket.take(1, now)
  }

  /** After a minute of silence a bucket is full again: as if it had never been seen. */
  #forget(now: number): void {
    for (const [key, { at }] of this.#buckets) {
      if (now - at < MINUTE_MS && this.#buckets.size <= this.#max) return
      this.#buckets.delete(key)
    }
  }
}
