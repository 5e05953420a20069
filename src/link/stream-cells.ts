import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'
import { BATCH_HEADROOM, batchCells, CELL_BYTES, type CellBatch } from '../onion/index.ts'
import type { BatchQueue } from './batch-queue.ts'

/** The send queue of a channel over a stream, in cells: about 64 KiB. */
export const STREAM_QUEUE_CELLS = 42
/** `drained` is called when this much of it is free. */
export const STREAM_DRAINED_CELLS = 21
/** Cells of one batch. */
const MAX_BATCH_CELLS = 42

/** Makes batches of the bytes of a stream, which come in pieces of any size. */
export class CellAssembler {
  #received = new Uint8ArrayList()

  get bytes(): number {
    return this.#received.byteLength
  }

  append(data: Uint8Array | Uint8ArrayList): void {
    this.#received.append(data)
  }

  clear(): void {
    this.#received = new Uint8ArrayList()
  }

  /** The first `length` bytes, taken out; null when there are not so many yet. */
  take(length: number): Uint8Array | null {
    if (this.#received.byteLength < length) return null
    const bytes = this.#received.slice(0, length)
    this.#received.consume(length)
    return bytes
  }

  /** Gives out the whole cells so far. @param push returns whether more is wanted; what is left over then is dropped */
  drain(push: (batch: CellBatch) => boolean): void {
    const received = this.#received
    let cells = Math.floor(received.byteLength / CELL_BYTES)
    if (cells === 0) return
    this.#received = new Uint8ArrayList()
    let at = 0
    while (cells > 0) {
      const count = Math.min(cells, MAX_BATCH_CELLS)
      const bytes = new Uint8Array(Buffer.allocUnsafeSlow(BATCH_HEADROOM + count * CELL_BYTES).buffer)
      copyList(received, at, bytes, BATCH_HEADROOM, count * CELL_BYTES)
      at += count * CELL_BYTES
      cells -= count
      if (!push({ bytes, start: BATCH_HEADROOM, count })) return
    }
    if (at === received.byteLength) return
    const rest = received.sublist(at)
    rest.append(this.#received)
    this.#received = rest
  }
}

/** Sends what is queued as far as the stream takes it. @throws when the stream does not take anything any more */
export function sendQueued(outbox: BatchQueue, stream: Stream): void {
  while (outbox.cells > 0 && !stream.writableNeedsDrain) {
    const list = new Uint8ArrayList()
    for (let left = STREAM_QUEUE_CELLS; left > 0; ) {
      const batch = outbox.take(left)
      if (batch === null) break
      left -= batch.count
      list.append(batchCells(batch))
    }
    stream.send(list)
  }
}

/** Copies `[from, from + length)` of a list without joining it first. */
function copyList(list: Uint8ArrayList, from: number, target: Uint8Array, at: number, length: number): void {
  let skip = from
  let left = length
  let to = at
  for (const chunk of list) {
    if (skip >= chunk.length) {
      skip -= chunk.length
      continue
    }
    const size = Math.min(left, chunk.length - skip)
    target.set(chunk.subarray(skip, skip + size), to)
    skip = 0
    to += size
    left -= size
    if (left === 0) return
  }
}
