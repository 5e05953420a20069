import { type BatchMemory, CELL_ROOM_BYTES, type CellBatch, MESSAGE_BODY_BYTES, MESSAGE_HEADER_BYTES } from './cell.ts'
import { CellPacker } from './cell-packer.ts'
import type { Target } from './circuit.ts'
import { DatagramQueue } from './datagrams.ts'
import { Command, encodeEnd, putWindow } from './messages.ts'
import { PacketQueue, packetLimits } from './packets.ts'
import { LEAST_DATA_CHARGE_BYTES, SendQueue, type StreamState } from './streams.ts'

/** Cells of one stream before the next one's turn: bulk packs whole cells, and nobody waits long. */
const TURN_BYTES = 8 * MESSAGE_BODY_BYTES

interface WaitingMessage {
  readonly hop: number
  readonly command: number
  readonly stream: number
  readonly body: Uint8Array
}

/** Who keeps the streams. */
export interface OutboxHandler {
  /** Whether a datagram association or a packet lease is still open from this side. */
  isOpen(id: number): boolean
  /** A control message went into a cell. */
  said(command: number, id: number, body: Uint8Array, now: number): void
  /** A stream's END 'done' went into a cell. */
  finished(stream: StreamState): void
  /** Some of a stream's queue went into cells. */
  drained(stream: StreamState): void
  /** The packet queue has room again. */
  packetsDrained(): void
}

/** 'writable' is owed to senders of packets until the queue is down to this share of its limit. */
const PACKETS_DRAINED_SHARE = 4

/** What waits at one end of a circuit, and how it is packed: control messages, then grants, datagrams, packets, and data in turn. */
export class Outbox {
  readonly #handler: OutboxHandler
  readonly #memory: BatchMemory | null
  readonly #release: ((bytes: Uint8Array) => void) | null
  readonly #control: WaitingMessage[] = []
  #controlBytes = 0
  #dataBytes = 0
  readonly #grants = new Set<StreamState>()
  /** Streams with something that may be sent, in turn. */
  readonly #sendable = new Set<StreamState>()
  #datagrams: DatagramQueue | null = null
  #packets: PacketQueue | null = null

  readonly #isOpen = (id: number): boolean => this.#handler.isOpen(id)

  /** @param release told of offered bytes that are not used any more */
  constructor(handler: OutboxHandler, memory: BatchMemory | null, release: ((bytes: Uint8Array) => void) | null) {
    this.#handler = handler
    this.#memory = memory
    this.#release = release
  }

  get queuedBytes(): number {
    return this.#controlBytes + this.#dataBytes + (this.#datagrams?.queuedBytes ?? 0) + (this.#packets?.queuedBytes ?? 0)
  }

  get packetsDropped(): number {
    return this.#packets?.dropped ?? 0
  }

  /** What waits of packets; made when it is first asked for. */
  get packets(): PacketQueue {
    this.#packets ??= new PacketQueue()
    return this.#packets
  }

  get datagramsDropped(): number {
    return this.#datagrams?.dropped ?? 0
  }

  /** Queues a control message (body is owned). */
  say(hop: number, command: number, stream: number, body: Uint8Array): void {
    this.#control.push({ hop, command, stream, body })
    this.#controlBytes += MESSAGE_HEADER_BYTES + body.length
  }

