import type { Target } from '../onion/index.ts'
import type { StreamEnd, StreamFacts } from './circuit-facts.ts'
import { newStreamNumber, type StreamTold } from './open-streams.ts'

interface Association {
  readonly number: number
  readonly openedAt: number
  readonly receive: (from: Target, bytes: Uint8Array) => void
  readonly closed: () => void
  bytesIn: number
  bytesOut: number
}

/** The UDP associations of one circuit, by the machine's ids. */
export class CircuitDatagrams {
  readonly #now: () => number
  readonly #told: StreamTold
  readonly #associations = new Map<number, Association>()

  constructor(now: () => number, told: StreamTold) {
    this.#now = now
    this.#told = told
  }

  get size(): number {
    return this.#associations.size
  }

  add(id: number, receive: Association['receive'], closed: () => void): void {
    const association = { number: newStreamNumber(), openedAt: this.#now(), receive, closed, bytesIn: 0, bytesOut: 0 }
    this.#associations.set(id, association)
    this.#told('open', factsOf(association))
  }

  /** A datagram leaves; false when the association is over. */
  sent(id: number, length: number): boolean {
    const association = this.#associations.get(id)
    if (association) association.bytesOut += length
    return association !== undefined
  }

  receive(id: number, from: Target, bytes: Uint8Array): void {
    const association = this.#associations.get(id)
    if (!association) return
    association.bytesIn += bytes.length
    association.receive(from, bytes)
  }

  /** The machine's id of the association that people see under this number. */
  numbered(number: number): number | undefined {
    return [...this.#associations].find(([, association]) => association.number === number)?.[0]
  }

  /** Given back from this side. False when it is over already. */
  delete(id: number): boolean {
    return this.#take(id, 'done') !== undefined
  }

  /** The other side has closed it, or `end`. */
  closed(id: number, end: StreamEnd = 'done'): void {
    this.#take(id, end)?.closed()
  }

  /** The circuit is gone. */
  lost(): void {
    for (const id of [...this.#associations.keys()]) this.closed(id, 'circuit-lost')
  }

  facts(): StreamFacts[] {
    return [...this.#associations.values()].map((association) => factsOf(association))
  }

  #take(id: number, end: StreamEnd): Association | undefined {
    const association = this.#associations.get(id)
    if (!association) return undefined
    this.#associations.delete(id)
    this.#told('closed', factsOf(association, end))
    return association
  }
}

function factsOf({ number, openedAt, bytesIn, bytesOut }: Association, end: StreamEnd | null = null): StreamFacts {
  return { id: number, kind: 'datagrams', target: null, openedAt, state: 'open', end, bytesIn, bytesOut }
}
