import type { CircuitFailure, CircuitPurpose, ExitNeed, PathChoice } from '../path/index.ts'
import type { CircuitEnd, StreamFacts } from './circuit-facts.ts'
import type { OwnCircuit } from './own-circuit.ts'

/** A circuit of ours, from the choice of its path to its end. Times are monotonic ms. */
export interface PooledCircuit {
  readonly id: number
  readonly choice: PathChoice
  readonly need: ExitNeed
  readonly createdAt: number
  readonly spread: number
  state: 'building' | 'ready' | 'retired' | 'closed'
  purpose: CircuitPurpose | null
  isolation: string | null
  firstUsedAt: number | null
  readyAt: number | null
  /** Null until the guard's channel is open. */
  circuit: OwnCircuit | null
  end: CircuitEnd | null
  /** Wishes have changed since its path was chosen: when it is built it takes nothing. */
  unwanted: boolean
  /** Whether its first use has been told to the guard's tally. */
  useNoted: boolean
  /** Bytes at the last measurement, and when. */
  measured: { bytes: number; at: number }
}

export type PoolEvent =
  /** Built; takes nothing new, and ends with what is on it; ended. */
  | { readonly type: 'open' | 'retired' | 'closed'; readonly circuit: PooledCircuit }
  /** A stream, an association or a lease began or ended on the circuit. */
  | { readonly type: 'stream-open' | 'stream-closed'; readonly circuit: PooledCircuit; readonly stream: StreamFacts }

/** How a circuit failed, as `path` judges it. */
export function failureOf(end: CircuitEnd): CircuitFailure {
  return { reason: end.reason, origin: end.origin, hop: end.hop, established: end.hops, silent: end.silent }
}

/** Indexes of the hops that are behind NAT. */
export function hopsBehindNat({ choice }: PooledCircuit): number[] {
  return choice.relays.flatMap(({ reach }, index) => (reach === 'direct' ? [] : [index]))
}
