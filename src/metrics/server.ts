import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { formatHostPort, type Logger, messageOf, ShallotError } from '../base/index.ts'
import { isLoopback, type NodeConfig, type NodeControl, parseIpPort } from '../node/index.ts'
import { type Format, PAGE_AGE_MS, PageWriter } from './page.ts'
import { RuntimeWatch } from './runtime.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { createServer } = process.getBuiltinModule('node:http')

/** Readers at once: one collector, perhaps two, and a person. */
const MAX_CONNECTIONS = 16
const MAX_HEADER_BYTES = 8 * 1024
const REQUEST_TIMEOUT_MS = 10_000

export interface MetricsServer {
  /** "ADDRESS:PORT" of each listener. */
  readonly addresses: readonly string[]
  close(): Promise<void>
}

export interface MetricsOptions {
  readonly config: NodeConfig
  readonly logger: Logger
}

/** See `startMetrics`. */
export async function serveMetrics(node: Pick<NodeControl, 'status'>, { config, logger }: MetricsOptions): Promise<MetricsServer> {
  const now = (): number => performance.now()
  const runtime = new RuntimeWatch(PAGE_AGE_MS, now())
  const writer = new PageWriter(() => ({ status: node.status(), config }), runtime, now)
  const servers: Server[] = []
  const close = async (): Promise<void> => {
    runtime.close()
    for (const server of servers) server.closeAllConnections()
    await Promise.all(servers.map((server) => new Promise<void>((done) => server.close(() => done()))))
  }
  try {
    const addresses: string[] = []
    for (const text of config.metrics.listen) {
      const { host, port } = parseIpPort(text)!
      const server = createServer(
        { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: 5_000 },
        (request, response) => {
          answer(writer, isLoopback(host), request, response).catch((error) => {
            logger.error('a page of metrics was not made', { error: messageOf(error) })
            if (response.headersSent) response.destroy()
            else send(response, 500, 'text/plain', 'the metrics could not be made; see the log\n')
          })
        },
      )
      server.maxConnections = MAX_CONNECTIONS
      await listen(server, host, port)
      servers.push(server)
      const bound = server.address() as AddressInfo
      addresses.push(formatHostPort(bound.address, bound.port))
    }
    logger.info('metrics are served', { listeners: addresses.length })
    return { addresses, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function answer(writer: PageWriter, isLocal: boolean, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD')
    return send(response, 405, 'text/plain', 'only GET and HEAD\n')
  }
  const path = (request.url ?? '/').split('?')[0]
  if (path === '/') return send(response, 200, 'text/plain', 'the metrics of a Shallot node are at /metrics\n')
  if (path !== '/metrics') return send(response, 404, 'text/plain', 'there is /metrics here and nothing else\n')
  // A page of a web site that has its name rebound to the loopback must not read what is about this machine's user.
  const mayBeLocal = isLocal && request.headers.origin === undefined && isOwnHost(request.headers.host)
  const { contentType, text } = await writer.page(formatFor(request.headers.accept), mayBeLocal)
  send(response, 200, contentType, text)
}

/** A numeric address, or localhost: no other name is this machine's. */
function isOwnHost(header: string | undefined): boolean {
  const host = (header ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '')
  return host === 'localhost' || isLoopback(host)
}

/** OpenMetrics for whoever prefers it, by the weights of Accept (RFC 9110 §12.5.1). */
export function formatFor(accept: string | undefined): Format {
  let open = 0
  let plain = 0
  for (const part of (accept ?? '').slice(0, 1_000).split(',')) {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase())
    const weight = Number(parameters.find((text) => text.startsWith('q='))?.slice(2) ?? 1)
    if (type === 'application/openmetrics-text') open = Math.max(open, weight)
    if (type === 'text/plain') plain = Math.max(plain, weight)
  }
  return open > 0 && open >= plain ? 'openmetrics' : 'prometheus'
}

function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'",
  })
  response.end(text)
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new ShallotError(
          error.code === 'EADDRINUSE' ? 'address-in-use' : 'listen-failed',
          `metrics.listen: ${formatHostPort(host, port)} can't be listened on: ${error.code === 'EADDRINUSE' ? 'another program does' : messageOf(error)}`,
          { kind: 'host', retry: 'later', cause: error },
        ),
      ),
    )
    server.listen({ host, port }, resolve)
  })
}
