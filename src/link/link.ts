import { MalformedError, type NodeId } from '../base/index.ts'
import { CELL_BYTES, type CellBatch, type ChannelEnd } from '../onion/index.ts'
import type { BatchPool } from './batch-pool.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { LinkLimits } from './config.ts'
import { encodeMove, FrameDecoder, type FrameSink, FrameType, GoAwayReason, MAX_FRAME_CELLS, ResetReason } from './frames.ts'
import { LinkOutput, type Wire } from './link-output.ts'
import { SignsOfLife } from './signs-of-life.ts'
import { type ChannelLink, TlsChannel } from './tls-channel.ts'
import type { Turns, TurnTask } from './turns.ts'
import type { Asking } from './way.ts'

/** How a link came about: by our dial, by the peer's, or by both punching at the same time. */
export type LinkOrigin = 'dialed' | 'accepted' | 'punched'

export interface LinkOptions {
  readonly peer: NodeId
  /** Text, for admission and status only. */
  readonly remoteAddress: string
  readonly origin: LinkOrigin
  /** Whether this side opens odd ids: the side that was TLS client. */
  readonly isDialer: boolean
  readonly limits: LinkLimits
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly pool: BatchPool
  /** Monotonic ms. */
  readonly now: () => number
  readonly wire: Wire
  /** A channel that the peer opened; false refuses it. */
  readonly accept: (channel: TlsChannel) => boolean
  /** A channel that the peer wants another one to move to: what is to be done once it has been told yes, or null to refuse. */
  readonly acceptMove: (channel: TlsChannel, token: Uint8Array) => (() => void) | null
  /** Called once when the link is over. */
  readonly ended: (link: Link, why: string) => void
}

/** Cell bytes of all channels that may wait in the socket; the rest waits in the channels' own queues, where it is dealt with in turn. */
const SOCKET_BUDGET_BYTES = 256 * 1024
/** What a channel may write before the next one's turn: about one TLS record. */
const TURN_CELLS = 10
/** Answers (PONG, RESET) that may wait for a peer that does not read. */
const MAX_CONTROL_BYTES = 64 * 1024
/** Ids end here; a link that has used them all up takes no more channels. */
const MAX_CHANNEL_ID = 0xffff_fff0
/** Assumed until the first PONG. */
const UNKNOWN_RTT_MS = 50
/** What the system took so late had waited for the peer's system to acknowledge something: that is there. */
const LATE_WRITE_MS = 250

/**
 * A direct link: one connection to a peer of proven identity, shared by all channels with it in both directions. docs/spec/link.md
 */
export class Link implements ChannelLink, FrameSink, TurnTask {
  readonly peer: NodeId
  readonly remoteAddress: string
  readonly origin: LinkOrigin
  readonly isDialer: boolean
  readonly meter: ByteMeter
  readonly turns: Turns
  readonly pool: BatchPool
  readonly maxWindowCells: number
  readonly openedAt: number
  bytesIn = 0
  bytesOut = 0
  /** The least round trip seen, ms. */
  minRttMs = UNKNOWN_RTT_MS
  /** When the last channel ended (monotonic ms). */
  usedAt: number
  readonly #options: LinkOptions
  readonly #limits: LinkLimits
  readonly #decoder: FrameDecoder
  readonly #channels: Set<TlsChannel> = new Set()
  readonly #byId: Map<number, TlsChannel> = new Map()
  #nextId: number
  #highestPeerId = 0
  #ended = false
  // receiving
  #current: TlsChannel | null = null
  readonly #touched: Set<TlsChannel> = new Set()
  readonly #life: SignsOfLife
  #pingNonce = 0
  // sending
  readonly #output: LinkOutput
  readonly #line: Set<TlsChannel> = new Set()
  readonly #maybeDrained: Set<TlsChannel> = new Set()
  #goAwaySentAt: number | null = null
  #goAwayReceived = false

  constructor(options: LinkOptions) {
    this.#options = options
    this.#limits = options.limits
    this.peer = options.peer
    this.remoteAddress = options.remoteAddress
    this.origin = options.origin
    this.isDialer = options.isDialer
    this.meter = options.meter
    this.turns = options.turns
    this.pool = options.pool
    this.maxWindowCells = Math.floor(options.limits.maxWindowBytes / CELL_BYTES)
    this.#nextId = options.isDialer ? 1 : 2
    this.#decoder = new FrameDecoder(this)
    this.#output = new LinkOutput(options.wire, options.meter, options.pool, options.now, () => options.turns.output(this))
    this.openedAt = options.now()
    this.usedAt = this.openedAt
    this.#life = new SignsOfLife(options.limits, this.openedAt)
    this.#ping()
  }

