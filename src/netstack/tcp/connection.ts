import { type PacketBatch, TcpFlag, type TcpHeader } from '../../packet/index.ts'
import { addressWords, type Endpoint } from '../endpoint.ts'
import { Flow } from '../flow-table.ts'
import { type CloseReason, type ConnectionHost, Notice, type Refusal } from './host.ts'
import { Receiver } from './receiver.ts'
import { SegmentWriter, writeSyn } from './segment-writer.ts'
import { Sender } from './sender.ts'
import { after, before, distance } from './sequence.ts'

const NEVER = Number.POSITIVE_INFINITY
/** RFC 7323 §5.5: after so long the last timestamp says nothing. */
const TIMESTAMP_STALE_MS = 24 * 24 * 3600 * 1000
const CHALLENGE_PERIOD_MS = 5000
/** RFC 7323 §2.3 */
const MOST_WINDOW_SCALE = 14
/** Duplicate ACKs that one round of output repeats for a peer without SACK. */
const MOST_DUPLICATE_ACKS = 16
/** Segments one connection sends before the next has its turn. */
const TURN_SEGMENTS = 32
/** RFC 9293 §3.7.1: what a peer takes that does not say. */
const DEFAULT_MSS = { 4: 536, 6: 1220 } as const
/** A peer that asks for less wants to make us work: a segment costs the same however small (FreeBSD's tcp.minmss). */
const SMALLEST_MSS = 216
/** Time-outs in a row for the same full-sized segment that make a black hole likelier than bad luck. */
const BLACK_HOLE_TIMEOUTS = 3
/** Below this a path MTU is not believed: RFC 8201 §4, and for IPv4 what every Linux refuses too (net.ipv4.route.min_pmtu is 552). */
export const SMALLEST_PATH_MTU = { 4: 552, 6: 1280 } as const

/**
 *   dial: syn-sent ──────────────┐
 *   SYN:  asked ── accept() ── syn-received ── established ── end() ── fin-wait-1 ── fin-wait-2 ── (time-wait)
 *                                                   │                      └──────── closing ───── (time-wait)
 *                                                   └─ FIN ── close-wait ── end() ── last-ack ── closed
 * TIME-WAIT is an entry of its own (`TimeWait`); the connection is closed then.
 */
export type TcpState =
  | 'asked'
  | 'syn-sent'
  | 'syn-received'
  | 'established'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'close-wait'
  | 'closing'
  | 'last-ack'
  | 'closed'

/**
 * Longer than 500 lines because all transitions of the machine stand under their drawing above.
 *
 * One TCP connection (RFC 9293). The application's side is at the top, the network's below. Made by a `Stack`.
 */
export class TcpConnection extends Flow {
  readonly kind = 'connection'
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly #host: ConnectionHost
  readonly #sender: Sender
  readonly #receiver: Receiver
  readonly #writer: SegmentWriter
  #state: TcpState
  #reason: CloseReason | null = null
  readonly #iss: number
  readonly #timestampOffset: number
  #irs = 0
  #scaling = false
  #maxMss: number
  #peerMss: number
  #timestampRecent = 0
  #timestampRecentAt = 0
  #lastAckSent = 0
  // What is to be sent without data.
  #synDue = false
  #acksDue = 0
  #unackedBytes = 0
  #peerSegment = 536
  // Timers.
  #synAt = NEVER
  #synBegan = 0
  #synTries = 0
  #ackAt = NEVER
  #lastHeard = 0
  #keepAliveMs: number
  #keepAliveAt = NEVER
  #keepAlivesSent = 0
  #keepAliveDue = false
  #finWaitAt = NEVER
  #challengesFrom = 0
  #challenges = 0
  #softError = false
  #released = false
  #wantsDrain = false
  heapIndex = -1
  heapTime = NEVER
  /** Notices that wait to be polled, and whether the stack has us in its lists: the stack's own. */
  notices = 0
  outputQueued = false
  /** Anything the application wants to find again by the connection. */
  context: unknown = null

