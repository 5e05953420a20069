import { type DnsMessage, type DnsQuestion, Rcode } from '../../dns/index.ts'
import { Exchange } from './exchange.ts'
import type { NameServer, NameServers } from './servers.ts'

/** Servers asked for one question; where there are fewer, the same ones again. */
const MAX_ATTEMPTS = 4
const MIN_ATTEMPTS = 2

export interface UpstreamOptions {
  readonly servers: NameServers
  /** How long a server may take before the next is asked beside it, and how long all may take. */
  readonly attemptTimeoutMs: number
  readonly timeoutMs: number
  /** A message came that is no answer to what was asked. */
  readonly foreign: () => void
}

/** What the servers are asked. */
export interface UpstreamAsk {
  readonly question: DnsQuestion
  readonly dnssecOk: boolean
  readonly checkingDisabled: boolean
}

/** Asks DNS servers one after the other. The answer of one that was slow is still taken while another is being asked. */
export class Upstream {
  readonly #options: UpstreamOptions
  readonly #running = new Set<Attempts>()
  #stopped = false

  constructor(options: UpstreamOptions) {
    this.#options = options
  }

  /** The first answer that says yes or no, else a server's failure, else null: there was none. 'no-server': nobody is there to be asked. */
  async ask(ask: UpstreamAsk): Promise<DnsMessage | null | 'no-server'> {
    const servers = await this.#options.servers.list()
    if (servers.length === 0) return 'no-server'
    if (this.#stopped) return null
    return new Promise((resolve) => {
      const attempts = new Attempts(this.#options, servers, ask, (answer) => {
        this.#running.delete(attempts)
        resolve(answer)
      })
      this.#running.add(attempts)
      attempts.start()
    })
  }

  /** Gives up what is under way, and asks no more. */
  stop(): void {
    this.#stopped = true
    for (const attempts of [...this.#running]) attempts.giveUp()
  }
}

/** The attempts at one question. */
class Attempts {
  readonly #options: UpstreamOptions
  readonly #servers: readonly NameServer[]
  readonly #ask: UpstreamAsk
  readonly #done: (answer: DnsMessage | null) => void
  readonly #most: number
  readonly #open = new Set<Exchange>()
  #made = 0
  #failure: DnsMessage | null = null
  #next: NodeJS.Timeout | undefined
  #end: NodeJS.Timeout | undefined

  constructor(options: UpstreamOptions, servers: readonly NameServer[], ask: UpstreamAsk, done: (answer: DnsMessage | null) => void) {
    this.#options = options
    this.#servers = servers
    this.#ask = ask
    this.#done = done
    this.#most = Math.min(MAX_ATTEMPTS, Math.max(MIN_ATTEMPTS, servers.length))
  }

  start(): void {
    this.#end = setTimeout(() => this.giveUp(), this.#options.timeoutMs)
    this.#try()
  }

  giveUp(): void {
    this.#finish(this.#failure)
  }

  #try(): void {
    clearTimeout(this.#next)
    if (this.#made === this.#most) {
      if (this.#open.size === 0) this.giveUp()
      return
    }
    const { servers, attemptTimeoutMs, timeoutMs, foreign } = this.#options
    const server = this.#servers[this.#made++ % this.#servers.length]!
    const exchange = new Exchange({ ...this.#ask, server, tcpTimeoutMs: timeoutMs, foreign }, (answer) => {
      this.#open.delete(exchange)
      if (answer !== null && (answer.rcode === Rcode.noError || answer.rcode === Rcode.nxDomain)) return this.#finish(answer)
      this.#failure = answer ?? this.#failure
      servers.failed(server)
      this.#try()
    })
    this.#open.add(exchange)
    this.#next = setTimeout(() => {
      servers.failed(server)
      this.#try()
    }, attemptTimeoutMs)
  }

  #finish(answer: DnsMessage | null): void {
    clearTimeout(this.#next)
    clearTimeout(this.#end)
    for (const exchange of this.#open) exchange.stop()
    this.#open.clear()
    this.#done(answer)
  }
}
