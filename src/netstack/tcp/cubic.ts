import { HyStart } from './hystart.ts'

/** RFC 9438 §4.1 and §4.6. */
const C = 0.4
const BETA = 0.7
const ALPHA = (3 * (1 - BETA)) / (1 + BETA)
/** Segments that one ACK may let slow start grow by. RFC 3465's 2 and RFC 9406's 8 suppose an ACK per two segments; receivers that take batches (GRO, and this stack) acknowledge up to a batch at once. */
const SLOW_START_SEGMENTS = 64

/** CUBIC (RFC 9438) with HyStart++ (RFC 9406). Windows in bytes, times in ms. Why this one: docs/decisions/2026-11-21-netstack-congestion.md */
export class Cubic {
  readonly #initialSegments: number
  readonly #hystart = new HyStart()
  #mss: number
  cwnd: number
  ssthresh = Number.POSITIVE_INFINITY
  #max = 0
  /** Null: a new epoch begins with the next ACK. */
  #epoch: number | null = null
  #k = 0
  /** What Reno would have (§4.3), and where it was at the last reduction. */
  #reno = 0
  #prior = 0
  #saved: { cwnd: number; ssthresh: number; max: number } | null = null

  constructor(mss: number, initialSegments: number) {
    this.#mss = mss
    this.#initialSegments = initialSegments
    this.cwnd = this.#initialWindow()
  }

  /** The segment size has changed, before data or by a smaller path MTU. */
  setMss(mss: number, fresh: boolean): void {
    this.#mss = mss
    if (fresh) this.cwnd = this.#initialWindow()
    this.cwnd = Math.max(this.cwnd, 2 * mss)
  }

  get inSlowStart(): boolean {
    return this.cwnd < this.ssthresh
  }

  /** New data was acknowledged outside of recovery while the window was in use. */
  onAck(acked: number, smoothedRtt: number, latestRtt: number, una: number, next: number, now: number): void {
    if (this.inSlowStart) {
      const grow = Math.min(acked, SLOW_START_SEGMENTS * this.#mss)
      const share = this.#hystart.onAck(latestRtt, una, next)
      this.cwnd += grow / share
      if (this.#hystart.finished) this.ssthresh = this.cwnd
      return
    }
    this.#avoidCongestion(acked, smoothedRtt, now)
  }

  /** The window was not in use: nothing is learnt from ACKs, and the curve's clock stands (§5.8). */
  onIdleAck(): void {
    this.#epoch = null
  }

  /** Loss was found by ACKs: the window after recovery is `ssthresh`. */
  onLoss(): void {
    this.#save()
    this.#reduce()
    this.cwnd = this.ssthresh
  }

  /** The retransmission timer ran out: §4.8. */
  onTimeout(inFlight: number): void {
    this.#save()
    this.#reduce()
    // RFC 5681 §3.1, equation 4, with CUBIC's factor.
    this.ssthresh = Math.max(Math.min(this.ssthresh, inFlight * BETA), 2 * this.#mss)
    this.cwnd = this.#mss
  }

  /** The loss was none (RFC 4015): back to where it was. */
  undo(): void {
    const saved = this.#saved
    if (saved === null) return
    this.cwnd = Math.max(this.cwnd, saved.cwnd)
    this.ssthresh = Math.max(this.ssthresh, saved.ssthresh)
    this.#max = saved.max
    this.#epoch = null
    this.#saved = null
  }

  /** Nothing was sent for longer than the time-out: RFC 5681 §4.1. */
  restart(): void {
    this.cwnd = Math.min(this.cwnd, this.#initialWindow())
    this.#epoch = null
  }

  #initialWindow(): number {
    // RFC 6928 §2
    return Math.min(this.#initialSegments * this.#mss, Math.max(2 * this.#mss, this.#initialSegments * 1460))
  }

  #save(): void {
    this.#saved = { cwnd: this.cwnd, ssthresh: this.ssthresh, max: this.#max }
  }

  #reduce(): void {
    // §4.7: fast convergence.
    this.#max = this.cwnd < this.#max ? (this.cwnd * (1 + BETA)) / 2 : this.cwnd
    this.#prior = this.cwnd
    this.ssthresh = Math.max(this.cwnd * BETA, 2 * this.#mss)
    this.#epoch = null
    this.#hystart.stop()
  }

  #avoidCongestion(acked: number, rtt: number, now: number): void {
    const mss = this.#mss
    if (this.#epoch === null) {
      this.#epoch = now
      this.#reno = this.cwnd
      if (this.cwnd < this.#max) this.#k = Math.cbrt((this.#max - this.cwnd) / mss / C)
      else {
        this.#k = 0
        this.#max = this.cwnd
      }
    }
    const elapsed = (now - this.#epoch) / 1000
    this.#reno += ((this.#reno < this.#prior ? ALPHA : 1) * mss * acked) / this.cwnd
    if (this.#curve(elapsed) < this.#reno) {
      this.cwnd = Math.max(this.cwnd, this.#reno)
      return
    }
    const target = Math.min(Math.max(this.#curve(elapsed + rtt / 1000), this.cwnd), 1.5 * this.cwnd)
    this.cwnd += ((target - this.cwnd) * acked) / this.cwnd
  }

  #curve(seconds: number): number {
    return this.#max + C * (seconds - this.#k) ** 3 * this.#mss
  }
}
