import type { ClientRequest, IncomingMessage, InformationEvent, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { formatIp, type Logger, MalformedError, messageOf, parseIp, sensitive } from '../base/index.ts'
import { type ClientService, StreamError } from '../client/index.ts'
import type { Target } from '../onion/index.ts'
import type { HttpConfig } from './config.ts'
import { CircuitAgent, type CircuitRequestArgs } from './http-agent.ts'
import {
  type AbsoluteTarget,
  badRequest,
  encodeHead,
  type ProxyProblem,
  parseAbsoluteForm,
  parseAuthorityForm,
  parseBasic,
  problemOf,
  problemPage,
  rawProblem,
  requestFraming,
  withoutHopByHop,
} from './http-codec.ts'
import { type Credentials, credentialChecker, requestIsolation } from './isolation.ts'
import type { ListenAddress } from './listen-address.ts'
import { Listeners, sayAndClose } from './listeners.ts'
import type { IngressModules } from './socks5.ts'
import { EarlyBytes, splice } from './splice.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { createServer, request: httpRequest } = process.getBuiltinModule('node:http')

export interface HttpCounts {
  readonly open: number
  readonly asked: number
  readonly refused: number
  readonly idleUpstream: number
}

/** The HTTP proxy: CONNECT, plain requests in absolute-form with keep-alive on both sides, WebSocket upgrades. No cache. Inert until started. */
export class HttpProxy {
  readonly #config: HttpConfig
  readonly #client: ClientService
  readonly #logger: Logger
  readonly #listeners: Listeners
  readonly #agent: CircuitAgent
  /** Connections that came by an address where credentials are asked for. */
  readonly #guarded = new WeakSet<object>()
  /** Connections over the limit. */
  readonly #surplus = new WeakSet<object>()
  #asked = 0
  #refused = 0

  constructor(config: HttpConfig, modules: IngressModules) {
    this.#config = config
    this.#client = modules.client
    this.#logger = modules.logger.child('http')
    this.#agent = new CircuitAgent({
      open: async (target, isolation, signal) => (await this.#client.connect(target, { isolation, signal })).stream,
      idleTimeoutMs: config.upstreamIdleTimeoutMs,
      maxIdle: config.maxIdleUpstream,
    })
    this.#listeners = new Listeners({
      name: 'ingress.http',
      listen: config.listen,
      get maxConnections() {
        return config.maxConnections
      },
      createServer: (address) => this.#createServer(address),
      refuse: (socket) => this.#surplus.add(socket), // told at its first request
      logger: this.#logger,
    })
  }

  /** Where it listens, as HOST:PORT. */
  get addresses(): readonly string[] {
    return this.#listeners.addresses
  }

  get counts(): HttpCounts {
    const { open, refused } = this.#listeners
    return { open, asked: this.#asked, refused: this.#refused + refused, idleUpstream: this.#agent.idle }
  }

  /** @throws ShallotError 'port-in-use' and others of the listeners */
  start(): Promise<void> {
    return this.#listeners.start()
  }

  /** Stops listening, resets what is open and closes idle streams. */
  async stop(): Promise<void> {
    await this.#listeners.stop()
    this.#agent.destroy()
  }

  #createServer(address: ListenAddress): Server {
    const config = this.#config
    const server = createServer({
      noDelay: true,
      maxHeaderSize: config.maxHeaderBytes,
      headersTimeout: config.headersTimeoutMs,
      // The body may take as long as it moves: `idleTimeoutMs` below.
      requestTimeout: 0,
      keepAliveTimeout: config.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.min(5000, config.headersTimeoutMs),
      insecureHTTPParser: false,
      requireHostHeader: false, // absolute-form names the host; old clients send no Host
      shouldUpgradeCallback: (message) => isWebSocket(message),
    })
    server.maxHeadersCount = 0 // bounded by maxHeaderSize; a count would drop fields in silence
    server.timeout = config.idleTimeoutMs
    server.on('connection', (socket: Socket) => {
      if (config.requireCredentials || !address.loopback) this.#guarded.add(socket)
      this.#listeners.admit(socket)
    })
    server.on('request', (message, response) => this.#request(message, response))
    // A client that waits for "100 Continue" gets the server's, not ours.
    server.on('checkContinue', (message, response) => this.#request(message, response))
    server.on('connect', (message, socket, head) => void this.#connect(message, socket as Socket, head))
    server.on('upgrade', (message, socket, head) => this.#upgrade(message, socket as Socket, head))
    server.on('clientError', (error, socket) => this.#clientError(error, socket as Socket))
    return server
  }

  async #connect(message: IncomingMessage, socket: Socket, head: Uint8Array): Promise<void> {
    socket.setTimeout(0)
    const early = new EarlyBytes(socket, head)
    let target: Target | null = null
    const opening = this.#opening(socket)
    try {
      this.#admit(message)
      target = parseAuthorityForm(message.url ?? '')
      const { stream } = await this.#client.connect(target, { isolation: this.#isolation(message, target), signal: opening.signal })
      if (!socket.destroyed) socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      splice(early, stream)
    } catch (error) {
      const problem = this.#problem(error, target, opening.signal)
      sayAndClose(socket, rawProblem(problem, wantsHtml(message)))
    } finally {
      opening.done()
    }
  }

  #request(message: IncomingMessage, response: ServerResponse): void {
    response.sendDate = false
    response.on('error', () => {})
    let asked: AbsoluteTarget | null = null
    try {
      this.#admit(message)
      asked = parseAbsoluteForm(message.url ?? '', message.method ?? '')
      this.#forward(message, response, asked, this.#upstreamHeaders(message, asked.authority))
    } catch (error) {
      this.#answer(message, response, this.#problem(error, asked?.target ?? null))
    }
  }

  /** @throws Refused */
  #upstreamHeaders(message: IncomingMessage, authority: string): string[] {
    const framing = requestFraming(message.rawHeaders)
    const headers = ['Host', authority, ...withoutHopByHop(message.rawHeaders, ['host', 'content-length'])]
    switch (framing.type) {
      case 'unsound':
        throw new Refused(badRequest(framing.why))
      case 'unsupported':
        throw new Refused({ ...badRequest('Transfer-Encoding other than chunked'), status: 501 })
      case 'length':
        if (this.#tooLong(framing.length)) throw new Refused(this.#contentTooLarge())
        return [...headers, 'Content-Length', String(framing.length)]
      case 'chunked':
        return [...headers, 'Transfer-Encoding', 'chunked']
      case 'none':
        return hasBodyByHabit(message.method) ? [...headers, 'Content-Length', '0'] : headers
    }
  }

  #forward(message: IncomingMessage, response: ServerResponse, asked: AbsoluteTarget, headers: readonly string[]): void {
    const opening = this.#opening(message.socket)
    const options = this.#upstreamOptions(message, asked, headers, opening.signal)
    const upstream = httpRequest(options)
    upstream.maxHeadersCount = 0
    const whole = message.headers['content-length'] === undefined && message.headers['transfer-encoding'] === undefined
    upstream.on('socket', opening.done)
    upstream.on('continue', () => response.writeContinue())
    upstream.on('information', (hint) => passHint(hint, response))
    upstream.on('response', (answer) => this.#pass(answer, message, response))
    upstream.on('error', (error) => {
      opening.done()
      if (response.headersSent) {
        if (!response.writableFinished) reset(message.socket)
        return
      }
      // RFC 9110 §9.2.2: a request may be sent again when that does no harm; a server closing an idle connection is the everyday case.
      if (upstream.reusedSocket && whole && isSafe(message.method) && !message.socket.destroyed) {
        this.#agent.dropIdle(options)
        this.#forward(message, response, asked, headers)
        return
      }
      this.#answer(message, response, this.#problem(error, asked.target, opening.signal))
    })
    response.on('close', () => {
      if (!response.writableFinished) upstream.destroy()
    })
    if (whole) upstream.end()
    else this.#sendBody(message, response, upstream)
  }

  #upstreamOptions(message: IncomingMessage, asked: AbsoluteTarget, headers: readonly string[], opening: AbortSignal): CircuitRequestArgs {
    return {
      agent: this.#agent,
      method: message.method ?? 'GET',
      path: asked.path,
      headers,
      setHost: false,
      maxHeaderSize: this.#config.maxHeaderBytes,
      insecureHTTPParser: false,
      target: asked.target,
      isolation: this.#isolation(message, asked.target),
      opening,
    }
  }

  #sendBody(message: IncomingMessage, response: ServerResponse, upstream: ClientRequest): void {
    let length = 0
    if (this.#config.maxBodyBytes > 0) {
      message.on('data', (chunk: Uint8Array) => {
        length += chunk.length
        if (!this.#tooLong(length)) return
        upstream.destroy()
        this.#answer(message, response, this.#contentTooLarge())
      })
    }
    message.on('error', () => upstream.destroy())
    message.pipe(upstream)
  }

  #pass(answer: IncomingMessage, message: IncomingMessage, response: ServerResponse): void {
    try {
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, withoutHopByHop(answer.rawHeaders))
    } catch (error) {
      answer.destroy()
      this.#answer(message, response, problemOf(error, { host: 'the server', port: 0 }))
      return
    }
    const orderly = orderlyEnd(answer, message)
    answer.on('error', () => {})
    answer.on('end', () => (orderly() ? response.end() : reset(message.socket)))
    answer.on('close', () => {
      // A body cut short must not look complete, however its end is marked.
      if (!orderly() && !response.writableFinished) reset(message.socket)
    })
    answer.pipe(response, { end: false })
  }

  #upgrade(message: IncomingMessage, socket: Socket, head: Uint8Array): void {
    socket.setTimeout(0)
    const early = new EarlyBytes(socket, head)
    const opening = this.#opening(socket)
    let target: Target | null = null
    const fail = (error: unknown): void => {
      opening.done()
      sayAndClose(socket, rawProblem(this.#problem(error, target, opening.signal), wantsHtml(message)))
    }
    try {
      this.#admit(message)
      const asked = parseAbsoluteForm(message.url ?? '', message.method ?? '')
      target = asked.target
      if (requestFraming(message.rawHeaders).type !== 'none') throw new Refused(badRequest('an upgrade with a body'))
      const kept = withoutHopByHop(message.rawHeaders, ['host', 'content-length'])
      const headers = ['Host', asked.authority, ...kept, 'Connection', 'Upgrade', 'Upgrade', 'websocket']
      const upstream = httpRequest(this.#upstreamOptions(message, asked, headers, opening.signal))
      upstream.on('socket', opening.done)
      upstream.on('error', fail)
      upstream.on('upgrade', (answer, stream: Duplex, rest) => {
        const fields = [...withoutHopByHop(answer.rawHeaders), 'Connection', 'Upgrade', 'Upgrade', answer.headers.upgrade ?? 'websocket']
        socket.write(encodeHead(101, 'Switching Protocols', fields), 'latin1')
        if (rest.length > 0) socket.write(rest)
        splice(early, stream)
      })
      upstream.on('response', (answer) => {
        // The server said no: its answer is passed on, and the connection ends after it.
        const fields = [...withoutHopByHop(answer.rawHeaders), 'Connection', 'close']
        socket.write(encodeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', fields), 'latin1')
        const orderly = orderlyEnd(answer, message)
        answer.on('close', () => (orderly() ? sayAndClose(socket, new Uint8Array(0)) : reset(socket)))
        answer.on('error', () => {})
        answer.pipe(socket, { end: false })
      })
      socket.once('close', () => upstream.destroy())
      upstream.end()
    } catch (error) {
      fail(error)
    }
  }

  #clientError(error: NodeJS.ErrnoException, socket: Socket): void {
    if (socket.destroyed || !socket.writable || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    this.#refused++
    // Inside an answer, words of ours would be taken for a part of it.
    if (socket.bytesWritten > 0 && answering(socket)) {
      reset(socket)
      return
    }
    const problem = badRequest('The bytes received are no sound HTTP/1.1 request.')
    if (error.code === 'HPE_HEADER_OVERFLOW')
      sayAndClose(socket, rawProblem({ ...problem, status: 431, detail: 'The head of the request is too long.' }))
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
      sayAndClose(socket, rawProblem({ ...problem, status: 408, detail: 'The request took too long.' }))
    else sayAndClose(socket, rawProblem(problem))
  }

  /** @throws Refused */
  #admit(message: IncomingMessage): void {
    this.#asked++
    if (this.#surplus.has(message.socket)) {
      throw new Refused({ status: 503, error: 'connection_limit_reached', title: 'Too many connections', detail: 'Try again later.' })
    }
    const credentials = parseBasic(message.headers['proxy-authorization'])
    if (this.#guarded.has(message.socket) && !(credentials && credentialChecker(this.#config.credentials)(credentials))) {
      throw new Refused({
        status: 407,
        error: null,
        title: 'Credentials are required',
        detail: 'Send a user name and password for the proxy.',
      })
    }
    if (message.url?.startsWith('/') || (message.url === '*' && message.method !== 'CONNECT')) throw new Refused(helpPage)
  }

  #isolation(message: IncomingMessage, target: Target): string {
    const credentials: Credentials | null = parseBasic(message.headers['proxy-authorization'])
    const { remoteAddress } = message.socket
    return requestIsolation(this.#config.isolateBy, {
      listener: 'http',
      user: credentials?.user,
      password: credentials?.password,
      clientAddress: remoteAddress ? formatIp(parseIp(remoteAddress)) : undefined,
      host: target.host,
      port: target.port,
    })
  }

  /** Bounds the opening of a stream by time and by the application's patience. */
  #opening(socket: Socket): { readonly signal: AbortSignal; readonly done: () => void } {
    const abort = new AbortController()
    const gone = (): void => abort.abort(new StreamError('aborted'))
    const timer = setTimeout(() => abort.abort(new StreamError('timeout')), this.#config.connectTimeoutMs)
    socket.once('close', gone)
    const done = (): void => {
      clearTimeout(timer)
      socket.off('close', gone)
    }
    return { signal: abort.signal, done }
  }

  #problem(error: unknown, target: Target | null, opening?: AbortSignal): ProxyProblem {
    this.#refused++
    if (error instanceof Refused) return error.problem
    this.#logger.debug('request failed', { target: sensitive(target), error: sensitive(messageOf(error)) })
    if (error instanceof MalformedError || target === null) return badRequest(messageOf(error))
    return problemOf(opening?.aborted ? opening.reason : error, target)
  }

  #answer(message: IncomingMessage, response: ServerResponse, problem: ProxyProblem): void {
    if (response.headersSent || message.socket.destroyed) {
      if (!response.writableFinished) reset(message.socket)
      return
    }
    const { headers, body } = problemPage(problem, wantsHtml(message))
    // What is left of a body is not worth reading: the connection ends here.
    const last = !message.complete || this.#surplus.has(message.socket)
    response.writeHead(problem.status, last ? [...headers, 'Connection', 'close'] : headers)
    response.end(message.method === 'HEAD' ? undefined : body)
    message.resume()
  }

  #tooLong(length: number): boolean {
    return this.#config.maxBodyBytes > 0 && length > this.#config.maxBodyBytes
  }

  #contentTooLarge(): ProxyProblem {
    return {
      status: 413,
      error: 'http_request_error',
      title: 'The body is too long',
      detail: `At most ${this.#config.maxBodyBytes} bytes.`,
    }
  }
}

