import type { LinkLimits } from './config.ts'

/** An answer may take this many times the round trip measured last. */
const ROUND_TRIPS = 4

/** What to do now: ask the peer for a sign of life, or take it for gone. */
export type LifeStep = 'ask' | 'gone'

/**
 * Tells when the peer of a link is to be asked for a sign of life, and when it is taken for gone: a router that has forgotten its mappings, or a
 * machine without power, ends no connection. Whoever waits for an answer (cells were sent, and nothing came since) asks soon and waits shortly,
 * whoever has a reason to doubt at once, and a link that nobody uses costs a question now and then. Whatever comes in is a sign of life, and so is that the
 * system could send on after it had been unable to. Pure: times are monotonic ms.
 */
export class SignsOfLife {
  readonly #limits: Pick<LinkLimits, 'pingAfterMs' | 'pingTimeoutMs' | 'probeAfterMs' | 'probeTimeoutMs' | 'suspectTimeoutMs'>
  #heardAt: number
  /** The last round trip measured, or null. */
  #rttMs: number | null = null
  /** Of the question that is not answered. */
  #askedAt: number | null = null
  /** Of the first cells since something was heard. */
  #sentAt: number | null = null
  #suspectedAt: number | null = null
  /** Up to then silence tells nothing: this side stood still, or the system was still sending. */
  #excusedAt = Number.NEGATIVE_INFINITY

  constructor(limits: LinkLimits, now: number) {
    this.#limits = limits
    this.#heardAt = now
  }

  /** When something last came in. */
  get heardAt(): number {
    return this.#heardAt
  }

  get rttMs(): number | null {
    return this.#rttMs
  }

  get isAsked(): boolean {
    return this.#askedAt !== null
  }

  /** Bytes came in. */
  heard(now: number): void {
    this.#heardAt = now
    this.#sentAt = null
    this.#suspectedAt = null
  }

  /** Cells went out: sooner or later something should come back. */
  sent(now: number): void {
    this.#sentAt ??= now
  }

  /** The question was sent. */
  asked(now: number): void {
    this.#askedAt = now
  }

  /** It was answered. Returns the round trip. */
  answered(): number {
    const rtt = this.#heardAt - (this.#askedAt ?? this.#heardAt)
    this.#askedAt = null
    this.#rttMs = rtt
    return rtt
  }

  /** Somebody has a reason to doubt: the peer is asked at once, and given little time. */
  suspect(now: number): void {
    this.#suspectedAt ??= now
  }

  /** This side has read nothing for a while, or could not send until now. */
  excuse(now: number): void {
    this.#excusedAt = now
  }

  /** Whether a question is overdue so far that nothing new should be begun. */
  isDoubtful(now: number): boolean {
    const wait = this.#wait()
    return wait !== null && wait.patienceMs < this.#limits.pingTimeoutMs && now - wait.since > wait.patienceMs / 2
  }

  /** To be asked a few times a second. */
  step(now: number): LifeStep | null {
    const wait = this.#wait()
    if (wait !== null) return now - wait.since > wait.patienceMs ? 'gone' : null
    if (this.#suspectedAt !== null) return 'ask'
    if (this.#sentAt !== null && now - this.#sentAt >= this.#limits.probeAfterMs) return 'ask'
    return now - this.#heardAt > this.#limits.pingAfterMs ? 'ask' : null
  }

  /** Since when an answer is awaited, and how long at most; null while none is. */
  #wait(): { readonly since: number; readonly patienceMs: number } | null {
    if (this.#askedAt === null) return null
    const { probeAfterMs, probeTimeoutMs, suspectTimeoutMs, pingTimeoutMs } = this.#limits
    const asked = Math.max(this.#askedAt, this.#heardAt, this.#excusedAt)
    const atLeast = ROUND_TRIPS * (this.#rttMs ?? 0)
    if (this.#suspectedAt !== null) {
      return { since: Math.max(asked, this.#suspectedAt), patienceMs: Math.max(suspectTimeoutMs, atLeast) }
    }
    if (this.#sentAt !== null) {
      return { since: Math.max(asked, this.#sentAt + probeAfterMs), patienceMs: Math.max(probeTimeoutMs, atLeast) }
    }
    return { since: asked, patienceMs: pingTimeoutMs }
  }
}
