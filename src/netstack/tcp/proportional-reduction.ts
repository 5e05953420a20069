/** How much may be sent for each ACK of a recovery, so that the window comes down evenly (PRR, RFC 9937). Bytes. */
export class ProportionalReduction {
  #delivered = 0
  #out = 0
  #flight = 1
  #allowed = 0

  /** A recovery begins with so much in flight. The first lost segment goes at once. */
  start(inFlight: number, mss: number): void {
    this.#delivered = 0
    this.#out = 0
    this.#flight = Math.max(inFlight, mss)
    this.#allowed = mss
  }

  /**
   * An ACK says that `delivered` more bytes have arrived; `safe`: it moved SND.UNA and told of no new loss (§6.1).
   * Returns what may be sent now.
   */
  onAck(delivered: number, safe: boolean, pipe: number, ssthresh: number, mss: number): number {
    this.#delivered += delivered
    let allowed: number
    if (pipe > ssthresh) allowed = Math.ceil((this.#delivered * ssthresh) / this.#flight) - this.#out
    else {
      let limit = Math.max(this.#delivered - this.#out, delivered)
      if (safe) limit += mss
      allowed = Math.min(ssthresh - pipe, limit)
    }
    if (this.#out === 0) allowed = Math.max(allowed, mss)
    this.#allowed = Math.max(0, allowed)
    return this.#allowed
  }

  allows(length: number): boolean {
    return this.#allowed >= length || this.#out === 0
  }

  spend(bytes: number): void {
    this.#out += bytes
    this.#allowed = Math.max(0, this.#allowed - bytes)
  }
}
