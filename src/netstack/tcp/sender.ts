import type { TcpHeader } from '../../packet/index.ts'
import type { TcpSettings } from '../limits.ts'
import type { MemoryBudget } from '../memory-budget.ts'
import { ByteRing } from './byte-ring.ts'
import { Cubic } from './cubic.ts'
import { Deliveries } from './deliveries.ts'
import { LostQueue } from './lost-queue.ts'
import { PeerWindow } from './peer-window.ts'
import type { Plan, SenderClock } from './plan.ts'
import { ProportionalReduction } from './proportional-reduction.ts'
import { DUPLICATE_THRESHOLD, Rack } from './rack.ts'
import { RttEstimator } from './rtt.ts'
import { Sent, SentRecords } from './sent-records.ts'
import { before, distance } from './sequence.ts'

const NEVER = Number.POSITIVE_INFINITY

/**
 * Longer than 500 lines because recovery, timers and what may be sent now change each other's state at every ACK; what stands alone is in files of its own.
 *
 * The sending half of a connection: what was written, what of it is in flight, what is lost, what may go now.
 * Loss by RACK-TLP (RFC 8985) over the scoreboard of RFC 6675, window reduction by PRR (RFC 9937), timers by RFC 6298, undo by Eifel (RFC 3522, 4015).
 */
export class Sender {
  readonly #settings: TcpSettings
  readonly #clock: SenderClock
  readonly #ring: ByteRing
  readonly records = new SentRecords()
  readonly rtt: RttEstimator
  readonly congestion: Cubic
  readonly #rack: Rack
  readonly #deliveries: Deliveries
  una = 0
  next = 0
  readonly peerWindow = new PeerWindow()
  /** Largest payload of a segment whose only option is the timestamp. */
  mss = 536
  sackAllowed = false
  nagle: boolean
  /** Bytes written and not acknowledged. */
  buffered = 0
  #finQueued = false
  #finSent = false
  readonly #plan: Plan = { kind: 'new', sequence: 0, length: 0, ringOffset: 0, fin: false, push: false }
  readonly #lost: LostQueue
  #cwndLimited = false
  #lastSentAt = 0

  // Recovery.
  #recovery: 'none' | 'fast' | 'timeout' = 'none'
  #recoveryEnd = 0
  #duplicateAcks = 0
  readonly #reduction = new ProportionalReduction()
  /** The timestamp of the first retransmission of this recovery: an echo of an older one says it was not needed. */
  #undoTimestamp: number | null = null
  #undoPossible = false

  // Timers.
  #rtoAt = NEVER
  #tailAt = NEVER
  #reorderAt = NEVER
  #persistAt = NEVER
  #probe: 'none' | 'tail' | 'window' = 'none'
  #tailEnd: number | null = null
  /** Since when nothing has come back though it should. */
  #progressAt = 0
  /** Since when not a byte has been taken though some wait; infinity while none does. */
  #stalledAt = NEVER
  /** Nobody holds the connection any more: only progress keeps it, not the answers of a peer whose window stays shut. */
  orphaned = false
  #retransmissions = 0
  /** Timeouts in a row for the same full-sized data: a path MTU black hole shows as such. */
  fullSizeTimeouts = 0

  constructor(settings: TcpSettings, budget: MemoryBudget, clock: SenderClock) {
    this.#settings = settings
    this.#clock = clock
    this.#ring = new ByteRing(budget)
    this.#lost = new LostQueue(this.records)
    this.rtt = new RttEstimator(settings)
    this.congestion = new Cubic(this.mss, settings.initialWindowSegments)
    this.#rack = new Rack(this.rtt)
    this.#deliveries = new Deliveries(this.records, this.rtt, this.#rack, clock, settings.retransmitTimeoutMs)
    this.nagle = settings.nagle
  }

  /** The SYN has been acknowledged: data begins at `first`. */
  start(first: number, now: number): void {
    this.una = first
    this.next = first
    this.records.reset(first)
    this.#progressAt = now
  }

  setMss(mss: number): void {
    if (mss === this.mss) return
    this.mss = mss
    this.congestion.setMss(
      mss,
      this.next === this.una && this.records.count === 0 && this.rtt.backoffs === 0 && this.congestion.inSlowStart,
    )
  }

  get finAcked(): boolean {
    return this.#finSent && this.una === this.next
  }

  /** Whether the end of the data has been written. */
  get isEnding(): boolean {
    return this.#finQueued
  }

  get inRecovery(): boolean {
    return this.#recovery !== 'none'
  }

