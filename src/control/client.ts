import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import packageJson from '../../package.json' with { type: 'json' }
import { messageOf, ShallotError } from '../base/index.ts'
import { isErrno } from '../store/index.ts'
import type * as Api from './api-types.ts'
import { VERSION_HEADER } from './messages.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { request } = process.getBuiltinModule('node:http')

const TIMEOUT_MS = 60_000

type Values = Readonly<Record<string, string | number | undefined>>

interface Asked<R> {
  readonly path?: Values
  readonly query?: Values
  readonly body?: R extends keyof Api.ApiBodies ? Api.ApiBodies[R] : undefined
}

export interface EventQuery {
  readonly types?: readonly Api.Event['type'][]
  /** Of lines of the log. */
  readonly level?: Api.LogLevel
  readonly sub?: string
}

/** What a node that knows another set of routes, or of what they take, says. */
const STRANGE = ['unknown-route', 'wrong-method', 'unknown-parameter', 'bad-parameter', 'bad-body']

/**
 * Asks a running node. Every method throws a ShallotError: 'node-not-running', 'control-refused' (token), 'version-mismatch' (the node runs another
 * version, and does not know what is asked or answers something else), 'control-failed', or the code the node answered with.
 */
export class ControlClient {
  /** "ADDRESS:PORT" or the path of a socket. */
  readonly address: string
  readonly #tokenFile: string

  constructor(address: string, tokenFile: string) {
    this.address = address
    this.#tokenFile = tokenFile
  }

  status(): Promise<Api.NodeStatus> {
    return this.#ask('GET /v1/status')
  }
  circuits(why: boolean): Promise<readonly Api.Circuit[]> {
    return this.#ask('GET /v1/circuits', { query: { why: why ? '1' : undefined } })
  }
  closeCircuit(id: number): Promise<Api.Circuit> {
    return this.#ask('DELETE /v1/circuits/{id}', { path: { id } })
  }
  /** Measures the round trip to each hop. */
  pingCircuit(id: number): Promise<Api.Circuit> {
    return this.#ask('POST /v1/circuits/{id}/ping', { path: { id } })
  }
  newCircuit(): Promise<Api.Circuit> {
    return this.#ask('POST /v1/new-circuit')
  }
  /** @param recent the last few that ended, too */
  streams(recent = false): Promise<readonly Api.Stream[]> {
    return this.#ask('GET /v1/streams', { query: { recent: recent ? '1' : undefined } })
  }
  closeStream(id: number): Promise<Api.Stream> {
    return this.#ask('DELETE /v1/streams/{id}', { path: { id } })
  }
  relays(role?: Api.ServingRole): Promise<readonly Api.Relay[]> {
    return this.#ask('GET /v1/relays', { query: { role } })
  }
  relay(id: string): Promise<Api.Relay> {
    return this.#ask('GET /v1/relays/{id}', { path: { id } })
  }
  relayPage(query: { role?: Api.ServingRole; country?: string; after?: string; limit?: number } = {}): Promise<Api.RelayPage> {
    return this.#ask('GET /v1/relays/brief', { query })
  }
  network(): Promise<Api.NetworkSummary> {
    return this.#ask('GET /v1/network')
  }
  traffic(): Promise<readonly Api.TrafficSample[]> {
    return this.#ask('GET /v1/traffic')
  }
  nat(): Promise<Api.NatFacts | null> {
    return this.#ask('GET /v1/nat')
  }
  reach(id: string): Promise<Api.ReachFacts> {
    return this.#ask('POST /v1/reach', { body: { id } })
  }
  vpn(): Promise<Api.VpnFacts | null> {
    return this.#ask('GET /v1/vpn')
  }
  vpnUp(): Promise<Api.VpnFacts> {
    return this.#ask('POST /v1/vpn/up')
  }
  vpnDown(): Promise<Api.VpnFacts> {
    return this.#ask('POST /v1/vpn/down')
  }
  log(query: { since?: number; limit?: number; level?: Api.LogLevel; sub?: string } = {}): Promise<Api.LogPage> {
    return this.#ask('GET /v1/log', { query })
  }
  logLevels(): Promise<Api.LogLevels> {
    return this.#ask('GET /v1/log-levels')
  }
  setLogLevels(levels: Api.LogLevels): Promise<Api.LogLevels> {
    return this.#ask('PUT /v1/log-levels', { body: levels })
  }
  settings(): Promise<Api.Settings> {
    return this.#ask('GET /v1/settings')
  }
  changeSettings(change: Api.SettingsChange): Promise<Api.SettingsChanged> {
    return this.#ask('PATCH /v1/settings', { body: change })
  }
  reload(): Promise<Api.SettingsChanged> {
    return this.#ask('POST /v1/reload')
  }
  /** The node takes no new circuits, and stops when the last has ended or after the limit; ten minutes when none is given. */
  drain(options: Api.DrainRequest = {}): Promise<Api.DrainFacts> {
    return this.#ask('POST /v1/drain', { body: options })
  }
  shutdown(): Promise<Api.Stopping> {
    return this.#ask('POST /v1/shutdown')
  }
  /** A link that opens the dashboard; usable once, for two minutes, when nothing else is said. */
  dashboardLink(options: Api.DashboardLinkRequest = {}): Promise<Api.DashboardLink> {
    return this.#ask('POST /v1/dashboard-link', { body: options })
  }

