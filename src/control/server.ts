import { createHash, timingSafeEqual } from 'node:crypto'
import { chmod, rm } from 'node:fs/promises'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { resolve } from 'node:path'
import { z } from 'zod'
import {
  formatHostPort,
  type Logger,
  MalformedError,
  messageOf,
  type NodeId,
  parseNetwork,
  parseNodeId,
  ShallotError,
} from '../base/index.ts'
import type { ServingRole } from '../directory/index.ts'
import { type ControlSection, type NodeControl, parseIpPort, ROLES, type VpnSession, type VpnSessionRequest } from '../node/index.ts'
import { isErrno, replaceFile } from '../store/index.ts'
import { EventFeed } from './event-feed.ts'
import { type ControlProblem, ROUTES, TOKEN_FILE, type VpnSessionEvent } from './messages.ts'
import { announce } from './registry.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { createServer } = process.getBuiltinModule('node:http')

/** No request has a body worth more. */
const MAX_BODY_BYTES = 1024
/** Connections at once: commands, a dashboard, a few event readers. */
const MAX_CONNECTIONS = 64
const MAX_HEADER_BYTES = 8 * 1024
const REQUEST_TIMEOUT_MS = 10_000
/** Longest path of a unix socket (unix(7): 108 bytes with the zero at its end). */
const MAX_SOCKET_PATH_BYTES = 107
/** Token length: 256 bits. */
const TOKEN_BYTES = 32

export interface ControlServer {
  /** "ADDRESS:PORT", or the absolute path of the socket. */
  readonly address: string
  close(): Promise<void>
}

export interface ControlOptions {
  readonly config: ControlSection
  /** The node's directory: the token goes there, and a socket with a relative path. */
  readonly dir: string
  readonly logger: Logger
  /** Fresh random bytes for the token. */
  readonly random: (length: number) => Uint8Array
}

/** See `startControl`. */
export async function serveControl(node: NodeControl, options: ControlOptions): Promise<ControlServer> {
  const { config, dir, logger } = options
  const token = Buffer.from(options.random(TOKEN_BYTES)).toString('base64url')
  const tokenFile = resolve(dir, TOKEN_FILE)
  await replaceFile(tokenFile, `${token}\n`)
  const service = new ControlService(node, token, logger)
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: 1000 },
    (request, response) => service.handle(request, response),
  )
  server.maxConnections = MAX_CONNECTIONS
  const address = await listen(server, config.listen, dir)
  service.address = address
  const withdraw = await announce(
    { address, tokenFile, dir, pid: process.pid, roles: node.status().roles, startedAt: node.status().startedAt },
    logger,
  )
  logger.info('control API is open', { kind: address.startsWith('/') ? 'unix' : 'tcp' })
  return {
    address,
    async close() {
      await withdraw()
      service.close()
      server.closeAllConnections()
      await new Promise<void>((done) => server.close(() => done()))
      await rm(tokenFile, { force: true }).catch(() => {})
    },
  }
}

/** Answers requests; knows nothing of sockets. */
class ControlService {
  readonly #node: NodeControl
  readonly #tokenHash: Buffer
  readonly #logger: Logger
  readonly #events: EventFeed
  address = ''

  constructor(node: NodeControl, token: string, logger: Logger) {
    this.#node = node
    this.#tokenHash = hash(token)
    this.#logger = logger
    this.#events = new EventFeed(node)
  }

