import { MalformedError, type NodeId } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { type AddResult, type RefusalReason, type RelayEntry, refused } from './add-result.ts'
import { Admission, type Claim, type Tier, type TierChanges } from './admission.ts'
import { Ages } from './ages.ts'
import { Buckets, relayTag, shortDigest } from './buckets.ts'
import type { Descriptor, ServingRole, SignedDescriptor } from './descriptor.ts'
import { DESCRIPTOR_BYTES_MAX, decodeDescriptor, type UnverifiedDescriptor } from './descriptor-codec.ts'
import { type Census, type EligibilityVerdict, hasRole, judgeAge, takeCensus } from './eligibility.ts'
import { judgeDescriptor } from './known-rules.ts'
import { MeasuredRates } from './measured-rates.ts'
import { type NetworkRules, networkId } from './rules.ts'

/** Runners-up that wait, in all and beyond the cap of one group. */
export const RESERVE_MAX = 2_048
export const RESERVE_PER_GROUP_MAX = 8
/** Changes that `changesSince` can tell. */
export const CHANGES_MAX = 8_192
/** Digests of refused descriptors that are remembered, and for how long, so that they are neither verified nor fetched again. */
export const REFUSED_MAX = 4_096
export const REFUSED_MEMORY_MS = 10 * 60_000
/** Relays whose descriptor has expired, kept as places where the network may be found again. */
export const STALE_MAX = 512
/** Identities that were caught with two descriptors of one sequence number. */
export const EQUIVOCATIONS_MAX = 256
/** How often the eligible set is looked at anew, at most, because time has passed. */
const ELIGIBLE_GRANULARITY_MS = 1_000

/** A change of the known tier. */
export interface ViewChange {
  readonly id: NodeId
  readonly kind: 'added' | 'replaced' | 'removed'
}

export interface ViewOptions {
  readonly suite: CryptoSuite
  readonly rules: NetworkRules
  /** Decodes a descriptor; a simulation shares one memory of decoded and verified ones among its nodes. */
  readonly decode?: (bytes: Uint8Array) => UnverifiedDescriptor
}

interface Entry {
  readonly id: NodeId
  readonly descriptor: Descriptor
  readonly signed: SignedDescriptor
  tier: Tier
  readonly tag: string
}

/** What is eligible, and for how long that holds unless the view changes. */
interface EligibleState {
  readonly version: number
  readonly at: number
  until: number
  readonly census: Census
  /** By role; the empty text is any role. */
  readonly sets: Map<string, readonly RelayEntry[]>
}

/**
 * All descriptors a node knows, in two tiers. *Known* is the same for all who have heard of the same descriptors, in whatever order;
 * *eligible* is what this node uses for its own paths. `now` is always wall-clock milliseconds. Pure: nothing happens but in a call.
 */
export class View {
  readonly rules: NetworkRules
  readonly networkId: Uint8Array
  readonly ages: Ages
  /** Digests of the known tier, for comparing views. */
  readonly buckets: Buckets
  readonly #suite: CryptoSuite
  readonly #decode: (bytes: Uint8Array) => UnverifiedDescriptor
  readonly #entries = new Map<NodeId, Entry>()
  readonly #byDigest = new Map<string, Entry>()
  readonly #admission: Admission
  readonly #measured: MeasuredRates
  readonly #refused = new Map<string, { readonly reason: RefusalReason; readonly until: number }>()
  readonly #stale = new Map<NodeId, SignedDescriptor>()
  readonly #equivocations = new Set<NodeId>()
  readonly #changes: (ViewChange & { readonly version: number })[] = []
  #version = 0
  /** Changes after this version are all in the log. */
  #changesFrom = 0
  #known: readonly RelayEntry[] | null = null
  #knownCount = 0
  #eligible: EligibleState | null = null

