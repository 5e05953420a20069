import { type Random, SeededRandom } from '../base/index.ts'
import { PacketBatch } from './batch.ts'
import type { PacketPort, PacketPortHandlers } from './port.ts'
import { PortAround } from './port-around.ts'

/** What a bad path does to packets. Shares are from 0 to 1; what is left out does not happen. */
export interface Faults {
  readonly loss?: number
  readonly duplicate?: number
  /** One bit of the packet is flipped. */
  readonly corrupt?: number
  /** The packet is held back by up to `reorderMs` more, default 5. */
  readonly reorder?: number
  readonly reorderMs?: number
  readonly delayMs?: number
  /** Uniform, on top of `delayMs`. Order is kept within it. */
  readonly jitterMs?: number
  /** Larger packets vanish: a path-MTU black hole. */
  readonly mtu?: number
  /** The rate of the narrowest link; packets queue before it. */
  readonly bytesPerSecond?: number
  /** Packets on their way at most, default 4096; more are dropped from the tail. */
  readonly queuePackets?: number
  /** Of the queue before the narrow link, in milliseconds, default 200; more are dropped from the tail. */
  readonly queueMs?: number
}

interface Flying {
  readonly at: number
  readonly order: number
  readonly bytes: Uint8Array
}

/**
 * One direction of a bad path, without time of its own: packets go in with the time, and come out when it has come. What becomes of the n-th packet
 * is decided by the seed and n (and by the lengths of those before, where bits are flipped), whenever it comes; only queues that overflow depend
 * on the time.
 */
export class FaultyPath {
  faults: Faults
  readonly #random: Random
  readonly #heap: Flying[] = []
  #order = 0
  #freeAt = 0
  #lastAt = 0
  /** Packets that were lost, for whatever reason. */
  lost = 0

  constructor(faults: Faults, random: Random) {
    this.faults = faults
    this.#random = random
  }

  /** A packet enters (copied). */
  push(packet: Uint8Array, now: number): void {
    const { faults } = this
    if (this.#happens(faults.loss) || packet.length > (faults.mtu ?? Number.POSITIVE_INFINITY)) {
      this.lost++
      return
    }
    const copies = this.#happens(faults.duplicate) ? 2 : 1
    for (let i = 0; i < copies; i++) this.#fly(packet, now)
  }

  /** When the next packet comes out; null when none is on its way. */
  get deadline(): number | null {
    return this.#heap[0]?.at ?? null
  }

  /** The next packet whose time has come. */
  pop(now: number): Uint8Array | null {
    const first = this.#heap[0]
    if (first === undefined || first.at > now) return null
    const last = this.#heap.pop()!
    if (this.#heap.length > 0) this.#sink(last)
    return first.bytes
  }

  clear(): void {
    this.#heap.length = 0
  }

  #happens(share: number | undefined): boolean {
    return share !== undefined && share > 0 && this.#random.unit() < share
  }

  #fly(packet: Uint8Array, now: number): void {
    const { faults } = this
    // All that is left to chance comes first: what is dropped for want of room must not change what becomes of the next.
    const flipped = this.#happens(faults.corrupt) && packet.length > 0 ? this.#random.int(8 * packet.length) : -1
    const jitterMs = faults.jitterMs === undefined ? 0 : this.#random.unit() * faults.jitterMs
    const heldMs = this.#happens(faults.reorder) ? this.#random.unit() * (faults.reorderMs ?? 5) : null
    if (this.#heap.length >= (faults.queuePackets ?? 4096)) {
      this.lost++
      return
    }
    let at = now
    if (faults.bytesPerSecond !== undefined) {
      const start = Math.max(now, this.#freeAt)
      if (start - now > (faults.queueMs ?? 200)) {
        this.lost++
        return
      }
      at = start + (packet.length * 1000) / faults.bytesPerSecond
      this.#freeAt = at
    }
    at = Math.max(at + (faults.delayMs ?? 0) + jitterMs, this.#lastAt)
    if (heldMs === null) this.#lastAt = at
    else at += heldMs
    const bytes = packet.slice()
    if (flipped >= 0) bytes[flipped >> 3]! ^= 1 << (flipped & 7)
    this.#rise({ at, order: this.#order++, bytes })
  }

  #rise(flying: Flying): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(flying)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(flying, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = flying
  }

