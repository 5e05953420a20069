import { createServer, type Socket } from 'node:net'
import { formatIp, isIpText, type Logger, messageOf, parseIp, sensitive } from '../base/index.ts'
import { type ClientService, StreamError, type StreamErrorReason, type StreamOptions } from '../client/index.ts'
import type { ResolveAnswer } from '../onion/index.ts'
import type { SocksConfig } from './config.ts'
import { credentialChecker, requestIsolation } from './isolation.ts'
import type { ListenAddress } from './listen-address.ts'
import { Listeners, sayAndClose } from './listeners.ts'
import { AuthMethod, encodeMethod, SocksReply, type SocksReplyCode } from './socks5-codec.ts'
import { describeAsk, encodeAnswer, type SocksAsk, SocksHandshake } from './socks5-handshake.ts'
import { SocksAssociation } from './socks5-udp.ts'
import { EarlyBytes, splice } from './splice.ts'

export interface IngressModules {
  readonly client: ClientService
  readonly logger: Logger
}

export interface SocksCounts {
  readonly open: number
  readonly associations: number
  readonly asked: number
  readonly refused: number
}

/** The SOCKS listener: SOCKS 5 with CONNECT, UDP ASSOCIATE, RESOLVE and RESOLVE_PTR, and SOCKS 4a. Inert until started. */
export class SocksServer {
  readonly #config: SocksConfig
  readonly #client: ClientService
  readonly #logger: Logger
  readonly #listeners: Listeners
  #associations = 0
  #asked = 0
  #refused = 0

