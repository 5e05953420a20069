import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { formatIp, isIpText, type Logger, messageOf, type NodeId, parseIp, ShallotError } from '../base/index.ts'
import type { LinkLimits } from './config.ts'
import type { PunchTarget } from './host-types.ts'
import { isWildcard, type Listeners, type SilentConnection } from './listeners.ts'
import { PortSockets } from './port-sockets.ts'
import type { TlsLinks } from './tls-links.ts'
import { aborted } from './tls-sockets.ts'

/** Endpoints of one peer that are dialled at the same time; more are not looked at. */
const MAX_ENDPOINTS = 8
/** An attempt is renewed only after this long: what is lost, the system repeats, once a second. */
const PATIENCE_MS = 5500
/**
 * Between two attempts, plus up to as much again: the two sides must not stay in step. Short, because where a NAT refuses what it does not know,
 * both attempts must be on their way at the same time.
 */
const PAUSE_MS = 25
/** How often silent inbound connections are looked through. */
const LOOK_MS = 25
/** A peer that is TLS client speaks at once: one that has not by now waits for us. From the expected port, and from another one. */
const SILENCE_MS = 75
const SILENCE_OTHER_PORT_MS = 250

export interface PunchingOptions {
  readonly listeners: Listeners
  readonly links: TlsLinks
  readonly limits: LinkLimits
  readonly logger: Logger
  /** The local address to dial a host from, where that is not left to the system. */
  readonly outboundAddressFor: (host: string) => string | undefined
}

interface Endpoint {
  readonly host: string
  readonly port: number
}

/**
 * Meets peers behind NATs in the middle (TCP simultaneous open, RFC 9293 §3.5; RFC 5128 §3.3): both sides dial each other from the ports they
 * listen on, until a connection of either direction is up and has become a direct link.
 */
export class Punching {
  readonly #options: PunchingOptions
  #sockets: PortSockets | null = null
  #unavailable: string | null = 'punching has not been prepared'
  #preparing: Promise<void> | null = null
  readonly #running: Set<Punch> = new Set()

  constructor(options: PunchingOptions) {
    this.#options = options
  }

  get unavailable(): string | null {
    return this.#unavailable
  }