  constructor(host: ConnectionHost, local: Endpoint, remote: Endpoint, iss: number, timestampOffset: number, mtu: number) {
    super(addressWords(remote.address.bytes, local.address.bytes), remote.port, local.port)
    this.local = local
    this.remote = remote
    this.#host = host
    this.#iss = iss
    this.#timestampOffset = timestampOffset
    this.#sender = new Sender(host.settings, host.budget, this)
    this.#receiver = new Receiver(host.budget, host.settings.receiveBufferBytes)
    this.#writer = new SegmentWriter(local.address.bytes, local.port, remote.address.bytes, remote.port)
    this.#state = 'closed'
    this.#maxMss = mtu - this.#writer.headerBytes
    this.#peerMss = DEFAULT_MSS[local.address.family]
    this.#keepAliveMs = host.settings.keepAliveMs
  }

  // --- the application's side

  get state(): TcpState {
    return this.#state
  }

  /** Why it is over; null while it is not. */
  get closeReason(): CloseReason | null {
    return this.#reason
  }

  /** Bytes that can be read now. */
  get readable(): number {
    return this.#receiver.readable
  }

  /** Whether the peer has ended its direction, and all before that has been read. */
  get remoteEnded(): boolean {
    return this.#receiver.finished && this.#receiver.readable === 0
  }

  /** How many bytes `write` would take. */
  get writable(): number {
    return this.#canWrite ? this.#sender.writable : 0
  }

