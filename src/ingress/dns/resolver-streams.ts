import { type ClientService, StreamError } from '../../client/index.ts'
import type { DnsMessage } from '../../dns/index.ts'
import { type CircuitQuestion, KeptStream } from './kept-stream.ts'

export interface ResolverStreamsOptions {
  readonly client: ClientService
  readonly maxStreams: number
  readonly openTimeoutMs: number
  readonly idleTimeoutMs: number
  readonly maxAgeMs: number
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly foreign: () => void
}

interface Kept {
  readonly stream: KeptStream
  readonly since: number
}

/** One stream to an exit's resolver for each isolation key that asks. */
export class ResolverStreams {
  readonly #options: ResolverStreamsOptions
  /** In the order of use, the oldest first. */
  readonly #kept = new Map<string, Kept>()
  /** The same, and those that take no more questions but still have some under way. */
  readonly #all = new Set<KeptStream>()
  #closed = false

  constructor(options: ResolverStreamsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#all.size
  }

  /** Asks once more on a new stream where one that had been good is lost. @throws StreamError */
  async ask(isolation: string, asked: CircuitQuestion, signal: AbortSignal): Promise<DnsMessage> {
    try {
      return await this.#streamFor(isolation).ask(asked, signal)
    } catch (error) {
      const lost = error instanceof StreamError && retriable.includes(error.reason)
      if (!lost || signal.aborted || this.#closed) throw error
      return this.#streamFor(isolation).ask(asked, signal)
    }
  }

  /** Ends all of them; there are no others after that. */
  close(): void {
    this.#closed = true
    for (const stream of [...this.#all]) stream.close()
  }

  /** @throws StreamError 'resource-limit' */
  #streamFor(isolation: string): KeptStream {
    if (this.#closed) throw new StreamError('aborted')
    const { now, maxAgeMs } = this.#options
    const known = this.#kept.get(isolation)
    if (known) {
      this.#kept.delete(isolation)
      if (now() - known.since < maxAgeMs) {
        this.#kept.set(isolation, known)
        return known.stream
      }
      known.stream.retire()
    }
    this.#makeRoom()
    return this.#openFor(isolation)
  }

  #openFor(isolation: string): KeptStream {
    const { client, openTimeoutMs, idleTimeoutMs, now, foreign } = this.#options
    const stream: KeptStream = new KeptStream({
      client,
      isolation,
      openTimeoutMs,
      idleTimeoutMs,
      foreign,
      closed: () => {
        this.#all.delete(stream)
        if (this.#kept.get(isolation)?.stream === stream) this.#kept.delete(isolation)
      },
    })
    this.#all.add(stream)
    this.#kept.set(isolation, { stream, since: now() })
    void stream.open()
    return stream
  }

  /** The one that was used longest ago and has nothing under way goes. */
  #makeRoom(): void {
    if (this.#all.size < this.#options.maxStreams) return
    for (const [isolation, { stream }] of this.#kept) {
      if (stream.asking > 0) continue
      this.#kept.delete(isolation)
      stream.retire()
      return
    }
    throw new StreamError('resource-limit', 'too many origins ask at once')
  }
}

/** What a stream that stood is lost by; where none could be opened, the client has tried again already. */
const retriable: readonly string[] = ['circuit-lost', 'reset', 'done', 'timeout']
