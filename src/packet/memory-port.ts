import { assert, type ShallotError } from '../base/index.ts'
import { PacketBatch } from './batch.ts'
import { type Medium, newPortStats, type PacketPort, type PacketPortHandlers } from './port.ts'

export interface MemoryPortOptions {
  /** Runs a task in a later turn, in order: `setImmediate`, or a simulation's own. */
  readonly carry: (task: () => void) => void
  readonly names?: readonly [string, string]
  readonly medium?: Medium
  /** Default 1420. */
  readonly mtu?: number
  /** Packets on their way in one direction, default 256. */
  readonly queuePackets?: number
}

/** Two ports joined in memory: what one side sends, the other receives. A receiver that pauses fills the queue, and the sender is held back. */
export function memoryPortPair(options: MemoryPortOptions): readonly [MemoryPort, MemoryPort] {
  const names = options.names ?? ['memory-a', 'memory-b']
  const a = new MemoryPort(names[0], options)
  const b = new MemoryPort(names[1], options)
  a.join(b)
  b.join(a)
  return [a, b]
}

/** One side of a pair; made by `memoryPortPair`. */
export class MemoryPort implements PacketPort {
  readonly name: string
  readonly medium: Medium
  readonly stats = newPortStats()
  #mtu: number
  readonly #carry: (task: () => void) => void
  #peer: MemoryPort | null = null
  #handlers: PacketPortHandlers | null = null
  /** What came in and waits for its turn; while it is delivered, the other one takes what is sent meanwhile. */
  #waiting: PacketBatch
  #spare: PacketBatch
  #scheduled = false
  #paused = false
  #ended = false
  /** The peer was refused room in our queue. */
  #owesDrain = false

  constructor(name: string, options: MemoryPortOptions) {
    this.name = name
    this.medium = options.medium ?? 'ip'
    this.#mtu = options.mtu ?? 1420
    this.#carry = options.carry
    const packets = options.queuePackets ?? 256
    this.#waiting = new PacketBatch(packets, packets * (this.#mtu + 3))
    this.#spare = new PacketBatch(packets, packets * (this.#mtu + 3))
  }

  join(peer: MemoryPort): void {
    this.#peer = peer
  }

  get mtu(): number {
    return this.#mtu
  }

  /** A path whose MTU changes: what is larger is dropped from now on. Not above the first one. */
  setMtu(mtu: number): void {
    this.#mtu = mtu
  }

  attach(handlers: PacketPortHandlers): void {
    assert(this.#handlers === null, 'a port is attached once')
    this.#handlers = handlers
    this.#schedule()
  }

  send(batch: PacketBatch, from = 0): number {
    const peer = this.#peer
    if (this.#ended || peer === null) return batch.count - from
    let index = from
    for (; index < batch.count; index++) {
      const length = batch.end(index) - batch.start(index)
      if (length > this.#mtu || length === 0) {
        this.stats.droppedPackets++
        continue
      }
      if (!peer.#waiting.add(batch.packet(index))) {
        peer.#owesDrain = true
        break
      }
      this.stats.sentPackets++
      this.stats.sentBytes += length
    }
    peer.#schedule()
    return index - from
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#schedule()
  }

  close(): void {
    if (this.#ended) return
    this.#end(null)
    const peer = this.#peer
    if (peer !== null) this.#carry(() => peer.#end(null))
  }

  /** For tests: the medium breaks. */
  fail(error: ShallotError): void {
    this.#end(error)
  }

  #end(error: ShallotError | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#waiting.clear()
    this.#carry(() => this.#handlers?.ended(error))
  }

  #schedule(): void {
    if (this.#scheduled || this.#paused || this.#ended || this.#handlers === null || this.#waiting.count === 0) return
    this.#scheduled = true
    this.#carry(() => {
      this.#scheduled = false
      this.#deliver()
    })
  }

  #deliver(): void {
    if (this.#paused || this.#ended || this.#waiting.count === 0) return
    const batch = this.#waiting
    this.#waiting = this.#spare
    this.stats.receivedPackets += batch.count
    this.stats.receivedBytes += batch.totalBytes
    this.#handlers?.packets(batch)
    batch.clear()
    this.#spare = batch
    if (this.#owesDrain) {
      this.#owesDrain = false
      const peer = this.#peer
      if (peer !== null) this.#carry(() => !peer.#ended && peer.#handlers?.drained())
    }
    this.#schedule()
  }
}
