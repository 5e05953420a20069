import { assert, type IpAddress, type IpNetwork, TokenBucket } from '../../base/index.ts'
import { IpHeader, PacketBatch } from '../../packet/index.ts'
import { addError } from './answers.ts'
import type { DropReason } from './lease-filter.ts'
import type { LeasePort } from './lease-port.ts'
import { splitPacket } from './split-packet.ts'

/** What the demultiplexer tells. */
export interface DemultiplexerModules {
  readonly arrived: (packets: number, bytes: number) => void
  readonly dropped: (reason: DropReason | 'no-lease') => void
  /** A packet for the kernel (lent): the error about one that was too big. */
  readonly answer: (batch: PacketBatch) => void
}

/** Packets of one delivery, as a device reads them. */
const BATCH_PACKETS = 64
/** The longest ICMP error (RFC 4443 §2.4 (c)). */
const ANSWER_BYTES = 1280
/** Pieces of one packet: of 9000 bytes for the least MTU, eight. */
const MOST_PIECES = 8
/** Servers that are told a second that a packet was too big, and at once: each is told again by its next one. */
const ANSWERS_PER_SECOND = 100
const ANSWER_BURST = 200

/** Packets from the device to the leases, by destination. Nothing is allocated for a packet. */
export class Demultiplexer {
  readonly #m: DemultiplexerModules
  readonly #network4: Network4 | null
  readonly #network6: Network6 | null
  /** By the number of the host within its network, the same in both families. */
  readonly #leases: (LeasePort | undefined)[] = []
  readonly #gathered: PacketBatch
  readonly #pieces: PacketBatch
  readonly #answer = new PacketBatch(1, ANSWER_BYTES)
  readonly #answers: TokenBucket
  readonly #header = new IpHeader()
  /** Of the batch under way: whose each packet is; null: nobody's, or handed over. */
  #owners: (LeasePort | null)[] = []

  /** @param mtu the device's: no packet is larger, @param now monotonic milliseconds */
  constructor(networks: readonly IpNetwork[], mtu: number, now: number, modules: DemultiplexerModules) {
    this.#m = modules
    const of = (family: 4 | 6) => networks.find(({ address }) => address.family === family)
    const four = of(4)
    const six = of(6)
    this.#network4 = four ? network4(four) : null
    this.#network6 = six ? network6(six) : null
    this.#answers = new TokenBucket(ANSWERS_PER_SECOND, ANSWER_BURST, now)
    this.#pieces = new PacketBatch(MOST_PIECES, 2 * mtu)
    this.#gathered = new PacketBatch(BATCH_PACKETS, BATCH_PACKETS * (mtu + 4))
  }

  add(lease: LeasePort): void {
    const at = this.#hostOf(lease)
    assert(this.#leases[at] === undefined, 'a lease address is of one lease')
    this.#leases[at] = lease
  }

  remove(lease: LeasePort): void {
    this.#leases[this.#hostOf(lease)] = undefined
  }

  /** A batch from the device (lent). */
  packets(batch: PacketBatch, now: number): void {
    const owners = this.#owners
    let first: LeasePort | null = null
    let owned = 0
    let others = false
    for (let i = 0; i < batch.count; i++) {
      const owner = this.#admitted(batch, i, now)
      owners[i] = owner
      if (owner === null) continue
      owned++
      if (first === null) first = owner
      else if (owner !== first) others = true
    }
    if (first === null) return
    if (!others && owned === batch.count) first.deliver(batch, now)
    else for (let i = 0; i < batch.count; i++) if (owners[i] !== null) this.#gather(batch, i, now)
  }

  /** All packets of one lease, from the first on, as one batch. */
  #gather(batch: PacketBatch, first: number, now: number): void {
    const owners = this.#owners
    const lease = owners[first]!
    const gathered = this.#gathered
    gathered.clear()
    for (let i = first; i < batch.count; i++) {
      if (owners[i] !== lease) continue
      // A larger batch than a device's: the rest makes one more.
      if (!gathered.add(batch.packet(i))) break
      owners[i] = null
    }
    lease.deliver(gathered, now)
  }

  /** Whose the packet is, when it may go on. */
  #admitted(batch: PacketBatch, index: number, now: number): LeasePort | null {
    const start = batch.start(index)
    const length = batch.end(index) - start
    const lease = this.#find(batch.view, start, length)
    if (lease === undefined) {
      this.#m.dropped('no-lease')
      return null
    }
    if (!lease.admits(length)) {
      this.#m.dropped('rate')
      return null
    }
    if (length > lease.mtu) {
      this.#tooLarge(batch, index, lease, now)
      return null
    }
    this.#m.arrived(1, length)
    return lease
  }

  #find(view: DataView, start: number, length: number): LeasePort | undefined {
    if (length < 20) return undefined
    if (view.getUint8(start) >> 4 === 4) {
      const network = this.#network4
      if (network === null) return undefined
      const destination = view.getUint32(start + 16)
      return (destination & network.mask) >>> 0 === network.prefix ? this.#leases[destination - network.prefix] : undefined
    }
    const network = this.#network6
    if (network === null || length < 40) return undefined
    for (let i = 0; i < 3; i++) if (view.getUint32(start + 24 + 4 * i) !== network.words[i]) return undefined
    const last = view.getUint32(start + 36)
    return last >= network.words[3]! ? this.#leases[last - network.words[3]!] : undefined
  }

  /** More than the circuit carries in one: cut where that is allowed; else the server is told, in the lease's name, as a router before it would. */
  #tooLarge(batch: PacketBatch, index: number, lease: LeasePort, now: number): void {
    const header = this.#header
    const pieces = this.#pieces
    pieces.clear()
    if (header.parse(batch.view, batch.start(index), batch.end(index)) !== null) {
      this.#m.dropped('malformed')
    } else if (splitPacket(pieces, header, batch.bytes, lease.mtu)) {
      this.#m.arrived(pieces.count, pieces.totalBytes)
      lease.deliver(pieces, now)
    } else {
      this.#m.dropped('limit')
      const own = header.version === 4 ? lease.address.address4 : lease.address.address6
      if (own === null || !this.#answers.take(1, now)) return
      const to = batch.bytes.slice(header.sourceAt, header.sourceAt + header.addressBytes)
      this.#answer.clear()
      if (addError(this.#answer, header, batch, 'packet-too-big', own.bytes, to, lease.mtu)) this.#m.answer(this.#answer)
    }
  }

  #hostOf({ address: { address4, address6 } }: LeasePort): number {
    if (address4 !== null && this.#network4 !== null) return wordAt(address4, 0) - this.#network4.prefix
    assert(address6 !== null && this.#network6 !== null, 'a lease has an address of a network that is served')
    return wordAt(address6, 12) - this.#network6.words[3]!
  }
}

interface Network4 {
  readonly prefix: number
  readonly mask: number
}

/** The prefix as four words; what is left of the last is the host's number. */
interface Network6 {
  readonly words: readonly number[]
}

function network4({ address, bits }: IpNetwork): Network4 {
  return { prefix: wordAt(address, 0), mask: bits === 0 ? 0 : -1 << (32 - bits) }
}

function network6({ address }: IpNetwork): Network6 {
  return { words: [0, 4, 8, 12].map((at) => wordAt(address, at)) }
}

function wordAt({ bytes }: IpAddress, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(at)
}