  constructor(config: SocksConfig, modules: IngressModules) {
    this.#config = config
    this.#client = modules.client
    this.#logger = modules.logger.child('socks')
    this.#listeners = new Listeners({
      name: 'ingress.socks',
      listen: config.listen,
      get maxConnections() {
        return config.maxConnections
      },
      createServer: (address) => createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket, address)),
      refuse: (socket) => sayAndClose(socket, encodeMethod(AuthMethod.notAcceptable)),
      logger: this.#logger,
    })
  }

  /** Where it listens, as HOST:PORT. */
  get addresses(): readonly string[] {
    return this.#listeners.addresses
  }

  get counts(): SocksCounts {
    const { open, refused } = this.#listeners
    return { open, associations: this.#associations, asked: this.#asked, refused: this.#refused + refused }
  }

  /** @throws ShallotError 'port-in-use' and others of the listeners */
  start(): Promise<void> {
    return this.#listeners.start()
  }

  /** Stops listening and resets what is open. */
  stop(): Promise<void> {
    return this.#listeners.stop()
  }

  #accept(socket: Socket, address: ListenAddress): void {
    if (!this.#listeners.admit(socket)) return
    const guarded = this.#config.requireCredentials || !address.loopback
    const handshake = new SocksHandshake({ checkCredentials: guarded ? credentialChecker(this.#config.credentials) : null })
    const slow = setTimeout(() => socket.destroy(), this.#config.handshakeTimeoutMs)
    const gone = (): void => {
      socket.destroy()
    }
    socket.on('close', () => clearTimeout(slow))
    socket.once('end', gone)
    socket.on('data', (chunk: Uint8Array) => {
      for (const output of handshake.handleBytes(chunk)) {
        if (output.type === 'send') {
          socket.write(output.bytes)
          continue
        }
        clearTimeout(slow)
        socket.off('end', gone)
        if (output.type === 'refuse') {
          this.#refused++
          this.#logger.debug('request refused', { why: output.why })
          sayAndClose(socket, output.bytes)
        } else {
          this.#asked++
          void this.#answer(output.ask, new EarlyBytes(socket, output.rest))
        }
      }
    })
  }

  async #answer(ask: SocksAsk, early: EarlyBytes): Promise<void> {
    const { socket } = early
    const abort = new AbortController()
    const tooLong = setTimeout(() => abort.abort(new StreamError('timeout')), this.#config.connectTimeoutMs)
    socket.once('close', () => abort.abort(new StreamError('aborted')))
    try {
      await this.#serve(ask, early, { isolation: this.#isolation(ask, socket), signal: abort.signal })
    } catch (error) {
      const reply = abort.signal.aborted ? SocksReply.ttlExpired : replyOf(error)
      if (!(error instanceof StreamError)) this.#logger.warn('a request failed unexpectedly', { error: sensitive(messageOf(error)) })
      this.#logger.debug('request failed', { ask: sensitive(describeAsk(ask)), error: sensitive(messageOf(error)), reply })
      sayAndClose(socket, encodeAnswer(ask.version, reply))
    } finally {
      clearTimeout(tooLong)
    }
  }

  #serve(ask: SocksAsk, early: EarlyBytes, options: StreamOptions): Promise<void> {
    switch (ask.command) {
      case 'connect':
        return this.#connect(ask, early, options)
      case 'associate':
        return this.#associate(ask, early.socket, options)
      case 'resolve':
      case 'resolve-pointer':
        return this.#resolve(ask, early.socket, options)
    }
  }

  async #connect(ask: SocksAsk, early: EarlyBytes, options: StreamOptions): Promise<void> {
    const { stream } = await this.#client.connect(ask.target, options)
    // BND.ADDR stays 0.0.0.0:0: the exit's own address is nothing an application needs to know.
    if (!early.socket.destroyed) early.socket.write(encodeAnswer(ask.version, SocksReply.succeeded))
    splice(early, stream)
  }

  async #associate(ask: SocksAsk, control: Socket, options: StreamOptions): Promise<void> {
    if (this.#associations >= this.#config.maxAssociations) throw new StreamError('resource-limit')
    this.#associations++
    control.once('close', () => this.#associations--)
    const association = await SocksAssociation.open({
      control,
      announced: ask.target,
      isolation: options.isolation,
      signal: options.signal ?? new AbortController().signal,
      client: this.#client,
      logger: this.#logger,
    })
    if (control.destroyed || control.readableEnded) {
      association.close()
      control.destroy()
      return
    }
    // "A UDP association terminates when the TCP connection … terminates." RFC 1928 §7. What is said on it meanwhile is ignored.
    control.once('close', () => association.close())
    control.once('end', () => control.destroy())
    control.removeAllListeners('data')
    control.resume()
    control.write(encodeAnswer(5, SocksReply.succeeded, association.bound))
  }

  async #resolve(ask: SocksAsk, socket: Socket, options: StreamOptions): Promise<void> {
    const { host } = ask.target
    let answer: string | null = host
    if (ask.command === 'resolve-pointer' || !isIpText(host)) {
      answer = pickAnswer(ask, await this.#client.resolve(host, options))
    }
    if (answer === null) throw new StreamError('resolve-failed')
    sayAndClose(socket, encodeAnswer(ask.version, SocksReply.succeeded, { host: answer, port: 0 }))
  }

  #isolation(ask: SocksAsk, socket: Socket): string {
    const { target, credentials } = ask
    const clientAddress = socket.remoteAddress ? formatIp(parseIp(socket.remoteAddress)) : undefined
    return requestIsolation(this.#config.isolateBy, {
      listener: 'socks',
      user: credentials?.user,
      password: credentials?.password,
      clientAddress,
      host: target.host,
      port: target.port,
    })
  }
}

/** The name for a pointer; else an IPv4 address if there is one (what older programs can use), else an IPv6 one. */
function pickAnswer(ask: SocksAsk, answers: readonly ResolveAnswer[]): string | null {
  if (ask.command === 'resolve-pointer') return answers.find((answer) => answer.type === 'name')?.value ?? null
  const addresses = answers.filter((answer) => answer.type === 'address').map((answer) => answer.value)
  return addresses.find((address) => !address.includes(':')) ?? (ask.version === 5 ? (addresses[0] ?? null) : null)
}

/** The reply code (RFC 1928 §6) that comes closest to why a stream did not open. */
export function replyOf(error: unknown): SocksReplyCode {
  return error instanceof StreamError ? replies[error.reason] : SocksReply.generalFailure
}

const replies: Readonly<Record<StreamErrorReason, SocksReplyCode>> = {
  done: SocksReply.connectionRefused,
  reset: SocksReply.connectionRefused,
  refused: SocksReply.connectionRefused,
  unreachable: SocksReply.networkUnreachable,
  timeout: SocksReply.ttlExpired,
  'resolve-failed': SocksReply.hostUnreachable,
  policy: SocksReply.notAllowed,
  'resource-limit': SocksReply.generalFailure,
  'not-exit': SocksReply.generalFailure,
  internal: SocksReply.generalFailure,
  'circuit-lost': SocksReply.generalFailure,
  'no-circuit': SocksReply.generalFailure,
  aborted: SocksReply.generalFailure,
}
