import type { Duplex } from 'node:stream'
import { type IpAddress, type IpNetwork, type Logger, messageOf, sensitive, TokenBucket } from '../../base/index.ts'
import {
  answerAs,
  cacheKey,
  DnsCache,
  type DnsMessage,
  decodeMessage,
  encodeAnswer,
  encodeSpecial,
  encodeUnread,
  Flag,
  isResponse,
  Rcode,
  reverseNetwork,
  screenQuestion,
  specialAnswer,
  withoutAddresses,
  withoutEdns,
} from '../../dns/index.ts'
import { ExitRefusal } from '../../relaying/index.ts'
import type { ExitConfig } from '../config.ts'
import type { Resolver } from '../resolver.ts'
import type { ByteRate } from '../throttle.ts'
import { ResolverStream } from './resolver-stream.ts'
import { NameServers } from './servers.ts'
import { answerBySystem } from './system-answers.ts'
import { Upstream } from './upstream.ts'

type ForwarderConfig = Pick<
  ExitConfig,
  'dns' | 'resolvers' | 'resolveTimeoutMs' | 'dnsCacheEntries' | 'dnsMinTtlSeconds' | 'dnsMaxTtlSeconds' | 'dnsNegativeTtlSeconds'
>

export interface DnsForwarderModules {
  readonly config: ForwarderConfig
  /** Asked for A, AAAA and PTR where there is no DNS server. */
  readonly resolver: Resolver
  /** Whether an address may be told to clients: `ExitPolicy.checkAddress`. Others are taken out of answers, and have no names. */
  readonly allowAddress: (address: IpAddress) => boolean
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly logger: Logger
  /** The system's list of servers, for tests; /etc/resolv.conf when not given. */
  readonly resolvConf?: string
}

/** What a forwarder has done, without a word of names. */
export interface DnsForwarderCounts {
  readonly streams: number
  readonly questions: number
  /** Of these: answered from memory, refused by rule, and failed. */
  readonly remembered: number
  readonly refused: number
  readonly failed: number
  /** Questions that servers were asked, and messages that came for them and were no answers. */
  readonly asked: number
  readonly foreign: number
}

/** Answers questions of any type for the circuits of an exit, with one memory for all. Asks nobody before a client does. */
export interface DnsForwarder {
  /** One per circuit: its limits are the circuit's. @param rates byte rates that its streams keep to */
  openCircuit(rates?: readonly ByteRate[]): DnsCircuit
  readonly counts: DnsForwarderCounts
  /** Resets every stream and gives up every question. */
  close(): void
}

export interface DnsCircuit {
  /** A stream of DNS messages, each after its length in two bytes (RFC 1035 §4.2.2). @throws ExitRefusal 'resource-limit' */
  connect(): Duplex
  /** Resets its streams. */
  close(): void
}

/** A forwarder over the configured servers, else over the system's, else over the system's resolver. */
export function createDnsForwarder(modules: DnsForwarderModules): DnsForwarder {
  return new Forwarder(modules)
}

/** Ends a question that nobody gives up. */
const never = new AbortController().signal

class Forwarder implements DnsForwarder {
  readonly m: DnsForwarderModules
  readonly streams = new Set<ResolverStream>()
  readonly #cache: DnsCache
  readonly #upstream: Upstream
  /** Questions that servers are being asked, for all who ask the same meanwhile. */
  readonly #underWay = new Map<string, Promise<Uint8Array>>()
  readonly #counts = { questions: 0, remembered: 0, refused: 0, failed: 0, asked: 0, foreign: 0 }
  #closed = false

