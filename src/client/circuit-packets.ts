import type { IpAddress, ShallotError } from '../base/index.ts'
import { HeldPackets } from '../drive/index.ts'
import { type EndReason, MOST_PACKET_BYTES, type PacketGrant, type PacketTerms } from '../onion/index.ts'
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  type Medium,
  newPortStats,
  PacketBatch,
  type PacketPort,
  type PacketPortHandlers,
} from '../packet/index.ts'
import type { StreamEnd, StreamFacts } from './circuit-facts.ts'
import { newStreamNumber, type StreamTold } from './open-streams.ts'
import type { PacketLease } from './service.ts'
import { StreamError } from './stream-error.ts'

/** What is asked of an exit: both families, and packets as large as a cell carries. */
export const PACKET_TERMS: PacketTerms = { families: [4, 6], mtu: MOST_PACKET_BYTES }

/** What the packet leases of a circuit need of it. */
export interface PacketCircuit {
  /** Queues packets `from` to `to` - 1, as far as there is room; returns how many. When not all were taken, `writable` follows. */
  send(stream: number, batch: PacketBatch, from: number, to: number): number
  close(stream: number): void
  now(): number
  readonly told: StreamTold
}

interface Lease {
  readonly number: number
  readonly openedAt: number
  /** Null until the exit has leased addresses. */
  port: CircuitPacketPort | null
}

/** The packet leases of one circuit. */
export class CircuitPackets {
  readonly #circuit: PacketCircuit
  readonly #leases = new Map<number, Lease>()

  constructor(circuit: PacketCircuit) {
    this.#circuit = circuit
  }

  /** Leases open and asked for. */
  get count(): number {
    return this.#leases.size
  }

