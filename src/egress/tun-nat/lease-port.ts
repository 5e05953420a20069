import { assert, type ShallotError, TokenBucket } from '../../base/index.ts'
import { type IpHeader, newPortStats, PacketBatch, type PacketPort, type PacketPortHandlers } from '../../packet/index.ts'
import type { LeaseAddress } from '../packets/lease-addresses.ts'
import { addError } from './answers.ts'
import type { DropReason, LeaseFilter } from './lease-filter.ts'

/** Bounds of one lease. */
export const leaseLimits = {
  /** Packets that wait while the client's side is paused; what comes then is dropped. */
  queuePackets: 128,
  queueBytes: 96 * 1024,
  /** Refusals a second that are told by ICMP, and at once. */
  answersPerSecond: 20,
  answerBurst: 40,
} as const

/** What a lease needs of the backend that it is of. */
export interface LeaseHub {
  readonly header: IpHeader
  /** Monotonic milliseconds. */
  now(): number
  /** Takes packets for the internet, which are valid for the call; those of one call are one batch. */
  write(batch: PacketBatch, from: number): void
  /** For packets of a batch that had to be left out of: cleared by whoever fills it. */
  readonly outbound: PacketBatch
  dropped(reason: DropReason): void
  released(lease: LeasePort): void
}

export interface LeasePortOptions {
  readonly name: string
  readonly mtu: number
  readonly address: LeaseAddress
  /** Who says what is refused: the gateways' bytes. */
  readonly gateway4: Uint8Array
  readonly gateway6: Uint8Array
  readonly filter: LeaseFilter
  readonly takeRate: (bytes: number) => boolean
  readonly hub: LeaseHub
}

/** The client's side of a lease: what is sent into it goes to the internet, when the filter has nothing against it. */
export class LeasePort implements PacketPort {
  readonly name: string
  readonly medium = 'ip'
  readonly mtu: number
  readonly address: LeaseAddress
  readonly stats = newPortStats()
  /** Monotonic ms of the last packet either way. */
  movedAt: number
  readonly #m: LeasePortOptions
  readonly #answers: TokenBucket
  #handlers: PacketPortHandlers | null = null
  /** Made when something has to wait; and what it is exchanged for while it is delivered. */
  #waiting: PacketBatch | null = null
  #spare: PacketBatch | null = null
  #scheduled = false
  #paused = false
  #ended = false
  #verdicts = new Uint8Array(64)

  constructor(options: LeasePortOptions) {
    this.#m = options
    this.name = options.name
    this.mtu = options.mtu
    this.address = options.address
    this.movedAt = options.hub.now()
    this.#answers = new TokenBucket(leaseLimits.answersPerSecond, leaseLimits.answerBurst, this.movedAt)
  }

  attach(handlers: PacketPortHandlers): void {
    assert(this.#handlers === null, 'a port is attached once')
    this.#handlers = handlers
    this.#schedule()
  }

  /** Everything is taken: what the device has no room for is lost, as on any wire. */
  send(batch: PacketBatch, from = 0): number {
    const { count } = batch
    if (this.#ended || from >= count) return count - from
    const { hub } = this.#m
    const now = hub.now()
    this.movedAt = now
    if (this.#verdicts.length < count) this.#verdicts = new Uint8Array(count)
    const verdicts = this.#verdicts
    let passed = 0
    for (let i = from; i < count; i++) {
      const passes = this.#check(batch, i, now)
      verdicts[i] = passes ? 1 : 0
      if (passes) passed++
    }
    if (passed === count - from) {
      hub.write(batch, from)
      return count - from
    }
    const { outbound } = hub
    outbound.clear()
    for (let i = from; i < count && passed > 0; i++) {
      if (verdicts[i] === 0) continue
      passed--
      if (outbound.add(batch.packet(i))) continue
      hub.write(outbound, 0)
      outbound.clear()
      outbound.add(batch.packet(i))
    }
    if (outbound.count > 0) hub.write(outbound, 0)
    return count - from
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#schedule()
  }

  close(): void {
    this.end(null)
  }

  /** By the backend: the lease is over. */
  end(error: ShallotError | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#waiting = null
    this.#m.hub.released(this)
    setImmediate(() => this.#handlers?.ended(error))
  }

  /** Whether a packet from the internet is let in now. */
  admits(bytes: number): boolean {
    return this.#m.takeRate(bytes)
  }

  /** Packets from the internet, all of them this lease's, in a turn of their own. The batch is lent. */
  deliver(batch: PacketBatch, now: number): void {
    if (this.#ended) return
    this.movedAt = now
    if (this.#paused || this.#handlers === null || (this.#waiting !== null && this.#waiting.count > 0)) {
      for (let i = 0; i < batch.count; i++) if (!this.#queue().add(batch.packet(i))) this.#m.hub.dropped('limit')
      this.#schedule()
      return
    }
    this.#handOver(batch)
  }

  #check(batch: PacketBatch, index: number, now: number): boolean {
    const { hub, filter } = this.#m
    const start = batch.start(index)
    const end = batch.end(index)
    if (end - start > this.mtu || end === start) {
      this.stats.droppedPackets++
      hub.dropped('limit')
      return false
    }
    const reason = filter.check(hub.header, batch.view, start, end, now)
    if (reason === null) {
      this.stats.sentPackets++
      this.stats.sentBytes += end - start
      return true
    }
    this.stats.droppedPackets++
    hub.dropped(reason)
    if (reason === 'policy' || reason === 'protocol') this.#refuse(batch, now)
    return false
  }

  /** Tells the client, so that its programs need not wait: what is refused by policy is prohibited, a protocol that is not served is unknown. */
  #refuse(batch: PacketBatch, now: number): void {
    const { hub, gateway4, gateway6 } = this.#m
    const { header } = hub
    if (!this.#answers.take(1, now)) return
    const source = header.version === 4 ? gateway4 : gateway6
    const to = (header.version === 4 ? this.address.address4 : this.address.address6)!.bytes
    addError(this.#queue(), header, batch, 'prohibited', source, to)
    this.#schedule()
  }

  #queue(): PacketBatch {
    this.#waiting ??= new PacketBatch(leaseLimits.queuePackets, Math.max(leaseLimits.queueBytes, 4 * this.mtu))
    return this.#waiting
  }

  #schedule(): void {
    if (this.#scheduled || this.#paused || this.#ended || this.#handlers === null || !this.#waiting?.count) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      const batch = this.#waiting
      if (this.#paused || this.#ended || batch === null || batch.count === 0) return
      this.#waiting = this.#spare
      this.#spare = null
      this.#handOver(batch)
      batch.clear()
      this.#spare = batch
      this.#schedule()
    })
  }

  #handOver(batch: PacketBatch): void {
    this.stats.receivedPackets += batch.count
    this.stats.receivedBytes += batch.totalBytes
    this.#handlers?.packets(batch)
  }
}