  constructor(modules: DnsForwarderModules) {
    this.m = modules
    const { config, now, resolvConf } = modules
    this.#cache = new DnsCache({
      maxEntries: config.dnsCacheEntries,
      maxBytes: config.dns.cacheBytes,
      minTtlSeconds: config.dnsMinTtlSeconds,
      maxTtlSeconds: Math.max(config.dnsMinTtlSeconds, config.dnsMaxTtlSeconds),
      maxNegativeTtlSeconds: config.dnsNegativeTtlSeconds,
      failureTtlSeconds: config.dns.failureTtlSeconds,
    })
    this.#upstream = new Upstream({
      servers: new NameServers(config.resolvers, now, resolvConf),
      attemptTimeoutMs: config.dns.attemptTimeoutMs,
      timeoutMs: config.resolveTimeoutMs,
      foreign: () => this.#counts.foreign++,
    })
  }

  get counts(): DnsForwarderCounts {
    return { streams: this.streams.size, ...this.#counts }
  }

  openCircuit(rates: readonly ByteRate[] = []): DnsCircuit {
    return new ForwarderCircuit(this, rates)
  }

  close(): void {
    this.#closed = true
    for (const stream of this.streams) stream.destroy()
    this.#upstream.stop()
    this.#cache.clear()
  }

  get closed(): boolean {
    return this.#closed
  }

  /** The answer to one message of a client; null to what is no question. Never rejects. */
  async answer(bytes: Uint8Array): Promise<Uint8Array | null> {
    this.#counts.questions++
    let asked: DnsMessage
    try {
      asked = decodeMessage(bytes)
    } catch {
      this.#counts.refused++
      return encodeUnread(bytes, Rcode.formErr)
    }
    if (isResponse(asked)) return null
    try {
      return this.#local(asked) ?? (await this.#remembered(asked))
    } catch (error) {
      this.m.logger.debug('a DNS question failed', { error: sensitive(messageOf(error)) })
      this.#counts.failed++
      return encodeAnswer(asked, { rcode: Rcode.servFail })
    }
  }

  /** What is known or refused without asking: kinds of questions, special names, names of addresses that nobody gets to know. */
  #local(asked: DnsMessage): Uint8Array | null {
    const refused = screenQuestion(asked)
    if (refused !== null) {
      this.#counts.refused++
      return encodeAnswer(asked, { rcode: refused })
    }
    const { name, type } = asked.question!
    const special = specialAnswer(name, type)
    if (special?.type === 'address' && name !== 'ipv4only.arpa') {
      const addresses = special.addresses.filter((address) => this.m.allowAddress(address))
      return encodeSpecial(asked, addresses.length === 0 ? { type: 'empty', zone: 'localhost' } : { ...special, addresses })
    }
    if (special) return encodeSpecial(asked, special)
    const reverse = reverseNetwork(name)
    if (reverse && !this.#mayName(reverse)) {
      this.#counts.refused++
      return encodeSpecial(asked, { type: 'nothing', zone: name })
    }
    return null
  }

  /** A network is none of anybody's business when neither end of it is. */
  #mayName({ address, bits }: IpNetwork): boolean {
    if (this.m.allowAddress(address)) return true
    const last = address.bytes.map((byte, i) => byte | (0xff >> Math.min(8, Math.max(0, bits - 8 * i))))
    return this.m.allowAddress({ family: address.family, bytes: last })
  }

  async #remembered(asked: DnsMessage): Promise<Uint8Array> {
    const flags = { dnssecOk: asked.edns?.dnssecOk ?? false, checkingDisabled: (asked.flags & Flag.checkingDisabled) !== 0 }
    const key = cacheKey('', asked.question!, flags)
    const known = this.#cache.get(key, this.m.now())
    if (known) {
      this.#counts.remembered++
      return answerAs(asked, known)
    }
    let lookup = this.#underWay.get(key)
    if (!lookup) {
      if (this.#closed || this.#underWay.size >= this.m.config.dns.maxQuestions)
        throw new ExitRefusal('resource-limit', 'too many questions')
      lookup = this.#lookUp(key, asked, flags).finally(() => this.#underWay.delete(key))
      this.#underWay.set(key, lookup)
    }
    // Every asker gets memory of its own: the answer becomes theirs.
    return answerAs(asked, (await lookup).slice())
  }

  /** Asks, and remembers. An answer without EDNS, and without addresses that are not told. */
  async #lookUp(key: string, asked: DnsMessage, flags: { dnssecOk: boolean; checkingDisabled: boolean }): Promise<Uint8Array> {
    this.#counts.asked++
    const plain = { ...asked, edns: null }
    const found = await this.#upstream.ask({ question: asked.question!, ...flags })
    if (found === 'no-server') return answerBySystem(plain, this.m.resolver, this.m.allowAddress, never)
    const usable = found !== null && found.question !== null && found.rcode <= 15
    if (!usable || found.rcode === Rcode.servFail) this.#counts.failed++
    const answer = usable
      ? withoutAddresses(withoutEdns(found), this.m.allowAddress)
      : decodeMessage(encodeAnswer(plain, { rcode: Rcode.servFail }))
    this.#cache.put(key, answer, this.m.now())
    return answer.bytes
  }
}

class ForwarderCircuit implements DnsCircuit {
  readonly #forwarder: Forwarder
  readonly #rates: readonly ByteRate[]
  readonly #streams = new Set<ResolverStream>()
  readonly #questions: TokenBucket | null
  #closed = false

  constructor(forwarder: Forwarder, rates: readonly ByteRate[]) {
    const { questionsPerSecondPerCircuit, questionBurst } = forwarder.m.config.dns
    this.#forwarder = forwarder
    this.#rates = rates.filter((rate) => rate.limited)
    this.#questions =
      questionsPerSecondPerCircuit === 0 ? null : new TokenBucket(questionsPerSecondPerCircuit, questionBurst, forwarder.m.now())
  }

  connect(): Duplex {
    const forwarder = this.#forwarder
    const { dns } = forwarder.m.config
    const full = this.#streams.size >= dns.maxStreamsPerCircuit || forwarder.streams.size >= dns.maxStreams
    if (full || this.#closed || forwarder.closed) throw new ExitRefusal('resource-limit', 'too many streams to the resolver')
    const stream = new ResolverStream({
      answer: (question) => forwarder.answer(question),
      spendQuestion: () => this.#questions?.spend(1, forwarder.m.now()) ?? 0,
      spendBytes: (bytes) => this.#rates.reduce((rest, rate) => Math.max(rest, rate.spend(bytes)), 0),
      overfull: () => unread(forwarder.streams) > dns.maxUnreadBytes,
      maxQuestions: dns.maxQuestionsPerStream,
      idleTimeoutMs: dns.idleTimeoutMs,
    })
    this.#streams.add(stream)
    forwarder.streams.add(stream)
    stream.once('close', () => {
      this.#streams.delete(stream)
      forwarder.streams.delete(stream)
    })
    return stream
  }

  close(): void {
    this.#closed = true
    for (const stream of this.#streams) stream.destroy(new ExitRefusal('internal', 'the circuit is over'))
  }
}

function unread(streams: Iterable<Duplex>): number {
  let bytes = 0
  for (const stream of streams) bytes += stream.readableLength
  return bytes
}
