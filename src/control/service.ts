import type { IncomingMessage, ServerResponse } from 'node:http'
import type { z } from 'zod'
import { type Logger, messageOf, ShallotError } from '../base/index.ts'
import { ConfigError, type NodeControl, VERSION, type VpnSession } from '../node/index.ts'
import { bodies } from './api/bodies.ts'
import { ROUTES, type Route, type RouteName } from './api/routes.ts'
import type * as Api from './api-types.ts'
import { EVENT_HEADERS, EventFeed } from './event-feed.ts'
import { type Call, checkAddresses, handlers } from './handlers.ts'
import { MAX_BODY_BYTES, MAX_UNREAD_BODY_BYTES, Refusal, readBody, refuse, send, targetOf } from './http.ts'
import { VERSION_HEADER } from './messages.ts'
import { type Parameters, readParameter, readQuery } from './parameters.ts'

/** Who asks, as far as the listener has found out. */
export interface Caller {
  /** `socket`: with the node's own token, on the control socket. `page`: the dashboard, with a session or the node's token. */
  readonly kind: 'socket' | 'page'
  /** Whether it may still read what is streamed to it. */
  lasts(): boolean
  /** Ends its session. */
  end(): void
  /** Whether it has the node's own token: a session may not change everything. */
  readonly hasToken: boolean
}

/** What the service needs of the listeners. */
export interface ServiceOptions {
  readonly logger: Logger
  /** Where both listen, for the status. */
  readonly places: () => { readonly control: string; readonly dashboard: string | null }
  /** A link to the dashboard. @throws Refusal where there is none */
  readonly link: (forMs: number, uses: number) => Api.DashboardLink
  /** A session for a code. @throws Refusal */
  readonly openSession: (code: string) => Api.Session
}

interface Matched {
  readonly name: RouteName
  readonly route: Route
  readonly path: Parameters
}

const patterns = Object.entries<Route>(ROUTES).map(([name, route]) => {
  const [method, path] = name.split(' ') as [string, string]
  return { name: name as RouteName, route, method, segments: path.split('/') }
})

/** Answers the API's requests once somebody has let them in; knows nothing of sockets. Both listeners have the same one. */
export class ControlService {
  readonly #node: NodeControl
  readonly #options: ServiceOptions
  readonly #events: EventFeed

  constructor(node: NodeControl, options: ServiceOptions) {
    this.#node = node
    this.#options = options
    this.#events = new EventFeed(node)
  }

  close(): void {
    this.#events.close()
  }

