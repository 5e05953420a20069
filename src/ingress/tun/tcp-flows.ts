import { formatIp, type Logger, messageOf, sensitive } from '../../base/index.ts'
import { type ClientService, type ClientStream, StreamError, type StreamErrorReason } from '../../client/index.ts'
import type { Endpoint, Refusal, StackEvent, TcpConnection } from '../../netstack/index.ts'
import { DnsConversation } from './dns-conversation.ts'
import { TcpSplice } from './tcp-splice.ts'
import type { DnsAsker } from './tun-ingress.ts'

export interface TcpFlowsModules {
  readonly client: ClientService
  /** Whom questions to port 53 go to; null: that port is as any other. */
  readonly dns: DnsAsker | null
  readonly isolation: (from: Endpoint, to: Endpoint) => string
  /** What questions of this origin are isolated by. */
  readonly dnsIsolation: (from: Endpoint) => string
  /** Whether it is for the device's other end, which serves nothing but DNS. */
  readonly isHop: (to: Endpoint) => boolean
  readonly connectTimeoutMs: number
  readonly logger: Logger
  /** After anything was done to a connection. */
  readonly touch: () => void
}

/** What a connection of the machine is joined to, once it is. */
export interface TcpUser {
  readable(): void
  drained(): void
  remoteEnded(): void
  /** @param done in order, everything read and sent */
  closed(done: boolean): void
}

interface Opening {
  readonly abort: AbortController
}

/**
 * The machine's TCP connections: each is accepted once its stream stands at the exit, and refused in the words that say why it does not:
 *
 *     SYN ── opening ── accepted, spliced ── closed
 *                └──── refused: RST or ICMP
 */
export class TcpFlows {
  readonly #m: TcpFlowsModules
  readonly #opening = new Set<Opening>()
  #open = 0
  #stopped = false
  opened = 0
  refused = 0

  constructor(modules: TcpFlowsModules) {
    this.#m = modules
  }

  /** Connections, those being opened included. */
  get size(): number {
    return this.#opening.size + this.#open
  }

  /** An event of the stack that concerns a connection. */
  handle(event: Extract<StackEvent, { connection: TcpConnection }>): void {
    const { connection } = event
    if (event.type === 'incoming') {
      this.#incoming(connection)
      return
    }
    const { context } = connection
    if (context === null) return
    if (isOpening(context)) {
      if (event.type === 'closed') this.#givenUp(connection, context)
      return
    }
    const user = context as TcpUser
    switch (event.type) {
      case 'readable':
        user.readable()
        break
      case 'drained':
        user.drained()
        break
      case 'remote-end':
        user.remoteEnded()
        break
      case 'closed':
        this.#open--
        connection.context = null
        user.closed(event.reason === 'done')
        break
    }
  }

  /** Gives up what is being opened. Those that are open end with the stack. */
  stop(): void {
    this.#stopped = true
    for (const opening of this.#opening) opening.abort.abort(new StreamError('aborted'))
    this.#opening.clear()
  }

  #incoming(connection: TcpConnection): void {
    const { dns, isHop } = this.#m
    if (this.#stopped) {
      connection.refuse('reset')
      return
    }
    if (connection.local.port === 53 && dns !== null) {
      this.#use(connection, new DnsConversation(connection, dns, this.#m.dnsIsolation(connection.remote), this.#m.touch))
      return
    }
    if (isHop(connection.local)) connection.refuse('reset')
    else void this.#connect(connection)
  }

  async #connect(connection: TcpConnection): Promise<void> {
    const { client, isolation, connectTimeoutMs, touch } = this.#m
    const opening: Opening = { abort: new AbortController() }
    connection.context = opening
    this.#opening.add(opening)
    const fail = (error: unknown): void => {
      if (!this.#opening.delete(opening)) return
      connection.context = null
      this.refused++
      connection.refuse(refusalOf(error))
      this.#explain(error)
      touch()
    }
    const tooLong = setTimeout(() => {
      const error = new StreamError('timeout')
      fail(error)
      opening.abort.abort(error)
    }, connectTimeoutMs)
    const { local, remote } = connection
    try {
      const target = { host: formatIp(local.address), port: local.port }
      const { stream } = await client.connect(target, { isolation: isolation(remote, local), signal: opening.abort.signal })
      if (!this.#opening.delete(opening)) discard(stream)
      else {
        this.opened++
        this.#use(connection, new TcpSplice(connection, stream, touch))
        touch()
      }
    } catch (error) {
      fail(error)
    } finally {
      clearTimeout(tooLong)
    }
  }

  #use(connection: TcpConnection, user: TcpUser): void {
    connection.context = user
    connection.accept()
    this.#open++
  }

  /** Whoever asked has gone, or the stack has given it up for newer ones. */
  #givenUp(connection: TcpConnection, opening: Opening): void {
    connection.context = null
    if (this.#opening.delete(opening)) opening.abort.abort(new StreamError('aborted'))
  }

  #explain(error: unknown): void {
    if (error instanceof StreamError) this.#m.logger.debug('connection refused', { reason: error.reason })
    else this.#m.logger.warn('opening a stream failed unexpectedly', { error: sensitive(messageOf(error)) })
  }
}

function isOpening(context: unknown): context is Opening {
  return (context as Opening).abort instanceof AbortController
}

function discard(stream: ClientStream): void {
  stream.on('error', () => {})
  stream.destroy()
}

/** How a program is told that its connection did not open: what its system calls then say comes closest to the reason. */
export function refusalOf(error: unknown): Refusal {
  return error instanceof StreamError ? refusals[error.reason] : 'host-unreachable'
}

const refusals: Readonly<Record<StreamErrorReason, Refusal>> = {
  done: 'reset',
  reset: 'reset',
  refused: 'reset',
  aborted: 'reset',
  unreachable: 'host-unreachable',
  timeout: 'host-unreachable',
  'resolve-failed': 'host-unreachable',
  internal: 'host-unreachable',
  'circuit-lost': 'host-unreachable',
  'resource-limit': 'host-unreachable',
  policy: 'prohibited',
  'not-exit': 'prohibited',
  'no-circuit': 'net-unreachable',
}
