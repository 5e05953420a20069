import { type ErrorFacts, ShallotError } from '../base/index.ts'
import type { EndReason } from '../onion/index.ts'

/** Why a stream, a resolution or an association did not open: what the exit said, or 'no-circuit' or 'aborted' from here. */
export type StreamErrorReason = EndReason | 'no-circuit' | 'aborted'

/** What ClientService throws, and what a stream that is lost is destroyed with. `code` is the reason. */
export class StreamError extends ShallotError {
  readonly reason: StreamErrorReason

  /** @param message the usual words for the reason when not given, @param facts what differs from the usual kind and retry of the reason */
  constructor(reason: StreamErrorReason, message: string = usual[reason].message, facts: Partial<ErrorFacts> = {}) {
    super(reason, message, { kind: usual[reason].kind, retry: usual[reason].retry, ...facts })
    this.name = 'StreamError'
    this.reason = reason
  }
}

const usual: Readonly<Record<StreamErrorReason, ErrorFacts & { readonly message: string }>> = {
  done: { kind: 'remote', retry: 'later', message: 'the other side ended the stream' },
  reset: { kind: 'remote', retry: 'later', message: 'the other side reset the connection' },
  refused: { kind: 'remote', retry: 'later', message: 'the server refused the connection' },
  unreachable: { kind: 'remote', retry: 'elsewhere', message: 'the exit has no route to the server' },
  timeout: { kind: 'remote', retry: 'later', message: 'the server did not answer in time' },
  'resolve-failed': { kind: 'remote', retry: 'elsewhere', message: 'the name has no address' },
  policy: { kind: 'exit', retry: 'elsewhere', message: "the exit's policy refuses this target" },
  'resource-limit': { kind: 'exit', retry: 'elsewhere', message: 'a limit was reached' },
  'not-exit': { kind: 'exit', retry: 'elsewhere', message: 'the last relay serves no streams' },
  internal: { kind: 'exit', retry: 'elsewhere', message: 'the exit failed' },
  'circuit-lost': { kind: 'relay', retry: 'now', message: 'the circuit was lost' },
  'no-circuit': { kind: 'relay', retry: 'later', message: 'no circuit could be built' },
  aborted: { kind: 'usage', retry: 'never', message: 'given up before it was done' },
}