  close(): void {
    this.#events.close()
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    this.#answer(request, response).catch((error) => {
      if (error instanceof Refusal) return refuse(response, error)
      // A typed failure of the node is the asker's to see; anything else is our mistake.
      const known = error instanceof ShallotError
      if (!known) this.#logger.error('a control request failed', { error })
      refuse(
        response,
        new Refusal(
          known ? 409 : 500,
          known ? error.code : 'internal',
          known ? messageOf(error) : 'the node could not answer; see its log',
        ),
      )
    })
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#admit(request)
    const body = await readBody(request)
    const url = new URL(request.url ?? '/', 'http://node')
    const route = `${request.method} ${url.pathname}` as (typeof ROUTES)[number]
    switch (route) {
      case 'GET /v1/status':
        only(url)
        return send(response, 200, { ...this.#node.status(), control: this.address })
      case 'GET /v1/circuits':
        only(url, 'why')
        return send(response, 200, this.#node.circuits(flag(url, 'why')))
      case 'GET /v1/relays':
        only(url, 'role')
        return send(response, 200, this.#node.relays(role(url)))
      case 'GET /v1/streams':
        only(url)
        return send(response, 200, this.#node.streams())
      case 'GET /v1/nat':
        only(url)
        return send(response, 200, this.#node.nat())
      case 'POST /v1/reach':
        only(url)
        return send(response, 200, await this.#node.reach(peerOf(body), whileAsked(response)))
      case 'POST /v1/new-circuit':
        only(url)
        return send(response, 200, await this.#node.newCircuit())
      case 'GET /v1/vpn':
        only(url)
        return send(response, 200, this.#node.vpn())
      case 'POST /v1/vpn/session':
        only(url)
        return carrySession(await this.#node.vpnSession(sessionOf(body)), response)
      case 'POST /v1/vpn/up':
        only(url)
        return send(response, 200, await this.#node.vpnUp())
      case 'POST /v1/vpn/down':
        only(url)
        return send(response, 200, await this.#node.vpnDown())
      case 'POST /v1/shutdown':
        only(url)
        response.once('finish', () => void this.#node.stop())
        return send(response, 202, { stopping: true })
      case 'GET /v1/events':
        only(url)
        if (!this.#events.add(response)) throw new Refusal(503, 'too-many-readers', 'too many programs read the events already')
        return
      default: {
        const methods = ROUTES.filter((known) => known.endsWith(` ${url.pathname}`)).map((known) => known.split(' ')[0]!)
        if (methods.length === 0) throw new Refusal(404, 'unknown-route', `there is no ${url.pathname} here; known: ${ROUTES.join(', ')}`)
        response.setHeader('allow', methods.join(', '))
        throw new Refusal(405, 'wrong-method', `${url.pathname} takes ${methods.join(' or ')}, not ${request.method}`)
      }
    }
  }

  /** Refuses whoever has no token, and browsers even if they had one: a page's script sends Origin, and a rebound name shows in Host. */
  #admit(request: IncomingMessage): void {
    if (request.headers.origin !== undefined) throw new Refusal(403, 'origin-refused', 'the control API is not for web pages')
    const host = request.headers.host ?? ''
    const port = this.address.slice(this.address.lastIndexOf(':'))
    const hosts = this.address.startsWith('/') ? ['localhost', 'shallot'] : [this.address, `localhost${port}`]
    if (!hosts.includes(host)) throw new Refusal(403, 'host-refused', `the Host header must be ${hosts.join(' or ')}`)
    const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    // Hashes are compared, so that the time tells neither the length nor a prefix of the token.
    if (given === undefined || !timingSafeEqual(hash(given), this.#tokenHash)) {
      throw new Refusal(
        401,
        'token-required',
        `send Authorization: Bearer with the token of the file ${TOKEN_FILE} in the node's directory`,
      )
    }
  }
}

/** An answer that is not the one asked for. */
class Refusal extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  response.end(text)
}

function refuse(response: ServerResponse, refusal: Refusal): void {
  if (response.headersSent) return void response.destroy()
  // What is left of the request is not read: the connection cannot go on.
  response.setHeader('connection', 'close')
  const problem: ControlProblem = { error: { code: refusal.code, message: refusal.message } }
  send(response, refusal.status, problem)
}

/** Bodies are allowed everywhere, up to a size; most routes look at none. */
async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    length += (chunk as Buffer).length
    if (length > MAX_BODY_BYTES) throw new Refusal(413, 'body-too-long', `a body may have at most ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The peer that the body `{"id": "…"}` names. */
function peerOf(body: string): NodeId {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    value = null
  }
  const id = typeof value === 'object' && value !== null && Object.keys(value).length === 1 ? (value as { id?: unknown }).id : undefined
  if (typeof id !== 'string') throw new Refusal(400, 'bad-body', 'the body must be {"id": "12D3KooW…"}: the node to reach')
  try {
    return parseNodeId(id)
  } catch (error) {
    if (error instanceof MalformedError) throw new Refusal(400, 'bad-body', `id: ${error.message}`)
    throw error
  }
}

const sessionRequest = z.strictObject({
  descriptor: z.string().min(1).max(MAX_SOCKET_PATH_BYTES),
  mtu: z.int().min(1280).max(65_535),
  addresses: z.array(z.string()).min(1).max(8),
  pcap: z.string().max(500).optional(),
})

/** A device that waits to be taken. */
function sessionOf(body: string): VpnSessionRequest {
  try {
    const { pcap, ...rest } = sessionRequest.parse(JSON.parse(body))
    for (const address of rest.addresses) parseNetwork(address)
    return pcap === undefined ? rest : { ...rest, pcap }
  } catch (error) {
    throw new Refusal(
      400,
      'bad-body',
      `the body must be {"descriptor": "/path/of/socket", "mtu": 1420, "addresses": ["10.0.0.1/30"]}: ${messageOf(error)}`,
    )
  }
}

/** Says that it is carried, and lasts as long as the session does. */
function carrySession(session: VpnSession, response: ServerResponse): void {
  response.once('close', () => session.close())
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  response.write(`${JSON.stringify({ type: 'open' } satisfies VpnSessionEvent)}\n`)
  void session.ended.then(() => response.end())
}

/** Aborted when the asker is gone. */
function whileAsked(response: ServerResponse): AbortSignal {
  const asked = new AbortController()
  response.once('close', () => asked.abort())
  return asked.signal
}

function only(url: URL, ...known: string[]): void {
  for (const name of url.searchParams.keys()) {
    if (!known.includes(name))
      throw new Refusal(
        400,
        'unknown-parameter',
        `${url.pathname} knows ${known.length === 0 ? 'no parameters' : known.join(', ')}, not ${name}`,
      )
  }
}

function flag(url: URL, name: string): boolean {
  const value = url.searchParams.get(name)
  if (value === null || value === '0' || value === '1') return value === '1'
  throw new Refusal(400, 'bad-parameter', `${name} must be 0 or 1`)
}

function role(url: URL): ServingRole | undefined {
  const value = url.searchParams.get('role')
  if (value === null) return undefined
  const known = ROLES.filter((name) => name !== 'client')
  const found = known.find((name) => name === value)
  if (found === undefined) throw new Refusal(400, 'bad-parameter', `role must be one of ${known.join(', ')}`)
  return found
}

async function listen(server: Server, where: string, dir: string): Promise<string> {
  const tcp = parseIpPort(where)
  const path = tcp === null ? resolve(dir, where.slice('unix:'.length)) : null
  if (path !== null) {
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
      const message = `control.listen: the socket's path ${path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a system allows; use a shorter directory, or 127.0.0.1:PORT`
      throw new ShallotError('socket-path-too-long', message, { kind: 'config', retry: 'never' })
    }
    // The directory is this process's alone (its lock is held): a socket that lies there is left over.
    await rm(path, { force: true })
  }
  await new Promise<void>((done, fail) => {
    server.once('error', (error) => fail(listenError(where, error)))
    server.listen(path === null ? { host: tcp!.host, port: tcp!.port, exclusive: true } : { path }, done)
  })
  if (path !== null) {
    await chmod(path, 0o600)
    return path
  }
  const bound = server.address() as AddressInfo
  return formatHostPort(bound.address, bound.port)
}

function listenError(where: string, error: unknown): ShallotError {
  if (isErrno(error, 'EADDRINUSE')) {
    return new ShallotError('address-in-use', `control.listen: ${where} is in use by another program; choose another port`, {
      kind: 'host',
      retry: 'later',
      cause: error,
    })
  }
  return new ShallotError('listen-failed', `control.listen: cannot listen on ${where}: ${messageOf(error)}`, {
    kind: 'host',
    retry: 'never',
    cause: error,
  })
}
