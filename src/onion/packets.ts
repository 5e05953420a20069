import { type IpAddress, ipFromBytes, MalformedError, Reader, Writer } from '../base/index.ts'
import { PacketBatch } from '../packet/index.ts'
import { MESSAGE_BODY_BYTES } from './cell.ts'

/**
 * Raw IP packets, one in a PACKET message. docs/spec/streams.md §8
 *
 *     PACKET_OPEN:    families u8 (bits 1 IPv4, 2 IPv6) | mtu u16
 *     PACKET_OPENED:  families u8 | mtu u16 | IPv4 address 4, if leased | IPv6 address 16, if leased
 *
 * A packet never spans cells. Nothing on the way of a packet is allocated for it.
 */

/** The version of this that a descriptor announces. */
export const PACKET_VERSION = 1
/** The longest packet: what one cell carries. */
export const MOST_PACKET_BYTES = MESSAGE_BODY_BYTES
/** The shortest: an IPv4 header. */
export const LEAST_PACKET_BYTES = 20
/** The least MTU that may be agreed on: IPv6's, RFC 8200 §5. */
export const LEAST_PACKET_MTU = 1280

export const packetLimits = {
  /** What waits longer is dropped before encryption. */
  staleMs: 100,
  /** What may wait, over all leases of a circuit. From half of it on, senders are asked to wait. */
  queueBytes: 256 * 1024,
  /** A small packet costs its overhead too. */
  leastChargeBytes: 256,
} as const

/** What a client asks for. */
export interface PacketTerms {
  /** 4, 6 or both. */
  readonly families: readonly (4 | 6)[]
  /** The largest packet it takes: LEAST_PACKET_MTU to MOST_PACKET_BYTES. */
  readonly mtu: number
}

/** What the exit has leased: an address for each family it serves, and the largest packet that goes either way. */
export interface PacketGrant {
  readonly address4: IpAddress | null
  readonly address6: IpAddress | null
  readonly mtu: number
}

const FamilyBit = { ipv4: 1, ipv6: 2 } as const

/** The body of PACKET_OPEN. */
export function encodePacketOpen({ families, mtu }: PacketTerms): Uint8Array {
  const bits = (families.includes(4) ? FamilyBit.ipv4 : 0) | (families.includes(6) ? FamilyBit.ipv6 : 0)
  return new Writer(3).u8(bits).u16(mtu).finish()
}

/** @throws MalformedError */
export function decodePacketOpen(body: Uint8Array): PacketTerms {
  const reader = new Reader('PACKET_OPEN', body)
  const bits = readFamilies(reader)
  const mtu = readMtu(reader)
  reader.end()
  return { families: [...((bits & FamilyBit.ipv4) !== 0 ? [4 as const] : []), ...((bits & FamilyBit.ipv6) !== 0 ? [6 as const] : [])], mtu }
}

/** The body of PACKET_OPENED. */
export function encodePacketOpened({ address4, address6, mtu }: PacketGrant): Uint8Array {
  const writer = new Writer(23).u8((address4 ? FamilyBit.ipv4 : 0) | (address6 ? FamilyBit.ipv6 : 0)).u16(mtu)
  if (address4) writer.bytes(address4.bytes)
  if (address6) writer.bytes(address6.bytes)
  return writer.finish()
}

/** The addresses are copies. @throws MalformedError */
export function decodePacketOpened(body: Uint8Array): PacketGrant {
  const reader = new Reader('PACKET_OPENED', body)
  const bits = readFamilies(reader)
  const mtu = readMtu(reader)
  const address4 = (bits & FamilyBit.ipv4) === 0 ? null : readAddress(reader, 4)
  const address6 = (bits & FamilyBit.ipv6) === 0 ? null : readAddress(reader, 6)
  reader.end()
  return { address4, address6, mtu }
}

function readFamilies(reader: Reader): number {
  const bits = reader.u8()
  if (bits === 0 || bits > 3) throw new MalformedError('packet families', 'neither IPv4 nor IPv6, or more than these')
  return bits
}

function readMtu(reader: Reader): number {
  const mtu = reader.u16()
  if (mtu < LEAST_PACKET_MTU || mtu > MOST_PACKET_BYTES) throw new MalformedError('packet MTU', `of ${mtu}`)
  return mtu
}

/** What a packet can come from: no unspecified address, no multicast and nothing above it. */
function readAddress(reader: Reader, family: 4 | 6): IpAddress {
  const bytes = reader.bytes(family === 4 ? 4 : 16).slice()
  if (bytes.every((byte) => byte === 0) || (family === 4 ? bytes[0]! >= 224 : bytes[0] === 0xff)) {
    throw new MalformedError('leased address', 'no packet can come from it')
  }
  return ipFromBytes(bytes)
}

/** Copies `from` … `to` - 1 of `source` to `target` at `at`. `set` would need a view, which is memory for the collector with each packet. */
export function copyBytes(source: Uint8Array, from: number, to: number, target: Uint8Array, at: number): void {
  copy.call(source as Buffer, target, at, from, to)
}

const copy = Buffer.prototype.copy

const FIRST_RING_BYTES = 16 * 1024
/** Beyond the limit in charges: the packet that exceeds it, and what is left free at the ring's end. */
const LAST_RING_BYTES = packetLimits.queueBytes + 4 * MOST_PACKET_BYTES
const SLOTS = packetLimits.queueBytes / packetLimits.leastChargeBytes + 1