  /** Loads and tries what dialling from the listening ports needs. Failures show in `unavailable`; calling it again tries again. */
  prepare(): Promise<void> {
    this.#preparing ??= this.#prepare().finally(() => {
      this.#preparing = null
    })
    return this.#preparing
  }

  async #prepare(): Promise<void> {
    try {
      const sockets = this.#sockets ?? (await PortSockets.load())
      const ports = [...this.#options.listeners]
      if (ports.length === 0) throw new Error('this node listens on no port')
      for (const port of ports) sockets.share(port)
      this.#sockets = sockets
      this.#unavailable = null
    } catch (error) {
      this.#sockets = null
      this.#unavailable = messageOf(error)
      this.#options.logger.debug('punching is not possible', { why: this.#unavailable })
    }
  }

  /**
   * A connection from the listening port of the host's family, or null where there is no such port or punching is not prepared.
   * @throws as `PortSockets.dial` does
   */
  dial(host: string, port: number, patienceMs: number | null, signal: AbortSignal): Promise<Socket> | null {
    const { listeners, outboundAddressFor } = this.#options
    const from = this.#sockets === null ? null : listeners.portFor(host)
    if (from === null) return null
    const bound = isWildcard(from.host) ? { host: outboundAddressFor(host) ?? from.host, port: from.port, fd: from.fd } : from
    return this.#sockets!.dial(bound, host, port, patienceMs, signal)
  }

  /** Whether a link that comes in from there is one that a running punch waits for. */
  expects(peer: NodeId, remoteAddress: string): boolean {
    for (const punch of this.#running) if (punch.id === peer && punch.hosts.has(plain(remoteAddress))) return true
    return false
  }

  /** @throws ShallotError 'not-prepared', 'punch-failed', 'punch-limit', 'aborted' */
  async punch(target: PunchTarget, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw aborted()
    const { links, limits } = this.#options
    if (links.usable(target.id) !== null) return
    if (this.#sockets === null) {
      throw new ShallotError('not-prepared', `no punching: ${this.#unavailable}`, { kind: 'host', retry: 'never' })
    }
    if (this.#running.size >= limits.maxPunches) {
      throw new ShallotError('punch-limit', `${limits.maxPunches} peers are being punched, the most that limits.maxPunches allows`, {
        kind: 'link',
        retry: 'later',
      })
    }
    const punch = new Punch(target, this, this.#options)
    this.#running.add(punch)
    try {
      await punch.run(signal)
    } finally {
      this.#running.delete(punch)
    }
  }
}

/** One peer, until it is met or the signal says stop. */
class Punch {
  readonly id: NodeId
  /** The addresses that the peer's connections come from. */
  readonly hosts: ReadonlySet<string>
  readonly #target: PunchTarget
  readonly #endpoints: readonly Endpoint[]
  readonly #punching: Punching
  readonly #options: PunchingOptions
  readonly #over = new AbortController()
  readonly #givenUp = new AbortController()
  /** How attempts ended, for the error: "ECONNREFUSED" and how often. */
  readonly #seen: Map<string, number> = new Map()

  constructor(target: PunchTarget, punching: Punching, options: PunchingOptions) {
    this.id = target.id
    this.#target = target
    this.#punching = punching
    this.#options = options
    this.#endpoints = usableEndpoints(target.endpoints)
    this.hosts = new Set(this.#endpoints.map((endpoint) => endpoint.host))
  }

  async run(signal: AbortSignal): Promise<void> {
    const { links, listeners } = this.#options
    const endpoints = this.#endpoints.filter((endpoint) => listeners.portFor(endpoint.host) !== null)
    if (endpoints.length === 0) throw punchFailed('it has no endpoint of an address family that this node listens on')
    const met = Promise.withResolvers<void>()
    const stopTelling = links.onUp((link) => {
      if (link.peer === this.id) met.resolve()
    })
    const onAbort = (): void => met.reject(signal.reason?.name === 'TimeoutError' ? punchFailed(this.#summary()) : aborted())
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      for (const endpoint of endpoints) void this.#keepDialling(endpoint)
      if (this.#target.tlsRole === 'client') void this.#keepLooking()
      await met.promise
    } catch (error) {
      this.#givenUp.abort()
      throw error
    } finally {
      stopTelling()
      signal.removeEventListener('abort', onAbort)
      this.#over.abort()
    }
  }

  async #keepDialling(endpoint: Endpoint): Promise<void> {
    const over = this.#over.signal
    while (!over.aborted) {
      try {
        const socket = await this.#punching.dial(endpoint.host, endpoint.port, PATIENCE_MS, over)
        if (socket !== null) await this.#secure(socket)
      } catch (error) {
        this.#note(error)
      }
      await delay(PAUSE_MS * (1 + Math.random()), undefined, { signal: over }).catch(() => {})
    }
  }

  /** Takes over inbound connections of the peer that wait for us to speak first. */
  async #keepLooking(): Promise<void> {
    const over = this.#over.signal
    while (!over.aborted) {
      const now = performance.now()
      for (const port of this.#options.listeners) {
        for (const connection of port.silent()) {
          if (now - connection.since < this.#silenceMs(connection)) continue
          this.#secure(connection.release()).catch((error) => this.#note(error))
        }
      }
      await delay(LOOK_MS, undefined, { signal: over }).catch(() => {})
    }
  }

  #silenceMs(connection: SilentConnection): number {
    const host = plain(connection.remoteAddress)
    if (!this.hosts.has(host)) return Number.POSITIVE_INFINITY
    const isExpected = this.#endpoints.some((endpoint) => endpoint.host === host && endpoint.port === connection.remotePort)
    return isExpected ? SILENCE_MS : SILENCE_OTHER_PORT_MS
  }

  /**
   * Makes the connection a link, in the TLS role agreed on; done when it is one or is gone. Where several connections come up, the TLS client's
   * first to be proven is the one: it drops the others, which the server cannot have taken for links yet, and the server drops none.
   */
  async #secure(socket: Socket): Promise<void> {
    const { links } = this.#options
    if (this.#over.signal.aborted) socket.destroy()
    else if (this.#target.tlsRole === 'client') await links.connectOver(socket, this.id, this.#over.signal)
    else await links.acceptOver(socket, this.id, this.#givenUp.signal)
  }

  #note(error: unknown): void {
    const why = (error as { code?: unknown }).code
    const key = why === 'ETIMEDOUT' ? 'no answer' : typeof why === 'string' ? why : 'failed'
    this.#seen.set(key, (this.#seen.get(key) ?? 0) + 1)
  }

  #summary(): string {
    const seen = [...this.#seen].map(([what, times]) => `${what} ${times} times`)
    return `not met in time (${seen.length === 0 ? 'no attempt ended' : seen.join(', ')})`
  }
}

/** Without what no connection can come from or go to, each once. */
function usableEndpoints(endpoints: readonly Endpoint[]): Endpoint[] {
  const found = new Map<string, Endpoint>()
  for (const { host, port } of endpoints) {
    if (!isIpText(host) || !Number.isInteger(port) || port < 1 || port > 65535) continue
    const ip = plain(host)
    if (found.size < MAX_ENDPOINTS) found.set(`${ip} ${port}`, { host: ip, port })
  }
  return [...found.values()]
}

function plain(host: string): string {
  return isIpText(host) ? formatIp(parseIp(host)) : host
}

function punchFailed(why: string): ShallotError {
  return new ShallotError('punch-failed', `the peer could not be met: ${why}`, { kind: 'link', retry: 'later' })
}
