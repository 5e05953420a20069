/** A rate limit: `rate` tokens a second, at most `burst` at once. Pure: the time is an argument (milliseconds, monotonic). */
export class TokenBucket {
  #perMs: number
  #burst: number
  #tokens: number
  #at: number

  constructor(ratePerSecond: number, burst: number, now: number) {
    this.#perMs = ratePerSecond / 1000
    this.#burst = burst
    this.#tokens = burst
    this.#at = now
  }

  /** Another rate from now on; what there is stays, up to the new burst. */
  configure(ratePerSecond: number, burst: number, now: number): void {
    this.#refill(now)
    this.#perMs = ratePerSecond / 1000
    this.#burst = burst
    this.#tokens = Math.min(this.#tokens, burst)
  }

  /** Takes `count` tokens, or none and returns false. */
  take(count: number, now: number): boolean {
    this.#refill(now)
    if (this.#tokens < count) return false
    this.#tokens -= count
    return true
  }

  /** Takes `count` tokens even into debt; returns the milliseconds until the bucket is out of debt (0 when it is not in debt). */
  spend(count: number, now: number): number {
    this.#refill(now)
    this.#tokens -= count
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#perMs
  }

  #refill(now: number): void {
    if (now > this.#at) {
      this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs)
      this.#at = now
    }
  }
}