  /** Has the node carry a device's traffic until the signal or the node ends it. The first event says that it does. */
  async *vpnSession(request: Api.VpnSessionRequest, signal: AbortSignal): AsyncGenerator<Api.VpnSessionEvent> {
    const response = await this.#open('POST', '/v1/vpn/session', signal, request)
    let text = ''
    try {
      for await (const chunk of response) {
        text += String(chunk)
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          yield JSON.parse(text.slice(0, end)) as Api.VpnSessionEvent
          text = text.slice(end + 1)
        }
      }
    } catch (error) {
      if (!signal.aborted) throw lost(this.address, error)
    }
  }

  /** Events from now on, until the signal or the node ends them. @param query which; docs/control-api.md says what is told when nothing is said */
  async *events(signal: AbortSignal, query: EventQuery = {}): AsyncGenerator<Api.Event> {
    const { types, ...filter } = query
    const response = await this.#open('GET', `/v1/events${queryText({ types: types?.join(','), ...filter })}`, signal)
    let text = ''
    try {
      for await (const chunk of response) {
        text += String(chunk)
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
          text = text.slice(end + 2)
          if (data !== undefined) yield JSON.parse(data) as Api.Event
        }
      }
    } catch (error) {
      if (!signal.aborted) throw lost(this.address, error)
    }
  }

  async #ask<R extends keyof Api.ApiAnswers>(route: R, { path = {}, query = {}, body }: Asked<R> = {}): Promise<Api.ApiAnswers[R]> {
    const [method, pattern] = route.split(' ') as [string, string]
    const target = pattern.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(path[name])))
    const response = await this.#open(method, target + queryText(query), AbortSignal.timeout(TIMEOUT_MS), body)
    const text = await textOf(response).catch((error) => {
      throw lost(this.address, error)
    })
    let answer: unknown
    try {
      answer = JSON.parse(text)
    } catch (error) {
      throw this.#strange(response, error)
    }
    // Loaded only then: it is the whole document.
    if (isOther(response) && !(await import('./api/fitting.ts')).fitsAnswer(route, answer)) throw this.#strange(response)
    return answer as Api.ApiAnswers[R]
  }

  async #open(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<IncomingMessage> {
    const token = await this.#token()
    const socket = this.address.startsWith('/')
    const response = await new Promise<IncomingMessage>((done, fail) => {
      const asked = request(
        {
          ...(socket
            ? { socketPath: this.address }
            : {
                host: this.address.slice(0, this.address.lastIndexOf(':')).replace(/^\[|\]$/g, ''),
                port: this.address.slice(this.address.lastIndexOf(':') + 1),
              }),
          method,
          path,
          signal,
          agent: false,
          headers: {
            host: socket ? 'localhost' : this.address,
            authorization: `Bearer ${token}`,
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          },
        },
        done,
      )
      asked.once('error', fail).end(body === undefined ? undefined : JSON.stringify(body))
    }).catch((error) => {
      throw lost(this.address, error)
    })
    const status = response.statusCode ?? 0
    if (status >= 200 && status < 300) return response
    const problem = problemOf(status, await textOf(response).catch(() => ''))
    if (status === 401) throw this.#refused()
    throw STRANGE.includes(problem.code) && isOther(response) ? this.#strange(response, problem) : problem
  }

  /** The node that answers is not the one whose token this is. */
  #refused(): ShallotError {
    const message = `the node at ${this.address} does not take the token in ${this.#tokenFile}: that is another node's, or one of an earlier start. Name the directory of the node that runs there with --dir`
    return new ShallotError('control-refused', message, { kind: 'host', retry: 'never' })
  }

  /** What answers does not speak as this program does. */
  #strange(response: IncomingMessage, cause?: unknown): ShallotError {
    const version = response.headers[VERSION_HEADER]
    if (!isOther(response)) {
      return new ShallotError('control-failed', `the node at ${this.address} gave an answer that cannot be read`, {
        kind: 'process',
        retry: 'later',
        cause,
      })
    }
    const message =
      version === undefined
        ? `what answers at ${this.address} is another version of Shallot than this program (${packageJson.version}), or something else: restart the node`
        : `the node at ${this.address} runs Shallot ${shown(String(version))}, and this program is ${packageJson.version}: restart the node, so that both are the same`
    return new ShallotError('version-mismatch', message, { kind: 'process', retry: 'never', cause })
  }

  async #token(): Promise<string> {
    try {
      const token = (await readFile(this.#tokenFile, 'utf8')).trim()
      if (TOKEN_FORM.test(token)) return token
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) throw notRunning(this.address, error)
      throw new ShallotError(
        'control-refused',
        `the token in ${this.#tokenFile} cannot be read: ${messageOf(error)}. Run this as the user who runs the node`,
        {
          kind: 'host',
          retry: 'never',
          cause: error,
        },
      )
    }
    throw new ShallotError('control-refused', `${this.#tokenFile} holds no token; the node writes another when it is started again`, {
      kind: 'host',
      retry: 'never',
    })
  }
}

