import { assert, type IpAddress, type Random, shuffle } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'
import { type Classification, classify, type FilteringObservation, type MappingObservation, type StunObservations } from './classify.ts'
import type { StunProbeTiming } from './config.ts'
import { ownEndpoint, sameEndpoint, sameIp, scopeOf } from './endpoint.ts'
import { LifetimeSearch } from './lifetime.ts'
import { addressOf } from './message.ts'
import { type Datagram, type NewTransaction, type Outcome, type ProbeSocket, Transactions } from './transactions.ts'

/** Servers asked in one run; of more, so many are drawn. */
export const MAX_PROBE_SERVERS = 8
/** Servers that do the tests beyond the first: each answer of one is proof, more only help against loss. */
const MAX_TEST_SERVERS = 3

/** A server to ask. */
export interface StunServerAddress extends Endpoint {
  /** Its second port where that is known beforehand, as with our own servers: the next one. */
  readonly alternatePort: number | null
}

/** How much to find out. `address`: the public endpoint; `behaviour`: the kind of NAT too; `lifetime`: also how long a binding lives, in minutes. */
export type ProbeDepth = 'address' | 'behaviour' | 'lifetime'

export interface ProbeOptions {
  readonly family: 4 | 6
  readonly servers: readonly StunServerAddress[]
  /** Where the first socket is bound. */
  readonly local: Endpoint
  readonly localAddresses: readonly IpAddress[]
  readonly depth: ProbeDepth
  readonly timing: StunProbeTiming
  readonly random: Random
}

export interface ProbeResult extends Classification {
  /** Those asked, in the order of the verdicts, and what each said first. */
  readonly servers: readonly { readonly address: StunServerAddress; readonly said: Endpoint | null }[]
}

type Tag =
  | { readonly test: 'first' | 'other-address' | 'other-port'; readonly server: number }
  | { readonly test: 'mapping'; readonly server: number; readonly to: Endpoint }
  | { readonly test: 'hairpin' | 'refresh' | 'alive' }

interface Server {
  readonly address: StunServerAddress
  other: Endpoint | null
  otherPort: number | null
}

/**
 *   first ──▶ filtering ──▶ mapping ──▶ refreshing ──▶ waiting ──▶ asking ──▶ done
 *     │                        │             ▲                       │
 *     └──── no more wanted ────┴──▶ done     └────── another T ──────┘
 *
 * Filtering comes before mapping, since what is sent to a server's other sockets opens a NAT for them.
 */
type State =
  | { readonly name: 'first' | 'filtering' | 'mapping' }
  | {
      readonly name: 'refreshing' | 'asking'
      readonly search: LifetimeSearch
      readonly server: Server
      readonly silenceMs: number
      readonly port: number
    }
  | {
      readonly name: 'waiting'
      readonly search: LifetimeSearch
      readonly server: Server
      readonly silenceMs: number
      readonly port: number
      readonly until: number
    }
  | { readonly name: 'done'; readonly result: ProbeResult }

/** One run of RFC 5780's tests over one UDP socket (two while a lifetime is looked for), for one address family. Pure. */
export class Probe {
  readonly #options: ProbeOptions
  readonly #servers: readonly Server[]
  readonly #transactions: Transactions<Tag>
  readonly #mappings: MappingObservation[] = []
  readonly #filterings: FilteringObservation[] = []
  readonly #notes = new Set<string>()
  #hairpin: boolean | null = null
  #lifetimeMs: number | null = null
  #state: State = { name: 'first' }
  #send: Datagram[] = []

