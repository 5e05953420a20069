import { messageOf, type Random } from '../../base/index.ts'
import { type PacketLease, StreamError } from '../../client/index.ts'
import {
  ICMP_HEADER_BYTES,
  type IcmpErrorKind,
  IcmpHeader,
  IpHeader,
  PacketBatch,
  Protocol,
  transportChecksumHolds,
} from '../../packet/index.ts'
import { isHonestSource } from './device-addresses.ts'
import type { Junction } from './junction.ts'
import type { Refusals } from './refusals.ts'
import { readQuote, replaceAddress, replaceQuoted, takeHop } from './rewrite.ts'
import { SentFlows } from './sent-flows.ts'

/** Packets that wait while a lease is being opened; more are dropped. */
const WAITING_PACKETS = 32
/** Packets sent to the lease at a time. */
const BATCH_PACKETS = 64
/** After a failure packets are refused for so long before it is tried again. */
const RETRY_MS = 5000

/** What became of packets, by name: for people. */
export interface LeaseCounts {
  /** Came from the exit and answered nothing that was sent, or were not well formed. */
  unasked: number
  /** Found no room on the circuit. */
  overflow: number
  /** Refused or dropped because no exit serves them now. */
  refused: number
  opened: number
}

export interface LeaseUserModules {
  /** @throws StreamError */
  readonly open: (signal: AbortSignal) => Promise<PacketLease>
  readonly junction: Junction
  readonly refusals: Refusals
  readonly random: Random
  readonly now: () => number
  readonly counts: LeaseCounts
  /** Of failures, without addresses. */
  readonly failed: (reason: string) => void
}

type State =
  | { readonly is: 'idle' }
  | { readonly is: 'opening'; readonly abort: AbortController }
  | { readonly is: 'open'; readonly lease: PacketLease; readonly sent: SentFlows }
  | { readonly is: 'refused'; readonly kind: IcmpErrorKind; readonly until: number }

/**
 * Raw packets of one local origin, through a lease at an exit that is opened with the first packet, and again after it was lost:
 *
 *     idle ── packet ── opening ── open ── lost, or idle for long ── idle
 *                          └── failed ── refused ── after a while ── idle
 *
 * Addresses are exchanged on the way, this machine's for the leased ones and back; only answers to what was sent come back.
 */
export class PacketLeaseUser {
  readonly #m: LeaseUserModules
  #state: State = { is: 'idle' }
  /** The local addresses: whatever was sent from last. */
  #local4: Uint8Array | null = null
  #local6: Uint8Array | null = null
  #usedAt: number
  #waiting: PacketBatch | null = null
  #batch: PacketBatch | null = null
  readonly #ip = new IpHeader()
  readonly #inner = new IpHeader()
  readonly #icmp = new IcmpHeader()

  constructor(modules: LeaseUserModules) {
    this.#m = modules
    this.#usedAt = modules.now()
  }

  get isOpen(): boolean {
    return this.#state.is === 'open'
  }

  get usedAt(): number {
    return this.#usedAt
  }

