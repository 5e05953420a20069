import { assert, type Random, toHex } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'
import type { StunProbeTiming } from './config.ts'
import {
  addressOf,
  attributeBytes,
  BINDING,
  decodeStun,
  encodeStun,
  looksLikeStun,
  STUN_HEADER_BYTES,
  type StunAttribute,
  type StunMessage,
} from './message.ts'

/** Requests under way. A probe has far fewer; the bound is for its mistakes. */
const MAX_TRANSACTIONS = 64
/** The longest answer to a request of ours: all four addresses (docs/spec/stun.md §2). Requests are filled up to it. */
const ANSWER_BYTES = { 4: STUN_HEADER_BYTES + 4 * 12, 6: STUN_HEADER_BYTES + 4 * 24 } as const

/** Which of a probe's sockets: the second exists only while the lifetime of a binding is looked for. */
export type ProbeSocket = 0 | 1

export interface Datagram {
  readonly socket: ProbeSocket
  readonly to: Endpoint
  readonly bytes: Uint8Array
}

export interface NewTransaction<T> {
  readonly socket: ProbeSocket
  readonly to: Endpoint
  readonly attributes: readonly StunAttribute[]
  /** Whether an answer to it may come from there, to that socket. */
  readonly accepts: (from: Endpoint, socket: ProbeSocket) => boolean
  /** Whether the request itself may come back. */
  readonly returns?: boolean
  readonly tag: T
}

/** How a request ended. `returned`: it came back itself. */
export type Outcome<T> =
  | {
      readonly type: 'answered'
      readonly tag: T
      readonly message: StunMessage
      readonly mapped: Endpoint | null
      readonly from: Endpoint
      readonly socket: ProbeSocket
    }
  | { readonly type: 'returned' | 'silent'; readonly tag: T }

interface Transaction<T> extends NewTransaction<T> {
  readonly key: string
  readonly bytes: Uint8Array
  sends: number
  firstSentAt: number
  lastSentAt: number
  nextAt: number
}

/** Binding requests under way: ids, repetition (RFC 8489 §6.2.1), and which answers count. Pure: time and randomness are arguments. */
export class Transactions<T> {
  readonly #family: 4 | 6
  readonly #timing: StunProbeTiming
  readonly #random: Random
  readonly #open = new Map<string, Transaction<T>>()
  #nextStartAt = Number.NEGATIVE_INFINITY
  #longestRoundTripMs: number | null = null
  /** Datagrams that were no answer to anything asked, or came from elsewhere. */
  strangers = 0

  constructor(family: 4 | 6, timing: StunProbeTiming, random: Random) {
    this.#family = family
    this.#timing = timing
    this.#random = random
  }

  get size(): number {
    return this.#open.size
  }

  /** When `handleTime` is due; Infinity when nothing is under way. */
  get deadline(): number {
    let earliest = Number.POSITIVE_INFINITY
    for (const { nextAt } of this.#open.values()) earliest = Math.min(earliest, nextAt)
    return earliest
  }

  start(fresh: NewTransaction<T>, now: number): void {
    assert(this.#open.size < MAX_TRANSACTIONS, 'too many STUN transactions at once')
    const transactionId = this.#random.bytes(12)
    const length = STUN_HEADER_BYTES + fresh.attributes.reduce((sum, attribute) => sum + attributeBytes(attribute), 0)
    const room = ANSWER_BYTES[this.#family] - length
    const filler: StunAttribute[] = room >= 4 ? [{ type: 'filler', length: room - 4 }] : []
    const bytes = encodeStun({ class: 'request', method: BINDING, transactionId }, [...fresh.attributes, ...filler])
    // RFC 5780 §5: paced, so that a NAT with a slow path is not overrun and repetitions do not come together.
    const startAt = Math.max(now, this.#nextStartAt)
    this.#nextStartAt = startAt + this.#timing.paceMs
    const key = toHex(transactionId)
    this.#open.set(key, { ...fresh, key, bytes, sends: 0, firstSentAt: startAt, lastSentAt: startAt, nextAt: startAt })
  }

  /** What is to be sent now, and which requests nobody answered. */
  handleTime(now: number): { readonly send: Datagram[]; readonly ended: Outcome<T>[] } {
    const send: Datagram[] = []
    const ended: Outcome<T>[] = []
    for (const transaction of [...this.#open.values()]) {
      if (transaction.nextAt > now) continue
      if (transaction.sends >= this.#timing.sends) {
        this.#open.delete(transaction.key)
        ended.push({ type: 'silent', tag: transaction.tag })
        continue
      }
      if (transaction.sends === 0) transaction.firstSentAt = now
      transaction.lastSentAt = now
      // The wait doubles each time; after the last sending it is not doubled once more.
      transaction.nextAt = now + this.#rtoMs * 2 ** Math.max(0, Math.min(transaction.sends, this.#timing.sends - 2))
      transaction.sends++
      send.push({ socket: transaction.socket, to: transaction.to, bytes: transaction.bytes })
    }
    return { send, ended }
  }

  /** How a request ended with this datagram; null when it means nothing to us. Borrowed. */
  handleDatagram(socket: ProbeSocket, bytes: Uint8Array, from: Endpoint, now: number): Outcome<T> | null {
    const outcome = this.#match(socket, bytes, from, now)
    if (outcome === null) this.strangers++
    return outcome
  }

  #match(socket: ProbeSocket, bytes: Uint8Array, from: Endpoint, now: number): Outcome<T> | null {
    if (!looksLikeStun(bytes)) return null
    const transaction = this.#open.get(toHex(bytes.subarray(8, STUN_HEADER_BYTES)))
    if (transaction === undefined || transaction.sends === 0) return null
    let message: StunMessage
    try {
      message = decodeStun(bytes)
    } catch {
      return null
    }
    if (message.classic || message.method !== BINDING) return null
    const { tag } = transaction
    if (message.class === 'request') {
      // Nobody but who saw it knows its id: it is our own.
      if (transaction.returns !== true || socket !== transaction.socket) return null
      this.#open.delete(transaction.key)
      return { type: 'returned', tag }
    }
    if (message.class === 'indication' || !transaction.accepts(from, socket)) return null
    const mapped = addressOf(message, 'xor-mapped-address') ?? addressOf(message, 'mapped-address')
    // RFC 8489 §6.3.3: an answer that has what we must but cannot understand is of no use.
    const isUsable = message.unknown.length === 0 && mapped !== null && mapped.ip.family === this.#family && mapped.port !== 0
    if (message.class === 'success' && !isUsable) return null
    this.#open.delete(transaction.key)
    // Karn: which sending an answer belongs to is known only when there was one.
    if (transaction.sends === 1) this.#longestRoundTripMs = Math.max(this.#longestRoundTripMs ?? 0, now - transaction.lastSentAt)
    return { type: 'answered', tag, message, mapped: message.class === 'success' ? mapped : null, from, socket }
  }

  get #rtoMs(): number {
    const { rtoMs, minRtoMs } = this.#timing
    return this.#longestRoundTripMs === null ? rtoMs : Math.min(rtoMs, Math.max(minRtoMs, 2 * this.#longestRoundTripMs))
  }
}