  /** Takes bytes to send (copied), as many as there is room for: the return value. After fewer than offered, a `drained` event tells of new room. */
  write(bytes: Uint8Array): number {
    if (!this.#canWrite) return 0
    const taken = this.#sender.write(bytes)
    if (taken < bytes.length) this.#wantsDrain = true
    if (taken > 0) this.#host.wantsOutput(this)
    return taken
  }

  /** A view of bytes to read, as many as lie in one piece; valid until the stack or this connection is next called. `consume` takes them. */
  peek(): Uint8Array {
    return this.#receiver.peek()
  }

  /** Takes `length` bytes that were peeked at: only now may the peer send as many more. */
  consume(length: number): void {
    this.#receiver.consume(Math.min(length, this.#receiver.readable))
    this.#afterRead()
  }

  /** Copies up to target.length bytes out and takes them; returns how many. */
  read(target: Uint8Array): number {
    const length = this.#receiver.read(target)
    if (length > 0) this.#afterRead()
    return length
  }

  /** Answers the SYN of a connection that asked ('incoming'): 'connected' follows. False: it is gone already. */
  accept(): boolean {
    if (this.#state !== 'asked') return false
    this.#state = 'syn-received'
    this.#sendSyn(this.#synBegan)
    return true
  }

  /** Turns an asked connection down. */
  refuse(how: Refusal): void {
    if (this.#state !== 'asked') return
    if (how === 'reset') this.#host.reset(this, 0, this.#receiver.next)
    else if (how !== 'ignore') this.#host.refuse(this, how)
    this.#close('aborted', this.#lastHeard)
  }

  /** No more will be written: FIN follows what was. Reading goes on. */
  end(): void {
    switch (this.#state) {
      case 'syn-received':
      case 'syn-sent':
      case 'established':
      case 'close-wait':
        break
      default:
        return
    }
    this.#sender.queueFin()
    if (this.#state === 'established') this.#state = 'fin-wait-1'
    else if (this.#state === 'close-wait') this.#state = 'last-ack'
    this.#host.wantsOutput(this)
  }

  /** Ends both directions at once with RST; what was not sent or read is lost. */
  abort(): void {
    switch (this.#state) {
      case 'closed':
        return
      case 'asked':
        this.refuse('reset')
        return
      case 'syn-sent':
        break
      default:
        this.#host.reset(this, this.#sender.next, this.#receiver.next)
    }
    this.#close('aborted', this.#lastHeard)
  }

  /** The application has no more use for it: ends in order if everything was read, else with RST (RFC 1122 §4.2.2.13). */
  release(): void {
    if (this.#receiver.readable > 0 || this.#state === 'asked') {
      this.abort()
      return
    }
    this.#released = true
    this.#sender.orphaned = true
    this.#receiver.discard()
    this.end()
    this.#finWaitAt = this.#state === 'fin-wait-2' ? this.#lastHeard + this.#host.settings.finWaitMs : NEVER
    this.#host.touch(this)
  }

  setNagle(on: boolean): void {
    this.#sender.nagle = on
    if (!on) this.#host.wantsOutput(this)
  }

  /** Probes the peer after so much silence; 0: never. */
  setKeepAlive(idleMs: number): void {
    this.#keepAliveMs = idleMs
    this.#armKeepAlive()
    this.#host.touch(this)
  }

  /** For people and tests. Times in ms. */
  get info() {
    const { records, congestion, rtt } = this.#sender
    return {
      state: this.#state,
      smoothedRttMs: rtt.smoothed,
      rtoMs: rtt.timeout,
      congestionWindow: congestion.cwnd,
      slowStartThreshold: congestion.ssthresh,
      inFlight: records.pipe,
      retransmissions: this.#sender.retransmissions,
      mss: this.#sender.mss,
      sendWindow: this.#sender.peerWindow.bytes,
      receiveWindow: this.#receiver.window,
      unacknowledged: this.#sender.buffered,
      memory: this.#sender.memory + this.#receiver.memory,
    }
  }

  get #canWrite(): boolean {
    return this.#state === 'established' || this.#state === 'close-wait' || this.#state === 'syn-sent' || this.#state === 'syn-received'
  }

  #afterRead(): void {
    if (this.#state === 'closed') {
      if (this.#reason === 'done' && this.#receiver.readable === 0) this.#host.notify(this, Notice.closed)
      return
    }
    if (this.#receiver.wantsUpdate(this.#peerSegment)) {
      this.#acksDue = Math.max(1, this.#acksDue)
      this.#host.wantsOutput(this)
    }
  }

  // --- opening

  /** Sends the SYN of a dial. */
  dial(now: number): void {
    this.#state = 'syn-sent'
    this.#lastHeard = now
    this.#sendSyn(now)
  }

  /** Keeps what a SYN says, until the application decides. */
  ask(segment: TcpHeader, now: number): void {
    this.#state = 'asked'
    this.#synBegan = now
    this.#lastHeard = now
    this.#synAt = now + this.#host.settings.connectTimeoutMs
    this.#takeSyn(segment, now)
    this.#host.touch(this)
  }

  #takeSyn(segment: TcpHeader, now: number): void {
    const { settings } = this.#host
    this.#irs = segment.sequence
    this.#receiver.start(segment.sequence, Math.min(0xffff, settings.receiveBufferBytes))
    this.#lastAckSent = this.#receiver.next
    if (segment.mss >= 0) this.#peerMss = Math.max(SMALLEST_MSS, segment.mss)
    this.#writer.timestamps = settings.timestamps && segment.hasTimestamps
    this.#writer.sack = settings.sack && segment.sackPermitted
    this.#sender.sackAllowed = this.#writer.sack
    if (settings.windowScaling && segment.windowScale >= 0) {
      this.#scaling = true
      this.#sender.peerWindow.scale = Math.min(MOST_WINDOW_SCALE, segment.windowScale)
      this.#receiver.scale = windowScaleFor(settings.receiveBufferBytes)
    }
    if (this.#writer.timestamps) {
      this.#timestampRecent = segment.timestamp
      this.#timestampRecentAt = now
    }
    this.#setMss()
    this.#sender.peerWindow.set(segment.window, segment.sequence, this.#iss)
  }

  #setMss(): void {
    const mss = Math.min(this.#peerMss, this.#maxMss)
    this.#sender.setMss(mss - (this.#writer.overhead - this.#writer.headerBytes))
  }

  #sendSyn(now: number): void {
    this.#synBegan = now
    this.#synTries = 0
    this.#synDue = true
    this.#synAt = NEVER
    this.#sender.una = this.#iss
    this.#sender.next = (this.#iss + 1) | 0
    this.#host.wantsOutput(this)
  }

  #establish(now: number): void {
    this.#synAt = NEVER
    this.#synDue = false
    this.#sender.start((this.#iss + 1) | 0, now)
    this.#sender.rtt.resetBackoff()
    this.#state = 'established'
    this.#host.leftHalfOpen(this)
    this.#host.notify(this, Notice.connected)
    if (this.#sender.isEnding) this.#state = 'fin-wait-1'
    this.#armKeepAlive()
    this.#host.wantsOutput(this)
  }

  // --- what comes in

  /** A segment of this flow whose checksum is right. `bytes` is what the header's offsets are into. */
  handleSegment(segment: TcpHeader, bytes: Uint8Array, now: number): void {
    if (this.#state === 'asked') this.#handleAsked(segment, now)
    else if (this.#state === 'syn-sent') this.#handleSynSent(segment, now)
    else if (this.#state !== 'closed') this.#handleSynchronized(segment, bytes, now)
    this.#host.touch(this)
  }

  #handleAsked(segment: TcpHeader, now: number): void {
    // The one who asked may think better of it (RFC 5961 §3.2: exactly at RCV.NXT).
    if ((segment.flags & TcpFlag.rst) !== 0 && segment.sequence === this.#receiver.next) this.#close('reset', now)
  }

  /** RFC 9293 §3.10.7.3 */
  #handleSynSent(segment: TcpHeader, now: number): void {
    const { flags, acknowledgment: ack } = segment
    const hasAck = (flags & TcpFlag.ack) !== 0
    if (hasAck && ack !== ((this.#iss + 1) | 0)) {
      if ((flags & TcpFlag.rst) === 0) this.#host.reset(this, ack, null)
      return
    }
    if ((flags & TcpFlag.rst) !== 0) {
      if (hasAck) this.#close('refused', now)
      return
    }
    if ((flags & TcpFlag.syn) === 0) return
    this.#lastHeard = now
    this.#takeSyn(segment, now)
    if (!hasAck) {
      // Simultaneous open (§3.5, figure 8).
      this.#state = 'syn-received'
      this.#sendSyn(now)
      return
    }
    if (this.#synTries === 1) this.#sender.rtt.sample(now - this.#synBegan)
    else this.#sender.rtt.syntheticStart()
    this.#sender.peerWindow.set(segment.window, segment.sequence, ack)
    this.#acksDue = 1
    this.#establish(now)
  }

  /** RFC 9293 §3.10.7.4 with RFC 5961 and RFC 7323 §5.3. */
  #handleSynchronized(segment: TcpHeader, bytes: Uint8Array, now: number): void {
    const { flags } = segment
    const isReset = (flags & TcpFlag.rst) !== 0
    if (this.#writer.timestamps && !isReset) {
      if (!segment.hasTimestamps) return
      if (before(segment.timestamp, this.#timestampRecent) && now - this.#timestampRecentAt < TIMESTAMP_STALE_MS) {
        this.#acknowledgeUnacceptable(segment, now)
        return
      }
    }
    if (!this.#isAcceptable(segment)) {
      if (isReset) return
      if (this.#isTheirSynAck(segment)) {
        // Simultaneous open (§3.5, figure 8): their SYN again, with the ACK of ours.
        if (this.#takeAck(segment, now)) this.#acksDue = 1
        return
      }
      if (this.#state === 'syn-received' && (flags & TcpFlag.syn) !== 0 && segment.sequence === this.#irs) {
        this.#synDue = true
        this.#host.wantsOutput(this)
      } else this.#acknowledgeUnacceptable(segment, now)
      return
    }
    if (isReset) {
      // RFC 5961 §3.2
      if (segment.sequence === this.#receiver.next) this.#close('reset', now)
      else this.#challenge(now)
      return
    }
    if ((flags & TcpFlag.syn) !== 0) {
      // RFC 5961 §4.2
      this.#challenge(now)
      return
    }
    if ((flags & TcpFlag.ack) === 0 || !this.#takeAck(segment, now)) return
    this.#lastHeard = now
    this.#keepAlivesSent = 0
    this.#armKeepAlive()
    if (this.#writer.timestamps && !after(segment.sequence, this.#lastAckSent)) {
      // RFC 7323 §4.3
      this.#timestampRecent = segment.timestamp
      this.#timestampRecentAt = now
    }
    this.#takeText(segment, bytes, now)
    if (this.#state !== 'closed') this.#host.wantsOutput(this)
  }

  #isTheirSynAck({ flags, sequence, acknowledgment }: TcpHeader): boolean {
    const both = TcpFlag.syn | TcpFlag.ack
    return this.#state === 'syn-received' && (flags & both) === both && sequence === this.#irs && acknowledgment === ((this.#iss + 1) | 0)
  }

  #isAcceptable(segment: TcpHeader): boolean {
    const length = segment.payloadBytes + ((segment.flags & TcpFlag.syn) !== 0 ? 1 : 0) + ((segment.flags & TcpFlag.fin) !== 0 ? 1 : 0)
    const { next, window } = this.#receiver
    const offset = distance(next, segment.sequence)
    // Also at the very edge, one further than §3.10.7.4 has it: a peer that filled the window and lost a segment sends its ACKs from there.
    if (length === 0) return offset >= 0 && offset <= window
    // A zero window takes no data, but what else the segment says is heard (§3.10.7.4: "special allowance").
    if (window === 0) return offset === 0
    const last = offset + length - 1
    return (offset >= 0 && offset < window) || (last >= 0 && last < window)
  }

  /** What lies outside of the window is answered with an ACK; an empty one not without end, or two who disagree would never stop. */
  #acknowledgeUnacceptable(segment: TcpHeader, now: number): void {
    if (segment.payloadBytes === 0) {
      this.#challenge(now)
      return
    }
    const end = (segment.sequence + segment.payloadBytes) | 0
    if (!after(end, this.#receiver.next)) this.#receiver.ranges.noteDuplicate(segment.sequence, end)
    this.#acksDue = Math.max(1, this.#acksDue)
    this.#host.wantsOutput(this)
  }

  #challenge(now: number): void {
    if (now - this.#challengesFrom > CHALLENGE_PERIOD_MS) {
      this.#challengesFrom = now
      this.#challenges = 0
    }
    if (this.#challenges++ >= this.#host.settings.challengeAcks) return
    this.#acksDue = Math.max(1, this.#acksDue)
    this.#host.wantsOutput(this)
  }

  /** False: the segment is not to be looked at further. */
  #takeAck(segment: TcpHeader, now: number): boolean {
    const sender = this.#sender
    const ack = segment.acknowledgment
    if (this.#state === 'syn-received') {
      if (ack !== ((this.#iss + 1) | 0)) {
        this.#host.reset(this, ack, null)
        return false
      }
      if (this.#synTries === 1) sender.rtt.sample(now - this.#synBegan)
      sender.peerWindow.set(segment.window << sender.peerWindow.scale, segment.sequence, ack)
      this.#establish(now)
    }
    // RFC 5961 §5.2
    if (after(ack, sender.next) || before(ack, (sender.una - sender.peerWindow.most) | 0)) {
      this.#challenge(now)
      return false
    }
    sender.onSignOfLife(now)
    if (before(ack, sender.una)) return true
    const data = segment.payloadBytes > 0 || (segment.flags & TcpFlag.fin) !== 0
    sender.handleAck(segment, data, now)
    if (this.#wantsDrain && sender.writable >= this.#host.settings.sendBufferBytes / 2) {
      this.#wantsDrain = false
      this.#host.notify(this, Notice.drained)
    }
    if (sender.finAcked) this.#finAcked(now)
    return this.#state !== 'closed'
  }

  #finAcked(now: number): void {
    switch (this.#state) {
      case 'fin-wait-1':
        this.#state = 'fin-wait-2'
        if (this.#released) this.#finWaitAt = now + this.#host.settings.finWaitMs
        break
      case 'closing':
        this.#close('done', now, true)
        break
      case 'last-ack':
        this.#close('done', now)
        break
    }
  }

  #takeText(segment: TcpHeader, bytes: Uint8Array, now: number): void {
    if (this.#state !== 'established' && this.#state !== 'fin-wait-1' && this.#state !== 'fin-wait-2') {
      if (segment.payloadBytes > 0) this.#acksDue = Math.max(1, this.#acksDue)
      return
    }
    const receiver = this.#receiver
    const length = segment.payloadBytes
    // The urgent pointer is not looked at: its data are data (RFC 6093 §6).
    if ((segment.flags & TcpFlag.fin) !== 0) receiver.noteFin((segment.sequence + length) | 0)
    if (length > 0) {
      if (length > this.#peerSegment) this.#peerSegment = Math.min(length, this.#maxMss)
      if (this.#released && after((segment.sequence + length) | 0, receiver.next)) {
        // RFC 9293 §3.6.1: nobody is there to take it.
        this.#host.reset(this, this.#sender.next, receiver.next)
        this.#close('aborted', now)
        return
      }
      const hadGaps = !receiver.ranges.isEmpty
      const how = receiver.take(segment.sequence, bytes, segment.payloadStart, segment.end)
      if (how === 'next') {
        this.#host.notify(this, Notice.readable)
        this.#unackedBytes += length
        // RFC 5681 §4.2
        if (hadGaps || this.#unackedBytes >= 2 * this.#peerSegment) this.#acksDue = Math.max(1, this.#acksDue)
        else if (this.#ackAt === NEVER) this.#ackAt = now + this.#host.settings.delayedAckMs
      } else if (how === 'gap' && !this.#writer.sack) this.#acksDue = Math.min(MOST_DUPLICATE_ACKS, this.#acksDue + 1)
      else this.#acksDue = Math.max(1, this.#acksDue)
    }
    if ((segment.flags & TcpFlag.fin) !== 0) this.#acksDue = Math.max(1, this.#acksDue)
    if (receiver.reachFin()) this.#finReceived(now)
  }

  #finReceived(now: number): void {
    this.#acksDue = Math.max(1, this.#acksDue)
    this.#host.notify(this, Notice.remoteEnd)
    switch (this.#state) {
      case 'established':
        this.#state = 'close-wait'
        break
      case 'fin-wait-1':
        this.#state = 'closing'
        break
      case 'fin-wait-2':
        this.#close('done', now, true)
        break
    }
  }

  /** A router or the host says that packets of this flow do not arrive; `sequence` is of the packet it quotes. */
  handleIcmp(kind: 'soft' | 'hard', sequence: number, now: number): void {
    if (this.#state === 'syn-sent') {
      if (sequence !== this.#iss) return
      // RFC 5461 §4: while connecting, a hard error ends the attempt. A soft one is the reason given in the end.
      if (kind === 'hard') this.#close('unreachable', now)
      else this.#softError = true
      return
    }
    // RFC 5927 §5 and RFC 9293 §3.9.2.2 (MUST-56): a connection that stands is not ended by what anybody can send.
  }

  /** Whether a sequence number quoted by ICMP is in flight (RFC 5927 §4.1). */
  isInFlight(sequence: number): boolean {
    return !before(sequence, this.#sender.una) && before(sequence, this.#sender.next)
  }

  /** The path takes packets of `mtu` bytes at most. */
  setPathMtu(mtu: number): void {
    const mss = Math.max(mtu, SMALLEST_PATH_MTU[this.local.address.family]) - this.#writer.headerBytes
    if (mss >= this.#maxMss) return
    this.#maxMss = mss
    this.#sender.shrinkMss(Math.min(this.#peerMss, mss) - (this.#writer.overhead - this.#writer.headerBytes))
    this.#host.wantsOutput(this)
  }

  // --- time

  get deadline(): number {
    if (this.#state === 'closed') return NEVER
    return Math.min(this.#sender.deadline, this.#ackAt, this.#synAt, this.#keepAliveAt, this.#finWaitAt)
  }

  onTimer(now: number): void {
    if (this.#synAt <= now && !this.#onSynTimer(now)) return
    if (this.#finWaitAt <= now) {
      this.#close('timeout', now)
      return
    }
    if (this.#ackAt <= now) {
      this.#ackAt = NEVER
      this.#acksDue = Math.max(1, this.#acksDue)
    }
    if (this.#keepAliveAt <= now && !this.#onKeepAlive(now)) return
    if (this.#sender.deadline <= now) {
      if (!this.#sender.onTimer(now)) {
        this.#host.reset(this, this.#sender.next, this.#receiver.next)
        this.#close('timeout', now)
        return
      }
      // Packets of full size vanish and nothing says why: a black hole for large packets (RFC 4821 §7.7, RFC 2923 §2.1).
      if (this.#sender.fullSizeTimeouts >= BLACK_HOLE_TIMEOUTS) this.#narrowPath()
    }
    this.#host.wantsOutput(this)
  }

  #narrowPath(): void {
    this.#sender.fullSizeTimeouts = 0
    const mtu = this.#maxMss + this.#writer.headerBytes
    this.setPathMtu(mtu > 1280 ? 1280 : SMALLEST_PATH_MTU[this.local.address.family])
  }

  #onSynTimer(now: number): boolean {
    if (this.#state === 'asked' || now - this.#synBegan >= this.#host.settings.connectTimeoutMs) {
      this.#close(this.#softError ? 'unreachable' : 'timeout', now)
      return false
    }
    this.#sender.rtt.backOff()
    this.#synDue = true
    this.#synAt = NEVER
    return true
  }

  #onKeepAlive(now: number): boolean {
    if (this.#keepAlivesSent >= this.#host.settings.keepAliveProbes) {
      this.#host.reset(this, this.#sender.next, this.#receiver.next)
      this.#close('timeout', now)
      return false
    }
    this.#keepAlivesSent++
    this.#keepAliveDue = true
    this.#keepAliveAt = now + this.#host.settings.keepAliveIntervalMs
    return true
  }

  #armKeepAlive(): void {
    this.#keepAliveAt = this.#keepAliveMs > 0 ? this.#lastHeard + this.#keepAliveMs : NEVER
  }

  // --- what goes out

  timestampAt(time: number): number {
    return (Math.floor(time) + this.#timestampOffset) | 0
  }

  /** Appends what may be sent now. True: there is more to send, or the batch had no room. */
  emit(batch: PacketBatch, now: number): boolean {
    if (this.#state === 'closed' || this.#state === 'asked') return false
    if (this.#synDue && !this.#emitSyn(batch, now)) return true
    if (this.#state === 'syn-sent' || this.#state === 'syn-received') {
      this.#host.touch(this)
      return false
    }
    const sender = this.#sender
    let more = false
    for (let sent = 0; ; sent++) {
      const plan = sender.plan(sender.mss - this.#writer.sackBytes(this.#receiver.ranges), now)
      if (plan === null) break
      if (sent === TURN_SEGMENTS || !this.#write(batch, plan.sequence, plan.push, plan.fin, plan, now)) {
        more = true
        break
      }
      sender.sent(plan, now)
      if (plan.kind === 'retransmission') this.#host.countRetransmission()
    }
    if (this.#keepAliveDue) {
      if (!this.#write(batch, (sender.una - 1) | 0, false, false, null, now)) return true
      this.#keepAliveDue = false
    }
    while (this.#acksDue > 0) {
      const due = this.#acksDue
      if (!this.#write(batch, sender.next, false, false, null, now)) return true
      this.#acksDue = due - 1
    }
    this.#host.touch(this)
    return more
  }

  #emitSyn(batch: PacketBatch, now: number): boolean {
    const { settings } = this.#host
    const answer = this.#state === 'syn-received'
    const written = writeSyn(batch, {
      local: this.local,
      remote: this.remote,
      sequence: this.#iss,
      acknowledgment: answer ? this.#receiver.next : null,
      window: Math.min(0xffff, settings.receiveBufferBytes),
      mss: this.#maxMss,
      windowScale: (answer ? this.#scaling : settings.windowScaling) ? windowScaleFor(settings.receiveBufferBytes) : null,
      sack: answer ? this.#writer.sack : settings.sack,
      timestamp: (answer ? this.#writer.timestamps : settings.timestamps) ? this.timestampAt(now) : null,
      timestampEcho: this.#timestampRecent,
    })
    if (!written) return false
    this.#synDue = false
    this.#synTries++
    this.#synAt = Math.min(now + this.#sender.rtt.timeout, this.#synBegan + settings.connectTimeoutMs)
    return true
  }

  #write(
    batch: PacketBatch,
    sequence: number,
    push: boolean,
    fin: boolean,
    plan: Parameters<SegmentWriter['write']>[9],
    now: number,
  ): boolean {
    const receiver = this.#receiver
    const flags = TcpFlag.ack | (push && plan !== null && plan.length > 0 ? TcpFlag.psh : 0) | (fin ? TcpFlag.fin : 0)
    const written = this.#writer.write(
      batch,
      sequence,
      receiver.next,
      flags,
      receiver.advertise(this.#peerSegment),
      this.timestampAt(now),
      this.#timestampRecent,
      receiver.ranges,
      this.#sender,
      plan,
    )
    if (!written) return false
    this.#lastAckSent = receiver.next
    this.#acksDue = 0
    this.#unackedBytes = 0
    this.#ackAt = NEVER
    return true
  }

  // --- the end

  /** Since when the peer has taken nothing of what waits for it; infinity: nothing waits. */
  get stalledAt(): number {
    return this.#state === 'closed' ? NEVER : this.#sender.stalledAt
  }

  /** Memory is short: the little that came behind a large gap is thrown away, the peer will send it again (RFC 2018 §8). Returns the bytes that were freed. */
  prune(): number {
    return this.#receiver.prune()
  }

  /** The stack gives way under load, or is stopped. */
  drop(reason: CloseReason, now: number): void {
    if (this.#state === 'closed') return
    // One of a flood of SYNs goes silently: the RST would go to somebody who asked for nothing.
    const isSilent = this.#state === 'asked' || this.#state === 'syn-sent' || (reason === 'overloaded' && this.#state === 'syn-received')
    if (!isSilent) this.#host.reset(this, this.#sender.next, this.#receiver.next)
    this.#close(reason, now)
  }

  /** The peer's initial sequence number. */
  get initialReceived(): number {
    return this.#irs
  }

  /** What TIME-WAIT answers with. */
  get finalNumbers(): {
    readonly next: number
    readonly received: number
    readonly timestampRecent: number
    readonly timestampOffset: number | null
  } {
    return {
      next: this.#sender.next,
      received: this.#receiver.next,
      timestampRecent: this.#timestampRecent,
      timestampOffset: this.#writer.timestamps ? this.#timestampOffset : null,
    }
  }

  #close(reason: CloseReason, now: number, timeWait = false): void {
    this.#state = 'closed'
    this.#reason = reason
    this.#sender.release()
    if (reason !== 'done') this.#receiver.discard()
    this.#host.leftHalfOpen(this)
    this.#host.detach(this, timeWait, now)
    // Data that came in order before the end can still be read; the end is told after it.
    if (this.#receiver.readable === 0) this.#host.notify(this, Notice.closed)
  }
}

/** The shift that lets 16 bits say the buffer's size (RFC 7323 §2.3). */
function windowScaleFor(bytes: number): number {
  let scale = 0
  while (scale < MOST_WINDOW_SCALE && 0xffff << scale < bytes) scale++
  return scale
}
