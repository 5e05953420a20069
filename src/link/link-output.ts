import { CELL_BYTES, type CellBatch, subBatch } from '../onion/index.ts'
import type { BatchPool } from './batch-pool.ts'
import type { ByteMeter } from './byte-meter.ts'
import { encodeFrame, FrameType, frameInPlace, hasOwnHeadroom, MAX_FRAME_CELLS } from './frames.ts'

/** The connection under a link. */
export interface Wire {
  /** Writes the chunks back to back and owns them; the link's `written` is called when the system has taken them. */
  write(chunks: readonly Buffer[]): void
  /** Ends the connection after what was written. */
  end(): void
  destroy(): void
}

/** Whose cells are written. */
export interface OutputOwner {
  readonly id: number
  /** Cell bytes written and not taken by the system yet; kept here. */
  inFlightBytes: number
}

/** What is given to the socket as one, in order. */
interface Group {
  readonly at: number
  controlBytes: number
  readonly owners: OutputOwner[]
  readonly bytes: number[]
  /** Batches whose memory is free once the group has been taken. */
  readonly finished: CellBatch[]
}

/**
 * The sending half of a link: gathers the frames of a turn, writes them as one, and knows what the system has not taken yet.
 * Cells are never copied: a frame's header goes into the headroom of its batch.
 */
export class LinkOutput {
  /** Bytes of cells, and of other frames, that the system has not taken. */
  cellBytes = 0
  controlBytes = 0
  readonly #wire: Wire
  readonly #meter: ByteMeter
  readonly #pool: BatchPool
  readonly #now: () => number
  readonly #wanted: () => void
  #chunks: Buffer[] = []
  #group: Group | null = null
  #groups: Group[] = []

  /** @param wanted called when there is something for `flush` */
  constructor(wire: Wire, meter: ByteMeter, pool: BatchPool, now: () => number, wanted: () => void) {
    this.#wire = wire
    this.#meter = meter
    this.#pool = pool
    this.#now = now
    this.#wanted = wanted
  }

  /** When the oldest that the system has not taken was written (monotonic ms), or null. */
  get waitingSince(): number | null {
    return this.#groups[0]?.at ?? null
  }

  /** The same for the cells of one owner. */
  sinceOf(owner: OutputOwner): number | null {
    for (const group of this.#groups) if (group.owners.includes(owner)) return group.at
    return this.#group?.owners.includes(owner) === true ? this.#group.at : null
  }

  /** Adds CELLS frames. @param finished the batch whose last cells these are, or null */
  cells(owner: OutputOwner, batch: CellBatch, finished: CellBatch | null): void {
    let rest = batch
    while (rest.count > MAX_FRAME_CELLS) {
      this.#frame(owner.id, subBatch(rest, 0, MAX_FRAME_CELLS))
      rest = subBatch(rest, MAX_FRAME_CELLS, rest.count)
    }
    this.#frame(owner.id, rest)
    const bytes = batch.count * CELL_BYTES
    const group = this.#openGroup()
    group.owners.push(owner)
    group.bytes.push(bytes)
    if (finished !== null) group.finished.push(finished)
    owner.inFlightBytes += bytes
    this.cellBytes += bytes
    this.#meter.add(bytes)
  }

  /** Adds a frame without cells. */
  control(type: number, count: number, channel: number): void {
    this.frame(encodeFrame(type, count, channel))
  }

  /** The same, encoded already. */
  frame(frame: Buffer): void {
    this.#chunks.push(frame)
    this.#openGroup().controlBytes += frame.length
    this.controlBytes += frame.length
  }

  /** Writes what was added; returns how many bytes that is. */
  flush(): number {
    const group = this.#group
    if (group === null) return 0
    const chunks = this.#chunks
    this.#chunks = []
    this.#group = null
    this.#groups.push(group)
    let length = 0
    for (const chunk of chunks) length += chunk.length
    this.#wire.write(chunks)
    return length
  }

  /** The system has taken what `flush` wrote longest ago. */
  written(): void {
    const group = this.#groups.shift()
    if (group === undefined) return
    for (const batch of group.finished) this.#pool.recycle(batch)
    this.#release(group)
  }

  /** The connection is over: nothing waits any more. */
  drop(): void {
    this.#chunks = []
    if (this.#group !== null) this.#release(this.#group)
    this.#group = null
    for (const group of this.#groups) this.#release(group)
    this.#groups = []
  }

  #frame(channel: number, batch: CellBatch): void {
    const { bytes, start, count } = batch
    if (hasOwnHeadroom(start)) {
      this.#chunks.push(frameInPlace(bytes, start, count, channel))
      return
    }
    // The bytes before a later part of a batch belong to cells that may still wait to be written.
    this.#chunks.push(encodeFrame(FrameType.cells, count, channel))
    this.#chunks.push(Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset + start, count * CELL_BYTES))
  }

  #openGroup(): Group {
    if (this.#group === null) {
      this.#group = { at: this.#now(), controlBytes: 0, owners: [], bytes: [], finished: [] }
      this.#wanted()
    }
    return this.#group
  }

  #release(group: Group): void {
    for (let i = 0; i < group.owners.length; i++) {
      const bytes = group.bytes[i]!
      group.owners[i]!.inFlightBytes -= bytes
      this.cellBytes -= bytes
      this.#meter.add(-bytes)
    }
    this.controlBytes -= group.controlBytes
  }
}
