import type { TcpHeader } from '../../packet/index.ts'
import type { SenderClock } from './plan.ts'
import type { Rack } from './rack.ts'
import type { RttEstimator } from './rtt.ts'
import { Sent, type SentRecords } from './sent-records.ts'
import { after, before, distance } from './sequence.ts'

/** What ACKs say of the segments that were sent: which have arrived, and how long they took. */
export class Deliveries {
  readonly #records: SentRecords
  readonly #rtt: RttEstimator
  readonly #rack: Rack
  readonly #clock: SenderClock
  /** An echoed timestamp that would mean more is nonsense. */
  readonly #mostRttMs: number

  constructor(records: SentRecords, rtt: RttEstimator, rack: Rack, clock: SenderClock, mostRttMs: number) {
    this.#records = records
    this.#rtt = rtt
    this.#rack = rack
    this.#clock = clock
    this.#mostRttMs = mostRttMs
  }

  /** Forgets what the cumulative ACK covers; returns the bytes that are newly known to have arrived. */
  takeAcked(segment: TcpHeader, now: number): number {
    const ack = segment.acknowledgment
    const records = this.#records
    let delivered = 0
    let sample = -1
    let repaired = false
    while (records.count > 0 && !after(records.end(0), ack)) {
      const flags = records.flags(0)
      // What stood behind a gap arrived long before the ACK that covers it.
      if ((flags & Sent.everRetransmitted) !== 0) repaired = true
      if ((flags & Sent.sacked) === 0) {
        delivered += records.length(0)
        sample = this.#deliveredRecord(segment, 0, sample, now)
      }
      records.shift()
    }
    if (records.count > 0 && before(records.start(0), ack)) {
      delivered += distance(records.start(0), ack)
      records.trim(ack)
    }
    if (sample >= 0 && !repaired) this.#rtt.sample(now - sample)
    else if (delivered > 0 && segment.hasTimestamps && segment.timestampEcho !== 0) {
      // RFC 7323 §4: the echo is good for repeated segments too.
      const rtt = distance(segment.timestampEcho, this.#clock.timestampAt(now))
      if (rtt >= 0 && rtt < this.#mostRttMs) this.#rtt.sample(rtt)
    }
    return delivered
  }

  /** @returns the time of the newest transmission that Karn's rule lets be measured (RFC 6298 §3) */
  #deliveredRecord(segment: TcpHeader, index: number, sample: number, now: number): number {
    const records = this.#records
    const sentAt = records.sentAt(index)
    const flags = records.flags(index)
    const older = segment.hasTimestamps && before(segment.timestampEcho, this.#clock.timestampAt(sentAt))
    this.#rack.delivered(records.end(index), sentAt, flags, older, now)
    return (flags & Sent.everRetransmitted) === 0 && sentAt > sample ? sentAt : sample
  }

  /** RFC 2883 §4: the first block lies below the ACK, or inside the second. */
  isDuplicateReport(segment: TcpHeader): boolean {
    const ack = segment.acknowledgment
    const left = segment.sackLeft[0]!
    const right = segment.sackRight[0]!
    if (!after(right, ack)) return before(left, right)
    return segment.sackCount > 1 && !before(left, segment.sackLeft[1]!) && !after(right, segment.sackRight[1]!)
  }

  takeSacks(segment: TcpHeader, from: number, una: number, next: number, now: number): number {
    const records = this.#records
    let delivered = 0
    let sample = -1
    for (let block = from; block < segment.sackCount; block++) {
      const left = segment.sackLeft[block]!
      const right = segment.sackRight[block]!
      // What was never sent, or makes no sense, is not believed.
      if (!before(left, right) || !after(left, una) || after(right, next)) continue
      for (let i = records.find(left); i < records.count && !after(records.end(i), right); i++) {
        if ((records.flags(i) & Sent.sacked) !== 0) continue
        delivered += records.length(i)
        sample = this.#deliveredRecord(segment, i, sample, now)
        records.markSacked(i)
      }
    }
    if (sample >= 0) this.#rtt.sample(now - sample)
    return delivered
  }
}
