import { assert } from '../base/index.ts'
import { type DnsMessage, type DnsQuestion, soaMinimum } from './message.ts'
import { DnsType, Flag, Rcode } from './numbers.ts'

/** Limits of a cache. */
export interface DnsCacheLimits {
  readonly maxEntries: number
  readonly maxBytes: number
  /** Answers are kept at least and at most this long, and say so. */
  readonly minTtlSeconds: number
  readonly maxTtlSeconds: number
  /** It is remembered at most this long that there is nothing (RFC 2308 §5). */
  readonly maxNegativeTtlSeconds: number
  /** How long a server's failure is remembered (RFC 9520 §3.2: 1 s at least); 0: not at all. */
  readonly failureTtlSeconds: number
}

interface Entry {
  readonly bytes: Uint8Array
  /** Where times to live stand. */
  readonly ttlOffsets: Uint16Array
  readonly storedAt: number
  readonly expiresAt: number
  readonly cost: number
}

/** What one entry takes beside its bytes, about. */
const ENTRY_BYTES = 256

/**
 * What a question's answer is remembered by: its isolation as well, so that nobody learns from another's questions, and DO and CD, which change the answer.
 * @param isolation '' where all share
 */
export function cacheKey(
  isolation: string,
  question: DnsQuestion,
  { dnssecOk, checkingDisabled }: { readonly dnssecOk: boolean; readonly checkingDisabled: boolean },
): string {
  const flags = (dnssecOk ? 1 : 0) | (checkingDisabled ? 2 : 0)
  return `${isolation} ${question.type} ${question.class} ${flags} ${question.name}`
}

/** Answers as they came, byte for byte, with times to live that count down. Bounded by entries and bytes: what was used longest ago goes. Pure. */
export class DnsCache {
  readonly #limits: DnsCacheLimits
  /** In the order of use, the oldest first. */
  readonly #entries = new Map<string, Entry>()
  #bytes = 0

  constructor(limits: DnsCacheLimits) {
    assert(limits.minTtlSeconds <= limits.maxTtlSeconds, 'the least time to live is not above the most')
    this.#limits = limits
  }

  get size(): number {
    return this.#entries.size
  }

  /** What it holds, about. */
  get bytes(): number {
    return this.#bytes
  }

  /** The remembered answer in memory of its own, with id 0. @param now milliseconds, monotonic */
  get(key: string, now: number): Uint8Array | null {
    const entry = this.#entries.get(key)
    if (!entry) return null
    this.#remove(key, entry)
    if (entry.expiresAt <= now) return null
    this.#add(key, entry)
    const bytes = entry.bytes.slice()
    const view = new DataView(bytes.buffer)
    const gone = Math.floor((now - entry.storedAt) / 1000)
    for (const at of entry.ttlOffsets) view.setUint32(at, Math.max(0, view.getUint32(at) - gone))
    return bytes
  }

  /** Remembers an answer (copied) if it may be remembered. The OPT record has to be gone from it. */
  put(key: string, answer: DnsMessage, now: number): void {
    assert(answer.edns === null, 'EDNS belongs to one exchange and is not remembered')
    const seconds = this.#lifetime(answer)
    if (seconds <= 0 || this.#limits.maxEntries === 0) return
    const bytes = answer.bytes.slice()
    const view = new DataView(bytes.buffer)
    view.setUint16(0, 0)
    const { minTtlSeconds, maxTtlSeconds } = this.#limits
    for (const { section, ttlAt, ttl } of answer.records) {
      view.setUint32(ttlAt, Math.min(maxTtlSeconds, Math.max(section === 'answer' ? minTtlSeconds : 0, ttl)))
    }
    const ttlOffsets = Uint16Array.from(answer.records, ({ ttlAt }) => ttlAt)
    const cost = bytes.length + 2 * ttlOffsets.length + 2 * key.length + ENTRY_BYTES
    if (cost > this.#limits.maxBytes) return
    const old = this.#entries.get(key)
    if (old) this.#remove(key, old)
    this.#add(key, { bytes, ttlOffsets, storedAt: now, expiresAt: now + seconds * 1000, cost })
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= this.#limits.maxEntries && this.#bytes <= this.#limits.maxBytes) break
      this.#remove(oldest, entry)
    }
  }

  clear(): void {
    this.#entries.clear()
    this.#bytes = 0
  }

  /** Seconds; 0: not to be remembered. */
  #lifetime(answer: DnsMessage): number {
    const { minTtlSeconds, maxTtlSeconds, failureTtlSeconds } = this.#limits
    if (answer.question === null || (answer.flags & Flag.truncated) !== 0) return 0
    if (answer.rcode === Rcode.servFail) return failureTtlSeconds
    if (answer.rcode !== Rcode.noError && answer.rcode !== Rcode.nxDomain) return 0
    const { type } = answer.question
    let seconds = Number.POSITIVE_INFINITY
    for (const record of answer.records) {
      if (record.section === 'answer') seconds = Math.min(seconds, Math.max(minTtlSeconds, record.ttl))
    }
    const found = answer.records.some((record) => record.section === 'answer' && record.type === type)
    if (answer.rcode === Rcode.nxDomain || !found) seconds = Math.min(seconds, this.#negativeLifetime(answer))
    return Math.min(seconds, maxTtlSeconds)
  }

  /** RFC 2308 §5: as the SOA record says; without one, not at all. */
  #negativeLifetime(answer: DnsMessage): number {
    const soa = answer.records.find(({ section, type }) => section === 'authority' && type === DnsType.SOA)
    if (!soa) return 0
    try {
      return Math.min(soa.ttl, soaMinimum(answer, soa), this.#limits.maxNegativeTtlSeconds)
    } catch {
      return 0
    }
  }

  #add(key: string, entry: Entry): void {
    this.#entries.set(key, entry)
    this.#bytes += entry.cost
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key)
    this.#bytes -= entry.cost
  }
}