  constructor(options: ProbeOptions, now: number) {
    this.#options = options
    this.#transactions = new Transactions(options.family, options.timing, options.random)
    this.#servers = chooseServers(options).map((address) => ({ address, other: null, otherPort: null }))
    for (const [server, { address }] of this.#servers.entries()) this.#ask({ test: 'first', server }, address, now)
    this.handleTime(now)
  }

  /** The result, once there is one. */
  get result(): ProbeResult | null {
    return this.#state.name === 'done' ? this.#state.result : null
  }

  /** When `handleTime` is due; Infinity when done. */
  get deadline(): number {
    return this.#state.name === 'waiting' ? this.#state.until : this.#transactions.deadline
  }

  handleDatagram(socket: ProbeSocket, bytes: Uint8Array, from: Endpoint, now: number): void {
    const outcome = this.#transactions.handleDatagram(socket, bytes, from, now)
    if (outcome !== null) this.#note(outcome, now)
    this.#proceed(now)
  }

  handleTime(now: number): void {
    const { send, ended } = this.#transactions.handleTime(now)
    this.#send.push(...send)
    for (const outcome of ended) this.#note(outcome, now)
    this.#proceed(now)
  }

  /** What is to be sent; each datagram is handed out once. */
  takeOutput(): Datagram[] {
    const out = this.#send
    this.#send = []
    return out
  }

  /** Ends the run with what is known. */
  finish(): ProbeResult {
    if (this.#state.name === 'done') return this.#state.result
    const { verdicts, behaviour, kind, notes } = classify(this.#observations())
    const said = (server: number): Endpoint | null => this.#mappings.find((one) => one.server === server)?.mapped ?? null
    const servers = this.#servers.map(({ address }, i) => ({ address, said: said(i) }))
    const result = { behaviour, kind, verdicts, notes: [...notes, ...this.#notes], servers }
    this.#state = { name: 'done', result }
    return result
  }

  #observations(): StunObservations {
    const { family, local, localAddresses } = this.#options
    return {
      family,
      local,
      localAddresses,
      servers: this.#servers.length,
      mappings: this.#mappings,
      filterings: this.#filterings,
      hairpin: this.#hairpin,
      bindingLifetimeMs: this.#lifetimeMs,
    }
  }

  /** Goes on to what follows, until something is under way again. */
  #proceed(now: number): void {
    while (this.#state.name !== 'done' && this.#transactions.size === 0) {
      const state = this.#state
      if (state.name === 'waiting' && state.until > now) return
      this.#next(state, now)
      // What was just begun is sent at once, as far as the pace allows.
      this.#send.push(...this.#transactions.handleTime(now).send)
    }
  }

  #next(state: Exclude<State, { name: 'done' }>, now: number): void {
    switch (state.name) {
      case 'first':
        if (this.#options.depth === 'address' || this.#trusted().length === 0) this.finish()
        else this.#beginFiltering(now)
        return
      case 'filtering':
        this.#beginMapping(now)
        return
      case 'mapping':
        if (this.#options.depth === 'lifetime') this.#beginLifetime(now)
        else this.finish()
        return
      case 'waiting': {
        this.#state = { ...state, name: 'asking' }
        const { address } = state.server
        this.#transactions.start(
          {
            socket: 1,
            to: address,
            attributes: [{ type: 'response-port', port: state.port }],
            accepts: (from) => sameEndpoint(from, address),
            tag: { test: 'alive' },
          },
          now,
        )
        return
      }
      // The server no longer answers.
      case 'refreshing':
      case 'asking':
        this.#lifetimeMs = state.search.foundMs
        this.finish()
    }
  }

  #beginFiltering(now: number): void {
    this.#state = { name: 'filtering' }
    for (const { server, index } of this.#trusted().slice(0, MAX_TEST_SERVERS)) {
      const { address, other } = server
      const fromFirst = (from: Endpoint): boolean => sameEndpoint(from, address)
      const change = (test: 'other-address' | 'other-port', fromElsewhere: (from: Endpoint) => boolean): void => {
        const attributes = [{ type: 'change-request' as const, ip: test === 'other-address', port: true }]
        // A server that does not know CHANGE-REQUEST answers from where it was asked.
        const accepts = (from: Endpoint): boolean => fromFirst(from) || fromElsewhere(from)
        this.#transactions.start({ socket: 0, to: address, attributes, accepts, tag: { test, server: index } }, now)
      }
      if (other !== null) change('other-address', (from) => sameEndpoint(from, other))
      change('other-port', (from) => sameIp(from.ip, address.ip) && from.port !== address.port)
    }
    // Silence is the usual answer of most NATs to this too: it is waited for only once.
    this.#beginHairpin(now)
  }

  #beginHairpin(now: number): void {
    const { mapping, publicEndpoint } = classify(this.#observations()).behaviour
    if (mapping === 'none' || publicEndpoint === null) return
    this.#transactions.start(
      { socket: 0, to: publicEndpoint, attributes: [], accepts: () => false, returns: true, tag: { test: 'hairpin' } },
      now,
    )
  }

  #beginMapping(now: number): void {
    this.#state = { name: 'mapping' }
    const { behaviour } = classify(this.#observations())
    if (behaviour.mapping === 'none') return
    const trusted = this.#trusted()
    for (const { server, index } of trusted.slice(0, MAX_TEST_SERVERS)) {
      const { address, other } = server
      const ports = [server.otherPort ?? other?.port ?? address.alternatePort].filter((port) => port !== null && port !== address.port)
      const targets = ports.map((port) => ({ ip: address.ip, port: port! }))
      // A second address is somebody's claim: it is sent to only where there is no second server to compare with.
      if (other !== null && trusted.length === 1) targets.push({ ip: other.ip, port: address.port }, other)
      for (const to of targets) this.#ask({ test: 'mapping', server: index, to }, to, now)
    }
  }

  #beginLifetime(now: number): void {
    const server = this.#trusted()[0]?.server
    if (server === undefined) {
      this.finish()
      return
    }
    // Silence of no length first: whether the server sends to another port at all.
    this.#refresh(new LifetimeSearch(this.#options.timing.maxLifetimeMs, now), server, 0, now)
  }