  #sink(flying: Flying): void {
    const heap = this.#heap
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, flying)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = flying
  }
}

function before(a: Flying, b: Flying): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}

/** The time of a faulty port: the system's, or a simulation's. */
export interface FaultTime {
  /** Monotonic ms. */
  now(): number
  /** Runs the task at about that time, or never if the process ends before. */
  at(time: number, task: () => void): void
}

export interface FaultyPortOptions {
  /** Each direction has a seed of its own from it, so that the fate of one's packets does not depend on when the other's come. */
  readonly random: Random
  readonly time: FaultTime
  readonly outgoing?: Faults
  readonly incoming?: Faults
}

/** A port behind a bad path, either way. What is sent is always taken: a path has no backpressure, it loses. */
export class FaultyPort extends PortAround {
  readonly outgoing: FaultyPath
  readonly incoming: FaultyPath
  readonly #time: FaultTime
  readonly #out: PacketBatch
  readonly #in: PacketBatch
  #handlers: PacketPortHandlers | null = null
  #armedOut = Number.POSITIVE_INFINITY
  #armedIn = Number.POSITIVE_INFINITY
  #paused = false
  #full = false
  #ended = false

  constructor(port: PacketPort, options: FaultyPortOptions) {
    super(port)
    this.#time = options.time
    this.outgoing = new FaultyPath(options.outgoing ?? {}, new SeededRandom(options.random.int(2 ** 32)))
    this.incoming = new FaultyPath(options.incoming ?? {}, new SeededRandom(options.random.int(2 ** 32)))
    this.#out = new PacketBatch(64, 64 * (port.mtu + 3))
    this.#in = new PacketBatch(64, 64 * (port.mtu + 3))
  }

  attach(handlers: PacketPortHandlers): void {
    this.#handlers = handlers
    this.port.attach({
      packets: (batch) => {
        const now = this.#time.now()
        for (let i = 0; i < batch.count; i++) this.incoming.push(batch.packet(i), now)
        this.#armIn()
      },
      drained: () => {
        this.#full = false
        this.#flushOut()
      },
      ended: (error) => {
        this.#stop()
        handlers.ended(error)
      },
    })
  }

  override send(batch: PacketBatch, from = 0): number {
    const now = this.#time.now()
    if (!this.#ended) for (let i = from; i < batch.count; i++) this.outgoing.push(batch.packet(i), now)
    this.#armOut()
    return batch.count - from
  }

  override pause(): void {
    this.#paused = true
    this.port.pause()
  }

  override resume(): void {
    this.#paused = false
    this.port.resume()
    this.#armIn()
  }

  override close(): void {
    this.#stop()
    this.port.close()
  }

  #stop(): void {
    this.#ended = true
    this.outgoing.clear()
    this.incoming.clear()
  }

  #armOut(): void {
    const at = this.outgoing.deadline
    if (this.#ended || this.#full || at === null || at >= this.#armedOut) return
    this.#armedOut = at
    this.#time.at(at, () => {
      this.#armedOut = Number.POSITIVE_INFINITY
      this.#flushOut()
    })
  }

  #flushOut(): void {
    while (!this.#ended && !this.#full) {
      const batch = this.#out
      batch.clear()
      fill(batch, this.outgoing, this.#time.now())
      if (batch.count === 0) break
      // What the port has no room for is lost here: the path's own queue is where packets wait.
      const taken = this.port.send(batch)
      this.outgoing.lost += batch.count - taken
      this.#full = taken < batch.count
    }
    this.#armOut()
  }

  #armIn(): void {
    const at = this.incoming.deadline
    if (this.#ended || this.#paused || at === null || at >= this.#armedIn) return
    this.#armedIn = at
    this.#time.at(at, () => {
      this.#armedIn = Number.POSITIVE_INFINITY
      this.#flushIn()
    })
  }

  #flushIn(): void {
    while (!this.#ended && !this.#paused) {
      const batch = this.#in
      batch.clear()
      fill(batch, this.incoming, this.#time.now())
      if (batch.count === 0) break
      this.#handlers?.packets(batch)
    }
    this.#armIn()
  }
}

function fill(batch: PacketBatch, path: FaultyPath, now: number): void {
  while (batch.count < batch.capacity) {
    const packet = path.pop(now)
    if (packet === null) return
    if (!batch.add(packet)) path.lost++
  }
}
