import type { TcpSettings } from '../limits.ts'

/** Round-trip time and retransmission time-out by RFC 6298; times in ms, fractions and all. */
export class RttEstimator {
  readonly #settings: TcpSettings
  /** Null before the first sample. */
  smoothed: number | null = null
  #variation = 0
  /** Of the whole connection. */
  min = Number.POSITIVE_INFINITY
  latest = 0
  /** Without back-off. */
  rto: number
  #backoff = 0

  constructor(settings: TcpSettings) {
    this.#settings = settings
    this.rto = settings.initialRtoMs
  }

  sample(rtt: number): void {
    this.latest = rtt
    if (rtt < this.min) this.min = rtt
    if (this.smoothed === null) {
      // §2.2
      this.smoothed = rtt
      this.#variation = rtt / 2
    } else {
      // §2.3
      this.#variation += (Math.abs(this.smoothed - rtt) - this.#variation) / 4
      this.smoothed += (rtt - this.smoothed) / 8
    }
    // The variation has a floor, so that a path of constant delay does not time out at the first late ACK (as Linux's tcp_rto_min does).
    const rto = this.smoothed + Math.max(this.#settings.minRtoMs, 4 * this.#variation)
    this.rto = Math.min(rto, this.#settings.maxRtoMs)
  }

  /** §5.7: a SYN that was repeated says that the path is slower than thought. */
  syntheticStart(): void {
    if (this.smoothed === null) this.rto = Math.max(this.rto, 3000)
  }

  /** §5.5 */
  backOff(): void {
    this.#backoff++
  }

  resetBackoff(): void {
    this.#backoff = 0
  }

  get backoffs(): number {
    return this.#backoff
  }

  /** With back-off. */
  get timeout(): number {
    return Math.min(this.rto * 2 ** Math.min(this.#backoff, 30), this.#settings.maxRtoMs)
  }
}
