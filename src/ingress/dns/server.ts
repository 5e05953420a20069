import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Socket } from 'node:net'
import { assert, formatHostPort, formatIp, type Logger, messageOf, parseIp, ShallotError, sensitive } from '../../base/index.ts'
import { DNS_HEADER_BYTES, FrameReader, fitDatagram, frameMessage } from '../../dns/index.ts'
import { isolationKey } from '../isolation.ts'
import { parseListen } from '../listen-address.ts'
import { Listeners, listenError } from '../listeners.ts'
import type { DnsConfig } from './config.ts'
import type { DnsService } from './service.ts'

export interface DnsServerModules {
  readonly service: Pick<DnsService, 'ask'>
  readonly logger: Logger
}

export interface DnsServerCounts {
  /** TCP connections open now. */
  readonly open: number
  readonly questions: number
  /** Datagrams and connections that were not served: too many, or no questions. */
  readonly dropped: number
}

/** The longest question that is taken. */
const MAX_QUESTION_BYTES = 4096
/** Questions of one TCP connection at once; it is not read on beyond that. */
const QUESTIONS_PER_CONNECTION = 64
/** Answers that a TCP connection has not taken: beyond the first it is not read on, beyond the second it is reset. */
const UNREAD_BYTES = 65_536
const MAX_UNREAD_BYTES = 1_048_576
/** Answers that wait in the system's or libuv's queue of one UDP socket; further ones are dropped, as a network would. */
const SEND_QUEUE_BYTES = 1_048_576
/** With port 0: how often another one is tried where UDP and TCP do not have the same one free. */
const PORT_TRIES = 16

/** The DNS listener: UDP and TCP on the same addresses, over a DnsService; every client address has its own isolation. Inert until started. */
export class DnsServer {
  readonly #config: DnsConfig
  readonly #service: Pick<DnsService, 'ask'>
  readonly #logger: Logger
  readonly #sockets: UdpSocket[] = []
  #listeners: Listeners | null = null
  /** Questions under way of datagrams. */
  #asking = 0
  #questions = 0
  #dropped = 0

  constructor(config: DnsConfig, modules: DnsServerModules) {
    this.#config = config
    this.#service = modules.service
    this.#logger = modules.logger.child('dns')
  }

  /** Where it listens, as HOST:PORT, by UDP and TCP both. */
  get addresses(): readonly string[] {
    return this.#listeners?.addresses ?? []
  }

  get counts(): DnsServerCounts {
    const { open = 0, refused = 0 } = this.#listeners ?? {}
    return { open, questions: this.#questions, dropped: this.#dropped + refused }
  }

  /** Listens on every address, or on none. @throws ShallotError 'port-in-use', 'port-not-permitted', 'address-not-available', 'listen-failed' */
  async start(): Promise<void> {
    assert(this.#listeners === null, 'a listener is started once')
    const anyPort = this.#config.listen.some((text) => parseListen(text).port === 0)
    for (let tries = anyPort ? PORT_TRIES : 1; ; tries--) {
      try {
        await this.#listen()
        return
      } catch (error) {
        await this.stop()
        if (tries <= 1 || !(error instanceof ShallotError) || error.code !== 'port-in-use') throw error
      }
    }
  }

  /** Stops listening and resets what is open. */
  async stop(): Promise<void> {
    const listeners = this.#listeners
    this.#listeners = null
    const closed = this.#sockets.splice(0).map((socket) => new Promise<void>((resolve) => socket.close(() => resolve())))
    await Promise.all([...closed, listeners?.stop()])
  }

  /** UDP first; TCP then at the ports that it got. */
  async #listen(): Promise<void> {
    const config = this.#config
    const listen: string[] = []
    for (const text of config.listen) listen.push(await this.#bind(text))
    this.#listeners = new Listeners({
      name: NAME,
      listen,
      get maxConnections() {
        return config.maxConnections
      },
      createServer: () => createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket)),
      refuse: (socket) => socket.destroy(),
      logger: this.#logger,
    })
    await this.#listeners.start()
  }

  async #bind(text: string): Promise<string> {
    const { ip, host, port } = parseListen(text)
    const socket = createSocket({ type: ip.family === 6 ? 'udp6' : 'udp4', ipv6Only: ip.family === 6 })
    await new Promise<void>((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close()
        reject(listenError(NAME, text, error))
      })
      socket.bind({ address: host, port, exclusive: true }, () => {
        socket.removeAllListeners('error')
        socket.on('error', (error) => this.#logger.debug('a datagram failed', { error: sensitive(messageOf(error)) }))
        resolve()
      })
    })
    this.#sockets.push(socket)
    socket.on('message', (bytes, from) => void this.#answerDatagram(socket, bytes, from))
    return formatHostPort(host, socket.address().port)
  }

  async #answerDatagram(socket: UdpSocket, question: Uint8Array, from: RemoteInfo): Promise<void> {
    // What claims to be an answer gets none, so that two servers never talk to each other.
    const isQuestion = question.length >= DNS_HEADER_BYTES && question.length <= MAX_QUESTION_BYTES && (question[2]! & 0x80) === 0
    if (!isQuestion || from.port === 0 || this.#asking >= this.#config.maxQuestions || socket.getSendQueueSize() > SEND_QUEUE_BYTES) {
      this.#dropped++
      return
    }
    this.#questions++
    this.#asking++
    const answer = await this.#service.ask(question, isolationOf(from.address)).finally(() => this.#asking--)
    if (!this.#sockets.includes(socket)) return
    socket.send(fitDatagram(question, answer, this.#config.maxDatagramBytes), from.port, from.address, (error) => {
      if (error) this.#dropped++
    })
  }

  #accept(socket: Socket): void {
    if (!this.#listeners?.admit(socket)) return
    const connection = new Connection(socket, {
      idleTimeoutMs: this.#config.idleTimeoutMs,
      ask: (question, signal) => {
        this.#questions++
        return this.#service.ask(question, isolationOf(socket.remoteAddress), signal)
      },
    })
    connection.start()
  }
}