  #refresh(search: LifetimeSearch, server: Server, silenceMs: number, now: number): void {
    this.#state = { name: 'refreshing', search, server, silenceMs, port: 0 }
    this.#ask({ test: 'refresh' }, server.address, now)
  }

  #ask(tag: Tag, to: Endpoint, now: number): void {
    const accepts: NewTransaction<Tag>['accepts'] = (from, socket) => socket === 0 && sameEndpoint(from, to)
    this.#transactions.start({ socket: 0, to, attributes: [], accepts, tag }, now)
  }

  #note(outcome: Outcome<Tag>, now: number): void {
    const { tag } = outcome
    switch (tag.test) {
      case 'first':
        if (outcome.type === 'answered' && outcome.mapped !== null) this.#noteFirst(tag.server, outcome)
        return
      case 'mapping':
        if (outcome.type === 'answered' && outcome.mapped !== null)
          this.#mappings.push({ server: tag.server, to: tag.to, mapped: outcome.mapped })
        return
      case 'other-address':
      case 'other-port': {
        const { address } = this.#servers[tag.server]!
        const isElsewhere = outcome.type === 'answered' && !sameEndpoint(outcome.from, address)
        if (isElsewhere && tag.test === 'other-port') this.#servers[tag.server]!.otherPort = outcome.from.port
        const answered = isElsewhere ? 'answered' : 'unable'
        this.#filterings.push({ server: tag.server, from: tag.test, outcome: outcome.type === 'answered' ? answered : 'silent' })
        return
      }
      case 'hairpin':
        this.#hairpin = outcome.type === 'returned'
        return
      case 'refresh':
      case 'alive':
        this.#noteLifetime(tag.test, outcome, now)
    }
  }

  #noteFirst(index: number, outcome: Extract<Outcome<Tag>, { type: 'answered' }>): void {
    const server = this.#servers[index]!
    const mapped = outcome.mapped!
    this.#mappings.push({ server: index, to: server.address, mapped })
    const plain = addressOf(outcome.message, 'mapped-address')
    if (plain !== null && !sameEndpoint(plain, mapped))
      this.#notes.add('Something on the way rewrites addresses inside of packets (an ALG).')
    const other = addressOf(outcome.message, 'other-address') ?? addressOf(outcome.message, 'changed-address')
    if (other !== null && this.#isUsable(other, server.address)) server.other = ownEndpoint(other)
  }

  /** Whether an answer from there would prove something, and nobody is harmed by being asked there. */
  #isUsable(other: Endpoint, address: Endpoint): boolean {
    if (other.ip.family !== address.ip.family || other.port === 0 || scopeOf(other.ip) !== scopeOf(address.ip)) return false
    return !this.#servers.some((server) => sameIp(server.address.ip, other.ip))
  }

  #noteLifetime(test: 'refresh' | 'alive', outcome: Outcome<Tag>, now: number): void {
    const state = this.#state
    assert(state.name === 'refreshing' || state.name === 'asking', 'a lifetime is looked for')
    const { search, server, silenceMs } = state
    if (test === 'refresh') {
      if (outcome.type !== 'answered' || outcome.mapped === null) return
      this.#state = { name: 'waiting', search, server, silenceMs, port: outcome.mapped.port, until: now + silenceMs }
      return
    }
    const survived = outcome.type === 'answered' && outcome.mapped !== null && outcome.socket === 0
    const isUnable = outcome.type === 'answered' && outcome.mapped === null
    if (isUnable || (silenceMs === 0 && !survived)) {
      this.#notes.add('How long a binding lives was not found out: the STUN server does not send to another port.')
      return
    }
    if (silenceMs > 0) search.note(silenceMs, survived)
    const next = search.next(now)
    if (next !== null) this.#refresh(search, server, next, now)
  }

  /** Servers that are not lying and answered, as far as is known now. */
  #trusted(): { readonly server: Server; readonly index: number }[] {
    const { verdicts } = classify(this.#observations())
    return this.#servers
      .map((server, index) => ({ server, index }))
      .filter(({ index }) => verdicts[index] === 'believed' || verdicts[index] === 'alone')
  }
}

/** One per address, since one who has many ports has one voice; drawn when there are too many. */
function chooseServers({ servers, family, random }: ProbeOptions): StunServerAddress[] {
  const fitting = servers.filter(({ ip, port }) => ip.family === family && port !== 0)
  const distinct = fitting.filter((server, i) => fitting.findIndex(({ ip }) => sameIp(ip, server.ip)) === i)
  return distinct.length <= MAX_PROBE_SERVERS ? distinct : shuffle([...distinct], random).slice(0, MAX_PROBE_SERVERS)
}
