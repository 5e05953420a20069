import { before } from './sequence.ts'

/** RFC 9406 §4.3. */
const MIN_RTT_THRESHOLD_MS = 4
const MAX_RTT_THRESHOLD_MS = 16
const MIN_RTT_DIVISOR = 8
const RTT_SAMPLES = 8
const CONSERVATIVE_DIVISOR = 4
const CONSERVATIVE_ROUNDS = 5

/** Leaves the first slow start when round trips grow, before queues overflow (HyStart++, RFC 9406). */
export class HyStart {
  finished = false
  #started = false
  #roundEnd = 0
  #lastMin = Number.POSITIVE_INFINITY
  #min = Number.POSITIVE_INFINITY
  #samples = 0
  /** Conservative slow start: the round trip it began with, and its rounds. */
  #baseline: number | null = null
  #rounds = 0

  /** An ACK up to `una` with a round trip, `next` being SND.NXT. Returns by what slow start's growth is to be divided. */
  onAck(rtt: number, una: number, next: number): number {
    if (this.finished) return 1
    if (!this.#started || !before(una, this.#roundEnd)) this.#startRound(next)
    if (rtt < this.#min) this.#min = rtt
    this.#samples++
    if (this.#baseline === null) {
      if (this.#samples >= RTT_SAMPLES && this.#lastMin !== Number.POSITIVE_INFINITY) {
        const threshold = Math.max(MIN_RTT_THRESHOLD_MS, Math.min(this.#lastMin / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD_MS))
        if (this.#min >= this.#lastMin + threshold) {
          this.#baseline = this.#min
          this.#rounds = 0
        }
      }
    } else if (this.#samples >= RTT_SAMPLES && this.#min < this.#baseline) {
      // It was a passing delay: back to slow start.
      this.#baseline = null
    }
    return this.#baseline === null ? 1 : CONSERVATIVE_DIVISOR
  }

  /** Congestion was seen: slow start will not need this any more. */
  stop(): void {
    this.finished = true
  }

  #startRound(next: number): void {
    this.#started = true
    this.#roundEnd = next
    this.#lastMin = this.#min
    this.#min = Number.POSITIVE_INFINITY
    this.#samples = 0
    if (this.#baseline !== null && ++this.#rounds >= CONSERVATIVE_ROUNDS) this.finished = true
  }
}
