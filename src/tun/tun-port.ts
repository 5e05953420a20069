import { assert, type ShallotError } from '../base/index.ts'
import { newPortStats, PacketBatch, type PacketPort, type PacketPortHandlers } from '../packet/index.ts'

/** Bounds of this implementation. */
export const tunLimits = {
  /** Packets of one delivery. */
  batchPackets: 64,
  /** Packets read before the event loop gets its turn: under a millisecond of a netstack's work. */
  turnPackets: 256,
  /** The MTU that a device gets when none is asked for: that of the memory port, and what tunnels over a path of 1500 bytes commonly have. */
  defaultMtu: 1420,
  /** IPv6 needs this much of every link (RFC 8200 §5). */
  leastMtu: 1280,
  mostMtu: 65_535,
  /** Packets that wait in the kernel for us before it drops and counts them. */
  queuePackets: 1000,
  /** Characters of a device's name (linux/if.h IFNAMSIZ, without its zero). */
  nameBytes: 15,
  /** How long the `ip` program may take. */
  setUpMs: 10_000,
} as const

/** What became of a packet: full is "not now", refused is "never" (the device is down, or it is no IP packet). */
export type TunWrite = 'taken' | 'full' | 'refused'

/** What a watched descriptor is to be watched for; its loss is always told. */
export interface TunWants {
  readonly readable: boolean
  readonly writable: boolean
}

/** The open device, as the operating system shows it. */
export interface TunDescriptor {
  /** One packet into the bytes at `at`; its length, cut at `length`; -1 when none waits. @throws ShallotError when the device is gone */
  read(into: Uint8Array, at: number, length: number): number
  /** One packet. @throws ShallotError when the device is gone */
  write(from: Uint8Array, at: number, length: number): TunWrite
  /**
   * Watches for what is wanted from now on. `ready` is called, from a turn of its own, again and again while it holds;
   * with an error once the device is gone.
   */
  watch(wants: TunWants, ready: (is: TunWants, error: ShallotError | null) => void): void
  /** Once, and nothing after it. No `ready` follows. */
  close(): void
}

/**
 * A TUN device as a packet port: IP packets as the kernel routes them. What comes while the port is paused waits in the device's queue, and
 * is dropped there once that is full (`ip -s link` counts it).
 */
export class TunPort implements PacketPort {
  readonly name: string
  readonly medium = 'ip'
  readonly mtu: number
  readonly stats = newPortStats()
  readonly #descriptor: TunDescriptor
  /** One byte more than the MTU is read, so that a packet cut short is known. */
  readonly #batch: PacketBatch
  #handlers: PacketPortHandlers | null = null
  #paused = false
  #full = false
  #ended = false

  constructor(descriptor: TunDescriptor, device: { readonly name: string; readonly mtu: number }) {
    this.name = device.name
    this.mtu = device.mtu
    this.#descriptor = descriptor
    this.#batch = new PacketBatch(tunLimits.batchPackets, tunLimits.batchPackets * (device.mtu + 4))
  }

  attach(handlers: PacketPortHandlers): void {
    assert(this.#handlers === null, 'a port is attached once')
    this.#handlers = handlers
    this.#watch()
  }

  send(batch: PacketBatch, from = 0): number {
    const { stats } = this
    for (let index = from; index < batch.count && !this.#ended; index++) {
      const start = batch.start(index)
      const length = batch.end(index) - start
      const outcome = length > this.mtu || length === 0 ? 'refused' : this.#write(batch.bytes, start, length)
      if (outcome === 'full') {
        this.#full = true
        this.#watch()
        return index - from
      }
      if (outcome === 'refused') {
        stats.droppedPackets++
        continue
      }
      stats.sentPackets++
      stats.sentBytes += length
    }
    return batch.count - from
  }

  pause(): void {
    this.#paused = true
    this.#watch()
  }

  resume(): void {
    this.#paused = false
    this.#watch()
  }

  close(): void {
    this.#end(null)
  }

  #write(bytes: Uint8Array, start: number, length: number): TunWrite {
    try {
      return this.#descriptor.write(bytes, start, length)
    } catch (error) {
      this.#end(error as ShallotError)
      return 'refused'
    }
  }

  #watch(): void {
    if (this.#ended || this.#handlers === null) return
    this.#descriptor.watch({ readable: !this.#paused, writable: this.#full }, this.#ready)
  }

  readonly #ready = (is: TunWants, error: ShallotError | null): void => {
    if (this.#ended) return
    if (error !== null) {
      this.#end(error)
      return
    }
    if (is.writable && this.#full) {
      this.#full = false
      this.#watch()
      this.#handlers?.drained()
    }
    if (is.readable) this.#read()
  }

  /** Reads until nothing waits, or until others must have their turn: the descriptor is still ready then and calls again. */
  #read(): void {
    const batch = this.#batch
    let wait = false
    for (let left: number = tunLimits.turnPackets; left > 0 && !wait && !this.#paused && !this.#ended; left -= tunLimits.batchPackets) {
      let gone: ShallotError | null = null
      batch.clear()
      try {
        wait = this.#fill(batch)
      } catch (error) {
        gone = error as ShallotError
      }
      if (batch.count > 0) {
        this.stats.receivedPackets += batch.count
        this.stats.receivedBytes += batch.totalBytes
        this.#handlers?.packets(batch)
      }
      if (gone !== null) this.#end(gone)
    }
  }

  /** @returns whether nothing waits any more */
  #fill(batch: PacketBatch): boolean {
    for (let reads = 0; reads < tunLimits.batchPackets; reads++) {
      const at = batch.reserve(this.mtu + 1)
      const length = this.#descriptor.read(batch.bytes, at, this.mtu + 1)
      if (length < 0) return true
      // The device was given a larger MTU than the port was told.
      if (length > this.mtu || length === 0) this.stats.droppedPackets++
      else batch.commit(length)
    }
    return false
  }

  #end(error: ShallotError | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#descriptor.close()
    setImmediate(() => this.#handlers?.ended(error))
  }
}