  constructor(options: ViewOptions) {
    const { suite, rules } = options
    this.rules = rules
    this.networkId = networkId(suite, rules)
    this.#suite = suite
    this.#decode = options.decode ?? decodeDescriptor
    this.buckets = new Buckets(suite)
    this.ages = new Ages(4 * rules.admission.maxRelays)
    this.#measured = new MeasuredRates(rules, rules.admission.maxRelays)
    this.#admission = new Admission({
      maxRelays: rules.admission.maxRelays,
      maxReserve: RESERVE_MAX,
      reservePerGroup: RESERVE_PER_GROUP_MAX,
    })
  }

  /** Grows with every change that may matter to a path: known relays, weights. */
  get version(): number {
    return this.#version
  }

  /** Descriptors of the last minutes that were refused for their times alone: many of one kind mean that this clock is wrong. */
  refusedForTime(now: number): { readonly future: number; readonly expired: number } {
    const counts = { future: 0, expired: 0 }
    for (const { reason, until } of this.#refused.values())
      if (until > now && (reason === 'future' || reason === 'expired')) counts[reason]++
    return counts
  }

  /** Number of known relays. */
  get size(): number {
    return this.#knownCount
  }

  get reserveSize(): number {
    return this.#entries.size - this.#knownCount
  }

  /** Identities that signed two descriptors with one sequence number. */
  get equivocations(): ReadonlySet<NodeId> {
    return this.#equivocations
  }

  /**
   * Takes a descriptor in, or says why not. Cheap reasons come before the signature. Bytes are borrowed.
   * @param only when given, descriptors of other identities are refused
   */
  add(bytes: Uint8Array, now: number, only?: NodeId): AddResult {
    if (bytes.length > DESCRIPTOR_BYTES_MAX) return refused('malformed', `has ${bytes.length} bytes, more than ${DESCRIPTOR_BYTES_MAX}`)
    const digest = shortDigest(this.#suite.sha256(bytes))
    const present = this.#byDigest.get(digest)
    if (present) return { type: 'duplicate', entry: present }
    const before = this.#refused.get(digest)
    if (before && before.until > now) return refused(before.reason, 'refused before')
    const result = this.#addNew(bytes, now, only)
    if (result.type === 'refused' && result.reason !== 'foreign') this.#rememberRefused(digest, result.reason, now)
    return result
  }

  #addNew(bytes: Uint8Array, now: number, only: NodeId | undefined): AddResult {
    let unverified: UnverifiedDescriptor
    try {
      unverified = this.#decode(bytes)
    } catch (error) {
      return refusedMalformed(error)
    }
    const { descriptor } = unverified
    if (only !== undefined && descriptor.id !== only) return refused('foreign', 'of another relay')
    const existing = this.#entries.get(descriptor.id)
    if (existing && existing.descriptor.sequence > descriptor.sequence) return { type: 'older', equivocation: false }
    const claim = judgeDescriptor(this.#suite, this.rules, this.networkId, descriptor, now)
    if ('reason' in claim) return claim
    let signed: SignedDescriptor
    try {
      signed = unverified.verify(this.#suite)
    } catch (error) {
      return refusedMalformed(error)
    }
    if (existing && existing.descriptor.sequence === descriptor.sequence) {
      // Two editions with one number, both signed: everybody keeps the one with the lower digest, whichever came first.
      if (this.#equivocations.size < EQUIVOCATIONS_MAX) this.#equivocations.add(descriptor.id)
      if (Buffer.compare(existing.signed.digest, signed.digest) < 0) return { type: 'older', equivocation: true }
    }
    return this.#insert(signed, claim, existing, now)
  }

  /**
   * Why a descriptor would be refused for what it is (without asking for room), or null; takes nothing in. Bytes are borrowed.
   * @param only the identity it must be of
   */
  inspect(bytes: Uint8Array, now: number, only: NodeId): RefusalReason | 'older' | null {
    try {
      const unverified = this.#decode(bytes)
      if (unverified.descriptor.id !== only) return 'foreign'
      const held = this.#entries.get(only)
      if (held && held.descriptor.sequence > unverified.descriptor.sequence) return 'older'
      const claim = judgeDescriptor(this.#suite, this.rules, this.networkId, unverified.descriptor, now)
      if ('reason' in claim) return claim.reason
      unverified.verify(this.#suite)
      return null
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      return 'malformed'
    }
  }

  /** The sequence number in a descriptor of the right form. @throws MalformedError */
  sequenceOf(bytes: Uint8Array): number {
    return this.#decode(bytes).descriptor.sequence
  }

  #insert(signed: SignedDescriptor, claim: Claim, existing: Entry | undefined, now: number): AddResult {
    const { id } = claim
    const tag = existing?.tag ?? relayTag(this.#suite, id)
    this.ages.see(id, tag, now)
    const changes = this.#admission.insert(claim)
    const tier = changes.get(id) ?? null
    changes.delete(id)
    if (existing) this.#byDigest.delete(shortDigest(existing.signed.digest))
    if (tier === null) {
      if (existing) this.#remove(existing)
      this.#applyTiers(changes)
      return refused('crowded', 'too many relays with more work at its address or in its network')
    }
    const entry: Entry = { id, descriptor: signed.descriptor, signed, tier, tag }
    this.#entries.set(id, entry)
    this.#byDigest.set(shortDigest(signed.digest), entry)
    this.#stale.delete(id)
    if (existing?.tier === 'known' && tier === 'reserve') this.#leaveKnown(entry)
    else if (tier === 'known') this.#enterKnown(entry, existing?.tier === 'known' ? 'replaced' : 'added')
    this.#applyTiers(changes)
    return { type: existing ? 'replaced' : 'added', entry }
  }

  /** Carries out what an admission did to other relays. */
  #applyTiers(changes: TierChanges): void {
    for (const [id, tier] of changes) {
      const entry = this.#entries.get(id)
      if (!entry || entry.tier === tier) continue
      if (tier === null) {
        this.#byDigest.delete(shortDigest(entry.signed.digest))
        this.#remove(entry)
      } else if (tier === 'known') {
        entry.tier = tier
        this.#enterKnown(entry, 'added')
      } else {
        entry.tier = tier
        this.#leaveKnown(entry)
      }
    }
  }

  #enterKnown(entry: Entry, kind: 'added' | 'replaced'): void {
    this.buckets.set({ tag: entry.tag, sequence: entry.descriptor.sequence, digest: shortDigest(entry.signed.digest) })
    if (kind === 'added') this.#knownCount++
    this.#change(entry.id, kind)
  }

  #leaveKnown(entry: Entry): void {
    this.buckets.delete(entry.tag)
    this.#knownCount--
    this.#change(entry.id, 'removed')
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.id)
    if (entry.tier === 'known') this.#leaveKnown(entry)
  }

  #change(id: NodeId, kind: ViewChange['kind']): void {
    this.#touch()
    this.#changes.push({ id, kind, version: this.#version })
    if (this.#changes.length > 2 * CHANGES_MAX) {
      this.#changesFrom = this.#changes[CHANGES_MAX - 1]!.version
      this.#changes.splice(0, CHANGES_MAX)
    }
    this.#known = null
  }

  #touch(): void {
    this.#version++
  }

  /** Removes what has expired and lets runners-up in. Call it now and then. Returns how many were removed. */
  expire(now: number): number {
    const expired = [...this.#entries.values()].filter((entry) => entry.descriptor.expiresAt <= now)
    for (const entry of expired) {
      const changes = this.#admission.remove(entry.id)
      this.#byDigest.delete(shortDigest(entry.signed.digest))
      this.#remove(entry)
      this.noteStale(entry.signed)
      this.#applyTiers(changes)
    }
    for (const [digest, { until }] of this.#refused) if (until <= now) this.#refused.delete(digest)
    this.ages.forget(now)
    return expired.length
  }

  /** The relay, known or in reserve. */
  get(id: NodeId): RelayEntry | undefined {
    return this.#entries.get(id)
  }

  /** Whether the relay is known: what a relay extends to, and whom an exit serves. */
  isKnown(id: NodeId): boolean {
    return this.#entries.get(id)?.tier === 'known'
  }

  /** All known relays. The array is shared until the next change: read only. */
  relays(): readonly RelayEntry[] {
    if (!this.#known) this.#known = [...this.#entries.values()].filter((entry) => entry.tier === 'known')
    return this.#known
  }

  /** Every descriptor held, reserve included: for the disk. */
  entries(): IterableIterator<RelayEntry> {
    return this.#entries.values()
  }

  /**
   * Relays that may be used for one's own paths, in that role (or in any). The array is shared until `version` or the time changes it: read only.
   */
  eligible(now: number, role: ServingRole | null = null): readonly RelayEntry[] {
    const state = this.#eligibleState(now)
    const key = role ?? ''
    let set = state.sets.get(key)
    if (!set) {
      set = this.relays().filter((entry) => {
        const verdict = this.#verdict(entry, now, role, state.census)
        if (!verdict.eligible && verdict.until !== null && verdict.until < state.until)
          state.until = Math.max(verdict.until, state.at + ELIGIBLE_GRANULARITY_MS)
        return verdict.eligible
      })
      state.sets.set(key, set)
    }
    return set
  }

  /** Whether a relay may be used for one's own paths, and if not, why. */
  eligibility(id: NodeId, now: number, role: ServingRole | null = null): EligibilityVerdict {
    const entry = this.#entries.get(id)
    if (!entry) return { eligible: false, reason: 'unknown', until: null }
    if (entry.tier === 'reserve') return { eligible: false, reason: 'reserve', until: null }
    return this.#verdict(entry, now, role, this.#eligibleState(now).census)
  }

  #verdict(entry: RelayEntry, now: number, role: ServingRole | null, census: Census): EligibilityVerdict {
    if (entry.descriptor.expiresAt <= now) return { eligible: false, reason: 'expired', until: null }
    if (entry.descriptor.leaving) return { eligible: false, reason: 'leaving', until: null }
    if (!hasRole(entry.descriptor, role)) return { eligible: false, reason: 'role', until: null }
    return judgeAge(this.ages.since(entry.id) ?? now, role, census, this.rules, now)
  }

  #eligibleState(now: number): EligibleState {
    const kept = this.#eligible
    if (kept && kept.version === this.#version && kept.at <= now && now < kept.until) return kept
    const relays = this.relays()
    let until = Number.POSITIVE_INFINITY
    for (const { descriptor } of relays) if (descriptor.expiresAt > now && descriptor.expiresAt < until) until = descriptor.expiresAt
    const census = takeCensus(
      relays.map((entry) => this.ages.since(entry.id) ?? now),
      this.rules,
      now,
    )
    const fresh = { version: this.#version, at: now, until: Math.max(until, now + ELIGIBLE_GRANULARITY_MS), census, sets: new Map() }
    this.#eligible = fresh
    return fresh
  }

  /** How much a relay counts when a path is drawn, bytes a second: the lower of its claim and its cap. 0 when it is not known. */
  weight(id: NodeId): number {
    const entry = this.#entries.get(id)
    return entry?.tier === 'known' ? Math.min(entry.descriptor.bandwidth, this.#measured.cap(id)) : 0
  }

  /** How long the relay has been known, ms, or null. */
  ageMs(id: NodeId, now: number): number | null {
    const since = this.ages.since(id)
    return since === null ? null : Math.max(0, now - since)
  }

  /** That many bytes a second went through the relay: it may count for more than an unmeasured one. */
  noteMeasured(id: NodeId, bytesPerSecond: number): void {
    if (this.#entries.has(id) && this.#measured.measure(id, bytesPerSecond)) this.#touch()
  }

  /** Takes in the ages (ms by tag) that another node tells, while this one is fresh. */
  hearAges(source: NodeId, ages: ReadonlyMap<string, number>, now: number): boolean {
    const taken = this.ages.hear(source, ages, now)
    if (taken) this.#touch()
    return taken
  }

  /** Changes of the known tier after a version, or null when they are not remembered any more: then look at `relays()`. */
  changesSince(version: number): readonly ViewChange[] | null {
    if (version < this.#changesFrom) return null
    let at = this.#changes.length
    while (at > 0 && this.#changes[at - 1]!.version > version) at--
    return this.#changes.slice(at)
  }

  /** The known relay whose descriptor has this short digest. */
  byDigest(digest: string): RelayEntry | undefined {
    return this.#byDigest.get(digest)
  }

  /** Whether a descriptor that a peer lists is worth fetching. */
  wants(tag: string, sequence: number, digest: string, now: number): boolean {
    if (this.#byDigest.has(digest)) return false
    const before = this.#refused.get(digest)
    if (before && before.until > now) return false
    const held = this.buckets.get(tag)
    return !held || held.sequence <= sequence
  }

  /** Relays whose descriptors have expired: places where the network may be found again, newest last. */
  stale(): readonly SignedDescriptor[] {
    return [...this.#stale.values()]
  }

  /** Keeps an expired descriptor as such a place. */
  noteStale(signed: SignedDescriptor): void {
    if (this.#entries.has(signed.descriptor.id)) return
    this.#stale.delete(signed.descriptor.id)
    this.#stale.set(signed.descriptor.id, signed)
    const oldest = this.#stale.size > STALE_MAX ? this.#stale.keys().next().value : undefined
    if (oldest !== undefined) this.#stale.delete(oldest)
  }

  #rememberRefused(digest: string, reason: RefusalReason, now: number): void {
    this.#refused.delete(digest)
    this.#refused.set(digest, { reason, until: now + REFUSED_MEMORY_MS })
    const oldest = this.#refused.size > REFUSED_MAX ? this.#refused.keys().next().value : undefined
    if (oldest !== undefined) this.#refused.delete(oldest)
  }
}

function refusedMalformed(error: unknown): AddResult {
  if (!(error instanceof MalformedError)) throw error
  return refused('malformed', error.message)
}
