/** Every fact and act of the API: what the document is made of, and what the service answers by. */

/** A parameter of a path or a query. */
export type Parameter =
  | { readonly type: 'flag'; readonly help: string }
  | { readonly type: 'integer'; readonly min: number; readonly max: number; readonly help: string }
  | { readonly type: 'text'; readonly max: number; readonly help: string }
  | { readonly type: 'choice'; readonly of: readonly string[]; readonly help: string }
  /** Some of them, with commas between. */
  | { readonly type: 'choices'; readonly of: readonly string[]; readonly help: string }

export interface Route {
  readonly summary: string
  readonly path?: Readonly<Record<string, Parameter>>
  readonly query?: Readonly<Record<string, Parameter>>
  /** Name of the body's schema. */
  readonly body?: string
  /** Name of the answer's schema; `Name[]`: a list of them, `Name?`: or null. */
  readonly answer: string
  /** 200 when not given. */
  readonly status?: number
  /** How the answer is written, where it is not one JSON value. */
  readonly as?: 'events' | 'lines' | 'document'
  /** `socket`: with the node's own token and on the control socket only. `code`: without a token, on the dashboard's listener only. */
  readonly access?: 'socket' | 'code' | 'session'
}

const roles = ['guard', 'middle', 'exit', 'relay', 'bootstrap'] as const
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const
/** Every type of event there is. */
export const EVENT_TYPES = [
  'ready',
  'circuit-open',
  'circuit-retired',
  'circuit-closed',
  'stream-open',
  'stream-closed',
  'streams',
  'guard',
  'view',
  'relays',
  'reachability',
  'vpn',
  'traffic',
  'log',
  'settings',
  'draining',
  'warning',
  'warning-over',
  'stopping',
] as const

const id = (of: string): Readonly<Record<'id', Parameter>> => ({
  id: { type: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER, help: `The number of the ${of}.` },
})
const role: Parameter = { type: 'choice', of: roles, help: 'Only those that claim this role.' }
const logFilter = {
  level: { type: 'choice', of: LOG_LEVELS, help: 'No line less important than this.' },
  sub: { type: 'text', max: 100, help: 'Only this subsystem, and those whose names begin with it and a dot.' },
} as const satisfies Record<string, Parameter>

