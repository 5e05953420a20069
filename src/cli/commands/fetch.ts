import { once } from 'node:events'
import { constants, createWriteStream } from 'node:fs'
import { access, rename, rm, stat } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { dirname } from 'node:path'
import type { Duplex, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { connect as connectTls } from 'node:tls'
import { messageOf, ShallotError } from '../../base/index.ts'
import { isErrno } from '../../store/index.ts'
import { bytesText, complain, sayJson } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'
import { Progress } from '../progress.ts'
import { connectThroughSocks, type ProxyUser } from '../proxy-connect.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { request } = process.getBuiltinModule('node:http')

const MAX_REDIRECTS = 10
/** A server that sends nothing for so long is given up. */
const IDLE_TIMEOUT_MS = 120_000

export interface FetchOptions extends NodeChoice {
  readonly output?: string
  readonly user?: string
  readonly json?: boolean
}

/**
 * `shallot fetch URL`: through the node's SOCKS5 proxy, names resolved at the exit, TLS checked here, end to end. A body that ends before its
 * length, or because the circuit was lost, is an error, and a file is only there when it is whole.
 */
export async function fetchUrl(text: string, options: FetchOptions): Promise<number> {
  const url = parseUrl(text)
  if (options.json && (options.output ?? '-') === '-')
    throw usage('--json needs -o FILE: standard output cannot hold both the body and the facts')
  if (options.output !== undefined && options.output !== '-') await checkPlace(options.output)
  const proxy = (await (await findNode(options)).status()).socks
  if (proxy === null)
    throw new ShallotError('no-proxy', 'this node has no SOCKS5 proxy: it needs the role client and an address in ingress.socks.listen', {
      kind: 'config',
      retry: 'never',
    })
  // Credentials of its own keep this fetch on a circuit apart from other programs'.
  const user = options.user === undefined ? { name: `fetch-${process.pid}`, password: String(Date.now()) } : parseUser(options.user)
  const startedAt = performance.now()
  const { response, url: final } = await follow(url, proxy, user)
  const status = response.statusCode ?? 0
  const bytes = await save(response, options.output ?? '-')
  const ms = Math.round(performance.now() - startedAt)
  if (options.json) sayJson({ url: final.href, status, bytes, ms, file: options.output })
  if (status >= 400) {
    complain(`shallot: ${final.href}: the server answered ${status} ${response.statusMessage ?? ''}`.trimEnd())
    return 1
  }
  if (options.output !== undefined && options.output !== '-' && !options.json)
    complain(`${options.output}: ${bytesText(bytes)} in ${(ms / 1000).toFixed(1)} s`)
  return 0
}

async function follow(start: URL, proxy: string, user: ProxyUser): Promise<{ response: IncomingMessage; url: URL }> {
  let url = start
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const response = await get(url, proxy, user)
    const status = response.statusCode ?? 0
    const location = response.headers.location
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined) return { response, url }
    response.destroy()
    const next = parseUrl(new URL(location, url).href)
    if (url.protocol === 'https:' && next.protocol === 'http:') {
      throw new ShallotError('unsafe-redirect', `${url.href} leads to ${next.href}, without TLS; fetch that yourself if you mean it`, {
        kind: 'remote',
        retry: 'never',
      })
    }
    url = next
  }
  throw new ShallotError('too-many-redirects', `${start.href} leads on more than ${MAX_REDIRECTS} times`, {
    kind: 'remote',
    retry: 'never',
  })
}

async function get(url: URL, proxy: string, user: ProxyUser): Promise<IncomingMessage> {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const secure = url.protocol === 'https:'
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port)
  const raw = await connectThroughSocks(proxy, host, port, user)
  try {
    let socket: Duplex = raw
    if (secure) {
      // RFC 6066 §3: an address is no server name.
      const tls = connectTls({ socket: raw, host, ...(isIP(host) === 0 ? { servername: host } : {}), ALPNProtocols: ['http/1.1'] })
      await once(tls, 'secureConnect')
      socket = tls
    }
    return await new Promise<IncomingMessage>((done, fail) => {
      const asked = request({
        createConnection: () => socket,
        host,
        port,
        method: 'GET',
        path: url.pathname + url.search,
        headers: {
          host: url.host,
          accept: '*/*',
          'accept-encoding': 'identity',
          // A name of its own would tell the server that this is one of the few who use Shallot.
          'user-agent': 'curl/8.14.1',
          connection: 'close',
          ...(url.username === ''
            ? {}
            : {
                authorization: `Basic ${Buffer.from(`${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`).toString('base64')}`,
              }),
        },
      })
      asked.setTimeout(IDLE_TIMEOUT_MS, () => asked.destroy(new Error(`nothing came for ${IDLE_TIMEOUT_MS / 1000} s`)))
      asked.once('response', done).once('error', fail).end()
      // It was paused while the proxy was spoken to.
      raw.resume()
    })
  } catch (error) {
    raw.destroy()
    throw failed(url, error)
  }
}

/** Said before anything is asked of a server. @throws ShallotError 'output-not-writable' */
async function checkPlace(output: string): Promise<void> {
  const there = await stat(output).catch(() => null)
  if (there?.isDirectory()) throw notWritable(output, 'it is a directory')
  await access(dirname(output), constants.W_OK).catch((error) => {
    throw notWritable(output, isErrno(error, 'ENOENT') ? `there is no directory ${dirname(output)}` : messageOf(error))
  })
}

function notWritable(output: string, why: string): ShallotError {
  return new ShallotError('output-not-writable', `${output} cannot be written: ${why}`, { kind: 'usage', retry: 'never' })
}

async function save(response: IncomingMessage, output: string): Promise<number> {
  const total = Number(response.headers['content-length'] ?? Number.NaN)
  const progress = new Progress(Number.isFinite(total) ? total : null)
  response.on('data', (chunk: Buffer) => progress.add(chunk.length))
  const part = output === '-' ? null : `${output}.part`
  try {
    const target: Writable = part === null ? process.stdout : createWriteStream(part)
    await pipeline(response, target, { end: part !== null })
    if (part !== null) await rename(part, output)
    return progress.bytes
  } catch (error) {
    if (part !== null) await rm(part, { force: true }).catch(() => {})
    throw failed(null, error)
  } finally {
    progress.end()
  }
}

function failed(url: URL | null, error: unknown): ShallotError {
  if (error instanceof ShallotError) return error
  const where = url === null ? '' : `${url.href}: `
  return new ShallotError(
    'fetch-failed',
    `${where}${messageOf(error) === 'aborted' ? 'the connection was lost before the end; nothing was kept' : messageOf(error)}`,
    {
      kind: 'remote',
      retry: 'later',
      cause: error,
    },
  )
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw usage(`${JSON.stringify(text)} is not a URL that begins with http:// or https://`)
  return url
}

function parseUser(text: string): ProxyUser {
  const colon = text.indexOf(':')
  if (colon < 1 || colon === text.length - 1) throw usage('--user must be NAME:PASSWORD')
  return { name: text.slice(0, colon), password: text.slice(colon + 1) }
}

function usage(message: string): ShallotError {
  return new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
}
