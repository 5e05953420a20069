import { assert } from '../base/index.ts'

/** A cell is always this long. docs/spec/cell.md §1 */
export const CELL_BYTES = 1536
/** Zero bytes that mark a cell as this hop's, inside the last layer. */
export const TAG_BYTES = 16
/** command u8, stream u16, length u16. */
export const MESSAGE_HEADER_BYTES = 5
/** What one cell holds of messages, headers included. */
export const CELL_ROOM_BYTES = CELL_BYTES - TAG_BYTES
/** The longest body of a message. */
export const MESSAGE_BODY_BYTES = CELL_ROOM_BYTES - MESSAGE_HEADER_BYTES

/** Owned bytes before the first cell of a batch: scratch of the layer cipher, and room for a link's frame header. */
export const BATCH_HEADROOM = 32

/**
 * A run of whole cells in one buffer: cell i is `bytes[start + i * CELL_BYTES, …)`. The BATCH_HEADROOM bytes before `start` belong
 * to the batch too and hold nothing of value. Who holds a batch owns it: sending or handling one passes the ownership on,
 * and cells are changed in place.
 */
export interface CellBatch {
  readonly bytes: Uint8Array
  readonly start: number
  readonly count: number
}

/**
 * Where machines get the memory of large batches, and give back what has been consumed: a pool that its driver has. Without one every
 * batch is fresh memory.
 */
export interface BatchMemory {
  /** Cells that a buffer of `take` holds. */
  readonly cells: number
  /** A buffer of BATCH_HEADROOM bytes and `cells` cells with anything in it. It becomes a batch by `lend`, or goes back by `put`. */
  take(): Uint8Array
  put(buffer: Uint8Array): void
  /** A batch of the first `count` cells of a buffer from `take`. */
  lend(buffer: Uint8Array, count: number): CellBatch
  /** Takes back a batch that nobody uses any more, if its memory came from here and is whole. */
  recycle(batch: CellBatch): void
}

/** A zeroed batch of `count` cells. */
export function newBatch(count: number): CellBatch {
  return { bytes: new Uint8Array(BATCH_HEADROOM + count * CELL_BYTES), start: BATCH_HEADROOM, count }
}

/** A batch that holds a copy of whole cells given back to back. */
export function batchOf(cells: Uint8Array): CellBatch {
  assert(cells.length % CELL_BYTES === 0, 'a batch holds whole cells')
  const batch = newBatch(cells.length / CELL_BYTES)
  batch.bytes.set(cells, batch.start)
  return batch
}

/** A view of all cells of a batch, back to back. */
export function batchCells(batch: CellBatch): Uint8Array {
  return batch.bytes.subarray(batch.start, batch.start + batch.count * CELL_BYTES)
}

/**
 * Cells [from, to) of a batch as a batch over the same buffer. Its headroom is the end of the cell before, so
 * the parts of a batch may only be used in order, each after the one before it has been sent or consumed.
 */
export function subBatch(batch: CellBatch, from: number, to: number): CellBatch {
  return { bytes: batch.bytes, start: batch.start + from * CELL_BYTES, count: to - from }
}