/** What the proxy answers by itself, thrown through to where it is said. */
class Refused extends Error {
  readonly problem: ProxyProblem
  constructor(problem: ProxyProblem) {
    super(problem.title)
    this.problem = problem
  }
}

const helpPage: ProxyProblem = {
  status: 400,
  error: null,
  title: 'This is an HTTP proxy, not a web server',
  detail: 'Set it as the HTTP and HTTPS proxy of your program, or the SOCKS5 port as its SOCKS proxy: requests then go through the mesh.',
}

function isWebSocket(message: IncomingMessage): boolean {
  return message.method === 'GET' && message.headers.upgrade?.trim().toLowerCase() === 'websocket'
}

/** RFC 9110 §9.2.1 */
function isSafe(method: string | undefined): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS' || method === 'TRACE'
}

/** Methods whose requests say Content-Length even when it is 0 (RFC 9110 §8.6). */
function hasBodyByHabit(method: string | undefined): boolean {
  return method === 'POST' || method === 'PUT' || method === 'PATCH'
}

function wantsHtml(message: IncomingMessage): boolean {
  return message.headers.accept?.includes('text/html') === true
}

/**
 * Whether an answer has come to its end in order. One that says no length ends with its stream, and node:http takes any end of that for a good one,
 * so the stream is asked: only its in-band end is.
 */
function orderlyEnd(answer: IncomingMessage, question: IncomingMessage): () => boolean {
  const stream = answer.socket
  const bounded = answer.headers['content-length'] !== undefined || answer.headers['transfer-encoding'] !== undefined
  const bodiless = question.method === 'HEAD' || answer.statusCode === 204 || answer.statusCode === 304
  return () => answer.complete && (bounded || bodiless || stream.readableEnded)
}

/** RFC 9110 §15.2: interim answers are passed on. 103 (RFC 8297) is the one that says something. */
function passHint(hint: InformationEvent, response: ServerResponse): void {
  const { link } = hint.headers
  if (hint.statusCode !== 103 || link === undefined || response.headersSent) return
  try {
    response.writeEarlyHints({ link })
  } catch {
    // A hint that is not well formed is left away.
  }
}

function answering(socket: Socket): boolean {
  const response = (socket as Socket & { _httpMessage?: ServerResponse | null })._httpMessage
  return response?.headersSent === true && !response.writableFinished
}

function reset(socket: Socket): void {
  if (!socket.destroyed) socket.resetAndDestroy()
}