  now(): number {
    return this.#options.now()
  }

  get channels(): number {
    return this.#channels.size
  }

  /** When something last came in (monotonic ms). */
  get heardAt(): number {
    return this.#life.heardAt
  }

  /** The last round trip measured, or null. */
  get rttMs(): number | null {
    return this.#life.rttMs
  }

  /** Whether it may well be dead: an answer is overdue. Better nothing new is begun on it. */
  get isDoubtful(): boolean {
    return this.#life.isDoubtful(this.now())
  }

  get isEnded(): boolean {
    return this.#ended
  }

  /** Whether a new channel may be opened on it. */
  get isUsable(): boolean {
    return (
      !this.#ended &&
      this.#goAwaySentAt === null &&
      !this.#goAwayReceived &&
      this.#channels.size < this.#limits.maxChannelsPerLink &&
      this.#nextId < MAX_CHANNEL_ID
    )
  }

  /** A fresh channel; the peer learns of it by its first cells. Only while `isUsable`. */
  open(): TlsChannel {
    const channel = new TlsChannel(this, 0)
    this.#channels.add(channel)
    return channel
  }

  /** A fresh channel for another one to move to, and the question to the peer whether it does. Only while `isUsable`. @param token borrowed */
  openForMove(token: Uint8Array, asking: Asking): TlsChannel {
    const channel = new TlsChannel(this, 0, asking)
    this.#channels.add(channel)
    this.#name(channel)
    this.#output.frame(encodeMove(channel.id, token))
    return channel
  }

