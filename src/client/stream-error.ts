import { type ErrorFacts, ShallotError } from '../base/index.ts'
import type { EndReason } from '../onion/index.ts'

/** Why a stream, a resolution or an association did not open: what the exit said, or 'no-circuit' or 'aborted' from here. */
export type StreamErrorReason = EndReason | 'no-circuit' | 'aborted'

/** What ClientService throws, and what a stream that is lost is destroyed with. `code` is the reason. */
export class StreamError extends ShallotError {
  readonly reason: StreamErrorReason

  /** @param facts what differs from the usual kind and retry of the reason */
  constructor(reason: StreamErrorReason, message: string, facts: Partial<ErrorFacts> = {}) {
    super(reason, message, { ...usual[reason], ...facts })
    this.name = 'StreamError'
    this.reason = reason
  }
}

const usual: Readonly<Record<StreamErrorReason, ErrorFacts>> = {
  done: { kind: 'remote', retry: 'later' },
  reset: { kind: 'remote', retry: 'later' },
  refused: { kind: 'remote', retry: 'later' },
  unreachable: { kind: 'remote', retry: 'elsewhere' },
  timeout: { kind: 'remote', retry: 'later' },
  'resolve-failed': { kind: 'remote', retry: 'elsewhere' },
  policy: { kind: 'exit', retry: 'elsewhere' },
  'resource-limit': { kind: 'exit', retry: 'elsewhere' },
  'not-exit': { kind: 'exit', retry: 'elsewhere' },
  internal: { kind: 'exit', retry: 'elsewhere' },
  'circuit-lost': { kind: 'relay', retry: 'now' },
  'no-circuit': { kind: 'relay', retry: 'later' },
  aborted: { kind: 'usage', retry: 'never' },
}
