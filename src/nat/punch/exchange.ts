import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import { frameHolePunch, type HolePunch, HolePunchDecoder } from './hole-punch.ts'

/** What an exchange tells its owner. After `closed` and `malformed` nothing more comes. */
export interface ExchangeEvents {
  readonly message: (message: HolePunch) => void
  readonly closed: (why: string) => void
  /** The peer sent what is no message: the stream has been reset. */
  readonly malformed: () => void
}

/** The coordination's messages over a libp2p stream. Make it in the turn the stream is obtained in. */
export class Exchange {
  readonly #stream: Stream
  readonly #events: ExchangeEvents
  readonly #decoder = new HolePunchDecoder()
  #isOver = false

  constructor(stream: Stream, events: ExchangeEvents) {
    this.#stream = stream
    this.#events = events
    stream.addEventListener('message', (event) => this.#take(event.data))
    stream.addEventListener('end', () => this.#end('the peer has ended it'))
    stream.addEventListener('close', () => this.#end('the stream was lost'))
  }

  send(message: HolePunch): void {
    if (this.#isOver) return
    try {
      this.#stream.send(frameHolePunch(message))
    } catch {
      this.#end('the stream was lost')
    }
  }

  /** Ends in order; nothing is told any more. */
  close(): void {
    this.#isOver = true
    if (this.#stream.status !== 'open') return
    this.#stream.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch((error: Error) => this.#stream.abort(error))
  }

  abort(): void {
    this.#isOver = true
    this.#stream.abort(new Error('not wanted any more'))
  }

  #take(data: Uint8Array | Uint8ArrayList): void {
    if (this.#isOver) return
    let messages: HolePunch[]
    try {
      messages = this.#decoder.push(data instanceof Uint8Array ? data : data.subarray())
    } catch {
      this.abort()
      this.#events.malformed()
      return
    }
    for (const message of messages) if (!this.#isOver) this.#events.message(message)
  }

  #end(why: string): void {
    if (this.#isOver) return
    this.#isOver = true
    // Half an ended stream is of no use to either side.
    if (this.#stream.status === 'open')
      this.#stream.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch((error: Error) => this.#stream.abort(error))
    this.#events.closed(why)
  }
}

const CLOSE_MS = 5_000
