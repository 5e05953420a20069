import type { AddressInfo, Server, Socket } from 'node:net'
import { assert, formatHostPort, type Logger, messageOf, ShallotError, sensitive } from '../base/index.ts'
import { closeWhereResetFails } from '../drive/index.ts'
import { type ListenAddress, parseListen } from './listen-address.ts'

export interface ListenersOptions {
  /** The configuration key, for messages: 'ingress.socks'. */
  readonly name: string
  readonly listen: readonly string[]
  /** Connections at once over all addresses. */
  readonly maxConnections: number
  /** A server that is not listening yet, for one address. */
  readonly createServer: (address: ListenAddress) => Server
  /** Says no to a connection over the limit, in the protocol's words, and closes it. */
  readonly refuse: (socket: Socket) => void
  readonly logger: Logger
}

/** The TCP servers of one kind of listener: bound together, counted together, closed together. */
export class Listeners {
  readonly #options: ListenersOptions
  readonly #servers: Server[] = []
  readonly #sockets = new Set<Socket>()
  #refused = 0

  constructor(options: ListenersOptions) {
    this.#options = options
  }

  /** Where it listens now, with the ports that were given by the system. */
  get addresses(): readonly string[] {
    return this.#servers.map((server) => {
      const { address, port } = server.address() as AddressInfo
      return formatHostPort(address, port)
    })
  }

  get open(): number {
    return this.#sockets.size
  }

  /** Connections turned away because there were too many. */
  get refused(): number {
    return this.#refused
  }

  /** Listens on every address, or on none. @throws ShallotError 'port-in-use', 'port-not-permitted', 'address-not-available', 'listen-failed' */
  async start(): Promise<void> {
    assert(this.#servers.length === 0, 'listeners are started once')
    try {
      for (const text of this.#options.listen) await this.#listen(text)
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** Stops listening and resets what is open. */
  async stop(): Promise<void> {
    const servers = this.#servers.splice(0)
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    for (const socket of this.#sockets) socket.resetAndDestroy()
    await Promise.all(closed)
  }

  /** To be called first with each new connection. False: it has been refused. */
  admit(socket: Socket): boolean {
    closeWhereResetFails(socket)
    // A socket without an 'error' listener would take the process down.
    socket.on('error', (error) => this.#options.logger.debug('application connection failed', { error: sensitive(messageOf(error)) }))
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    if (this.#sockets.size <= this.#options.maxConnections) return true
    this.#refused++
    // Those being refused are bounded too.
    if (this.#sockets.size > this.#options.maxConnections + REFUSALS_AT_ONCE) socket.resetAndDestroy()
    else this.#options.refuse(socket)
    return false
  }

  async #listen(text: string): Promise<void> {
    const address = parseListen(text)
    const server = this.#options.createServer(address)
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(listenError(this.#options.name, text, error)))
      server.listen({ host: address.host, port: address.port, ipv6Only: address.ip.family === 6 }, () => {
        server.removeAllListeners('error')
        server.on('error', (error) => this.#options.logger.warn('accepting a connection failed', { error: messageOf(error) }))
        resolve()
      })
    })
    this.#servers.push(server)
  }
}

/** Connections over the limit that are being told so at once; beyond, they are reset. */
const REFUSALS_AT_ONCE = 64

/** How long a refused application may take to read why. */
const LAST_WORDS_MS = 2000

/** Sends the bytes and closes; what the application still sends is thrown away, so that no reset overtakes the answer. */
export function sayAndClose(socket: Socket, bytes: Uint8Array): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), LAST_WORDS_MS)
  socket.on('close', () => clearTimeout(timer))
  socket.removeAllListeners('data')
  socket.end(bytes)
  socket.resume()
}

/** Why a listener can't listen, in words. @param name of the configuration's section, @param text the address */
export function listenError(name: string, text: string, error: NodeJS.ErrnoException): ShallotError {
  const problem = {
    EADDRINUSE: ['port-in-use', 'the port is in use by another program, or by a second node: stop that or choose another port', 'later'],
    EACCES: ['port-not-permitted', 'this user may not listen there: choose a port above 1023', 'never'],
    EADDRNOTAVAIL: ['address-not-available', 'this machine has no such address', 'later'],
  } as const
  const [code, why, retry] = problem[error.code as keyof typeof problem] ?? (['listen-failed', messageOf(error), 'later'] as const)
  return new ShallotError(code, `${name}: cannot listen on ${text}: ${why}`, { kind: 'host', retry, cause: error })
}
