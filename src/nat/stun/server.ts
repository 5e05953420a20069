import { formatIp, type IpAddress, type Logger, parseIp, ShallotError, sensitive, silentLogger } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'
import type { StunServerConfig } from './config.ts'
import { type DatagramSocket, openDatagrams } from './datagrams.ts'
import { formatEndpoint, sameEndpoint, sameIp, scopeOf } from './endpoint.ts'
import { StunResponder, type StunServerStats, type StunSite, type StunSocketPlace } from './responder.ts'

/** How often another pair of ports is tried when any free one may be taken. */
const ANY_PORT_TRIES = 8

export interface StunServerOptions {
  readonly config: StunServerConfig
  /** Where to listen, from `stunListen`. Port 0: any free pair of ports. */
  readonly listen: readonly Endpoint[]
  /**
   * This machine's addresses as others see them, where that is known: what answers name when a wildcard is listened on, or when the machine is itself
   * behind a NAT that keeps ports.
   */
  readonly ownAddresses?: readonly IpAddress[]
  readonly logger?: Logger
  /** Monotonic, milliseconds. */
  readonly now?: () => number
}

/** An address family's sockets before they are open. */
interface SitePlan {
  readonly addresses: readonly [IpAddress, IpAddress?]
  readonly port: number
}

/** Where the configuration wants the server: its own `listen`, or the addresses and port numbers of `link.listen`. @throws ShallotError `config-invalid` */
export function stunListen(config: StunServerConfig, linkListen: readonly string[]): Endpoint[] {
  const own = config.listen.map(
    (text) => multiaddr(text, 'udp') ?? wrong(`nat.stun.server.listen: ${text} is not /ip4/ADDRESS/udp/PORT or /ip6/…`),
  )
  const endpoints = own.length > 0 ? own : linkListen.map((text) => multiaddr(text, 'tcp')).filter((found) => found !== null)
  return endpoints.filter((endpoint, i) => endpoints.findIndex((other) => sameEndpoint(other, endpoint)) === i)
}

/** A STUN server: RFC 5780 and RFC 3489, over UDP, with one or two addresses of each family. Inert until started. */
export class StunServer {
  readonly #options: StunServerOptions
  readonly #logger: Logger
  readonly #now: () => number
  #responder: StunResponder
  #sockets: DatagramSocket[] = []
  #sites: StunSite[] = []

  constructor(options: StunServerOptions) {
    this.#options = options
    this.#logger = options.logger ?? silentLogger
    this.#now = options.now ?? (() => performance.now())
    this.#responder = this.#newResponder()
  }

