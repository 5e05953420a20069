import type { NodeId } from '../src/base/index.ts'
import { quantile } from './quantiles.ts'

export type NodeKind = 'relay' | 'client'

/** When an edition of a descriptor was published, and when each node had it. */
interface Edition {
  readonly publishedAt: number
  readonly times: Record<NodeKind, number[]>
  /** Nodes that were up when it was published. */
  readonly audience: Readonly<Record<NodeKind, number>>
}

/** Share of a kind's nodes that an edition must have reached before its slowest are counted. */
const REACHED = 0.99

export interface Spread {
  readonly editions: number
  /** Seconds until half, 95 in 100, and 99 in 100 of the nodes had it; each the median over all editions, and the worst. */
  readonly half: number
  readonly most: number
  readonly all: number
  readonly worst: number
  /** Editions that never reached 99 in 100. */
  readonly unfinished: number
}

export interface Convergence {
  readonly atMinutes: number
  readonly nodesUp: number
  /** Share of nodes whose view is the most common one, bit for bit. */
  readonly identical: number
  /** Share of the newest editions of all relays that are up which a node has, on the mean. */
  readonly current: number
}

/** What a run notes of the directory. Times are virtual ms. */
export class Observations {
  readonly #editions = new Map<NodeId, Map<number, Edition>>()
  readonly convergence: Convergence[] = []
  pulls = 0
  pullsSame = 0
  readonly pullEnds = new Map<string, number>()

  published(id: NodeId, sequence: number, now: number, audience: Readonly<Record<NodeKind, number>>): void {
    const editions = this.#editions.get(id) ?? new Map<number, Edition>()
    this.#editions.set(id, editions)
    editions.set(sequence, { publishedAt: now, times: { relay: [], client: [] }, audience })
  }

  received(kind: NodeKind, id: NodeId, sequence: number, now: number): void {
    const edition = this.#editions.get(id)?.get(sequence)
    if (edition) edition.times[kind].push(now - edition.publishedAt)
  }

  /** Over the editions published in [from, to): the ones at the very end had no time to spread. */
  spread(kind: NodeKind, from: number, to: number): Spread {
    const half: number[] = []
    const most: number[] = []
    const all: number[] = []
    let editions = 0
    for (const perRelay of this.#editions.values()) {
      for (const { publishedAt, times, audience } of perRelay.values()) {
        if (publishedAt < from || publishedAt >= to || audience[kind] === 0) continue
        editions++
        const sorted = Float64Array.from(times[kind]).sort()
        const at = (share: number): number => (sorted[Math.ceil(share * audience[kind]) - 1] ?? Number.NaN) / 1000
        if (!Number.isNaN(at(0.5))) half.push(at(0.5))
        if (!Number.isNaN(at(0.95))) most.push(at(0.95))
        if (!Number.isNaN(at(REACHED))) all.push(at(REACHED))
      }
    }
    return {
      editions,
      half: quantile(half, 0.5),
      most: quantile(most, 0.5),
      all: quantile(all, 0.5),
      worst: quantile(all, 1),
      unfinished: editions - all.length,
    }
  }
}