  /** A packet of the machine (borrowed), whose header is `ip`. What is sent leaves with `flush`. */
  take(ip: IpHeader, view: DataView, bytes: Uint8Array): void {
    const now = this.#m.now()
    this.#usedAt = now
    if (this.#state.is === 'refused' && this.#state.until <= now) this.#state = { is: 'idle' }
    switch (this.#state.is) {
      case 'refused':
        this.#refuse(this.#state.kind, ip, view, bytes)
        return
      case 'idle':
        this.#open()
        this.#wait(ip, bytes)
        return
      case 'opening':
        this.#wait(ip, bytes)
        return
      case 'open':
        this.#forward(this.#state.lease, this.#state.sent, ip, view, bytes, now)
    }
  }

  /** Sends what was taken. */
  flush(): void {
    const batch = this.#batch
    if (batch === null || batch.count === 0) return
    if (this.#state.is === 'open') this.#m.counts.overflow += batch.count - this.#state.lease.port.send(batch)
    batch.clear()
  }

  /** Gives the lease back. */
  close(): void {
    const state = this.#state
    this.#state = { is: 'idle' }
    this.#waiting = null
    this.#batch?.clear()
    if (state.is === 'opening') state.abort.abort(new StreamError('aborted'))
    if (state.is === 'open') state.lease.port.close()
  }

  #wait(ip: IpHeader, bytes: Uint8Array): void {
    this.#waiting ??= new PacketBatch(WAITING_PACKETS, WAITING_PACKETS * (this.#m.junction.mtu + 3))
    if (!this.#waiting.add(bytes.subarray(ip.start, ip.end))) this.#m.counts.overflow++
  }

  #open(): void {
    const abort = new AbortController()
    const state: State = { is: 'opening', abort }
    this.#state = state
    this.#m.open(abort.signal).then(
      (lease) => {
        if (this.#state === state) this.#opened(lease)
        else {
          lease.port.attach({ packets: () => {}, drained: () => {}, ended: () => {} })
          lease.port.close()
        }
      },
      (error: unknown) => {
        if (this.#state === state) this.#failed(error)
      },
    )
  }

  #opened(lease: PacketLease): void {
    const { counts, random, now } = this.#m
    counts.opened++
    this.#usedAt = now()
    this.#state = { is: 'open', lease, sent: new SentFlows(random) }
    lease.port.attach({
      packets: (batch) => this.#receive(lease, batch),
      // Best effort: what found no room is gone.
      drained: () => {},
      ended: () => {
        if (this.#state.is === 'open' && this.#state.lease === lease) this.#state = { is: 'idle' }
      },
    })
    this.#takeWaiting()
  }

  #failed(error: unknown): void {
    const reason = error instanceof StreamError ? error.reason : messageOf(error)
    this.#m.failed(reason)
    const kind =
      error instanceof StreamError && (error.reason === 'not-exit' || error.reason === 'policy') ? 'prohibited' : 'net-unreachable'
    this.#state = { is: 'refused', kind, until: this.#m.now() + RETRY_MS }
    this.#takeWaiting()
  }

  #takeWaiting(): void {
    const waiting = this.#waiting
    this.#waiting = null
    for (let i = 0; waiting !== null && i < waiting.count; i++) {
      if (this.#ip.parse(waiting.view, waiting.start(i), waiting.end(i)) === null) this.take(this.#ip, waiting.view, waiting.bytes)
    }
    this.flush()
    this.#m.junction.flush()
  }

  #refuse(kind: IcmpErrorKind, ip: IpHeader, view: DataView, bytes: Uint8Array, mtu = 0): void {
    this.#m.counts.refused++
    this.#m.refusals.answer(kind, ip, view, bytes, this.#m.now(), mtu)
  }

  // --- from the machine to the exit

  #forward(lease: PacketLease, sent: SentFlows, ip: IpHeader, view: DataView, bytes: Uint8Array, now: number): void {
    const leased = ip.version === 4 ? lease.address4 : lease.address6
    if (leased === null) {
      this.#refuse('net-unreachable', ip, view, bytes)
      return
    }
    const length = ip.end - ip.start
    if (length > lease.port.mtu) {
      // RFC 1191 §4, RFC 8201. An IPv4 packet that may be cut is refused alike: the kernel cuts it smaller the next time.
      this.#refuse('packet-too-big', ip, view, bytes, lease.port.mtu)
      return
    }
    const isIcmp = ip.protocol === Protocol.icmp || ip.protocol === Protocol.icmp6
    const isError =
      isIcmp && ip.fragmentOffset === 0 && this.#icmp.parse(view, ip.payloadStart, ip.end, ip.version) === null && this.#icmp.isError
    if (isError && !this.#isAboutAnswer(sent, ip, view, now)) return
    const batch = this.#room(length)
    const at = batch.reserve(length)
    batch.bytes.set(bytes.subarray(ip.start, ip.end), at)
    const copy = this.#inner
    copy.parse(batch.view, at, at + length)
    this.#keepLocal(ip, bytes)
    if (!isError) sent.note(copy, batch.view, now)
    takeHop(batch.view, copy)
    replaceAddress(batch.view, batch.bytes, copy, 'source', leased.bytes)
    if (isError && !replaceQuoted(batch.view, batch.bytes, copy, 'destination', leased.bytes)) return
    batch.commit(length)
  }