  /** Answers one request. @param admit says who asks, and throws a Refusal for whoever may not */
  async handle(request: IncomingMessage, response: ServerResponse, admit: (request: IncomingMessage) => Caller): Promise<void> {
    try {
      const caller = admit(request)
      // Only for who may ask: what runs here is nobody else's business.
      response.setHeader(VERSION_HEADER, VERSION)
      await this.#answer(request, response, caller)
    } catch (error) {
      refuse(response, this.#refusalOf(error))
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, caller: Caller): Promise<void> {
    const { path, query } = targetOf(request)
    const { name, route, path: inPath } = match(request.method ?? '', path, response)
    if (route.access === 'socket' && caller.kind !== 'socket')
      throw new Refusal(403, 'socket-only', `${name} is answered on the control socket only`)
    if ((route.access === 'code' || route.access === 'session') && caller.kind !== 'page')
      throw new Refusal(403, 'dashboard-only', `${name} is answered to the dashboard only`)
    const parameters = { ...inPath, ...readQuery(query, path, route.query) }
    const body = await bodyOf(request, route)
    // What lasts has nothing to say to who wants the head alone.
    if (name === 'GET /v1/events' && request.method === 'HEAD') return void response.writeHead(200, EVENT_HEADERS).end()
    if (name === 'GET /v1/events') return this.#follow(response, parameters, caller)
    if (name === 'POST /v1/vpn/session') return carrySession(await this.#session(body as Api.VpnSessionRequest), response)
    if (name === 'POST /v1/shutdown') response.once('finish', () => void this.#node.stop())
    const call: Call<never> = {
      node: this.#node,
      options: this.#options,
      parameters,
      body: body as never,
      caller,
      gone: whileAsked(response),
    }
    const answer = await (handlers[name] as (call: Call<never>) => unknown)(call)
    send(response, route.status ?? 200, answer)
    if (name === 'DELETE /v1/session') this.#events.dismiss()
  }

  #follow(response: ServerResponse, parameters: Parameters, caller: Caller): void {
    if (!this.#events.add(response, parameters, () => caller.lasts()))
      throw new Refusal(429, 'too-many-readers', 'too many programs read the events already')
  }

  async #session(request: Api.VpnSessionRequest): Promise<VpnSession> {
    const { pcap, ...rest } = request
    checkAddresses(rest.addresses)
    return this.#node.vpnSession(pcap === undefined ? rest : { ...rest, pcap })
  }

  #refusalOf(error: unknown): Refusal {
    if (error instanceof Refusal) return error
    if (error instanceof ConfigError)
      return new Refusal(
        422,
        error.code,
        error.problems.map(({ message }) => message).join('\n'),
        error.problems.map(({ key, message }) => ({ key, message })),
      )
    // A typed failure of the node is the asker's to see; anything else is our mistake.
    if (error instanceof ShallotError) return new Refusal(409, error.code, messageOf(error))
    this.#options.logger.error('a control request failed', { error })
    return new Refusal(500, 'internal', 'the node could not answer; see its log')
  }
}

/** The route of a request. @throws Refusal */
function match(method: string, path: string, response: ServerResponse): Matched {
  const segments = path.split('/')
  const fitting = patterns.filter((pattern) => fits(pattern.segments, segments))
  // A route without parameters goes before one with them.
  const most = Math.max(...fitting.map(({ segments }) => segments.filter((segment) => !segment.startsWith('{')).length))
  const here = fitting.filter(({ segments }) => segments.filter((segment) => !segment.startsWith('{')).length === most)
  if (here.length === 0) throw new Refusal(404, 'unknown-route', 'there is no such route; docs/control-api.md has all of them')
  // RFC 9110 §9.3.2: what can be had can be asked for by its head; Node leaves the body out.
  const found = here.find((pattern) => pattern.method === (method === 'HEAD' ? 'GET' : method))
  if (!found) {
    const methods = here.flatMap((pattern) => (pattern.method === 'GET' ? ['GET', 'HEAD'] : [pattern.method]))
    response.setHeader('allow', methods.join(', '))
    throw new Refusal(405, 'wrong-method', `this route takes ${methods.join(' or ')}`)
  }
  const read: Record<string, unknown> = {}
  for (const [i, segment] of found.segments.entries()) {
    const name = /^\{(\w+)\}$/.exec(segment)?.[1]
    if (name !== undefined) read[name] = readParameter(name, decoded(segments[i]!), found.route.path![name]!)
  }
  return { name: found.name, route: found.route, path: read }
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  return pattern.length === segments.length && pattern.every((one, i) => one === segments[i] || one.startsWith('{'))
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    throw new Refusal(400, 'bad-path', 'the path is not encoded as it should be')
  }
}

/** What the route takes, checked by its schema; undefined where it takes nothing. @throws Refusal */
async function bodyOf(request: IncomingMessage, route: Route): Promise<unknown> {
  if (route.body === undefined) {
    await readBody(request, MAX_UNREAD_BODY_BYTES)
    return undefined
  }
  const text = await readBody(request, MAX_BODY_BYTES)
  const schema: z.ZodType = bodies[route.body as keyof typeof bodies]
  let value: unknown
  try {
    value = text === '' ? {} : JSON.parse(text, refuseStrangeKeys)
  } catch (error) {
    if (error instanceof Refusal) throw error
    throw new Refusal(400, 'bad-body', 'the body is not JSON')
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.slice(0, 20).map(({ path, message }) => ({ key: path.map(String).join('.').slice(0, 100), message }))
  throw new Refusal(400, 'bad-body', problems.map(({ key, message }) => (key === '' ? message : `${key}: ${message}`)).join('; '), problems)
}

/** The schemas pass over this one name, which no field has. @throws Refusal */
function refuseStrangeKeys(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new Refusal(400, 'bad-body', '__proto__: there is no such key', [{ key, message: 'there is no such key' }])
  return value
}

/** Says that it is carried, and lasts as long as the session does. */
function carrySession(session: VpnSession, response: ServerResponse): void {
  response.once('close', () => session.close())
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  response.write(`${JSON.stringify({ type: 'open' } satisfies Api.VpnSessionEvent)}\n`)
  void session.ended.then(() => response.end())
}

/** Aborted when the asker is gone. */
function whileAsked(response: ServerResponse): AbortSignal {
  const asked = new AbortController()
  response.once('close', () => asked.abort())
  return asked.signal
}
