import { rm } from 'node:fs/promises'
import type { IncomingMessage, Server } from 'node:http'
import { resolve } from 'node:path'
import type { Logger } from '../base/index.ts'
import { type ControlSection, type DashboardSection, type NodeControl, parseIpPort } from '../node/index.ts'
import { replaceFile } from '../store/index.ts'
import { Attempts } from './attempts.ts'
import { type Answering, Connections } from './connections.ts'
import { bearerOf, hash, matches, Refusal } from './http.ts'
import { listenAt, listenOn } from './listen.ts'
import { TOKEN_FILE } from './messages.ts'
import { announce } from './registry.ts'
import { type Caller, ControlService } from './service.ts'
import { WebListener } from './web-listener.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { createServer } = process.getBuiltinModule('node:http')

const MAX_HEADER_BYTES = 8 * 1024
/** How long a head may take, and a request with its body; looked at this often. */
const HEAD_TIMEOUT_MS = 5_000
const REQUEST_TIMEOUT_MS = 10_000
const TIMEOUT_LOOK_MS = 1_000
/** Token length: 256 bits. */
const TOKEN_BYTES = 32

export interface ControlServer {
  /** "ADDRESS:PORT", or the absolute path of the socket. */
  readonly address: string
  /** "ADDRESS:PORT" of the dashboard; null when it is off. */
  readonly dashboard: string | null
  close(): Promise<void>
}

export interface ControlOptions {
  readonly config: ControlSection
  /** Null, or left out: no dashboard, whatever the roles are. */
  readonly dashboard?: DashboardSection | null
  /** Where the built dashboard is; the program's own place when not given. */
  readonly dashboardFiles?: string
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
  const attempts = new Attempts(() => performance.now())
  let address = ''
  let web: WebListener | null = null
  const service = new ControlService(node, {
    logger,
    places: () => ({ control: address, dashboard: web?.address ?? null }),
    link: (forMs, uses) => (web ?? noDashboard()).link(forMs, uses),
    openSession: (code) => (web ?? noDashboard()).openSession(code),
  })
  const hashed = hash(token)
  const server = newServer((request, response, letIn) =>
    service.handle(request, response, () => letIn(admitToSocket(request, address, hashed, attempts))),
  )
  const close = async (): Promise<void> => {
    service.close()
    for (const one of [server, web?.server]) if (one) await closeServer(one)
    await web?.saved()
    await rm(tokenFile, { force: true }).catch(() => {})
  }
  let withdraw: () => Promise<void>
  try {
    address = await listenAsSaid(server, config.listen, dir)
    if (options.dashboard && wantsDashboard(options.dashboard, node)) {
      web = new WebListener({ ...options, node, service, attempts, token: hashed, newServer })
      await web.listen(options.dashboard)
    }
    const { roles, startedAt } = node.status()
    withdraw = await announce({ address, tokenFile, dir, pid: process.pid, roles, startedAt }, logger)
  } catch (error) {
    await close()
    throw error
  }
  logger.info('control API is open', { kind: address.startsWith('/') ? 'unix' : 'tcp', dashboard: web !== null })
  return {
    address,
    dashboard: web?.address ?? null,
    async close() {
      await withdraw()
      await close()
    },
  }
}

function wantsDashboard({ enabled }: DashboardSection, node: NodeControl): boolean {
  return enabled === 'auto' ? node.status().roles.includes('client') : enabled
}

function noDashboard(): never {
  throw new Refusal(
    409,
    'no-dashboard',
    'this node serves no dashboard: set dashboard.enabled = true in its configuration and start it again',
  )
}

/** An HTTP server with the limits that both listeners have. */
function newServer(answer: Answering): Server {
  const connections = new Connections()
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEAD_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: TIMEOUT_LOOK_MS,
    keepAliveTimeout: 1000,
  }
  const server = createServer(limits, (request, response) =>
    answer(request, response, (caller) => {
      connections.asks(request.socket, response)
      return caller
    }),
  )
  server.on('connection', (socket) => connections.add(socket))
  return server
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return
  server.closeAllConnections()
  await new Promise<void>((done) => server.close(() => done()))
}

async function listenAsSaid(server: Server, where: string, dir: string): Promise<string> {
  const tcp = parseIpPort(where)
  if (tcp !== null) return listenAt(server, tcp, 'control.listen')
  const path = resolve(dir, where.slice('unix:'.length))
  await listenOn(server, path, 'control.listen')
  return path
}

/** Refuses whoever has no token, and browsers even if they had one: a page's script sends Origin, and a rebound name shows in Host. */
function admitToSocket(request: IncomingMessage, address: string, token: Buffer, attempts: Attempts): Caller {
  if (request.headers.origin !== undefined) throw new Refusal(403, 'origin-refused', 'the control API is not for web pages')
  const port = address.slice(address.lastIndexOf(':'))
  const hosts = address.startsWith('/') ? ['localhost', 'shallot'] : [address, `localhost${port}`]
  if (!hosts.includes(request.headers.host ?? '')) throw new Refusal(403, 'host-refused', `the Host header must be ${hosts.join(' or ')}`)
  const given = bearerOf(request)
  if (given === undefined || !matches(given, token)) {
    throw attempts.refusal(
      new Refusal(401, 'token-required', `send Authorization: Bearer with the token of the file ${TOKEN_FILE} in the node's directory`),
    )
  }
  return { kind: 'socket', lasts: () => true, end: () => {}, hasToken: true }
}
