import { assert } from '../base/index.ts'

/**
 * A run of packets in one buffer, with their bounds. What is handed along a packet path: nothing on it is allocated per packet.
 * Made once, filled, handed on and cleared over and over. Each packet starts at a multiple of four bytes.
 */
export class PacketBatch {
  readonly bytes: Uint8Array
  /** Over all of `bytes`. */
  readonly view: DataView
  /** How many packets it can hold, if their bytes fit. */
  readonly capacity: number
  readonly #starts: Int32Array
  readonly #ends: Int32Array
  #count = 0
  #used = 0

  constructor(packets: number, bytes: number) {
    assert(packets > 0 && bytes > 0, 'a batch has room')
    this.bytes = new Uint8Array(bytes)
    this.view = new DataView(this.bytes.buffer)
    this.capacity = packets
    this.#starts = new Int32Array(packets)
    this.#ends = new Int32Array(packets)
  }

  get count(): number {
    return this.#count
  }

  /** Bytes of all packets. */
  get totalBytes(): number {
    let total = 0
    for (let i = 0; i < this.#count; i++) total += this.#ends[i]! - this.#starts[i]!
    return total
  }

  /** Where packet `index` starts in `bytes`. */
  start(index: number): number {
    return this.#starts[index]!
  }

  /** Where packet `index` ends in `bytes`. */
  end(index: number): number {
    return this.#ends[index]!
  }

  /** A view of packet `index`: valid until the batch is cleared. */
  packet(index: number): Uint8Array {
    return this.bytes.subarray(this.start(index), this.end(index))
  }

  /** Where a packet of up to `length` bytes may be written; -1 when there is no room. Nothing is taken until `commit`. */
  reserve(length: number): number {
    if (this.#count === this.capacity || this.#used + length > this.bytes.length) return -1
    return this.#used
  }

  /** The packet that was written at the place `reserve` gave is now the batch's last. */
  commit(length: number): void {
    this.#starts[this.#count] = this.#used
    this.#ends[this.#count++] = this.#used + length
    this.#used = (this.#used + length + 3) & ~3
  }

  /** Copies a packet in; false when there is no room. */
  add(packet: Uint8Array): boolean {
    const at = this.reserve(packet.length)
    if (at < 0) return false
    this.bytes.set(packet, at)
    this.commit(packet.length)
    return true
  }

  clear(): void {
    this.#count = 0
    this.#used = 0
  }
}

/** A batch with exactly these packets (copied): for tests and rare paths. */
export function batchOfPackets(packets: readonly Uint8Array[]): PacketBatch {
  const bytes = packets.reduce((sum, packet) => sum + packet.length + 4, 4)
  const batch = new PacketBatch(Math.max(1, packets.length), bytes)
  for (const packet of packets) batch.add(packet)
  return batch
}
