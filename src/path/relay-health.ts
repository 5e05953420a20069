import type { NodeId } from '../base/index.ts'
import type { CloseReason } from '../onion/index.ts'

/** Relays whose failures are remembered; beyond it the one that failed least recently is forgotten. */
const MAX_RELAYS = 2048
/** Blame at which a relay is set aside: one failure that points at it alone, or two that point at it or a neighbour. */
const SET_ASIDE_AT = 1
/** Blame halves in this time. */
const HALF_LIFE_MS = 10 * 60_000
/** The first time a relay is set aside, doubled with every further time, and the longest. */
const SET_ASIDE_MS = { first: 30_000, most: 3_600_000 } as const
/** A relay that was not set aside for this long begins at the first time again. */
const FORGIVEN_MS = 6 * 3_600_000

/** How a circuit or a build of one failed. The machine's 'closed', and how many hops had been established. */
export interface CircuitFailure {
  readonly reason: CloseReason
  readonly origin: 'local' | 'remote'
  /** The hop that said CLOSED (from 0), when one did. */
  readonly hop: number | null
  readonly established: number
  /** Of a circuit that fell silent: the first hop that gave no sign of life, nor any behind it. */
  readonly silent?: number | null
}

/** Points of blame for the hop at this index of the path. */
export interface Blame {
  readonly hop: number
  readonly points: number
}

/**
 * Who may be to blame for a failure, by what the failing side said. Whoever accuses a neighbour gets a part of the blame itself, so
 * that a relay that names others to steer paths away from them is soon set aside; not where the accused is behind NAT, since its router and its NAT
 * relay fail more often than any neighbour lies. Guards have their own machine (`GuardSample`).
 * @param behindNat the hops of the path that are behind NAT
 */
export function blameFor(failure: CircuitFailure, hops: number, behindNat: readonly number[] = []): readonly Blame[] {
  const { reason, origin, hop, established, silent = null } = failure
  const all = Array.from({ length: hops }, (_, index) => ({ hop: index, points: 1 / hops }))
  if (reason === 'requested' || reason === 'finished') return []
  const next = (at: number, accused: number, accuser: number): Blame[] =>
    at + 1 >= hops
      ? [{ hop: at, points: accuser }]
      : [{ hop: at + 1, points: accused }, ...(behindNat.includes(at + 1) ? [] : [{ hop: at, points: accuser }])]
  // The guard's silence is the guard machine's to count, or the network's.
  if (silent !== null) return silent === 0 ? [] : next(silent - 1, 1, 0.25)
  if (origin === 'remote' && hop !== null) {
    switch (reason) {
      case 'connect-failed':
      case 'identity-mismatch':
        return next(hop, 1, 0.25)
      case 'channel-lost':
        return next(hop, 0.75, 0.25)
      case 'timeout':
      case 'handshake-failed':
        return next(hop, 0.5, 0.5)
      case 'unknown-relay': // their views differ: nobody failed yet
        return next(hop, 0.5, 0.25)
      case 'shutting-down':
        return [{ hop, points: 2 }]
      default: // what it says of itself: limits, overload, a mistake, or a protocol error it saw
        return [{ hop, points: 1 }]
    }
  }
  switch (reason) {
    case 'timeout':
    case 'handshake-failed':
      if (established >= hops) return all
      return established === 0 ? [] : next(established - 1, 0.5, 0.5)
    case 'channel-lost': // the guard's channel: the guard machine's to count
      return []
    case 'protocol': // a cell was changed somewhere
      return all
    default: // our own doing
      return []
  }
}

interface Health {
  blame: number
  at: number
  times: number
  asideUntil: number
}

/** Which relays failed too often lately. Bounded; nothing is kept on disk. Times are monotonic ms. */
export class RelayHealth {
  /** Least recently blamed first. */
  readonly #relays = new Map<NodeId, Health>()

  /** @returns who was set aside by it */
  noteFailure(path: readonly NodeId[], failure: CircuitFailure, now: number, behindNat: readonly number[] = []): readonly NodeId[] {
    return blameFor(failure, path.length, behindNat).flatMap(({ hop, points }) =>
      this.#blame(path[hop]!, points, now) ? [path[hop]!] : [],
    )
  }

  /** A circuit through these hops was built or did its work. */
  noteSuccess(path: readonly NodeId[], now: number): void {
    for (const id of path) {
      const health = this.#relays.get(id)
      if (!health) continue
      health.blame = decayed(health, now) / 2
      health.at = now
      if (health.blame < SET_ASIDE_AT / 8 && health.asideUntil <= now) {
        if (health.times <= 1) this.#relays.delete(id)
        else health.times--
      }
    }
  }

  /** Relays that paths keep away from for now, where there are others. */
  setAside(now: number): ReadonlySet<NodeId> {
    const aside = new Set<NodeId>()
    for (const [id, health] of this.#relays) if (health.asideUntil > now) aside.add(id)
    return aside
  }

  /** For people: who is set aside, until when, how many times in a row. */
  facts(now: number): readonly { readonly id: NodeId; readonly until: number; readonly times: number }[] {
    return [...this.#relays].flatMap(([id, { asideUntil, times }]) => (asideUntil > now ? [{ id, until: asideUntil, times }] : []))
  }

  get size(): number {
    return this.#relays.size
  }

  #blame(id: NodeId, points: number, now: number): boolean {
    const health = this.#relays.get(id) ?? { blame: 0, at: now, times: 0, asideUntil: 0 }
    this.#relays.delete(id)
    this.#relays.set(id, health)
    if (this.#relays.size > MAX_RELAYS) this.#relays.delete(this.#relays.keys().next().value!)
    if (health.asideUntil > now) return false
    health.blame = decayed(health, now) + points
    health.at = now
    if (health.blame < SET_ASIDE_AT) return false
    health.times = now - health.asideUntil > FORGIVEN_MS ? 1 : health.times + 1
    health.asideUntil = now + Math.min(SET_ASIDE_MS.most, SET_ASIDE_MS.first * 2 ** (health.times - 1))
    health.blame = 0
    return true
  }
}

function decayed(health: Health, now: number): number {
  return health.blame * 2 ** (-Math.max(0, now - health.at) / HALF_LIFE_MS)
}
