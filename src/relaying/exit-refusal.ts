import { ShallotError } from '../base/index.ts'
import type { EndReason } from '../onion/index.ts'

/** What an exit could not or would not do. `reason` is what the client is told by END; `code` is the same word. */
export class ExitRefusal extends ShallotError {
  readonly reason: EndReason

  /** @param message for the operator's debug log; never sent to the client */
  constructor(reason: EndReason, message: string, cause?: unknown) {
    super(reason, message, {
      kind: reason === 'policy' || reason === 'resource-limit' || reason === 'not-exit' ? 'exit' : 'remote',
      retry: 'elsewhere',
      cause,
    })
    this.name = 'ExitRefusal'
    this.reason = reason
  }
}

/** The END reason of anything that an exit's connect, resolve or socket failed with: refusals, system errors (errno names), resolver errors. */
export function endReasonOf(error: unknown): EndReason {
  if (error instanceof ExitRefusal) return error.reason
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? (byCode.get(code) ?? 'internal') : 'internal'
}

// connect(2), send(2), getaddrinfo(3), node:dns
const byCode: ReadonlyMap<string, EndReason> = new Map<string, EndReason>([
  ['ECONNREFUSED', 'refused'],
  ['ETIMEDOUT', 'timeout'],
  ['ETIMEOUT', 'timeout'],
  ['EHOSTUNREACH', 'unreachable'],
  ['ENETUNREACH', 'unreachable'],
  ['EHOSTDOWN', 'unreachable'],
  ['ENETDOWN', 'unreachable'],
  ['EADDRNOTAVAIL', 'unreachable'],
  ['EAFNOSUPPORT', 'unreachable'],
  ['EACCES', 'unreachable'], // a broadcast address, or refused by this host's own firewall
  ['EPERM', 'unreachable'],
  ['EINVAL', 'unreachable'],
  ['ECONNRESET', 'reset'],
  ['ECONNABORTED', 'reset'],
  ['EPIPE', 'reset'],
  ['ERR_STREAM_PREMATURE_CLOSE', 'reset'],
  ['ERR_STREAM_DESTROYED', 'reset'],
  ['ENOTFOUND', 'resolve-failed'],
  ['ENODATA', 'resolve-failed'],
  ['ENONAME', 'resolve-failed'],
  ['EBADNAME', 'resolve-failed'],
  ['EBADRESP', 'resolve-failed'],
  ['EFORMERR', 'resolve-failed'],
  ['ENOTIMP', 'resolve-failed'],
  ['EREFUSED', 'resolve-failed'],
  ['ESERVFAIL', 'resolve-failed'],
  ['EAI_AGAIN', 'resolve-failed'],
  ['EAI_FAIL', 'resolve-failed'],
  ['EMFILE', 'resource-limit'],
  ['ENFILE', 'resource-limit'],
  ['ENOBUFS', 'resource-limit'],
  ['ENOMEM', 'resource-limit'],
  ['EADDRINUSE', 'resource-limit'], // no local port left
])
