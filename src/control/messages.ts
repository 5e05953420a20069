import type { NatFacts, ReachFacts } from '../nat/index.ts'
import type { CircuitFacts, NodeEvent, NodeStatus, RelayFacts, StreamFacts } from '../node/index.ts'
import type { VpnFacts } from '../vpn/index.ts'

/**
 * The control API: HTTP/1.1 with JSON bodies on a unix socket or the loopback. Every request carries `Authorization: Bearer TOKEN`
 * with the token of the file `control-token` in the node's directory. The route names are the contract; docs/control-api.md tells them to people.
 */
export interface ControlRoutes {
  'GET /v1/status': NodeStatus
  /** `?why=1` fills in the reasons of each path. */
  'GET /v1/circuits': readonly CircuitFacts[]
  /** `?role=exit` keeps those with the role. */
  'GET /v1/relays': readonly RelayFacts[]
  'GET /v1/streams': readonly StreamFacts[]
  /** Null for a pure client. */
  'GET /v1/nat': NatFacts | null
  /** With the body `{"id": "12D3KooW…"}`. Answered when the peer was reached as well as it can be, or was not. */
  'POST /v1/reach': ReachFacts
  'POST /v1/new-circuit': CircuitFacts
  /** Null for a node that is not a client. */
  'GET /v1/vpn': VpnFacts | null
  /** Answered when the mesh carries everything, or does not yet after a while (state 'blocked'). */
  'POST /v1/vpn/up': VpnFacts
  'POST /v1/vpn/down': VpnFacts
  /** Answered before the node ends. */
  'POST /v1/shutdown': { readonly stopping: true }
}

/**
 * `POST /v1/vpn/session` with the body of a VpnSessionRequest: the device's descriptor is taken from the socket. The answer is one line for each of
 * these, and lasts as long as the session: the asker ends it by going away, the node by ending the answer.
 */
export type VpnSessionEvent = { readonly type: 'open' }

/** `GET /v1/events`: server-sent events, each with `event: TYPE` and `data: JSON of this`. */
export type ControlEvent = NodeEvent

/** The body of every answer that is not 2xx. */
export interface ControlProblem {
  readonly error: { readonly code: string; readonly message: string }
}

/** The file with the token, in the node's directory. */
export const TOKEN_FILE = 'control-token'

export const ROUTES = [
  'GET /v1/status',
  'GET /v1/circuits',
  'GET /v1/relays',
  'GET /v1/streams',
  'GET /v1/nat',
  'POST /v1/reach',
  'POST /v1/new-circuit',
  'GET /v1/vpn',
  'POST /v1/vpn/session',
  'POST /v1/vpn/up',
  'POST /v1/vpn/down',
  'POST /v1/shutdown',
  'GET /v1/events',
] as const