  /** Queues data of a stream (owned); `touch` puts the stream in line. */
  queue(stream: StreamState, bytes: Uint8Array): void {
    stream.queue ??= new SendQueue(this.#release)
    stream.queue.push(bytes)
    this.#dataBytes += bytes.length
  }

  /** Puts a stream in line when there is something that it may send. */
  touch(stream: StreamState): void {
    if (stream.isSendable) this.#sendable.add(stream)
  }

  /** A WINDOW is owed. How much it grants is decided when it goes into a cell. */
  grant(stream: StreamState): void {
    this.#grants.add(stream)
  }

  /** @param bytes borrowed. False when it was dropped at once. */
  sendDatagram(stream: StreamState, peer: Target, bytes: Uint8Array, now: number): boolean {
    this.#datagrams ??= new DatagramQueue()
    return this.#datagrams.push(stream.id, stream.hop, peer, bytes, now)
  }

  /** Forgets a stream's data and grants. */
  drop(stream: StreamState): void {
    this.#dataBytes -= stream.queue?.length ?? 0
    stream.queue?.clear()
    stream.queue = null
    stream.finishing = false
    this.#sendable.delete(stream)
    this.#grants.delete(stream)
  }

  clear(): void {
    this.#control.length = 0
    this.#controlBytes = 0
    this.#dataBytes = 0
    this.#grants.clear()
    this.#sendable.clear()
    this.#datagrams?.clear()
    this.#packets?.clear()
  }

  /** At most `most` cells with what waits, sealed; null when nothing does. */
  pollCells(most: number, now: number, seal: (batch: CellBatch, hop: number) => void): CellBatch | null {
    this.#datagrams?.expire(now, this.#isOpen)
    this.#packets?.expire(now, this.#isOpen)
    const wanted = Math.min(most, this.#cellsWanted(most))
    if (wanted <= 0) {
      this.#checkPackets()
      return null
    }
    const packer = new CellPacker(wanted, this.#memory)
    if (this.#packControl(packer, now) && this.#packGrants(packer) && this.#packDatagrams(packer, now) && this.#packPackets(packer, now))
      this.#packData(packer)
    this.#checkPackets()
    return packer.finish(seal)
  }

  /** An upper bound of the cells that what waits fills; exact for one stream's bulk. */
  #cellsWanted(most: number): number {
    const small = this.#controlBytes + this.#grants.size * (MESSAGE_HEADER_BYTES + 4)
    // Of two neighbours each fills more than half of a cell, or both share one; a change of the hop begins a new cell.
    let cells =
      small === 0
        ? 0
        : Math.min(this.#control.length + this.#grants.size, Math.floor((2 * small) / CELL_ROOM_BYTES) + 1 + this.#hopChanges())
    cells += this.#datagrams?.fragments ?? 0
    if (this.#packets !== null && this.#packets.count > 0) cells += this.#packets.cells(MESSAGE_HEADER_BYTES, CELL_ROOM_BYTES)
    for (const stream of this.#sendable) {
      if (cells >= most) return most
      cells += Math.ceil((stream.sendable + (stream.finishing ? MESSAGE_HEADER_BYTES + 1 : 0)) / MESSAGE_BODY_BYTES)
    }
    return cells
  }

  #hopChanges(): number {
    let changes = 0
    let last = this.#control.at(-1)?.hop
    for (const { hop } of this.#grants) {
      if (hop !== last) changes++
      last = hop
    }
    for (let i = 1; i < this.#control.length; i++) if (this.#control[i]!.hop !== this.#control[i - 1]!.hop) changes++
    return changes
  }

  /** False when the batch is full. */
  #packControl(packer: CellPacker, now: number): boolean {
    const control = this.#control
    if (control.length === 0) return true
    let packed = 0
    for (; packed < control.length; packed++) {
      const { hop, command, stream, body } = control[packed]!
      const at = packer.take(hop, command, stream, body.length)
      if (at < 0) break
      packer.bytes.set(body, at)
      this.#controlBytes -= MESSAGE_HEADER_BYTES + body.length
      this.#handler.said(command, stream, body, now)
    }
    const isAll = packed === control.length
    control.splice(0, packed)
    return isAll
  }

  #packGrants(packer: CellPacker): boolean {
    for (const stream of this.#grants) {
      const grant = stream.receive!.grant
      if (grant > 0) {
        const at = packer.take(stream.hop, Command.window, stream.id, 4)
        if (at < 0) return false
        putWindow(packer.bytes, at, grant)
        stream.receive!.give(grant)
      }
      this.#grants.delete(stream)
    }
    return true
  }

  #packDatagrams(packer: CellPacker, now: number): boolean {
    const queue = this.#datagrams
    if (!queue) return true
    for (let next = queue.peek(); next; next = queue.peek()) {
      const at = packer.take(next.hop, Command.udpDatagram, next.stream, next.length)
      if (at < 0) return false
      queue.take(packer.bytes, at)
      queue.expire(now, this.#isOpen)
    }
    return true
  }

  #packPackets(packer: CellPacker, now: number): boolean {
    const queue = this.#packets
    if (!queue) return true
    while (queue.count > 0) {
      const at = packer.take(queue.hop, Command.packet, queue.stream, queue.length)
      if (at < 0) return false
      queue.take(packer.bytes, at)
      queue.expire(now, this.#isOpen)
    }
    return true
  }

  #checkPackets(): void {
    if (this.#packets !== null && this.#packets.queuedBytes * PACKETS_DRAINED_SHARE <= packetLimits.queueBytes)
      this.#handler.packetsDrained()
  }

  #packData(packer: CellPacker): void {
    for (let stream = first(this.#sendable); stream; stream = first(this.#sendable)) {
      const hasRoom = this.#packTurn(packer, stream)
      this.#handler.drained(stream)
      if (!hasRoom) return
      // To the end of the line, if there is more.
      this.#sendable.delete(stream)
      if (stream.isSendable) this.#sendable.add(stream)
    }
  }

  #packTurn(packer: CellPacker, stream: StreamState): boolean {
    const { id, hop, queue } = stream
    let left = TURN_BYTES
    if (queue) {
      for (let waiting = stream.sendable; waiting > 0 && left > 0; waiting = stream.sendable) {
        let room = packer.room(hop)
        // A scrap of room isn't worth the credit that a message costs at least.
        if (room < waiting && room < LEAST_DATA_CHARGE_BYTES) room = MESSAGE_BODY_BYTES
        const length = Math.min(room, waiting)
        const at = packer.take(hop, Command.data, id, length)
        if (at < 0) return false
        queue.take(packer.bytes, at, length)
        stream.charge(length)
        this.#dataBytes -= length
        left -= length
      }
    }
    if (!stream.finishing || (queue !== null && queue.length > 0)) return true
    const body = encodeEnd('done')
    const at = packer.take(hop, Command.end, id, body.length)
    if (at < 0) return false
    packer.bytes.set(body, at)
    stream.finishing = false
    stream.sentEnd = 'done'
    this.#handler.finished(stream)
    return true
  }
}

function first<Item>(items: Set<Item>): Item | undefined {
  for (const item of items) return item
  return undefined
}
