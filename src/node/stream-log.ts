import type { PooledCircuit, StreamFacts as PoolStreamFacts } from '../client/index.ts'
import { type Clocks, streamFactsOf } from './facts.ts'
import type { NodeEvent, StreamFacts } from './node-control.ts'

/** Streams that ended which are remembered, and for how long: long enough to be seen by who opens the dashboard after a request. */
const MAX_RECENT = 64
const RECENT_MS = 300_000
/** Events of single streams in a second, of either kind: beyond it only their number is told. */
const MAX_EVENTS_PER_SECOND = 50

/** Tells of streams that begin and end, and remembers the last that ended. It holds targets: for the person at this machine only. */
export class StreamLog {
  readonly #clocks: Clocks
  readonly #emit: (event: NodeEvent) => void
  readonly #recent: StreamFacts[] = []
  #told = 0
  #untold = 0
  #changed = false

  constructor(clocks: Clocks, emit: (event: NodeEvent) => void) {
    this.#clocks = clocks
    this.#emit = emit
  }

  note(type: 'stream-open' | 'stream-closed', circuit: PooledCircuit, stream: PoolStreamFacts): void {
    const at = this.#clocks.wall()
    const facts = streamFactsOf(stream, circuit, this.#clocks)
    const told: StreamFacts = type === 'stream-open' ? facts : { ...facts, state: 'closed', closedAt: at }
    if (type === 'stream-closed') {
      this.#recent.push(told)
      if (this.#recent.length > MAX_RECENT) this.#recent.shift()
    }
    this.#changed = true
    if (this.#told >= MAX_EVENTS_PER_SECOND) this.#untold++
    else {
      this.#told++
      this.#emit({ type, at, stream: told })
    }
  }

  /** Those that ended lately, oldest first. */
  recent(): readonly StreamFacts[] {
    this.#forget()
    return [...this.#recent]
  }

  /** To be called once a second. @param open how many streams there are now */
  tick(open: () => number): void {
    this.#forget()
    if (this.#changed) this.#emit({ type: 'streams', at: this.#clocks.wall(), open: open(), untold: this.#untold })
    this.#changed = false
    this.#told = 0
    this.#untold = 0
  }

  #forget(): void {
    const since = this.#clocks.wall() - RECENT_MS
    while ((this.#recent[0]?.closedAt ?? since) < since) this.#recent.shift()
  }
}
