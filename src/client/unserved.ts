import { type CircuitRequest, needOf, type PathView } from '../path/index.ts'
import { StreamError } from './stream-error.ts'

/** A request that no exit takes waits this long all the same: the view may be growing. */
const UNSERVED_WAIT_MS = 2_000

/**
 * Why waiting for a circuit is of no use: there are exits, and none of them takes this request, or all that do refused it. Null while one may.
 * @param waitedMs since the request came
 */
export function whyUnserved(view: PathView, request: CircuitRequest, waitedMs: number): StreamError | null {
  if (waitedMs < UNSERVED_WAIT_MS) return null
  const all = view.exits({ ports: [], family: null })
  if (all.total === 0) return null
  const serving = view.exits(needOf(request)).indexes
  for (const index of serving) if (!request.excludeExits?.has(view.relays[index]!.id)) return null
  if (serving.length > 0) return new StreamError('no-circuit', 'every exit that takes this was asked and refused')
  if (request.purpose === 'packets') return new StreamError('not-exit', 'no exit of this network serves raw packets')
  return new StreamError('policy', 'no exit of this network lets anybody connect to that port')
}
