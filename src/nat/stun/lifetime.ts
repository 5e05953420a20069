/** The first silence tried, unless the time given is short. */
const FIRST_MS = 10_000
/** A search begins at the latest at this part of the time given. */
const FIRST_SHARE = 8
/** Fine enough, as a part of what is known and in milliseconds: keep-alives leave more room than that. */
const FINE_SHARE = 0.1
const FINE_MS = 250

/** Looks for the longest silence that a binding survives: doubling until one is too long, then halving between. Pure. RFC 5780 §4.6 */
export class LifetimeSearch {
  readonly #endsAt: number
  readonly #firstMs: number
  #alive = 0
  #dead = Number.POSITIVE_INFINITY

  constructor(maxMs: number, now: number) {
    this.#endsAt = now + maxMs
    this.#firstMs = Math.min(FIRST_MS, maxMs / FIRST_SHARE)
  }

  /** The longest silence survived so far; null when none was. */
  get foundMs(): number | null {
    return this.#alive === 0 ? null : this.#alive
  }

  /** Which silence to try next, or null when this is fine enough or there is no time for more. */
  next(now: number): number | null {
    const left = this.#endsAt - now
    const isBounded = this.#dead !== Number.POSITIVE_INFINITY
    if (isBounded && this.#dead - this.#alive <= Math.max(FINE_MS, this.#alive * FINE_SHARE)) return null
    const wanted = Math.floor(isBounded ? (this.#alive + this.#dead) / 2 : Math.max(this.#firstMs, this.#alive * 2))
    if (wanted <= left) return wanted
    // What is left may still be a step worth taking.
    return left > this.#alive * (1 + FINE_SHARE) && left > FINE_MS && !isBounded ? Math.floor(left) : null
  }

  note(silenceMs: number, survived: boolean): void {
    if (survived) this.#alive = Math.max(this.#alive, silenceMs)
    else this.#dead = Math.min(this.#dead, silenceMs)
  }
}