  /** Opens all ports, or none. @throws ShallotError `udp-port-in-use`, `udp-unavailable`, `config-invalid` */
  async start(): Promise<void> {
    this.#responder = this.#newResponder()
    try {
      for (const plan of this.#plans()) await this.#openAnywhere(plan)
    } catch (error) {
      await this.stop()
      throw error
    }
    for (const { local } of this.#sockets) this.#logger.debug('STUN server listens', { local: sensitive(formatEndpoint(local)) })
  }

  async stop(): Promise<void> {
    const sockets = this.#sockets
    this.#sockets = []
    this.#sites = []
    await Promise.all(sockets.map((socket) => socket.close()))
  }

  /** What is listened on: by family and address, first port before second. */
  get endpoints(): Endpoint[] {
    return this.#sockets.map((socket) => socket.local)
  }

  /** Families for which the server has two addresses, and so can tell all kinds of NAT apart. */
  get complete(): (4 | 6)[] {
    return this.#sites.flatMap(({ addresses }) => (addresses[1] === undefined ? [] : [addresses[1].family]))
  }

  stats(): StunServerStats {
    return this.#responder.stats()
  }

  #newResponder(): StunResponder {
    return new StunResponder(this.#options.config, this.#now())
  }

  /** Addresses of one family and port are paired in the order given. */
  #plans(): SitePlan[] {
    const { listen, config } = this.#options
    const all = [...listen]
    for (const text of config.alternateAddresses) {
      const ip = parseIp(text)
      const first = listen.find((endpoint) => endpoint.ip.family === ip.family)
      if (first === undefined) throw wrongConfig(`alternate_addresses has ${text}, but no address of its family is listened on`)
      const endpoint = { ip, port: first.port }
      if (!all.some((known) => sameEndpoint(known, endpoint))) all.push(endpoint)
    }
    const plans: SitePlan[] = []
    for (const { ip, port } of all) {
      const i = plans.findIndex((plan) => plan.port === port && plan.addresses[0].family === ip.family && plan.addresses[1] === undefined)
      const mate = plans[i]
      if (mate === undefined) plans.push({ addresses: [ip], port })
      else if (isWildcard(ip) || isWildcard(mate.addresses[0]))
        throw wrongConfig(`${formatIp(ip)} cannot be listened on beside ${formatIp(mate.addresses[0])}: name both addresses`)
      else plans[i] = { addresses: [mate.addresses[0], ip], port }
    }
    return plans
  }

  async #openAnywhere(plan: SitePlan): Promise<void> {
    for (let tries = 1; ; tries++) {
      const before = this.#sockets.length
      try {
        await this.#open(plan)
        return
      } catch (error) {
        await Promise.all(this.#sockets.splice(before).map((socket) => socket.close()))
        const isTaken = error instanceof ShallotError && error.code === 'udp-port-in-use'
        if (plan.port !== 0 || !isTaken || tries === ANY_PORT_TRIES) throw error
      }
    }
  }

  async #open(plan: SitePlan): Promise<void> {
    const ports: [number, number] = [plan.port, 0]
    const places: StunSocketPlace[] = []
    const opened: DatagramSocket[] = []
    let site: StunSite | null = null
    for (const port of [0, 1] as const) {
      if (port === 1) ports[1] = this.#alternatePort(ports[0])
      for (const [i, ip] of plan.addresses.entries()) {
        const address = i as 0 | 1
        const place = { address, port }
        const socket = await openDatagrams({ ip: ip!, port: ports[port] }, (bytes, from) => {
          // Until all are open, nobody is answered.
          if (site === null) return
          const answer = this.#responder.handle(bytes, from, site, place, this.#now())
          if (answer === null) return
          const out = places.findIndex((one) => one.address === answer.from.address && one.port === answer.from.port)
          opened[out]?.send(answer.bytes, answer.to)
        })
        this.#sockets.push(socket)
        opened.push(socket)
        places.push(place)
        ports[port] = socket.local.port
      }
    }
    site = { addresses: this.#names(plan), ports }
    this.#sites.push(site)
  }

  #alternatePort(port: number): number {
    const second = this.#options.config.alternatePort || port + 1
    if (second > 65_535 || second === port) throw wrongConfig(`alternate_port is needed: there is no port after ${port}, or it is the same`)
    return second
  }

  /** The addresses that answers name: those of the sockets, unless others see this machine at another one. */
  #names({ addresses: [first, second] }: SitePlan): StunSite['addresses'] {
    const known = (this.#options.ownAddresses ?? []).filter(({ family }) => family === first.family)
    const asSeen = (ip: IpAddress): boolean => !isWildcard(ip) && (known.length === 0 || known.some((own) => sameIp(own, ip)))
    // Both, or the server would name an address that it does not have for others.
    if (second !== undefined && asSeen(first) && asSeen(second)) return [first, second]
    if (asSeen(first)) return [first]
    return [known.length === 1 ? known[0]! : null]
  }
}

function multiaddr(text: string, transport: 'tcp' | 'udp'): Endpoint | null {
  const parts = /^\/(ip4|ip6)\/([^/]+)\/(tcp|udp)\/(\d{1,5})$/.exec(text)
  if (parts === null || parts[3] !== transport || Number(parts[4]) > 65_535) return null
  try {
    const ip = parseIp(parts[2]!)
    return ip.family === (parts[1] === 'ip4' ? 4 : 6) ? { ip, port: Number(parts[4]) } : null
  } catch {
    return null
  }
}

function isWildcard(ip: IpAddress): boolean {
  return scopeOf(ip) === 'none'
}

function wrong(message: string): never {
  throw new ShallotError('config-invalid', message, { kind: 'config', retry: 'never' })
}

function wrongConfig(problem: string): ShallotError {
  return new ShallotError('config-invalid', `nat.stun.server: ${problem}`, { kind: 'config', retry: 'never' })
}
