import { TokenBucket } from '../base/index.ts'
import { Refusal } from './http.ts'

/** Wrong tokens and codes at once, and a second, that are told so; beyond it the asker is told to wait. Right ones always pass. */
const BURST = 20
const PER_SECOND = 1

/** Slows down who guesses. */
export class Attempts {
  readonly #bucket: TokenBucket
  readonly #now: () => number

  /** @param now monotonic ms */
  constructor(now: () => number) {
    this.#now = now
    this.#bucket = new TokenBucket(PER_SECOND, BURST, now())
  }

  /** The refusal of a wrong token or code: the one given, or that there were too many. */
  refusal(usual: Refusal): Refusal {
    if (this.#bucket.take(1, this.#now())) return usual
    return new Refusal(429, 'too-many-attempts', 'too many wrong tokens: wait a little')
  }
}