  get retransmissions(): number {
    return this.#retransmissions
  }

  get unsent(): number {
    return this.buffered - (distance(this.una, this.next) - (this.#finSent && this.una !== this.next ? 1 : 0))
  }

  get writable(): number {
    return this.#finQueued ? 0 : Math.max(0, this.#settings.sendBufferBytes - this.buffered)
  }

  get memory(): number {
    return this.#ring.capacity
  }

  /** Takes bytes (copied) as far as there is room. */
  write(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.writable)
    if (length === 0 || !this.#ring.ensure(this.buffered + length, this.buffered)) return 0
    this.#ring.write(this.buffered, bytes, 0, length)
    this.buffered += length
    return length
  }

  queueFin(): void {
    this.#finQueued = true
  }

  /** Copies planned data into a packet. */
  copy(plan: Plan, target: Uint8Array, at: number): void {
    this.#ring.copyTo(plan.ringOffset, plan.length, target, at)
  }

  release(): void {
    this.#ring.release()
    this.buffered = 0
    this.#rtoAt = this.#tailAt = this.#reorderAt = this.#persistAt = NEVER
    this.#probe = 'none'
  }

  // --- what came back

  /** An acceptable ACK (SND.UNA <= ACK <= SND.NXT), `data` when its segment carries data or a FIN. Returns how many bytes it acknowledged. */
  handleAck(segment: TcpHeader, data: boolean, now: number): number {
    const ack = segment.acknowledgment
    const acked = distance(this.una, ack)
    const shut = this.records.count > 0 && this.peerWindow.bytes < this.records.length(0)
    const windowChanged = this.peerWindow.update(segment)
    if (shut && windowChanged) this.#onReopened()
    const inFlight = this.records.pipe
    const lostBefore = this.records.lostCount
    const sackedBefore = this.records.sackedCount
    const count = this.records.count
    let delivered = this.#deliveries.takeAcked(segment, now)
    if (acked > 0) this.#lost.shift(count - this.records.count)
    let duplicate = false
    if (this.sackAllowed && segment.sackCount > 0) {
      duplicate = this.#deliveries.isDuplicateReport(segment)
      delivered += this.#deliveries.takeSacks(segment, duplicate ? 1 : 0, this.una, this.next, now)
      if (duplicate) this.#rack.onDuplicate()
    }
    if (acked > 0) this.#advanced(segment, duplicate, now)
    else if (!this.sackAllowed && !data && !windowChanged && this.records.count > 0 && segment.window !== 0) this.#countDuplicate()
    if (this.records.sackedCount > 0 || this.records.lostCount > 0) this.#findLosses(now)
    else this.#reorderAt = NEVER
    this.#afterAck(acked, delivered, inFlight, this.records.lostCount > lostBefore, now)
    if (acked > 0) this.#armTimers(now)
    else if (this.records.sackedCount > sackedBefore) this.#tailAt = NEVER
    if (this.peerWindow.bytes > 0) this.#leavePersist()
    return acked
  }

  /** The window had been drawn back over what is in flight, and is open again: what the peer threw away meanwhile goes at once. */
  #onReopened(): void {
    if (this.#recovery !== 'timeout' || this.peerWindow.bytes < this.records.length(0)) return
    this.records.markLost(0)
    this.#lost.rescan()
    this.rtt.resetBackoff()
  }

  #advanced(segment: TcpHeader, duplicate: boolean, now: number): void {
    const acked = distance(this.una, segment.acknowledgment)
    // The FIN is no byte of the ring.
    const bytes = Math.min(acked, this.buffered)
    this.una = segment.acknowledgment
    this.buffered -= bytes
    if (this.buffered === 0) this.#ring.release()
    else this.#ring.drop(bytes)
    this.#duplicateAcks = 0
    this.#progressAt = now
    this.#stalledAt = this.buffered > 0 || this.records.count > 0 ? now : NEVER
    this.fullSizeTimeouts = 0
    this.rtt.resetBackoff()
    if (this.#undoPossible && this.#undoTimestamp !== null && segment.hasTimestamps && before(segment.timestampEcho, this.#undoTimestamp)) {
      this.#undo()
    }
    this.#undoPossible = false
    if (this.#tailEnd !== null && !before(this.una, this.#tailEnd)) {
      // RFC 8985 §7.4: the probe repaired a loss that would otherwise go unnoticed, unless it came twice.
      if (!duplicate && this.#recovery === 'none') this.congestion.onLoss()
      this.#tailEnd = null
    }
  }

  /** RFC 5681 §3.2 and RFC 6582 for a peer without SACK: the third duplicate says that the first segment is lost. */
  #countDuplicate(): void {
    this.#duplicateAcks++
    if (this.#duplicateAcks === DUPLICATE_THRESHOLD && this.#recovery === 'none') this.records.markLost(0)
    this.#lost.rescan()
  }

  #findLosses(now: number): void {
    if (this.sackAllowed) this.#reorderAt = this.#rack.detect(this.records, this.#recovery !== 'none', now)
    if (this.records.lostCount > 0) this.#lost.rescan()
  }

  #afterAck(acked: number, delivered: number, inFlight: number, newLoss: boolean, now: number): void {
    const { congestion, records } = this
    if (this.#recovery !== 'none' && !before(this.una, this.#recoveryEnd) && acked > 0) {
      this.#leaveRecovery()
      if (records.lostCount === 0) return
    }
    if (this.#recovery === 'none' && records.lostCount > 0) this.#enterFast(inFlight)
    if (this.#recovery === 'fast') {
      // RFC 6582 §3.2 step 3: a partial ACK says that the next one is lost too.
      if (!this.sackAllowed && acked > 0 && records.count > 0 && (records.flags(0) & Sent.retransmitted) === 0) {
        records.markLost(0)
        this.#lost.rescan()
      }
      // Without SACK each duplicate says that one segment has arrived.
      const bytes = !this.sackAllowed && delivered === 0 ? this.mss : delivered
      const allowed = this.#reduction.onAck(bytes, acked > 0 && !newLoss, records.pipe, congestion.ssthresh, this.mss)
      congestion.cwnd = Math.max(this.mss, records.pipe + allowed)
      return
    }
    if (acked === 0) return
    if (this.#cwndLimited || this.#recovery === 'timeout')
      congestion.onAck(acked, this.rtt.smoothed ?? 0, this.rtt.latest, this.una, this.next, now)
    else congestion.onIdleAck()
  }

  #enterFast(inFlight: number): void {
    this.#recovery = 'fast'
    this.#recoveryEnd = this.next
    this.#undoTimestamp = null
    this.#undoPossible = true
    this.congestion.onLoss()
    this.#reduction.start(inFlight, this.mss)
    this.#tailAt = NEVER
    this.#lost.rescan()
  }

  #leaveRecovery(): void {
    if (this.#recovery === 'fast') this.congestion.cwnd = Math.max(this.congestion.ssthresh, 2 * this.mss)
    this.#recovery = 'none'
    this.#undoPossible = false
    this.#rack.onRecovered()
  }

  /** RFC 4015: what was sent again had not been lost. */
  #undo(): void {
    const { records } = this
    for (let i = 0; i < records.count; i++) {
      const flags = records.flags(i)
      if ((flags & Sent.lost) !== 0 && (flags & Sent.retransmitted) === 0) records.unmarkLost(i)
    }
    this.congestion.undo()
    this.#recovery = 'none'
    this.#rack.onDuplicate()
  }

