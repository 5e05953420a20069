import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import { MalformedError, ShallotError } from '../base/index.ts'

/** u32 before each frame. */
const LENGTH_BYTES = 4

/**
 * Frames over a libp2p stream: u32 length, bytes. Reading is pulled: at most one frame and one message of the stream are held,
 * beyond that the peer is held back. Make it in the turn the stream is obtained in.
 */
export class FrameStream {
  readonly #stream: Stream
  readonly #frameMax: number
  #chunks: Uint8Array[] = []
  #held = 0
  /** Length of the frame that is coming in, its head included; null before the head is there. */
  #need: number | null = null
  #ended = false
  #failed: Error | null = null
  #paused = false
  #wake: (() => void) | null = null
  #drained: (() => void) | null = null

  /** @param frameMax the longest frame that is taken from the peer */
  constructor(stream: Stream, frameMax: number) {
    this.#stream = stream
    this.#frameMax = frameMax
    stream.addEventListener('message', (event) => this.#take(event.data))
    stream.addEventListener('end', () => this.#end(null))
    stream.addEventListener('close', (event) => this.#end(event.error ?? null))
    stream.addEventListener('drain', () => this.#drain())
  }

  /** False from the moment either side has ended. */
  get isOpen(): boolean {
    return !this.#ended && this.#stream.status === 'open'
  }

  /** Whether the peer takes in what was sent. */
  get isWritable(): boolean {
    return this.isOpen && !this.#stream.writableNeedsDrain
  }

  /** Sends a frame (bytes pass on). Returns false when the peer does not keep up, or the stream has ended. */
  send(frame: Uint8Array): boolean {
    if (!this.isOpen) return false
    const head = new Uint8Array(LENGTH_BYTES + frame.length)
    new DataView(head.buffer).setUint32(0, frame.length)
    head.set(frame, LENGTH_BYTES)
    try {
      return this.#stream.send(head)
    } catch {
      // The stream closed between the look at it and the send.
      this.#end(null)
      return false
    }
  }

  /** Waits until the peer takes in more. @throws the signal's reason */
  async writable(signal: AbortSignal): Promise<void> {
    while (this.isOpen && this.#stream.writableNeedsDrain) {
      await waitFor((wake) => {
        this.#drained = wake
      }, signal)
    }
  }

  /**
   * The next frame, or null when the peer has ended in order between frames. One reader at a time.
   * @throws MalformedError when the peer announces a frame that is too long, or ends within one; the signal's reason
   */
  async read(signal: AbortSignal): Promise<Uint8Array | null> {
    for (;;) {
      const frame = this.#takeFrame()
      if (frame) return frame
      if (this.#ended) {
        if (this.#failed)
          throw new ShallotError('stream-lost', 'the stream to a peer was lost', { kind: 'link', retry: 'later', cause: this.#failed })
        if (this.#held > 0) throw new MalformedError('frame', 'is cut short')
        return null
      }
      this.#flow(true)
      await waitFor((wake) => {
        this.#wake = wake
      }, signal)
    }
  }

  /** Ends in order; aborts when the peer does not follow within a while. */
  close(): void {
    this.#end(null)
    this.#stream.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch((error) => this.#stream.abort(error as Error))
  }

  abort(): void {
    this.#end(null)
    this.#stream.abort(new Error('not wanted any more'))
  }

  #take(data: Uint8Array | Uint8ArrayList): void {
    if (this.#ended) return
    const bytes = data instanceof Uint8Array ? data : data.subarray()
    this.#chunks.push(bytes)
    this.#held += bytes.length
    this.#flow(false)
    this.#wake?.()
  }

  /** Stops the peer while a whole frame is waiting for its reader. */
  #flow(isReading: boolean): void {
    const isEnough = !isReading && this.#held > this.#frameMax + LENGTH_BYTES
    if (isEnough === this.#paused || this.#ended) return
    this.#paused = isEnough
    if (isEnough) this.#stream.pause()
    else this.#stream.resume()
  }

  #takeFrame(): Uint8Array | null {
    if (this.#need === null) {
      if (this.#held < LENGTH_BYTES) return null
      const head = this.#joined()
      const length = new DataView(head.buffer, head.byteOffset, LENGTH_BYTES).getUint32(0)
      if (length > this.#frameMax) throw new MalformedError('frame', `has ${length} bytes, more than ${this.#frameMax}`)
      this.#need = LENGTH_BYTES + length
    }
    // Pieces are only joined once all are there: a peer that sends single bytes must not cost a copy for each.
    if (this.#held < this.#need) return null
    const all = this.#joined()
    const frame = all.subarray(LENGTH_BYTES, this.#need)
    const rest = all.subarray(this.#need)
    this.#chunks = rest.length > 0 ? [rest] : []
    this.#held = rest.length
    this.#need = null
    return frame
  }

  #joined(): Uint8Array {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0]!
  }

  #end(error: Error | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#failed = error
    this.#wake?.()
    this.#drain()
  }

  #drain(): void {
    const drained = this.#drained
    this.#drained = null
    drained?.()
  }
}

const CLOSE_MS = 5_000

function waitFor(subscribe: (wake: () => void) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const aborted = (): void => reject(signal.reason)
    signal.addEventListener('abort', aborted, { once: true })
    subscribe(() => {
      signal.removeEventListener('abort', aborted)
      resolve()
    })
  })
}
