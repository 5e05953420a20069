import { formatHostPort, type Logger, MalformedError, messageOf, parseIp, type Random, ShallotError } from '../../base/index.ts'
import { addressScope } from '../../directory/index.ts'
import type { MappingFacts } from '../facts.ts'
import { mappingName } from '../reachability-words.ts'
import type { MappingConfig } from './config.ts'
import { searchUpnp } from './exchange.ts'
import { type Gateway, type Grant, type MappingNetwork, thisNetwork } from './gateway.ts'
import { NONCE_BYTES } from './pcp.ts'
import { PcpGateway, PmpGateway } from './pcp-gateway.ts'
import { UpnpGateway } from './upnp-gateway.ts'

export interface PortMapperOptions {
  readonly config: MappingConfig
  /** Wall-clock ms. */
  readonly now: () => number
  readonly random: Random
  readonly logger: Logger
  /** Where gateways are looked for: this machine's network without it. */
  readonly network?: MappingNetwork
}

/** All UPnP devices that are looked at in one search. */
const DEVICES_MAX = 4
/** At the end the router gets this long to remove the mapping. */
const STOP_MS = 2_000
/** The same, where it never said that it had mapped anything. */
const STOP_UNGRANTED_MS = 500
/** The first pause after a search in vain, or after a mapping was lost: a router that restarts is soon back. It doubles up to `retryMs`. */
const FIRST_RETRY_MS = 5_000
/** A mapping that the router keeps until it is removed counts for this long, and is looked at anyway. */
const PERMANENT_MS = 24 * 3_600_000

/**
 * Has the router forward the listening TCP port, by PCP, NAT-PMP or UPnP, whichever it speaks: kept alive, put back when the router has
 * lost it, and removed at the end. Sends nothing before `start`, and nothing at all when it is switched off.
 */
export class PortMapper {
  readonly #o: PortMapperOptions
  readonly #network: MappingNetwork
  readonly #listeners = new Set<(mapping: MappingFacts | null, problem: string | null) => void>()
  #mapping: MappingFacts | null = null
  #problem: string | null = null
  #stopping = new AbortController()
  #running: Promise<void> | null = null
  /** Gateways that may hold something of ours. */
  readonly #held = new Map<Gateway, number>()
  #active: { readonly gateway: Gateway; readonly grant: Grant; readonly grantedAt: number } | null = null
  #wake: (() => void) | null = null
  #isForgotten = false
  /** Something was asked for while it was busy. */
  #isWoken = false
  /** The same for every request of one run: a router takes another one for another host's (RFC 6887 §11.3). */
  #nonce: Uint8Array = new Uint8Array(NONCE_BYTES)
  /** Searches in vain, in a row. */
  #fruitless = 0

  constructor(options: PortMapperOptions) {
    this.#o = options
    this.#network = options.network ?? thisNetwork
  }

  /** What the router forwards now; null when nothing. */
  get mapping(): MappingFacts | null {
    return this.#mapping
  }
  /** Why there is no mapping that others could use, in plain words; null when there is one, or it is not known yet. */
  get problem(): string | null {
    return this.#problem
  }