  /** The path takes only segments of this size: larger ones in flight are gone, which says nothing of congestion (RFC 1191 §6.3). */
  shrinkMss(mss: number): void {
    if (mss >= this.mss) return
    this.setMss(mss)
    const { records } = this
    for (let i = 0; i < records.count; i++) {
      if (records.length(i) > mss && (records.flags(i) & (Sent.sacked | Sent.lost)) === 0) records.markLost(i)
    }
    this.#lost.rescan()
  }

  // --- timers

  get deadline(): number {
    return Math.min(this.#rtoAt, this.#tailAt, this.#reorderAt, this.#persistAt)
  }

  /** Whatever timer has run out. False: nothing has come back for so long that the connection is dead (RFC 9293 §3.8.3). */
  onTimer(now: number): boolean {
    if (this.#reorderAt <= now) {
      this.#reorderAt = NEVER
      const inFlight = this.records.pipe
      this.#findLosses(now)
      if (this.#recovery === 'none' && this.records.lostCount > 0) this.#enterFast(inFlight)
    }
    if (this.#tailAt <= now) {
      this.#tailAt = NEVER
      if (this.#recovery === 'none' && this.records.count > 0) this.#probe = 'tail'
    }
    if (this.#rtoAt <= now) {
      if (this.#isDead(now)) return false
      this.#onTimeout(now)
    }
    if (this.#persistAt <= now) {
      if (this.#isDead(now)) return false
      this.#probe = 'window'
      this.rtt.backOff()
      this.#persistAt = now + this.rtt.timeout
    }
    return true
  }

  /**
   * The peer is there, even if its window stays shut: a zero window may last for ever (RFC 9293 §3.8.6.1), also one that was drawn back over
   * what is in flight (§3.8.6, SHLD-18).
   */
  onSignOfLife(now: number): void {
    if (this.records.count === 0 || this.peerWindow.bytes < this.records.length(0)) this.#progressAt = now
  }

  get stalledAt(): number {
    return this.#stalledAt
  }

  #isDead(now: number): boolean {
    return now - (this.orphaned ? this.#stalledAt : this.#progressAt) > this.#settings.retransmitTimeoutMs
  }

  #onTimeout(now: number): void {
    const { records } = this
    if (records.count === 0) {
      this.#rtoAt = NEVER
      return
    }
    // One that the peer's window has no room for is not lost on the way.
    if (records.length(0) >= this.mss && records.length(0) <= this.peerWindow.bytes) this.fullSizeTimeouts++
    if (this.#recovery !== 'timeout') {
      this.congestion.onTimeout(records.pipe)
      this.#undoTimestamp = null
      this.#undoPossible = true
    } else this.congestion.cwnd = this.mss
    this.#recovery = 'timeout'
    this.#recoveryEnd = this.next
    // RFC 6298 §5.4 to 5.6; RFC 8985 §6.3: what was sent later may be on its way, but the pipe is thought empty.
    // RFC 2018 §8: a receiver that sacked the first segment and still waits for it has thrown it away, and perhaps more.
    const reneged = (records.flags(0) & Sent.sacked) !== 0
    for (let i = 0; i < records.count; i++) if (reneged || (records.flags(i) & Sent.sacked) === 0) records.markLost(i)
    this.#lost.rescan()
    this.#tailAt = NEVER
    this.#tailEnd = null
    this.rtt.backOff()
    this.#rtoAt = now + this.rtt.timeout
  }

  #armTimers(now: number): void {
    if (this.records.count === 0) {
      this.#rtoAt = NEVER
      this.#tailAt = NEVER
      return
    }
    this.#rtoAt = now + this.rtt.timeout
    this.#armTail(now)
  }

  #armTail(now: number): void {
    this.#tailAt = NEVER
    // RFC 8985 §7.2: once per flight, while nothing is known to be missing.
    if (
      this.sackAllowed &&
      this.#recovery === 'none' &&
      this.records.sackedCount === 0 &&
      this.#tailEnd === null &&
      this.rtt.smoothed !== null
    ) {
      let patience = 2 * this.rtt.smoothed
      if (this.records.count === 1) patience += this.#settings.minRtoMs
      const at = now + Math.max(patience, 10)
      if (at < this.#rtoAt) this.#tailAt = at
    }
  }

  #leavePersist(): void {
    if (this.#persistAt === NEVER) return
    this.#persistAt = NEVER
    this.rtt.resetBackoff()
  }

  // --- what goes out

  /** What may be sent now in a segment with room for `room` bytes of data; null when nothing may. The same object each time. */
  plan(room: number, now: number): Plan | null {
    if (this.#probe !== 'none') {
      const probe = this.#planProbe(room)
      if (probe !== null) return probe
    }
    if (!this.#lost.isEmpty) {
      const again = this.#planRetransmission(room)
      if (again !== null) return again
      if (!this.#lost.isEmpty) return null
    }
    return this.#planNew(room, now)
  }

  #planProbe(room: number): Plan | null {
    const plan = this.#plan
    if (this.#probe === 'window') {
      // The override time-out of RFC 9293 §3.8.6.2.1: silly, but all that the window lets through.
      const usable = distance(this.next, (this.una + this.peerWindow.bytes) | 0)
      if (usable > 0 && this.unsent > 0) return this.#fillNew(Math.min(usable, this.unsent, room))
      // An old sequence number makes the peer say its window, and nothing is used up by it.
      plan.kind = 'probe'
      plan.sequence = (this.una - 1) | 0
      plan.length = 0
      plan.fin = false
      plan.push = false
      return plan
    }
    const { records } = this
    if (records.count === 0) {
      this.#probe = 'none'
      return null
    }
    // RFC 8985 §7.3: new data if there is some that may go, else the last segment again.
    if (this.unsent > 0 && distance(this.next, (this.una + this.peerWindow.bytes) | 0) >= Math.min(room, this.unsent)) {
      return this.#fillNew(Math.min(room, this.unsent))
    }
    const last = records.count - 1
    const end = records.end(last)
    const fin = this.#finSent && end === this.next
    const length = Math.min(room, records.length(last) - (fin ? 1 : 0))
    plan.kind = 'retransmission'
    plan.sequence = (end - length - (fin ? 1 : 0)) | 0
    plan.length = length
    plan.ringOffset = distance(this.una, plan.sequence)
    plan.fin = fin
    plan.push = true
    return plan
  }

  #planRetransmission(room: number): Plan | null {
    const found = this.#lost.next()
    if (found === null) return null
    const { sequence, end } = found
    let length = distance(sequence, end)
    let fin = this.#finSent && end === this.next
    if (fin) length--
    if (length > room) {
      length = room
      fin = false
    }
    if (this.#recovery === 'fast' ? !this.#reduction.allows(length) : !this.#fits(length)) return null
    const plan = this.#plan
    plan.kind = 'retransmission'
    plan.sequence = sequence
    plan.length = length
    plan.ringOffset = distance(this.una, sequence)
    plan.fin = fin
    plan.push = fin
    return plan
  }

  #fits(length: number): boolean {
    return this.records.pipe === 0 || this.records.pipe + length <= this.congestion.cwnd
  }

  #planNew(room: number, now: number): Plan | null {
    const unsent = this.unsent
    const finDue = this.#finQueued && !this.#finSent
    this.#cwndLimited = this.records.pipe + this.mss > this.congestion.cwnd
    if (unsent === 0 && !finDue) return null
    if (this.records.count === 0 && now - this.#lastSentAt > this.rtt.rto && this.#lastSentAt > 0) this.congestion.restart()
    const usable = distance(this.next, (this.una + this.peerWindow.bytes) | 0)
    const length = Math.min(unsent, room, Math.max(0, usable))
    if (usable <= 0 || (length < Math.min(unsent, room) && length < this.peerWindow.most / 2)) {
      // Zero, or so little that it would be silly (RFC 9293 §3.8.6.2.1).
      this.#awaitWindow(now)
      return null
    }
    const fin = finDue && length === unsent && usable > length
    if (length === 0 && !fin) {
      this.#awaitWindow(now)
      return null
    }
    if (this.#recovery === 'fast' ? !this.#reduction.allows(length) : !this.#fits(length)) return null
    // RFC 9293 §3.7.4: a small segment waits while something is in flight, unless it is the last.
    if (length < room && this.nagle && !fin && this.records.count > 0 && length === unsent) return null
    return this.#fillNew(length, fin)
  }

  #fillNew(length: number, fin = false): Plan {
    const plan = this.#plan
    plan.kind = 'new'
    plan.sequence = this.next
    plan.length = length
    plan.ringOffset = distance(this.una, this.next)
    plan.fin = fin
    plan.push = length === this.unsent
    return plan
  }

  /** Nothing is in flight whose ACK would tell of a new window: ask for it. */
  #awaitWindow(now: number): void {
    if (this.records.count === 0 && this.#persistAt === NEVER) {
      this.#progressAt = now
      this.#stalledAt = Math.min(this.#stalledAt, now)
      this.#persistAt = now + this.rtt.timeout
    }
  }

  /** What `plan` gave has been sent. */
  sent(plan: Plan, now: number): void {
    const { records } = this
    const bytes = plan.length + (plan.fin ? 1 : 0)
    if (plan.kind === 'probe') {
      this.#probe = 'none'
      return
    }
    this.#lastSentAt = now
    const tail = this.#probe === 'tail'
    if (this.#probe === 'window') this.#probe = 'none'
    if (plan.kind === 'new') {
      if (records.count === 0) {
        this.#progressAt = now
        this.#stalledAt = Math.min(this.#stalledAt, now)
      }
      this.next = (this.next + bytes) | 0
      if (plan.fin) this.#finSent = true
      records.push(this.next, now)
    } else if (tail) {
      this.#retransmissions++
      records.markRetransmitted(records.count - 1, now)
    } else {
      this.#retransmissions++
      if (this.#undoTimestamp === null) this.#undoTimestamp = this.#clock.timestampAt(now)
      this.#lost.sent((plan.sequence + bytes) | 0, now)
    }
    if (this.#recovery === 'fast') this.#reduction.spend(bytes)
    if (tail) {
      this.#probe = 'none'
      this.#tailEnd = this.next
      if (plan.kind === 'new') this.#tailEnd = null
      this.#rtoAt = now + this.rtt.timeout
      return
    }
    if (this.#rtoAt === NEVER) this.#armTimers(now)
    else if (plan.kind === 'new') this.#armTail(now)
  }
}
