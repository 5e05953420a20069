import type { RttEstimator } from './rtt.ts'
import { Sent, type SentRecords } from './sent-records.ts'
import { after, before } from './sequence.ts'

/** RFC 5681's and RFC 6675's DupThresh. */
export const DUPLICATE_THRESHOLD = 3
/** RFC 8985 §3.2: recoveries that a wider reordering window lasts, and its widest, in quarters of the smallest round trip. */
const REORDER_PERSIST = 16
const MOST_REORDER_QUARTERS = 16

/**
 * Which segments are lost, told by time (RACK, RFC 8985 §6): one is lost when another that was sent later has arrived, and the time that
 * reordering may take has passed. Without reordering seen that time is nothing once three segments are sacked: then it finds what RFC 6675 finds,
 * and lost retransmissions too.
 */
export class Rack {
  readonly #rtt: RttEstimator
  /** Of the segment that was sent last among those that arrived. */
  #sentAt = 0
  #end = 0
  #latest = 0
  #any = false
  #highestDelivered = 0
  #reorderingSeen = false
  #quarters = 1
  #persist = 0

  constructor(rtt: RttEstimator) {
    this.#rtt = rtt
  }

  /** A segment has arrived at the peer: [.., end), last sent at `sentAt`. `echoedBefore`: the ACK answers an older transmission than that. */
  delivered(end: number, sentAt: number, flags: number, echoedBefore: boolean, now: number): void {
    const rtt = now - sentAt
    if ((flags & Sent.everRetransmitted) !== 0) {
      // §6.2 step 2: the ACK may be for an earlier transmission.
      if (echoedBefore || rtt < this.#rtt.min) return
    } else if (this.#any && before(end, this.#highestDelivered)) {
      this.#reorderingSeen = true
    }
    if (!this.#any || after(end, this.#highestDelivered)) this.#highestDelivered = end
    if (!this.#any || sentAt > this.#sentAt || (sentAt === this.#sentAt && after(end, this.#end))) {
      this.#sentAt = sentAt
      this.#end = end
      this.#latest = rtt
      this.#any = true
    }
  }

  /** The peer said that something came twice: it was not lost, and reordering takes longer than thought (§6.2 step 4). */
  onDuplicate(): void {
    this.#reorderingSeen = true
    this.#quarters = Math.min(MOST_REORDER_QUARTERS, this.#quarters + 1)
    this.#persist = REORDER_PERSIST
  }

  onRecovered(): void {
    if (this.#persist > 0 && --this.#persist === 0) this.#quarters = 1
  }

  /** Marks what is lost by now. Returns when something else may be, or infinity. */
  detect(records: SentRecords, inRecovery: boolean, now: number): number {
    if (!this.#any) return Number.POSITIVE_INFINITY
    const patience = this.#latest + this.#window(records, inRecovery)
    let next = Number.POSITIVE_INFINITY
    for (let i = 0; i < records.count; i++) {
      const flags = records.flags(i)
      if ((flags & Sent.sacked) !== 0) continue
      if ((flags & Sent.lost) !== 0 && (flags & Sent.retransmitted) === 0) continue
      const sentAt = records.sentAt(i)
      if (sentAt > this.#sentAt || (sentAt === this.#sentAt && !before(records.end(i), this.#end))) {
        // Records not sent again are in order of time: nothing behind this one is older.
        if ((flags & Sent.everRetransmitted) === 0) break
        continue
      }
      const at = sentAt + patience
      if (at <= now) records.markLost(i)
      else if (at < next) next = at
    }
    return next
  }

  #window(records: SentRecords, inRecovery: boolean): number {
    if (!this.#reorderingSeen && (inRecovery || records.sackedCount >= DUPLICATE_THRESHOLD)) return 0
    const min = this.#rtt.min === Number.POSITIVE_INFINITY ? this.#latest : this.#rtt.min
    return Math.min((min / 4) * this.#quarters, this.#rtt.smoothed ?? this.#latest)
  }
}
