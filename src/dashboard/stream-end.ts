import type { Stream, StreamEnd } from '../control/api-types.ts'

/** What went wrong, in plain words; what is not here went as it should, or was ended from this side. */
const WENT_WRONG: Readonly<Record<StreamEnd, string | null>> = {
  done: null,
  aborted: null,
  reset: 'The server cut the connection',
  refused: 'The server refused the connection',
  unreachable: 'The exit found no way to the server',
  timeout: 'The server did not answer in time',
  'resolve-failed': 'The name has no address',
  policy: 'The exit does not allow this target',
  'resource-limit': 'The exit could take no more',
  'not-exit': 'The last relay is no exit',
  internal: 'The exit failed',
  'circuit-lost': 'The circuit broke',
}

/** Why a request failed; null while it goes on, and when it did not fail. */
export function failureOf({ state, end }: Stream): string | null {
  return state !== 'closed' || end === null ? null : WENT_WRONG[end]
}
