import { spawn } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { Certificate } from './certificates.ts'

/** What the web server of the tests serves. */
export interface WebServer {
  readonly port: number
  /** "http://127.0.0.1:PORT" or "https://localhost:PORT" */
  readonly url: string
  /** Requests so far. */
  readonly requests: number
  /** Connections that are open now. */
  readonly connections: number
  close(): Promise<void>
}

export interface WebServerOptions {
  /** TLS with this certificate. */
  readonly tls?: Certificate
  /** A folder of bare git repositories, served under `/git/` by `git http-backend`. */
  readonly gitFolder?: string
  /** Where to listen. Default: a free port of 127.0.0.1. */
  readonly listen?: { readonly host: string; readonly port: number }
}

/**
 * - `GET /bytes/N`: N bytes that never repeat, the same ones each time (`sha256OfBytes`); `?per=BYTES&every=MS` sends them slowly
 * - `PUT /sink`: `{"bytes":…,"sha256":…}` of what was sent
 * - `GET /silent`: never answered
 * - `GET /seen`: the address that the request came from
 * - anything else: "hello from the web server" and the path
 */
export async function startWebServer(options: WebServerOptions = {}): Promise<WebServer> {
  let requests = 0
  const sockets = new Set<Socket>()
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    requests++
    const url = new URL(request.url ?? '/', 'http://server')
    const [, first, second] = url.pathname.split('/')
    if (first === 'bytes') serveBytes(Number(second), url.searchParams, response)
    else if (first === 'sink') serveSink(request, response)
    else if (first === 'git' && options.gitFolder !== undefined) serveGit(options.gitFolder, url, request, response)
    else if (first === 'seen') response.end(request.socket.remoteAddress)
    else if (first !== 'silent') response.end(`hello from the web server: ${url.pathname}\n`)
  }
  const server: Server = options.tls ? createTlsServer({ cert: options.tls.certificate, key: options.tls.key }, serve) : createServer(serve)
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).once('close', () => sockets.delete(socket))
  })
  const { host, port: wantedPort } = options.listen ?? { host: '127.0.0.1', port: 0 }
  await new Promise<void>((resolve) => {
    server.listen(wantedPort, host, 4096, resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    port,
    url: options.tls ? `https://localhost:${port}` : `http://${host}:${port}`,
    get requests() {
      return requests
    },
    get connections() {
      return sockets.size
    },
    close() {
      for (const socket of sockets) socket.destroy()
      return new Promise((resolve) => {
        server.close(() => resolve())
      })
    },
  }
}

/** The bytes of `GET /bytes/N`: a key stream, so that a lost, repeated or swapped piece changes the hash. */
export function* bytesOf(length: number, pieceBytes = 64 << 10): Generator<Buffer> {
  const stream = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16))
  const zeros = Buffer.alloc(pieceBytes)
  for (let at = 0; at < length; at += pieceBytes) yield stream.update(zeros.subarray(0, Math.min(pieceBytes, length - at)))
}

export function sha256OfBytes(length: number): string {
  const hash = createHash('sha256')
  for (const piece of bytesOf(length)) hash.update(piece)
  return hash.digest('hex')
}

function serveBytes(length: number, query: URLSearchParams, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': length })
  const every = Number(query.get('every') ?? 0)
  if (every === 0) {
    Readable.from(bytesOf(length)).pipe(response)
    return
  }
  const pieces = bytesOf(length, Number(query.get('per')))
  const timer = setInterval(() => {
    const { value, done } = pieces.next()
    if (done) response.end()
    else response.write(value)
  }, every)
  response.on('close', () => clearInterval(timer))
}

function serveSink(request: IncomingMessage, response: ServerResponse): void {
  const hash = createHash('sha256')
  let bytes = 0
  request.on('data', (piece: Buffer) => {
    hash.update(piece)
    bytes += piece.length
  })
  request.on('end', () => response.end(JSON.stringify({ bytes, sha256: hash.digest('hex') })))
}

/** RFC 3875, as far as git needs it. */
function serveGit(folder: string, url: URL, request: IncomingMessage, response: ServerResponse): void {
  const backend = spawn('git', ['http-backend'], {
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: url.pathname.slice('/git'.length),
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      REMOTE_ADDR: '127.0.0.1',
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  request.pipe(backend.stdin)
  backend.stdin.on('error', () => {})
  let head: Buffer | null = Buffer.alloc(0)
  backend.stdout.on('data', (piece: Buffer) => {
    if (head === null) {
      response.write(piece)
      return
    }
    head = Buffer.concat([head, piece])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    for (const line of head.toString('latin1', 0, end).split('\r\n')) {
      const [name, value] = [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]
      if (name.toLowerCase() === 'status') response.statusCode = Number.parseInt(value, 10)
      else response.setHeader(name, value)
    }
    response.write(head.subarray(end + 4))
    head = null
  })
  backend.stdout.on('end', () => response.end())
}

/** A DNS server on UDP that answers every question for an IPv4 address with this one (RFC 1035 §4). */
export async function startDnsServer(
  address: readonly [number, number, number, number],
): Promise<{ port: number; questions: number; close(): void }> {
  const socket = createSocket('udp4')
  const server = { port: 0, questions: 0, close: () => socket.close() }
  socket.on('message', (question, from) => {
    server.questions++
    const header = Buffer.from(question.subarray(0, 12))
    header.writeUInt16BE(0x8580, 2) // an authoritative answer, no error
    header.writeUInt16BE(1, 6)
    const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address])
    socket.send(Buffer.concat([header, question.subarray(12), answer]), from.port, from.address)
  })
  await new Promise<void>((resolve) => {
    socket.bind(0, '127.0.0.1', resolve)
  })
  server.port = socket.address().port
  return server
}

/** A question for the IPv4 address of a name. */
export function dnsQuestion(id: number, name: string): Buffer {
  const labels = name.split('.').flatMap((label) => [label.length, ...Buffer.from(label)])
  return Buffer.from([id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, 1, 0, 1])
}
