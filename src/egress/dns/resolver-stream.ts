import { Duplex } from 'node:stream'
import { FrameReader, frameMessage } from '../../dns/index.ts'
import { ExitRefusal } from '../../relaying/index.ts'

/** The longest question that is taken: EDNS options and all, it has a few hundred bytes. */
const MAX_QUESTION_BYTES = 4096
const HIGH_WATER_BYTES = 65_536

export interface ResolverStreamOptions {
  /** An answer to each question, null to what deserves none. Never rejects. */
  readonly answer: (question: Uint8Array) => Promise<Uint8Array | null>
  /** Counts a question; milliseconds to wait before the next one. */
  readonly spendQuestion: () => number
  /** Counts bytes that moved; milliseconds to wait before more. */
  readonly spendBytes: (bytes: number) => number
  /** Whether answers that nobody takes are too many by now. */
  readonly overfull: () => boolean
  readonly maxQuestions: number
  readonly idleTimeoutMs: number
}

/** The exit's end of a stream of questions and answers (RFC 7766): answers go out as they come in. What is too much waits, with it the client's bytes. */
export class ResolverStream extends Duplex {
  readonly #options: ResolverStreamOptions
  readonly #reader = new FrameReader(MAX_QUESTION_BYTES)
  /** Questions of the chunk that is being written. */
  #waiting: Uint8Array[] = []
  #written: ((error?: Error | null) => void) | null = null
  #ended: (() => void) | null = null
  #asked = 0
  /** The reader wants more, and no rate says to wait. */
  #wanted = true
  #rest: NodeJS.Timeout | undefined
  /** Its own direction has ended: nothing is answered any more. */
  #over = false
  #idle: NodeJS.Timeout | undefined

  constructor(options: ResolverStreamOptions) {
    super({ allowHalfOpen: true, readableHighWaterMark: HIGH_WATER_BYTES, writableHighWaterMark: HIGH_WATER_BYTES })
    this.#options = options
    this.on('error', () => {})
    this.#watchIdle()
  }

  override _read(): void {
    this.#wanted = true
    this.#pump()
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    try {
      if (this.#over) throw new ExitRefusal('timeout', 'no question for too long')
      this.#waiting = this.#reader.push(chunk)
    } catch (error) {
      done(error as Error)
      return
    }
    this.#restFor(this.#options.spendBytes(chunk.length))
    this.#written = done
    this.#pump()
  }

  override _final(done: () => void): void {
    this.#ended = done
    this.#pump()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#rest)
    clearTimeout(this.#idle)
    this.#rest = undefined
    this.#waiting = []
    done(error)
  }

  #pump(): void {
    while (this.#waiting.length > 0 && this.#asked < this.#options.maxQuestions && this.#wanted && this.#rest === undefined) {
      const question = this.#waiting.shift()!
      this.#asked++
      clearTimeout(this.#idle)
      this.#restFor(this.#options.spendQuestion())
      void this.#options.answer(question).then((answer) => this.#answered(answer))
    }
    if (this.#waiting.length > 0 || this.#rest !== undefined) return
    const written = this.#written
    this.#written = null
    written?.()
    if (this.#ended === null || this.#asked > 0) return
    this.#ended()
    this.#ended = null
    this.#finish()
  }

  #answered(answer: Uint8Array | null): void {
    this.#asked--
    if (this.destroyed) return
    if (answer !== null && !this.#over) {
      if (this.readableLength > HIGH_WATER_BYTES && this.#options.overfull()) {
        this.destroy(new ExitRefusal('resource-limit', 'answers are not taken'))
        return
      }
      const frame = frameMessage(answer)
      this.#restFor(this.#options.spendBytes(frame.length))
      this.#wanted = this.push(frame)
    }
    if (this.#asked === 0) this.#watchIdle()
    this.#pump()
  }

  #restFor(ms: number): void {
    if (ms <= 0 || this.#rest !== undefined) return
    this.#rest = setTimeout(() => {
      this.#rest = undefined
      this.#pump()
    }, ms)
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.push(null)
  }

  /** First it ends its own direction, which is no loss to who has no question; then, if nothing comes of that, the whole. */
  #watchIdle(): void {
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      if (this.#over) {
        this.destroy(new ExitRefusal('timeout', 'no question for too long'))
        return
      }
      this.#finish()
      this.#watchIdle()
    }, this.#options.idleTimeoutMs)
    this.#idle.unref()
  }
}