const NAME = 'ingress.dns'

function isolationOf(address: string | undefined): string {
  const bare = address?.replace(/%.*$/, '')
  return isolationKey({ listener: 'dns', clientAddress: bare === undefined ? undefined : formatIp(parseIp(bare)) })
}

interface ConnectionOptions {
  readonly idleTimeoutMs: number
  readonly ask: (question: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>
}

/** One TCP connection of a program: questions may follow each other, answers go as they come (RFC 7766 §6.2.1.1). */
class Connection {
  readonly #socket: Socket
  readonly #options: ConnectionOptions
  readonly #reader = new FrameReader(MAX_QUESTION_BYTES)
  readonly #gone = new AbortController()
  #waiting: Uint8Array[] = []
  #asking = 0
  #ended = false
  #idle: NodeJS.Timeout | undefined

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket
    this.#options = options
  }

  start(): void {
    const socket = this.#socket
    socket.on('close', () => {
      clearTimeout(this.#idle)
      this.#gone.abort()
    })
    socket.on('drain', () => this.#pump())
    socket.on('end', () => {
      this.#ended = true
      this.#pump()
    })
    socket.on('data', (chunk: Uint8Array) => {
      try {
        this.#waiting.push(...this.#reader.push(chunk))
      } catch {
        socket.resetAndDestroy()
        return
      }
      this.#pump()
    })
    this.#watchIdle()
  }

  #pump(): void {
    const socket = this.#socket
    if (socket.destroyed) return
    while (this.#waiting.length > 0 && this.#asking < QUESTIONS_PER_CONNECTION && socket.writableLength <= UNREAD_BYTES) {
      const question = this.#waiting.shift()!
      this.#asking++
      void this.#options.ask(question, this.#gone.signal).then((answer) => this.#answered(answer))
    }
    if (this.#waiting.length > 0) socket.pause()
    else if (this.#ended && this.#asking === 0) socket.end()
    else socket.resume()
    this.#watchIdle()
  }

  #answered(answer: Uint8Array): void {
    this.#asking--
    if (this.#socket.destroyed) return
    if (this.#socket.writableLength > MAX_UNREAD_BYTES) {
      this.#socket.resetAndDestroy()
      return
    }
    this.#socket.write(frameMessage(answer))
    this.#pump()
  }

  /** Who asks nothing, or takes no answer, is closed after a while (RFC 7766 §6.2.3). */
  #watchIdle(): void {
    clearTimeout(this.#idle)
    if (this.#asking > 0) return
    this.#idle = setTimeout(() => this.#socket.destroy(), this.#options.idleTimeoutMs)
    this.#idle.unref()
  }
}
