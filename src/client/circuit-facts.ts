import { type NodeId, ShallotError } from '../base/index.ts'
import type { CloseReason, EndReason, OnionPublicKey, Target } from '../onion/index.ts'

/** A relay of a path, as a circuit needs it. */
export interface CircuitHop {
  readonly id: NodeId
  readonly onionKey: OnionPublicKey
  readonly addresses: readonly string[]
}

/** How a circuit ended. */
export interface CircuitEnd {
  readonly reason: CloseReason
  readonly origin: 'local' | 'remote'
  /** Index of the hop that reported it, or null when it was this side. */
  readonly hop: number | null
  /** How many hops stood. */
  readonly hops: number
  /** Of a circuit that fell silent: the first hop that no sign of life came from, nor from any behind it. Null for every other end. */
  readonly silent: number | null
}

/** Building failed; `end` says where. */
export class CircuitBuildError extends ShallotError {
  readonly end: CircuitEnd
  constructor(end: CircuitEnd) {
    super('circuit-build-failed', `circuit not built: ${end.reason} with ${end.hops} hops standing`, { kind: 'relay', retry: 'elsewhere' })
    this.end = end
  }
}

/** How a stream ended: what the exit said, `circuit-lost`, or `aborted`: given up from this side before the other had ended it. */
export type StreamEnd = EndReason | 'aborted'

/** A stream as `shallot streams` shows it. */
export interface StreamFacts {
  readonly id: number
  /** `dns`: a stream to the exit's own resolver; `packets`: a lease of addresses for raw packets. */
  readonly kind: 'stream' | 'datagrams' | 'dns' | 'packets'
  /** Null for all but `stream`. */
  readonly target: Target | null
  /** Monotonic ms. */
  readonly openedAt: number
  readonly state: 'connecting' | 'open'
  /** Null while it has not ended. */
  readonly end: StreamEnd | null
  readonly bytesIn: number
  readonly bytesOut: number
}