/** Packets that wait for cells, of all leases of a circuit, in order: a ring of their bytes, and one of their bounds. */
export class PacketQueue {
  /** Dropped: it had waited too long, its lease was closed, or it had a length that cannot be sent. */
  dropped = 0
  #ring: Uint8Array = new Uint8Array(FIRST_RING_BYTES)
  #tail = 0
  readonly #starts = new Int32Array(SLOTS)
  readonly #lengths = new Uint16Array(SLOTS)
  readonly #streams = new Uint16Array(SLOTS)
  readonly #hops = new Uint8Array(SLOTS)
  readonly #times = new Float64Array(SLOTS)
  #first = 0
  #count = 0
  #bytes = 0
  #charge = 0
  #hasOneHop = true

  get count(): number {
    return this.#count
  }

  /** Charges of what waits. */
  get queuedBytes(): number {
    return this.#charge
  }

  get isHalfFull(): boolean {
    return this.#charge * 2 >= packetLimits.queueBytes
  }

  /** The first packet's. */
  get stream(): number {
    return this.#streams[this.#first]!
  }

  get hop(): number {
    return this.#hops[this.#first]!
  }

  get length(): number {
    return this.#lengths[this.#first]!
  }

  /** An upper bound of the cells they fill, when each message costs `header` bytes more and a cell has room for `room`. */
  cells(header: number, room: number): number {
    if (!this.#hasOneHop) return this.#count
    // Of two neighbours each fills more than half of a cell, or both share one.
    return Math.min(this.#count, Math.floor((2 * (this.#bytes + this.#count * header)) / room) + 1)
  }

  /** Takes packet `index` of a batch (borrowed, of a length that can be sent); false when there is no room. */
  push(stream: number, hop: number, batch: PacketBatch, index: number, now: number): boolean {
    if (this.#charge >= packetLimits.queueBytes) return false
    const from = batch.start(index)
    const length = batch.end(index) - from
    const at = this.#place(length)
    if (at < 0) return false
    copyBytes(batch.bytes, from, from + length, this.#ring, at)
    if (this.#count === 0) this.#hasOneHop = true
    else if (hop !== this.hop) this.#hasOneHop = false
    const slot = (this.#first + this.#count) % SLOTS
    this.#starts[slot] = at
    this.#lengths[slot] = length
    this.#streams[slot] = stream
    this.#hops[slot] = hop
    this.#times[slot] = now
    this.#count++
    this.#tail = at + length
    this.#bytes += length
    this.#charge += chargeOf(length)
    return true
  }

  /** Drops, from the front, what waited too long and what belongs to no open lease any more. */
  expire(now: number, isOpen: (stream: number) => boolean): void {
    while (this.#count > 0 && (now - this.#times[this.#first]! > packetLimits.staleMs || !isOpen(this.stream))) {
      this.dropped++
      this.#shift()
    }
  }

  /** Moves the first packet to `out` at `at`. */
  take(out: Uint8Array, at: number): void {
    const start = this.#starts[this.#first]!
    copyBytes(this.#ring, start, start + this.length, out, at)
    this.#shift()
  }

  clear(): void {
    this.#count = 0
    this.#tail = 0
    this.#bytes = 0
    this.#charge = 0
  }

  #shift(): void {
    const { length } = this
    this.#bytes -= length
    this.#charge -= chargeOf(length)
    this.#count--
    this.#first = this.#first + 1 === SLOTS ? 0 : this.#first + 1
  }

  /** Where `length` bytes in a row are free; -1 when there are none. */
  #place(length: number): number {
    if (this.#count === SLOTS) return -1
    for (;;) {
      const at = this.#free(length)
      if (at >= 0 || this.#ring.length >= LAST_RING_BYTES) return at
      this.#grow()
    }
  }

  #free(length: number): number {
    if (this.#count === 0) return 0
    const head = this.#starts[this.#first]!
    if (this.#tail <= head) return this.#tail + length <= head ? this.#tail : -1
    if (this.#tail + length <= this.#ring.length) return this.#tail
    return length <= head ? 0 : -1
  }

  #grow(): void {
    const ring = new Uint8Array(Math.min(LAST_RING_BYTES, this.#ring.length * 2))
    let at = 0
    for (let i = 0; i < this.#count; i++) {
      const slot = (this.#first + i) % SLOTS
      const start = this.#starts[slot]!
      copyBytes(this.#ring, start, start + this.#lengths[slot]!, ring, at)
      this.#starts[slot] = at
      at += this.#lengths[slot]!
    }
    this.#ring = ring
    this.#tail = at
  }
}

function chargeOf(length: number): number {
  return Math.max(packetLimits.leastChargeBytes, length)
}

/** A batch for packets that came holds what some 40 cells carry, or this many small packets. */
const ARRIVED_PACKETS = 256
const ARRIVED_BYTES = 64 * 1024
/** Free batches that are kept. One is in use at a time, as long as drivers drain a machine after each call. */
const MOST_FREE_BATCHES = 4
// Shared by all circuits: a batch is lent from one call of `pollOutput` to the next.
const freeBatches: PacketBatch[] = []

/** An empty batch for packets that came in. */
export function takeArrivalBatch(): PacketBatch {
  return freeBatches.pop() ?? new PacketBatch(ARRIVED_PACKETS, ARRIVED_BYTES)
}

/** Takes back what `takeArrivalBatch` gave, once nobody looks at it any more. */
export function putArrivalBatch(batch: PacketBatch): void {
  if (freeBatches.length >= MOST_FREE_BATCHES) return
  batch.clear()
  freeBatches.push(batch)
}
