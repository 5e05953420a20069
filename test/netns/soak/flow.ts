import { createHash } from 'node:crypto'
import { SeededRandom } from '../../../src/base/index.ts'

/** What the one who opens says first: which flow it is, and how many bytes both will send. */
export const HEADER_BYTES = 12

export function writeHeader(id: number, bytes: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES)
  const view = new DataView(header.buffer)
  view.setUint32(0, id)
  view.setFloat64(4, bytes)
  return header
}

export function readHeader(header: Uint8Array): { readonly id: number; readonly bytes: number } {
  const view = new DataView(header.buffer, header.byteOffset, header.length)
  return { id: view.getUint32(0), bytes: view.getFloat64(4) }
}

/** What both programs' data are cut from. Its length is prime, so that no buffer's size hides a piece in the wrong place. */
const pool = new SeededRandom(2026).bytes(1_048_573)

/** What one end of a flow has sent and received. */
export interface Digests {
  readonly id: number
  readonly sent: string
  readonly received: string
  readonly receivedBytes: number
}

/** One end of a flow: gives what is to be sent, and takes what comes, with a hash over each. */
export class FlowEnd {
  readonly id: number
  left: number
  received = 0
  ended = false
  #at: number
  readonly #sent = createHash('sha256')
  readonly #received = createHash('sha256')

  constructor(id: number, bytes: number, side: 'ours' | 'theirs') {
    this.id = id
    this.left = bytes
    this.#at = (id * 7919 + (side === 'ours' ? 0 : pool.length >> 1)) % pool.length
  }

  /** What is to be sent next, as much as lies in one piece. */
  next(): Uint8Array {
    return pool.subarray(this.#at, Math.min(pool.length, this.#at + Math.min(this.left, 1 << 16)))
  }

  /** So much of `next()` has gone. */
  sent(length: number): void {
    this.#sent.update(pool.subarray(this.#at, this.#at + length))
    this.left -= length
    this.#at = (this.#at + length) % pool.length
  }

  take(data: Uint8Array): void {
    this.#received.update(data)
    this.received += data.length
  }

  digests(): Digests {
    return { id: this.id, sent: this.#sent.digest('hex'), received: this.#received.digest('hex'), receivedBytes: this.received }
  }
}