  /** Calls the listener with every change, until the returned function is called. */
  onChange(listener: (mapping: MappingFacts | null, problem: string | null) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Begins to ask for TCP `port`. Does nothing when it is switched off, or runs. */
  start(port: number): void {
    if (!this.#o.config.enabled || this.#running !== null) return
    this.#stopping = new AbortController()
    this.#nonce = this.#o.random.bytes(NONCE_BYTES)
    this.#fruitless = 0
    this.#running = this.#run(port, this.#stopping.signal)
  }

  /** Removes what was mapped, within a few seconds whatever the router does. May be followed by another `start`. */
  async stop(): Promise<void> {
    if (this.#running === null) return
    this.#stopping.abort()
    await this.#running
    this.#running = null
    const granted = this.#active?.gateway ?? null
    this.#active = null
    await this.#release(granted)
    this.#tell(null, null)
  }

  /** Looks now whether the router still has the mapping: for when something else seems wrong. */
  check(): void {
    this.#isWoken = true
    this.#wake?.()
  }

  /** Another network, perhaps another router: begins anew. */
  networkChanged(): void {
    this.#isForgotten = true
    this.check()
  }

  async #run(port: number, signal: AbortSignal): Promise<void> {
    const { config, logger } = this.#o
    while (!signal.aborted) {
      if (this.#isForgotten) {
        this.#isForgotten = false
        this.#active = null
        this.#fruitless = 0
        // The old router cannot be asked any more, or is the same one: then the new mapping takes the old one's place.
        this.#held.clear()
        this.#tell(null, null)
      }
      try {
        if (this.#active === null) await this.#search(port, signal)
        else await this.#look(port, signal)
      } catch (error) {
        if (signal.aborted) break
        this.#lose(messageOf(error))
        if (!(error instanceof ShallotError)) logger.error('port mapping failed', { error })
      }
      this.#fruitless = this.#active === null ? this.#fruitless + 1 : 0
      const retryMs = Math.min(config.retryMs, FIRST_RETRY_MS * 2 ** Math.min(10, this.#fruitless - 1))
      await this.#pause(this.#active === null ? retryMs : config.checkMs, signal)
    }
  }

  async #look(port: number, signal: AbortSignal): Promise<void> {
    const { config, now } = this.#o
    const { gateway, grant, grantedAt } = this.#active!
    const isDue = grant.lifetimeMs !== null && now() - grantedAt >= grant.lifetimeMs / 2
    try {
      const renewed = isDue
        ? await gateway.map(port, grant.externalPort, config.leaseMs, signal)
        : await gateway.look(port, grant, config.leaseMs, signal)
      if (renewed === null) return this.#lose('the router forwards the port to another machine now')
      this.#take(gateway, renewed, renewed === grant ? grantedAt : now())
    } catch (error) {
      if (signal.aborted) throw error
      // One answer that is missing is not the end: the lease runs on. A router that is away or restarts is looked for again.
      const isOver = grant.lifetimeMs !== null && now() - grantedAt >= grant.lifetimeMs
      if (!isOver && error instanceof ShallotError && error.code === 'no-answer') {
        await this.#search(port, signal)
        return
      }
      throw error
    }
  }

  /** Asks by one protocol after the other; the search for UPnP devices goes on meanwhile, for it is slow. */
  async #search(port: number, signal: AbortSignal): Promise<void> {
    const { config } = this.#o
    const gatewayIp = await this.#network.gateway()
    const local = await this.#network.localAddress(gatewayIp).catch(() => null)
    if (local === null) return this.#lose('this machine has no route to a router')
    const devices = new Devices()
    const searching = new AbortController()
    const search = searchUpnp(
      this.#network.search,
      local,
      this.#network.searchMs,
      AbortSignal.any([signal, searching.signal]),
      (location) => devices.add(location, gatewayIp),
    )
    void search.then(() => devices.end())
    const failures: string[] = []
    try {
      if (gatewayIp !== null) {
        const to = { host: gatewayIp, port: this.#network.controlPort }
        for (const gateway of [new PcpGateway(to, local, this.#nonce, config.answerTimeoutMs), new PmpGateway(to, config.answerTimeoutMs)])
          if (await this.#try(gateway, port, signal, failures)) return
      }
      for (let location = await devices.next(); location !== null; location = await devices.next()) {
        const gateway = await UpnpGateway.open(location, local, config.answerTimeoutMs, signal).catch((error) => {
          if (signal.aborted) throw error
          failures.push(`UPnP: ${messageOf(error)}`)
          return null
        })
        if (gateway !== null && (await this.#try(gateway, port, signal, failures))) return
      }
    } finally {
      searching.abort()
      await search
    }
    const refusals = [...new Set(failures)]
    this.#lose(
      refusals.length === 0
        ? 'the router does not forward ports on request: it answers neither PCP nor NAT-PMP nor UPnP'
        : `the router did not forward the port: ${refusals.join('; ')}`,
    )
  }

  async #try(gateway: Gateway, port: number, signal: AbortSignal, failures: string[]): Promise<boolean> {
    const { config, now } = this.#o
    this.#held.set(gateway, port)
    try {
      // What was had before is wished for again: others know it.
      const wanted = this.#active?.grant.externalPort ?? port
      this.#take(gateway, await gateway.map(port, wanted, config.leaseMs, signal), now())
      return true
    } catch (error) {
      if (signal.aborted || !(error instanceof ShallotError)) throw error
      // A slow UPnP router may have done it nevertheless.
      if (error.code !== 'no-answer' || gateway.protocol !== 'upnp') this.#held.delete(gateway)
      if (error.code !== 'no-answer') {
        failures.push(`${mappingName(gateway.protocol)}: ${messageOf(error)}`)
      }
      return false
    }
  }

  #take(gateway: Gateway, grant: Grant, grantedAt: number): void {
    for (const other of this.#held.keys()) if (other !== gateway) this.#held.delete(other)
    this.#active = { gateway, grant, grantedAt }
    const scope = addressScope(parseIp(grant.externalIp))
    const problem =
      scope === 'public'
        ? null
        : `the router forwards the port, but its own outer address ${grant.externalIp} is ${scope === 'private' ? 'private: there is another NAT before it, at the provider or in another router' : 'no usable one'}`
    this.#tell(
      {
        protocol: gateway.protocol,
        external: formatHostPort(grant.externalIp, grant.externalPort),
        expiresAt: grantedAt + (grant.lifetimeMs ?? PERMANENT_MS),
      },
      problem,
    )
  }

  #lose(why: string): void {
    this.#active = null
    this.#tell(null, why)
  }

  #tell(mapping: MappingFacts | null, problem: string | null): void {
    const isSame =
      mapping?.external === this.#mapping?.external && mapping?.expiresAt === this.#mapping?.expiresAt && problem === this.#problem
    this.#mapping = mapping
    this.#problem = problem
    if (isSame) return
    this.#o.logger.debug('port mapping', { mapped: mapping !== null })
    for (const listener of this.#listeners) listener(mapping, problem)
  }

  async #release(granted: Gateway | null): Promise<void> {
    const held = [...this.#held]
    this.#held.clear()
    await Promise.all(
      held.map(([gateway, port]) =>
        gateway.unmap(port, AbortSignal.timeout(gateway === granted ? STOP_MS : STOP_UNGRANTED_MS)).catch((error) => {
          this.#o.logger.debug('a port mapping was not removed; it ends by itself', { why: messageOf(error) })
        }),
      ),
    )
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    const isWoken = this.#isWoken
    this.#isWoken = false
    if (isWoken) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        this.#wake = null
        this.#isWoken = false
        resolve()
      }
      const timer = setTimeout(done, ms)
      timer.unref()
      signal.addEventListener('abort', done, { once: true })
      this.#wake = done
    })
  }
}

/** The UPnP devices found, one after the other, while others may still be found. */
class Devices {
  readonly #found: URL[] = []
  readonly #seen = new Set<string>()
  #isOver = false
  #wake: (() => void) | null = null

  /** Only in the home's own network: nothing that answers a search may send this node out into the world. */
  add(location: URL, gateway: string | null): void {
    if (this.#seen.has(location.href) || this.#seen.size >= DEVICES_MAX || !isAtHome(location.hostname, gateway)) return
    this.#seen.add(location.href)
    if (location.hostname === gateway) this.#found.unshift(location)
    else this.#found.push(location)
    this.#wake?.()
  }

  end(): void {
    this.#isOver = true
    this.#wake?.()
  }

  /** The next one; null when there are no more. */
  async next(): Promise<URL | null> {
    while (this.#found.length === 0 && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#found.shift() ?? null
  }
}

function isAtHome(host: string, gateway: string | null): boolean {
  if (host === gateway) return true
  try {
    return addressScope(parseIp(host)) === 'private'
  } catch (error) {
    if (error instanceof MalformedError) return false
    throw error
  }
}
