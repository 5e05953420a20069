import { type IpAddress, type Logger, messageOf, networkContains, parseNetwork, sensitive } from '../../base/index.ts'
import { type ClientService, StreamError } from '../../client/index.ts'
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
  isInternalAddress,
  isResponse,
  Rcode,
  screenQuestion,
  specialAnswer,
  withoutAddresses,
  withoutEdns,
} from '../../dns/index.ts'
import type { DnsConfig } from './config.ts'
import type { CircuitQuestion } from './kept-stream.ts'
import { resolvedAnswer } from './resolved-answer.ts'
import { ResolverStreams } from './resolver-streams.ts'

export interface DnsServiceModules {
  readonly client: ClientService
  readonly logger: Logger
  /** Monotonic milliseconds. */
  readonly now: () => number
  /** Private networks that exits may give addresses of all the same, by the network's rules. */
  readonly privateDestinations?: readonly string[]
}

/** What the service has done since its start, without a word of names. */
export interface DnsServiceCounts {
  readonly questions: number
  /** Of these: answered here, from memory, refused by rule, and failed. */
  readonly local: number
  readonly remembered: number
  readonly refused: number
  readonly failed: number
  /** Messages of exits that were no answers to what was asked. */
  readonly foreign: number
  /** Now: questions under way, and streams to resolvers. */
  readonly asking: number
  readonly streams: number
}

/** How long an exit without a resolver is asked by `resolve` only. */
const NO_RESOLVER_MS = 60_000
/** Isolation keys for which that is remembered. */
const MAX_WITHOUT_RESOLVER = 256

/**
 * Answers DNS questions of any type through circuits, and never in another way: over one stream to an exit's resolver for each isolation key, or by
 * `resolve` where the exit has none. Answers are remembered within their isolation. Special-use names are answered here.
 */
export class DnsService {
  readonly #config: DnsConfig
  readonly #m: DnsServiceModules
  readonly #logger: Logger
  readonly #cache: DnsCache
  readonly #streams: ResolverStreams
  readonly #private: readonly ReturnType<typeof parseNetwork>[]
  /** What circuits are being asked, for all of an isolation who ask the same meanwhile. */
  readonly #underWay = new Map<string, Promise<Uint8Array>>()
  readonly #withoutResolver = new Map<string, number>()
  /** Those who wait, by isolation. */
  readonly #waiting = new Map<string, number>()
  #asking = 0
  readonly #counts = { questions: 0, local: 0, remembered: 0, refused: 0, failed: 0, foreign: 0 }

