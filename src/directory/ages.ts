import type { NodeId } from '../base/index.ts'

/** Most other nodes whose word on ages is asked for. */
export const AGE_SOURCES_MAX = 5
/** How long an identity that is in no valid descriptor any more is still remembered. */
export const AGE_MEMORY_MS = 30 * 24 * 60 * 60_000

/** When an identity was first seen here, and when last (wall-clock ms). */
export interface AgeRecord {
  readonly id: NodeId
  /** The 8-byte tag of the identity in hex: what the wire calls it. */
  readonly tag: string
  first: number
  last: number
  /** First-seen time by what others say, or null. Only nodes that just joined have it; see docs/decisions/2026-11-20-ages-for-a-fresh-node.md */
  heard: number | null
}

/**
 * How long each identity has been known. A node that just joined has seen nobody before, so once, at its very first start, it asks several nodes and
 * believes of each relay the lower median of what they say, so that a minority of liars makes no relay old.
 */
export class Ages {
  readonly #most: number
  readonly #records = new Map<NodeId, AgeRecord>()
  readonly #sources = new Map<NodeId, ReadonlyMap<string, number>>()
  #closed = false

  /** @param most identities remembered; beyond it the one not seen for longest is forgotten */
  constructor(most: number) {
    this.#most = most
  }

  get size(): number {
    return this.#records.size
  }

  /** Whether the word of another node is still asked for. */
  get wantsHearsay(): boolean {
    return !this.#closed && this.#sources.size < AGE_SOURCES_MAX
  }

  get sources(): readonly NodeId[] {
    return [...this.#sources.keys()]
  }

  /** Notes that the identity is in a valid descriptor now. */
  see(id: NodeId, tag: string, now: number): AgeRecord {
    let record = this.#records.get(id)
    if (record) {
      record.last = Math.max(record.last, now)
      return record
    }
    record = { id, tag, first: now, last: now, heard: this.#median(tag) }
    this.#records.set(id, record)
    if (this.#records.size > this.#most) this.#forgetOldest()
    return record
  }

  get(id: NodeId): AgeRecord | undefined {
    return this.#records.get(id)
  }

  /** Wall-clock ms since which the identity counts as known: the earlier of our own observation and what was heard. */
  since(id: NodeId): number | null {
    const record = this.#records.get(id)
    if (!record) return null
    return record.heard === null ? record.first : Math.min(record.first, record.heard)
  }

  /** Takes in the ages (ms, by tag) that another node tells. Does nothing once enough were heard. Returns whether it was taken. */
  hear(source: NodeId, ages: ReadonlyMap<string, number>, now: number): boolean {
    if (!this.wantsHearsay || this.#sources.has(source)) return false
    const since = new Map<string, number>()
    for (const [tag, age] of ages) since.set(tag, now - age)
    this.#sources.set(source, since)
    for (const record of this.#records.values()) record.heard = this.#median(record.tag)
    return true
  }

  /** From here on only own observation counts for relays that appear; what was heard of the others stays. */
  closeHearsay(): void {
    this.#closed = true
    this.#sources.clear()
  }

  /** Puts a record back that was kept on disk. */
  restore(record: AgeRecord): void {
    this.#records.set(record.id, record)
    if (this.#records.size > this.#most) this.#forgetOldest()
  }

  forget(now: number): void {
    for (const record of this.#records.values()) if (record.last < now - AGE_MEMORY_MS) this.#records.delete(record.id)
  }

  records(): IterableIterator<AgeRecord> {
    return this.#records.values()
  }

  /** The lower median over all sources: one that does not know the relay says it is new. */
  #median(tag: string): number | null {
    if (this.#sources.size === 0) return null
    const times: number[] = []
    for (const source of this.#sources.values()) times.push(source.get(tag) ?? Number.POSITIVE_INFINITY)
    times.sort((a, b) => b - a)
    // Later means younger; with an even number of sources the younger of the middle two.
    const median = times[Math.floor((times.length - 1) / 2)]!
    return Number.isFinite(median) ? median : null
  }

  #forgetOldest(): void {
    let oldest: AgeRecord | null = null
    for (const record of this.#records.values()) if (!oldest || record.last < oldest.last) oldest = record
    if (oldest) this.#records.delete(oldest.id)
  }
}
