import type { Target } from '../onion/index.ts'
import type { StreamEnd, StreamFacts } from './circuit-facts.ts'
import type { CircuitStream } from './circuit-stream.ts'

/** Streams, associations and leases of this process are counted, whatever circuit they are on. */
let nextNumber = 1

/** A number for a stream, an association or a lease: never used again in this process, and what people see. */
export function newStreamNumber(): number {
  return nextNumber++
}

/** A stream began or ended. The facts are those of that moment. */
export type StreamTold = (what: 'open' | 'closed', facts: StreamFacts) => void

/** A stream that an application, or the DNS service, holds. */
export interface OpenStream {
  readonly number: number
  readonly openedAt: number
  readonly duplex: CircuitStream
  /** Null: the exit's own resolver. */
  readonly target: Target | null
  isConnected: boolean
  localDone: boolean
  remoteDone: boolean
}

/** The streams of one circuit, by the machine's ids. */
export class OpenStreams {
  readonly #now: () => number
  readonly #told: StreamTold
  readonly #streams = new Map<number, OpenStream>()

  constructor(now: () => number, told: StreamTold) {
    this.#now = now
    this.#told = told
  }

  get size(): number {
    return this.#streams.size
  }

  add(id: number, duplex: CircuitStream, target: Target | null): void {
    const stream: OpenStream = {
      number: newStreamNumber(),
      openedAt: this.#now(),
      duplex,
      target,
      isConnected: false,
      localDone: false,
      remoteDone: false,
    }
    this.#streams.set(id, stream)
    this.#told('open', factsOf(stream))
  }

  get(id: number): OpenStream | undefined {
    return this.#streams.get(id)
  }

  has(id: number): boolean {
    return this.#streams.has(id)
  }

  numbered(number: number): OpenStream | undefined {
    return [...this.#streams.values()].find((stream) => stream.number === number)
  }

  /** False when there is no such stream. */
  delete(id: number, end: StreamEnd): boolean {
    const stream = this.#streams.get(id)
    if (!stream) return false
    this.#streams.delete(id)
    this.#told('closed', factsOf(stream, end))
    return true
  }

  /** Forgets all, and gives them. */
  clear(end: StreamEnd): OpenStream[] {
    const all = [...this.#streams]
    for (const [id] of all) this.delete(id, end)
    return all.map(([, stream]) => stream)
  }

  facts(): StreamFacts[] {
    return [...this.#streams.values()].map((stream) => factsOf(stream))
  }
}

function factsOf({ number, openedAt, duplex, target, isConnected }: OpenStream, end: StreamEnd | null = null): StreamFacts {
  return {
    id: number,
    kind: target === null ? 'dns' : 'stream',
    target,
    openedAt,
    state: isConnected ? 'open' : 'connecting',
    end,
    bytesIn: duplex.bytesIn,
    bytesOut: duplex.bytesOut,
  }
}