  constructor(config: DnsConfig, modules: DnsServiceModules) {
    this.#config = config
    this.#m = modules
    this.#logger = modules.logger.child('dns')
    this.#private = (modules.privateDestinations ?? []).map(parseNetwork)
    this.#cache = new DnsCache({
      maxEntries: config.cacheEntries,
      maxBytes: config.cacheBytes,
      minTtlSeconds: 0,
      maxTtlSeconds: config.cacheMaxTtlSeconds,
      maxNegativeTtlSeconds: config.cacheMaxTtlSeconds,
      failureTtlSeconds: 0,
    })
    this.#streams = new ResolverStreams({
      client: modules.client,
      get maxStreams() {
        return config.maxStreams
      },
      get openTimeoutMs() {
        return config.timeoutMs
      },
      get idleTimeoutMs() {
        return config.streamIdleTimeoutMs
      },
      get maxAgeMs() {
        return config.streamMaxAgeMs
      },
      now: modules.now,
      foreign: () => this.#counts.foreign++,
    })
  }

  get counts(): DnsServiceCounts {
    return { ...this.#counts, asking: this.#asking, streams: this.#streams.size }
  }

  /**
   * Always an answer, whole and with the question's id: of the DNS, or an error (FORMERR, NOTIMP, REFUSED; SERVFAIL when it can't be carried, takes too
   * long, is given up or too much). For a datagram see `fitDatagram`. Never rejects. @param message borrowed until it resolves
   */
  async ask(message: Uint8Array, isolation: string, signal?: AbortSignal): Promise<Uint8Array> {
    this.#counts.questions++
    let asked: DnsMessage
    try {
      asked = decodeMessage(message)
    } catch {
      this.#counts.refused++
      return encodeUnread(message, Rcode.formErr)
    }
    const refused = isResponse(asked) ? Rcode.formErr : screenQuestion(asked)
    if (refused !== null) {
      this.#counts.refused++
      return encodeAnswer(asked, { rcode: refused })
    }
    const special = specialAnswer(asked.question!.name, asked.question!.type)
    if (special !== null) {
      this.#counts.local++
      return encodeSpecial(asked, special)
    }
    try {
      return await this.#remembered(asked, isolation, signal)
    } catch (error) {
      this.#counts.failed++
      this.#logger.debug('a question failed', { error: sensitive(messageOf(error)) })
      return encodeAnswer(asked, { rcode: Rcode.servFail })
    }
  }

  /** Ends every stream and forgets every answer; questions under way fail, and so does every one after. */
  close(): void {
    this.#streams.close()
    this.#cache.clear()
    this.#withoutResolver.clear()
  }

  async #remembered(asked: DnsMessage, isolation: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const question = {
      question: asked.question!,
      dnssecOk: asked.edns?.dnssecOk ?? false,
      checkingDisabled: (asked.flags & Flag.checkingDisabled) !== 0,
    }
    const key = cacheKey(isolation, question.question, question)
    const known = this.#cache.get(key, this.#m.now())
    if (known !== null) {
      this.#counts.remembered++
      return answerAs(asked, known)
    }
    const waiting = this.#waiting.get(isolation) ?? 0
    if (this.#asking >= this.#config.maxQuestions || waiting >= this.#config.maxQuestionsPerOrigin)
      throw new StreamError('resource-limit', 'too many questions under way')
    this.#asking++
    this.#waiting.set(isolation, waiting + 1)
    try {
      // Every asker gets memory of its own: the answer becomes theirs.
      return answerAs(asked, (await within(this.#shared(key, asked, question, isolation), signal)).slice())
    } finally {
      this.#asking--
      const left = this.#waiting.get(isolation)! - 1
      if (left > 0) this.#waiting.set(isolation, left)
      else this.#waiting.delete(isolation)
    }
  }

  #shared(key: string, asked: DnsMessage, question: CircuitQuestion, isolation: string): Promise<Uint8Array> {
    const known = this.#underWay.get(key)
    if (known) return known
    // Those who gave up leave their lookups behind for a while.
    if (this.#underWay.size >= this.#config.maxQuestions) throw new StreamError('resource-limit', 'too many questions under way')
    const abort = new AbortController()
    const slow = setTimeout(() => abort.abort(new StreamError('timeout')), this.#config.timeoutMs)
    const lookup = this.#lookUp(key, asked, question, { isolation, signal: abort.signal }).finally(() => {
      clearTimeout(slow)
      this.#underWay.delete(key)
    })
    this.#underWay.set(key, lookup)
    lookup.catch(() => {}) // its askers may all have left
    return lookup
  }

  /** An answer without EDNS, without addresses of this machine's own networks, and without a claim to be authentic. */
  async #lookUp(
    key: string,
    asked: DnsMessage,
    question: CircuitQuestion,
    options: { isolation: string; signal: AbortSignal },
  ): Promise<Uint8Array> {
    const answer = await this.#throughCircuit({ ...asked, edns: null }, question, options)
    const kept = withoutAddresses(withoutEdns(answer), (address) => this.#mayTell(address))
    // Nothing here has checked a signature, and who says that it did is a stranger (RFC 4035 §4.9.3): who wants to know checks for itself, with DO and CD.
    const bytes = kept.bytes.slice()
    bytes[3]! &= ~Flag.authenticData
    const own = decodeMessage(bytes)
    this.#cache.put(key, own, this.#m.now())
    return this.#cache.get(key, this.#m.now()) ?? bytes
  }

  async #throughCircuit(
    plain: DnsMessage,
    question: CircuitQuestion,
    options: { isolation: string; signal: AbortSignal },
  ): Promise<DnsMessage> {
    const { isolation, signal } = options
    if (!this.#hasNoResolver(isolation)) {
      try {
        const answer = await this.#streams.ask(isolation, question, signal)
        // A failing server may leave out the question, and what is beyond 15 is of EDNS between it and the exit.
        if (answer.question !== null && answer.rcode <= 15) return answer
        return decodeMessage(encodeAnswer(plain, { rcode: answer.rcode <= 15 ? answer.rcode : Rcode.servFail }))
      } catch (error) {
        if (!(error instanceof StreamError) || error.reason !== 'not-exit') throw error
        this.#noteNoResolver(isolation)
      }
    }
    return decodeMessage(await resolvedAnswer(plain, this.#m.client, options))
  }

  #hasNoResolver(isolation: string): boolean {
    const until = this.#withoutResolver.get(isolation)
    if (until === undefined) return false
    if (until > this.#m.now()) return true
    this.#withoutResolver.delete(isolation)
    return false
  }

  #noteNoResolver(isolation: string): void {
    this.#withoutResolver.delete(isolation)
    this.#withoutResolver.set(isolation, this.#m.now() + NO_RESOLVER_MS)
    if (this.#withoutResolver.size > MAX_WITHOUT_RESOLVER) this.#withoutResolver.delete(this.#withoutResolver.keys().next().value!)
  }

  #mayTell(address: IpAddress): boolean {
    return !isInternalAddress(address) || this.#private.some((network) => networkContains(network, address))
  }
}

/** The promise, or a failure as soon as the signal aborts. */
function within<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const over = (): void => reject(new StreamError('aborted'))
    if (signal.aborted) return over()
    signal.addEventListener('abort', over, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', over))
  })
}
