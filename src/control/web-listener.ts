import { readFile } from 'node:fs/promises'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { type Logger, messageOf, ShallotError } from '../base/index.ts'
import { type DashboardSection, type NodeControl, parseIpPort } from '../node/index.ts'
import { replaceFile } from '../store/index.ts'
import type * as Api from './api-types.ts'
import type { Attempts } from './attempts.ts'
import type { Answering } from './connections.ts'
import { bearerOf, matches, Refusal, refuse } from './http.ts'
import { listenAt } from './listen.ts'
import type { Caller, ControlService } from './service.ts'
import { Sessions } from './sessions.ts'
import { StaticFiles } from './static-files.ts'

/** The one route that asks for no token: it takes a code. */
const CODE_ROUTE = 'POST /v1/session'

/** Hashes of the sessions' tokens, in the node's directory. */
const SESSIONS_FILE = 'dashboard-sessions.json'

export interface WebListenerModules {
  /** The node's directory. */
  readonly dir: string
  readonly node: NodeControl
  readonly service: ControlService
  readonly attempts: Attempts
  /** The hash of the node's own token, which is good here too. */
  readonly token: Buffer
  readonly random: (length: number) => Uint8Array
  readonly logger: Logger
  readonly newServer: (answer: Answering) => Server
  readonly dashboardFiles?: string
}

/**
 * The dashboard's listener: its files, and the API for its pages. A browser is a place where any site can try to reach it, so every request must name
 * this address (no rebound name), come from this origin or from no page at all, and, for the API, bring a token that only a page of this origin has.
 */
export class WebListener {
  readonly server: Server
  readonly #m: WebListenerModules
  readonly #sessions: Sessions
  readonly #files: StaticFiles
  /** One write at a time, the last one last. */
  #saving: Promise<void> = Promise.resolve()
  #address = ''
  #hosts: readonly string[] = []

  constructor(modules: WebListenerModules) {
    this.#m = modules
    this.#sessions = new Sessions(
      modules.random,
      () => Date.now(),
      () => this.#save(),
    )
    this.#files = new StaticFiles(modules.dashboardFiles ?? join(import.meta.dirname, '../../dist/dashboard'))
    this.server = modules.newServer((request, response, letIn) => void this.#handle(request, response, letIn))
  }

  /** "ADDRESS:PORT". */
  get address(): string {
    return this.#address
  }

  /** @throws ShallotError 'address-in-use', 'listen-failed' */
  async listen({ enabled, listen }: DashboardSection): Promise<void> {
    const where = parseIpPort(listen)!
    const kept = await readFile(this.#sessionsFile, 'utf8').catch(() => null)
    if (kept !== null && !this.#sessions.restore(kept))
      this.#m.logger.warn('the sessions of the dashboard were damaged: pages ask for a new link')
    try {
      this.#address = await listenAt(this.server, where, 'dashboard.listen')
    } catch (error) {
      // Nobody has asked for it in so many words: another port does as well, and `shallot ui` knows which.
      if (enabled !== 'auto' || !(error instanceof ShallotError) || error.code !== 'address-in-use') throw error
      this.#m.logger.info('the usual port of the dashboard is taken: another is used')
      this.#address = await listenAt(this.server, { host: where.host, port: 0 }, 'dashboard.listen')
    }
    const port = this.#address.slice(this.#address.lastIndexOf(':'))
    this.#hosts = [this.#address, `localhost${port}`]
  }

  /** Once what was begun to be written is. */
  saved(): Promise<void> {
    return this.#saving
  }

  get #sessionsFile(): string {
    return join(this.#m.dir, SESSIONS_FILE)
  }

  #save(): void {
    this.#saving = this.#saving
      .then(() => replaceFile(this.#sessionsFile, this.#sessions.serialise()))
      .catch((error) =>
        this.#m.logger.warn('the sessions of the dashboard were not written: a restart ends them', { error: messageOf(error) }),
      )
  }

  /** A link that opens the dashboard: its code is in the fragment, which no browser sends to anybody. */
  link(forMs: number, uses: number): Api.DashboardLink {
    const { code, expiresAt } = this.#sessions.issueCode(forMs, uses)
    return { url: `http://${this.#address}/#code=${code}`, expiresAt }
  }

  /** @throws Refusal */
  openSession(code: string): Api.Session {
    const session = this.#sessions.open(code)
    if (session !== null) return session
    throw this.#m.attempts.refusal(
      new Refusal(401, 'code-refused', 'this link was used already, or is too old: `shallot ui` gives another'),
    )
  }

  async #handle(request: IncomingMessage, response: ServerResponse, letIn: (caller: Caller) => Caller): Promise<void> {
    try {
      this.#admit(request)
      if (!isApi(request)) return await this.#files.answer(request, response)
    } catch (error) {
      if (error instanceof Refusal) return refuse(response, error)
      this.#m.logger.error('a file of the dashboard could not be served', { error: messageOf(error) })
      return refuse(response, new Refusal(500, 'internal', 'the file could not be read'))
    }
    response.setHeader('cross-origin-resource-policy', 'same-origin')
    await this.#m.service.handle(request, response, () => (asksWithCode(request) ? this.#caller(request) : letIn(this.#caller(request))))
  }

  /** What holds for every request, files included. */
  #admit({ headers }: IncomingMessage): void {
    if (!this.#hosts.includes(headers.host ?? ''))
      throw new Refusal(403, 'host-refused', `the Host header must be ${this.#hosts.join(' or ')}`)
    if (headers.origin !== undefined && headers.origin !== `http://${headers.host}`)
      throw new Refusal(403, 'origin-refused', 'other pages have no business here')
    // What a person follows is a navigation of the whole window; anything else that another site causes is not from a person.
    const site = headers['sec-fetch-site']
    const isNavigation = headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document'
    if (site !== undefined && site !== 'same-origin' && site !== 'none' && !isNavigation)
      throw new Refusal(403, 'origin-refused', 'other pages have no business here')
  }

  #caller(request: IncomingMessage): Caller {
    if (!isJson(request)) throw new Refusal(415, 'not-json', 'a body must say content-type: application/json')
    if (asksWithCode(request)) return { kind: 'page', lasts: () => false, end: () => {}, hasToken: false }
    const given = bearerOf(request)
    if (given !== undefined && this.#sessions.use(given))
      return { kind: 'page', lasts: () => this.#sessions.use(given), end: () => this.#sessions.end(given), hasToken: false }
    if (given !== undefined && matches(given, this.#m.token)) return { kind: 'page', lasts: () => true, end: () => {}, hasToken: true }
    throw this.#m.attempts.refusal(new Refusal(401, 'token-required', 'send Authorization: Bearer with the token of a session'))
  }
}

/** Whether it is the one request that brings no token. */
function asksWithCode({ method, url }: IncomingMessage): boolean {
  return `${method} ${url}` === CODE_ROUTE
}

function isApi({ url }: IncomingMessage): boolean {
  return /^\/v\d+(\/|\?|$)/.test(url ?? '')
}

/** A form of another site can send a body only as something else. */
function isJson({ headers }: IncomingMessage): boolean {
  const isEmpty = headers['transfer-encoding'] === undefined && (headers['content-length'] ?? '0') === '0'
  return isEmpty || /^application\/json(;|$)/i.test(headers['content-type'] ?? '')
}