/** What the server takes for a token. */
const TOKEN_FORM = /^[\x21-\x7e]{1,200}$/

/** Whether another version of the program answered; the earliest said nothing of theirs. */
function isOther({ headers }: IncomingMessage): boolean {
  return headers[VERSION_HEADER] !== packageJson.version
}

/** A version in a header from outside: short, and nothing that moves a cursor. */
function shown(text: string): string {
  return text.slice(0, 30).replace(/[^\x21-\x7e]/g, '?')
}

function queryText(values: Values): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, String(value))
  return query.size === 0 ? '' : `?${query}`
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk
  return text
}

function problemOf(status: number, body: string): ShallotError {
  let problem: Api.Problem['error'] = { code: 'control-failed', message: `the node answered ${status}` }
  try {
    problem = (JSON.parse(body) as Api.Problem).error ?? problem
  } catch {}
  return new ShallotError(status === 401 || status === 403 ? 'control-refused' : problem.code, problem.message, {
    kind: 'process',
    retry: 'later',
  })
}

function lost(address: string, error: unknown): ShallotError {
  if (isErrno(error, 'ECONNREFUSED', 'ENOENT', 'ENOTSOCK')) return notRunning(address, error)
  return new ShallotError('control-failed', `the node at ${address} did not answer: ${messageOf(error)}`, {
    kind: 'process',
    retry: 'later',
    cause: error,
  })
}

function notRunning(address: string, cause: unknown): ShallotError {
  return new ShallotError('node-not-running', `no node answers at ${address}; start one with \`shallot run\` or \`shallot testnet\``, {
    kind: 'process',
    retry: 'later',
    cause,
  })
}