export const ROUTES = {
  'GET /v1/status': { summary: 'What the node is and how it is doing.', answer: 'NodeStatus' },
  'GET /v1/circuits': {
    summary: "The node's circuits as a client, oldest first, and the last few that ended.",
    query: { why: { type: 'flag', help: '1: with the reasons for each hop.' } },
    answer: 'Circuit[]',
  },
  'DELETE /v1/circuits/{id}': { summary: 'Ends a circuit, and every stream on it.', path: id('circuit'), answer: 'Circuit' },
  'POST /v1/circuits/{id}/ping': {
    summary: 'Measures the round trip to each hop of an open circuit.',
    path: id('circuit'),
    answer: 'Circuit',
  },
  'POST /v1/new-circuit': { summary: 'New streams take fresh circuits; the first of them.', answer: 'Circuit' },
  'GET /v1/streams': {
    summary: 'The streams open now, with their targets.',
    query: {
      recent: { type: 'flag', help: '1: also the last few that ended, for some minutes.' },
      kind: { type: 'choice', of: ['stream', 'datagrams', 'dns', 'packets'], help: 'Only this kind.' },
      last: { type: 'integer', min: 1, max: 1000, help: 'Only the last so many that began.' },
    },
    answer: 'Stream[]',
  },
  'DELETE /v1/streams/{id}': { summary: 'Resets a stream.', path: id('stream'), answer: 'Stream' },
  'GET /v1/relays': { summary: 'The relays the node knows.', query: { role }, answer: 'Relay[]' },
  'GET /v1/relays/brief': {
    summary: 'The same in short, and page by page.',
    query: {
      role,
      country: { type: 'text', max: 2, help: 'Only those in this country; ?? where it is not known.' },
      after: { type: 'text', max: 100, help: 'What follows this node id.' },
      limit: { type: 'integer', min: 1, max: 5000, help: '1000 when left out.' },
    },
    answer: 'RelayPage',
  },
  'GET /v1/relays/{id}': {
    summary: 'One relay.',
    path: { id: { type: 'text', max: 100, help: 'Its node id.' } },
    answer: 'Relay',
  },
  'GET /v1/network': { summary: 'The view in counts: by role, country and version, and how it grew.', answer: 'NetworkSummary' },
  'GET /v1/nat': {
    summary: 'How others reach the node, and what would make it better; null for a pure client, and with nat.enabled = false.',
    answer: 'NatFacts?',
  },
  'POST /v1/reach': {
    summary: 'Reaches for a node of the view, and says how that went; unreachable is an answer too.',
    body: 'ReachRequest',
    answer: 'ReachFacts',
  },
  'GET /v1/vpn': { summary: 'The whole machine through the mesh; null for a node that is no client.', answer: 'VpnFacts?' },
  'POST /v1/vpn/up': {
    summary: 'Everything through the mesh from now on, or nowhere. Answered when it is carried, or not yet after a while.',
    answer: 'VpnFacts',
  },
  'POST /v1/vpn/down': { summary: 'The machine as it was before.', answer: 'VpnFacts' },
  'POST /v1/vpn/session': {
    summary: 'Carries a device until the asker goes away or the node ends the answer.',
    body: 'VpnSessionRequest',
    answer: 'VpnSessionEvent',
    as: 'lines',
    access: 'socket',
  },
  'GET /v1/traffic': { summary: 'The last ten minutes, second by second, oldest first.', answer: 'TrafficSample[]' },
  'GET /v1/log': {
    summary: 'The last lines of the log.',
    query: {
      since: { type: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER, help: 'From this line on: `next` of an earlier answer.' },
      limit: { type: 'integer', min: 1, max: 5000, help: 'The last so many; 500 when left out.' },
      ...logFilter,
    },
    answer: 'LogPage',
  },
  'GET /v1/log-levels': { summary: 'What is written to the log.', answer: 'LogLevels' },
  'PUT /v1/log-levels': {
    summary: 'Another choice, until the node ends. Lasting: the settings log.level and log.subsystems.',
    body: 'LogLevels',
    answer: 'LogLevels',
  },
  'GET /v1/settings': { summary: 'The configuration, key by key, with what each may be.', answer: 'Settings' },
  'PATCH /v1/settings': {
    summary: 'Changes shallot.toml, and at once what can be.',
    body: 'SettingsChange',
    answer: 'SettingsChanged',
  },
  'POST /v1/reload': { summary: 'Reads shallot.toml again, as SIGHUP does.', answer: 'SettingsChanged' },
  'POST /v1/drain': {
    summary:
      'The node leaves: it takes no new circuits, and stops when the last has ended or at the limit. Asked again, it only changes the limit.',
    body: 'DrainRequest',
    answer: 'DrainFacts',
    status: 202,
  },
  'POST /v1/shutdown': { summary: 'The node stops after the answer.', answer: 'Stopping', status: 202 },
  'GET /v1/events': {
    summary: 'What happens from now on, as server-sent events. A comment every 15 s is a sign of life. Who reads too slowly is cut off.',
    query: {
      types: { type: 'choices', of: EVENT_TYPES, help: 'Only these types. Left out: all but log, relays, streams and traffic.' },
      ...logFilter,
    },
    answer: 'Event',
    as: 'events',
  },
  'POST /v1/dashboard-link': {
    summary: 'A link that opens the dashboard.',
    body: 'DashboardLinkRequest',
    answer: 'DashboardLink',
    access: 'socket',
  },
  'POST /v1/session': { summary: "A session for a link's code.", body: 'SessionRequest', answer: 'Session', access: 'code' },
  'DELETE /v1/session': { summary: 'Ends the session that asks.', answer: 'Ended', access: 'session' },
  'GET /v1/openapi.json': { summary: 'This document.', answer: 'Document', as: 'document' },
} as const satisfies Readonly<Record<string, Route>>

export type RouteName = keyof typeof ROUTES