  #isAboutAnswer(sent: SentFlows, ip: IpHeader, view: DataView, now: number): boolean {
    const quote = readQuote(view, ip.payloadStart + ICMP_HEADER_BYTES, ip.end, ip.version)
    return quote !== null && sent.wasAnswer(quote, ip.addressBytes, view, ip.end, now)
  }

  #room(length: number): PacketBatch {
    this.#batch ??= new PacketBatch(BATCH_PACKETS, BATCH_PACKETS * (this.#m.junction.mtu + 3))
    if (this.#batch.reserve(length) < 0) this.flush()
    return this.#batch
  }

  #keepLocal(ip: IpHeader, bytes: Uint8Array): void {
    const kept = ip.version === 4 ? this.#local4 : this.#local6
    if (kept?.every((byte, i) => byte === bytes[ip.sourceAt + i])) return
    const local = bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes)
    if (ip.version === 4) this.#local4 = local
    else this.#local6 = local
  }

  // --- from the exit to the machine

  #receive(lease: PacketLease, batch: PacketBatch): void {
    const { junction, counts, now } = this.#m
    const { state, at } = { state: this.#state, at: now() }
    if (state.is !== 'open' || state.lease !== lease) return
    this.#usedAt = at
    for (let i = 0; i < batch.count; i++) {
      if (!this.#admit(state.sent, lease, batch, i, at)) counts.unasked++
    }
    junction.flush()
  }

  #admit(sent: SentFlows, lease: PacketLease, from: PacketBatch, index: number, now: number): boolean {
    const ip = this.#ip
    const { view, bytes } = from
    if (ip.parse(view, from.start(index), from.end(index)) !== null) return false
    const leased = ip.version === 4 ? lease.address4 : lease.address6
    const local = ip.version === 4 ? this.#local4 : this.#local6
    if (leased === null || local === null || !isHonestSource(bytes, ip.sourceAt, ip.addressBytes)) return false
    for (let i = 0; i < ip.addressBytes; i++) if (bytes[ip.destinationAt + i] !== leased.bytes[i]) return false
    const isError = this.#isErrorAboutSent(sent, ip, view, now)
    if (isError === null || (!isError && !sent.isAnswer(ip, view, now))) return false
    replaceAddress(view, bytes, ip, 'destination', local)
    if (isError && !replaceQuoted(view, bytes, ip, 'source', local)) return false
    const length = ip.end - ip.start
    if (length > this.#m.junction.mtu) return false
    const place = this.#m.junction.place(length)
    if (place === null) return true
    place.bytes.set(bytes.subarray(ip.start, ip.end), place.reserve(length))
    place.commit(length)
    return true
  }

  /** False: no error. Null: an error about nothing that was sent, or ICMP that is never an answer. */
  #isErrorAboutSent(sent: SentFlows, ip: IpHeader, view: DataView, now: number): boolean | null {
    if (ip.protocol !== Protocol.icmp && ip.protocol !== Protocol.icmp6) return false
    if ((ip.protocol === Protocol.icmp) !== (ip.version === 4)) return null
    if (ip.fragmentOffset !== 0) return false
    const icmp = this.#icmp
    // The first of several parts has a checksum over all of them.
    const whole = !ip.isFragment
    const problem = icmp.parse(view, ip.payloadStart, ip.end, ip.version)
    if (problem === 'short' || (problem === 'checksum' && whole)) return null
    const type = view.getUint8(ip.payloadStart)
    if (type === (ip.version === 4 ? 0 : 129)) return false
    if (problem !== null || !icmp.isError || (ip.version === 6 && !transportChecksumHolds(view, ip))) return null
    const quote = readQuote(view, icmp.bodyStart, icmp.end, ip.version)
    return quote !== null && sent.wasSent(quote, ip.addressBytes, view, icmp.end, now) ? true : null
  }
}
