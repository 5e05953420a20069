import { MalformedError, type NodeId, parseNetwork, parseNodeId } from '../base/index.ts'
import type { ServingRole } from '../directory/index.ts'
import { guardedProblems, type LogQuery, type NodeControl, type RelayQuery } from '../node/index.ts'
import type { RouteName } from './api/routes.ts'
import type * as Api from './api-types.ts'
import { Refusal } from './http.ts'
import type { Parameters } from './parameters.ts'
import type { Caller, ServiceOptions } from './service.ts'

/** What a link is good for when nothing is said: to be opened once, now. */
const LINK_MS = 120_000

/** One request that was let in and read. */
export interface Call<Body> {
  readonly node: NodeControl
  readonly options: ServiceOptions
  readonly parameters: Parameters
  readonly body: Body
  readonly caller: Caller
  /** Aborted when the asker goes away. */
  readonly gone: AbortSignal
}

type BodyOf<R> = R extends keyof Api.ApiBodies ? Api.ApiBodies[R] : undefined
/** Answered in the service: they last. */
type Lasting = 'GET /v1/events' | 'POST /v1/vpn/session'

type Handlers = {
  readonly [R in Exclude<RouteName, Lasting>]: (call: Call<BodyOf<R>>) => Api.ApiAnswers[R] | Promise<Api.ApiAnswers[R]>
}

/** What each route does. The parameters have been read by `ROUTES`, so what they are is known. */
const answers: Handlers = {
  'GET /v1/status': ({ node, options }) => ({ ...node.status(), ...options.places() }),
  'GET /v1/circuits': ({ node, parameters }) => node.circuits(parameters.why === true),
  'DELETE /v1/circuits/{id}': ({ node, parameters }) =>
    node.closeCircuit(parameters.id as number) ?? missing('no-such-circuit', 'there is no open circuit with this number'),
  'POST /v1/circuits/{id}/ping': async ({ node, parameters }) =>
    (await node.pingCircuit(parameters.id as number)) ?? missing('no-such-circuit', 'there is no open circuit with this number'),
  'POST /v1/new-circuit': ({ node }) => node.newCircuit(),
  'GET /v1/streams': ({ node, parameters }) => chosenStreams(node.streams(parameters.recent === true), parameters),
  'DELETE /v1/streams/{id}': ({ node, parameters }) =>
    node.closeStream(parameters.id as number) ?? missing('no-such-stream', 'there is no open stream with this number'),
  'GET /v1/relays': ({ node, parameters }) => node.relays(parameters.role as ServingRole | undefined),
  'GET /v1/relays/brief': ({ node, parameters }) => node.relayPage(parameters as RelayQuery),
  'GET /v1/relays/{id}': ({ node, parameters }) =>
    node.relay(idOf(parameters.id as string, 'bad-parameter')) ?? missing('unknown-relay', 'the view holds no such relay'),
  'GET /v1/network': ({ node }) => node.networkSummary(),
  'GET /v1/nat': ({ node }) => node.nat(),
  'POST /v1/reach': ({ node, body, gone }) => node.reach(idOf(body.id, 'bad-body'), gone),
  'GET /v1/vpn': ({ node }) => node.vpn(),
  'POST /v1/vpn/up': ({ node }) => node.vpnUp(),
  'POST /v1/vpn/down': ({ node }) => node.vpnDown(),
  'GET /v1/traffic': ({ node }) => node.traffic(),
  'GET /v1/log': ({ node, parameters }) => node.logs.page(parameters as LogQuery),
  'GET /v1/log-levels': ({ node }) => node.logs.levels,
  'PUT /v1/log-levels': ({ node, body }) => {
    node.logs.setLevels(body)
    return node.logs.levels
  },
  'GET /v1/settings': ({ node }) => node.settings(),
  'PATCH /v1/settings': ({ node, caller, body: { set, check } }) => {
    if (!caller.hasToken) refuseGuarded(set)
    return node.changeSettings({ set, check: check === true })
  },
  'POST /v1/reload': ({ node }) => node.reload(),
  'POST /v1/drain': ({ node, body: { limitMs } }) => node.drain(limitMs === undefined ? {} : { limitMs }),
  'POST /v1/shutdown': () => ({ stopping: true }),
  'POST /v1/dashboard-link': ({ options, body }) => options.link(body.forMs ?? LINK_MS, body.uses ?? 1),
  'POST /v1/session': ({ options, body }) => options.openSession(body.code),
  'DELETE /v1/session': ({ caller }) => {
    caller.end()
    return { ended: true }
  },
  'GET /v1/openapi.json': async () => (await import('./api/document.ts')).apiDocument(),
}

/** By name, for the service; the two routes that last are not among them. */
export const handlers = answers as Handlers & { readonly [R in Lasting]?: undefined }

/** Those of a kind, or the last that began; numbers rise in the order of their begin. */
function chosenStreams(streams: readonly Api.Stream[], { kind, last }: Parameters): readonly Api.Stream[] {
  const found = kind === undefined ? streams : streams.filter((stream) => stream.kind === kind)
  return last === undefined ? found : [...found].sort((a, b) => a.id - b.id).slice(-(last as number))
}

/** Checks what the schema of a session cannot. @throws Refusal */
export function checkAddresses(addresses: readonly string[]): void {
  try {
    for (const address of addresses) parseNetwork(address)
  } catch (error) {
    if (error instanceof MalformedError) throw new Refusal(400, 'bad-body', `addresses: ${error.message}`)
    throw error
  }
}

function idOf(text: string, code: 'bad-parameter' | 'bad-body'): NodeId {
  try {
    return parseNodeId(text)
  } catch (error) {
    if (error instanceof MalformedError) throw new Refusal(400, code, `id: ${error.message}`)
    throw error
  }
}

/** @throws Refusal with each key that a session may not change */
function refuseGuarded(set: Readonly<Record<string, unknown>>): void {
  const problems = guardedProblems(set)
  if (problems.length > 0) throw new Refusal(403, 'needs-token', problems.map(({ message }) => message).join('\n'), problems)
}

function missing(code: string, message: string): never {
  throw new Refusal(404, code, message)
}