  /** Wants no more channels; the link closes when both sides have said so and the last channel has ended. */
  goAway(reason: number): void {
    if (this.#ended || this.#goAwaySentAt !== null) return
    this.#goAwaySentAt = this.now()
    this.#control(FrameType.goAway, reason, 0)
    this.#closeWhenDone()
  }

  /** Ends the link at once: every channel ends as a reset. The peer is told, if it reads. */
  stop(why = 'stopped'): void {
    if (this.#ended) return
    if (this.#goAwaySentAt === null) this.#control(FrameType.goAway, GoAwayReason.stopping, 0)
    for (const channel of [...this.#channels]) channel.abort()
    this.#flush()
    this.#finish('reset', why, true)
  }

  // ---- the connection's events

  /** Bytes that came in; borrowed for the call. What they bring is delivered once a turn, all together. */
  received(chunk: Uint8Array): void {
    if (this.#ended) return
    this.bytesIn += chunk.length
    this.#life.heard(this.now())
    try {
      this.#decoder.push(chunk)
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      this.#violation(error.message)
    }
  }

  /** The system has taken what was written longest ago. */
  written(): void {
    const since = this.#output.waitingSince
    if (since !== null && this.now() - since > LATE_WRITE_MS) this.#life.excuse(this.now())
    this.#output.written()
    if (this.#line.size > 0) this.turns.output(this)
  }

  /** The connection is over. */
  closed(why: string): void {
    if (this.#ended) return
    this.runInput()
    if (this.#ended) return
    // Whose cell was cut short did not end as it should.
    if (this.#decoder.isWithinFrame) this.#current?.linkEnded('violation')
    this.#finish('reset', why, false)
  }

  /** There is a reason to think that the peer is gone: it is asked now, and given `suspectTimeoutMs`. */
  suspect(): void {
    if (this.#ended) return
    this.#life.suspect(this.now())
    this.attend(this.now(), false)
  }

  /** Looks whether the peer is still there; called a few times a second. @param isLate this node has stood still: what came meanwhile is not read yet */
  attend(now: number, isLate: boolean): void {
    if (this.#ended) return
    if (isLate) this.#life.excuse(now)
    const step = this.#life.step(now)
    if (step === 'ask') this.#ping()
    else if (step === 'gone') this.#finish('reset', 'no sign of life', false)
  }

  /** Looks after the other time-outs; called about once a second. */
  sweep(now: number): void {
    if (this.#ended) return
    const { pingTimeoutMs, writeStallMs, closeTimeoutMs } = this.#limits
    let why: string | null = null
    if (now - (this.#output.waitingSince ?? now) > writeStallMs) why = 'the peer takes nothing in'
    if (this.#goAwaySentAt !== null && this.#channels.size === 0 && now - this.#goAwaySentAt > pingTimeoutMs) why = 'closed'
    if (why !== null) {
      this.#finish('reset', why, false)
      return
    }
    for (const channel of this.#channels) {
      const since = channel.closingSince
      if (since !== null && now - since > closeTimeoutMs) channel.reset('reset', ResetReason.timeout)
    }
  }

  // ---- once a turn

  runInput(): void {
    for (const channel of this.#touched) {
      this.#touched.delete(channel)
      channel.assemble()
    }
  }

  runOutput(): void {
    if (this.#ended) return
    this.#pump()
    this.#flush()
    if (this.#maybeDrained.size === 0) return
    for (const channel of this.#maybeDrained) {
      this.#maybeDrained.delete(channel)
      channel.callDrained()
    }
    this.#flush()
  }

  // ---- frames (FrameSink)

  cellsFrame(id: number, count: number): void {
    const channel = this.#byId.get(id) ?? this.#opened(id)
    this.#current = channel?.receiveFrame(count) === true ? channel : null
  }

  cellBytes(chunk: Uint8Array, from: number, to: number): void {
    const channel = this.#current
    if (channel === null) return
    channel.receiveBytes(chunk, from, to)
    if (this.#touched.has(channel)) return
    this.#touched.add(channel)
    this.turns.input(this)
  }

  cellsDone(): void {
    this.#current = null
  }

  window(id: number, cells: number): void {
    const channel = this.#byId.get(id)
    if (channel !== undefined) channel.receiveWindow(cells)
    else this.#mustBeKnown(id)
  }

  fin(id: number): void {
    const channel = this.#byId.get(id)
    if (channel !== undefined) channel.receiveFin()
    else this.#mustBeKnown(id)
  }

  reset(id: number): void {
    const channel = this.#byId.get(id)
    if (channel !== undefined) channel.receiveReset()
    else this.#mustBeKnown(id)
  }

  ping(nonce: number): void {
    if (this.#output.controlBytes > MAX_CONTROL_BYTES) throw new MalformedError('link', 'more questions than are answered')
    this.#control(FrameType.pong, 0, nonce)
  }

  pong(nonce: number): void {
    if (!this.#life.isAsked || nonce !== this.#pingNonce) return
    const isFirst = this.rttMs === null
    const rtt = this.#life.answered()
    this.minRttMs = isFirst ? rtt : Math.min(this.minRttMs, rtt)
  }

  move(id: number, token: Uint8Array): void {
    if (!this.#isNew(id)) throw new MalformedError('link', 'MOVE of a channel that was opened before')
    const channel = this.#taken(id)
    if (channel === null) return
    const begin = this.#options.acceptMove(channel, token)
    if (begin === null) {
      channel.reset('reset', ResetReason.refused)
      return
    }
    this.#control(FrameType.moved, 0, id)
    begin()
  }

  moved(id: number): void {
    const channel = this.#byId.get(id)
    if (channel === undefined) this.#mustBeKnown(id)
    else if (!channel.receiveMoved()) throw new MalformedError('link', 'MOVED without MOVE')
  }

  goAwayFrame(): void {
    this.#goAwayReceived = true
    this.goAway(GoAwayReason.idle)
    this.#closeWhenDone()
  }

  // ---- what channels want (ChannelLink)

  mayWrite(): boolean {
    return this.#line.size === 0 && this.#output.cellBytes < SOCKET_BUDGET_BYTES
  }

  writeCells(channel: TlsChannel, batch: CellBatch, finished: CellBatch | null): void {
    if (channel.id === 0) this.#name(channel)
    this.#life.sent(this.now())
    this.#output.cells(channel, batch, finished)
  }

  enqueue(channel: TlsChannel): void {
    this.#line.add(channel)
    this.turns.output(this)
  }

  sendWindow(channel: TlsChannel, cells: number): void {
    for (let left = cells; left > 0; left -= 0xffff) this.#control(FrameType.window, Math.min(left, 0xffff), channel.id)
  }

  sendFin(channel: TlsChannel): void {
    // The peer has never heard of a channel without an id.
    if (channel.id !== 0) this.#control(FrameType.fin, 0, channel.id)
  }

  sendReset(channel: TlsChannel, reason: number): void {
    if (channel.id !== 0) this.#control(FrameType.reset, reason, channel.id)
  }

  remove(channel: TlsChannel): void {
    this.#channels.delete(channel)
    this.#line.delete(channel)
    this.#touched.delete(channel)
    this.#maybeDrained.delete(channel)
    if (channel.id !== 0) this.#byId.delete(channel.id)
    if (this.#current === channel) this.#current = null
    this.usedAt = this.now()
    this.#closeWhenDone()
  }

  inFlightSince(channel: TlsChannel): number | null {
    return this.#output.sinceOf(channel)
  }

  // ----

  /** A channel that the peer opens by its first cells; null when it is refused or has ended already. */
  #opened(id: number): TlsChannel | null {
    const channel = this.#isNew(id) ? this.#taken(id) : null
    if (channel === null || this.#options.accept(channel)) return channel
    channel.reset('reset', ResetReason.refused)
    return null
  }

  /** A channel of an id that the peer opens now; null when the link takes no more. */
  #taken(id: number): TlsChannel | null {
    if (this.#ended) return null
    this.#highestPeerId = id
    if (this.#goAwayReceived) return this.#refuse(id, ResetReason.refused)
    if (this.#channels.size >= this.#limits.maxChannelsPerLink) return this.#refuse(id, ResetReason.limit)
    const channel = new TlsChannel(this, id)
    this.#channels.add(channel)
    this.#byId.set(id, channel)
    return channel
  }

  #refuse(id: number, reason: number): null {
    if (this.#output.controlBytes > MAX_CONTROL_BYTES) throw new MalformedError('link', 'more channels opened than are refused')
    this.#control(FrameType.reset, reason, id)
    return null
  }

  /** Whether the id is the peer's to open now. @throws MalformedError when it is nobody's */
  #isNew(id: number): boolean {
    const isOurs = (id & 1) === (this.isDialer ? 1 : 0)
    if (isOurs) {
      if (id >= this.#nextId) throw new MalformedError('link', 'a frame of a channel that was never opened')
      return false
    }
    return id > this.#highestPeerId
  }

  /** Refuses frames of a channel that was never opened; those of one that has ended are skipped. */
  #mustBeKnown(id: number): void {
    if (this.#isNew(id)) throw new MalformedError('link', 'a frame of a channel that was never opened')
  }

  #name(channel: TlsChannel): void {
    channel.id = this.#nextId
    this.#nextId += 2
    this.#byId.set(channel.id, channel)
  }

  #control(type: number, count: number, channel: number): void {
    if (this.#ended) return
    this.#output.control(type, count, channel)
  }

  /** Moves cells from the channels' queues to the socket, each channel in turn, as far as the socket's budget goes. */
  #pump(): void {
    while (this.#line.size > 0 && this.#output.cellBytes < SOCKET_BUDGET_BYTES) {
      const channel = this.#line.values().next().value!
      this.#line.delete(channel)
      channel.writeSome(this.#line.size === 0 ? MAX_FRAME_CELLS : TURN_CELLS)
      if (channel.canWrite) this.#line.add(channel)
      if (channel.isDrained) this.#maybeDrained.add(channel)
    }
  }

  #flush(): void {
    if (!this.#ended) this.bytesOut += this.#output.flush()
  }

  #ping(): void {
    this.#life.asked(this.now())
    this.#pingNonce = (this.#pingNonce + 1) >>> 0
    this.#control(FrameType.ping, 0, this.#pingNonce)
  }

  #closeWhenDone(): void {
    if (this.#ended || this.#goAwaySentAt === null || !this.#goAwayReceived || this.#channels.size > 0) return
    this.#flush()
    this.#finish('reset', 'closed', true)
  }

  #violation(problem: string): void {
    this.#control(FrameType.goAway, GoAwayReason.violation, 0)
    this.#flush()
    this.#finish('violation', `the peer broke the protocol: ${problem}`, true)
  }

  #finish(how: ChannelEnd, why: string, isOrderly: boolean): void {
    if (this.#ended) return
    this.#ended = true
    this.#output.drop()
    if (isOrderly) this.#options.wire.end()
    else this.#options.wire.destroy()
    for (const channel of [...this.#channels]) channel.linkEnded(how)
    this.#line.clear()
    this.#options.ended(this, why)
  }
}