  asked(stream: number): void {
    const lease: Lease = { number: newStreamNumber(), openedAt: this.#circuit.now(), port: null }
    this.#leases.set(stream, lease)
    this.#circuit.told('open', factsOf(lease))
  }

  /** The exit has leased addresses. Null when they are not wanted any more. */
  opened(stream: number, grant: PacketGrant): PacketLease | null {
    const lease = this.#leases.get(stream)
    if (!lease) return null
    const { address4, address6 } = grant
    const port = new CircuitPacketPort(grant, {
      send: (batch, from, to) => this.#circuit.send(stream, batch, from, to),
      close: () => this.close(stream),
    })
    lease.port = port
    return { address4, address6, port }
  }

  deliver(stream: number, batch: PacketBatch): void {
    this.#leases.get(stream)?.port?.deliver(batch)
  }

  writable(stream: number): void {
    this.#leases.get(stream)?.port?.writable()
  }

  /** The other side has closed it, or refused. False when it was given back meanwhile. */
  closed(stream: number, reason: EndReason): boolean {
    const lease = this.#take(stream, reason)
    if (!lease) return false
    lease.port?.end(reason === 'done' ? null : new StreamError(reason))
    return true
  }

  /** Given back from this side. */
  close(stream: number, end: StreamEnd = 'done'): void {
    if (this.#take(stream, end)) this.#circuit.close(stream)
  }

  /** Ends the lease that people see under this number. False when there is none. */
  cut(number: number): boolean {
    const found = [...this.#leases].find(([, lease]) => lease.number === number)
    if (!found) return false
    const [stream, { port }] = found
    this.close(stream, 'aborted')
    port?.end(new StreamError('aborted'))
    return true
  }

  /** The circuit is gone. */
  lost(): void {
    for (const stream of [...this.#leases.keys()]) this.closed(stream, 'circuit-lost')
  }

  facts(): StreamFacts[] {
    return [...this.#leases.values()].map((lease) => factsOf(lease))
  }

  #take(stream: number, end: StreamEnd): Lease | undefined {
    const lease = this.#leases.get(stream)
    if (!lease) return undefined
    this.#leases.delete(stream)
    this.#circuit.told('closed', factsOf(lease, end))
    return lease
  }
}

function factsOf({ number, openedAt, port }: Lease, end: StreamEnd | null = null): StreamFacts {
  return {
    id: number,
    kind: 'packets',
    target: null,
    openedAt,
    state: port === null ? 'connecting' : 'open',
    end,
    bytesIn: port?.stats.receivedBytes ?? 0,
    bytesOut: port?.stats.sentBytes ?? 0,
  }
}

interface PortCircuit {
  send(batch: PacketBatch, from: number, to: number): number
  close(): void
}

/**
 * Raw packets through a circuit as a PacketPort. It lets through only what comes from the leased addresses, and gives out only what goes to
 * them: an address of this machine never leaves it by mistake, and no exit can write to another.
 */
export class CircuitPacketPort implements PacketPort {
  readonly name = 'circuit'
  readonly medium: Medium = 'ip'
  readonly mtu: number
  readonly stats = newPortStats()
  readonly #circuit: PortCircuit
  readonly #source4: Uint8Array | null
  readonly #source6: Uint8Array | null
  /** What came while nobody took it. */
  readonly #held = new HeldPackets()
  #handlers: PacketPortHandlers | null = null
  /** The good ones of a batch with bad ones in it. */
  #sifted: PacketBatch | null = null
  #isPaused = false
  #owesDrain = false
  #end: { readonly error: ShallotError | null; told: boolean } | null = null

  constructor({ address4, address6, mtu }: PacketGrant, circuit: PortCircuit) {
    this.mtu = mtu
    this.#source4 = bytesOf(address4)
    this.#source6 = bytesOf(address6)
    this.#circuit = circuit
  }

  attach(handlers: PacketPortHandlers): void {
    this.#handlers = handlers
    if (this.#end) setImmediate(() => this.#tellEnd())
    else this.#giveHeldSoon()
  }

  send(batch: PacketBatch, from = 0): number {
    if (this.#end) return batch.count - from
    let index = from
    while (index < batch.count) {
      // A run of packets that may go.
      let to = index
      while (to < batch.count && this.#mayGo(batch, to)) to++
      const taken = to === index ? 0 : this.#circuit.send(batch, index, to)
      for (const end = index + taken; index < end; index++) {
        this.stats.sentPackets++
        this.stats.sentBytes += batch.end(index) - batch.start(index)
      }
      if (index < to) {
        this.#owesDrain = true
        break
      }
      if (index < batch.count) {
        this.stats.droppedPackets++
        index++
      }
    }
    return index - from
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#giveHeldSoon()
  }

  close(): void {
    if (this.#end) return
    this.#circuit.close()
    this.end(null)
  }

  /** Packets came. The batch is lent. */
  deliver(batch: PacketBatch): void {
    if (this.#end) return
    const good = this.#sift(batch)
    if (good.count === 0) return
    if (this.#isPaused || !this.#handlers || !this.#held.isEmpty) this.stats.droppedPackets += this.#held.add(good, 0)
    else this.#give(good)
  }

  /** The circuit takes packets again. */
  writable(): void {
    if (!this.#owesDrain || this.#end) return
    this.#owesDrain = false
    this.#handlers?.drained()
  }

  /** The lease is over. */
  end(error: ShallotError | null): void {
    if (this.#end) return
    this.#end = { error, told: false }
    this.#held.clear()
    setImmediate(() => this.#tellEnd())
  }

  #tellEnd(): void {
    if (!this.#end || this.#end.told || !this.#handlers) return
    this.#end.told = true
    this.#handlers.ended(this.#end.error)
  }

  #give(batch: PacketBatch): void {
    this.stats.receivedPackets += batch.count
    this.stats.receivedBytes += batch.totalBytes
    this.#handlers?.packets(batch)
  }

  #giveHeldSoon(): void {
    if (this.#held.isEmpty) return
    setImmediate(() => {
      this.#held.drain((batch, from) => {
        if (this.#isPaused || this.#end || !this.#handlers) return 0
        this.#give(batch)
        return batch.count - from
      })
    })
  }

  /** The batch without what goes elsewhere; as it is where nothing does. */
  #sift(batch: PacketBatch): PacketBatch {
    let bad = 0
    for (let i = 0; i < batch.count; i++) if (!this.#mayCome(batch, i)) bad++
    if (bad === 0) return batch
    this.stats.droppedPackets += bad
    this.#sifted ??= new PacketBatch(batch.capacity, batch.bytes.length)
    this.#sifted.clear()
    for (let i = 0; i < batch.count; i++) if (this.#mayCome(batch, i)) this.#sifted.add(batch.packet(i))
    return this.#sifted
  }

  #mayGo(batch: PacketBatch, index: number): boolean {
    // The source stands at 12 (RFC 791 §3.1) and at 8 (RFC 8200 §3).
    return batch.end(index) - batch.start(index) <= this.mtu && this.#isLeased(batch, index, 12, 8)
  }

  #mayCome(batch: PacketBatch, index: number): boolean {
    return this.#isLeased(batch, index, 16, 24)
  }

  /** Whether there is a whole header, and the address at the offset of its version is the leased one. */
  #isLeased(batch: PacketBatch, index: number, offset4: number, offset6: number): boolean {
    const { bytes } = batch
    const start = batch.start(index)
    const version = bytes[start]! >> 4
    const leased = version === 4 ? this.#source4 : version === 6 ? this.#source6 : null
    if (leased === null) return false
    if (start + (version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) > batch.end(index)) return false
    const at = start + (version === 4 ? offset4 : offset6)
    for (let i = 0; i < leased.length; i++) if (bytes[at + i] !== leased[i]) return false
    return true
  }
}

function bytesOf(address: IpAddress | null): Uint8Array | null {
  return address === null ? null : address.bytes
}
