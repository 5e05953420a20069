import { assert, type NodeId } from '../base/index.ts'

/**
 * Which of all valid relays are known, by rules that don't depend on the order they were heard of in (docs/spec/directory.md §3):
 * in the order of their ranks (lowest first), a relay fits if each of its groups (address, network, NAT relay) still has room for it,
 * and the first `maxRelays` of those that fit are known. Runners-up are held in a bounded reserve, so that one takes the place of a relay that leaves.
 */
export interface Claim {
  readonly id: NodeId
  /** Work hash in hex: the smaller, the more was worked for it. Ties go to the lower id. */
  readonly rank: string
  readonly groups: readonly Group[]
}

export interface Group {
  readonly key: string
  readonly cap: number
}

/** `known`: counted in everything; `reserve`: waits for room; `dropped`: no room even to wait. */
export type Tier = 'known' | 'reserve'

export interface AdmissionLimits {
  /** Most known relays. */
  readonly maxRelays: number
  /** Most relays that wait, in all. */
  readonly maxReserve: number
  /** Most relays of one group beyond its cap. */
  readonly reservePerGroup: number
}

/** What one change did to others and itself: the new tier, or null when the relay was dropped. */
export type TierChanges = Map<NodeId, Tier | null>

interface Member {
  readonly claim: Claim
  fits: boolean
  known: boolean
}

export class Admission {
  readonly #limits: AdmissionLimits
  readonly #members = new Map<NodeId, Member>()
  readonly #groups = new Map<string, Set<Member>>()
  /** Members that fit, by rank. The first `maxRelays` are known. */
  readonly #fitting: Member[] = []
  #changes: TierChanges = new Map()

  constructor(limits: AdmissionLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#members.size
  }

  tier(id: NodeId): Tier | null {
    const member = this.#members.get(id)
    return member ? (member.known ? 'known' : 'reserve') : null
  }

  /** Adds a claim, or puts it in the place of the identity's former one. The changes always hold this identity, with null when it was dropped. */
  insert(claim: Claim): TierChanges {
    const former = this.#members.get(claim.id)
    const formerTier = this.tier(claim.id)
    if (former && former.claim.rank === claim.rank && sameGroups(former.claim.groups, claim.groups))
      return new Map([[claim.id, formerTier]])
    if (former) this.#take(former)
    const member: Member = { claim, fits: false, known: false }
    this.#members.set(claim.id, member)
    for (const { key } of claim.groups) {
      const group = this.#groups.get(key)
      if (group) group.add(member)
      else this.#groups.set(key, new Set([member]))
    }
    this.#settle([...(former ? former.claim.groups : []), ...claim.groups], member)
    this.#trim(claim.groups)
    const changes = this.#drain()
    changes.set(claim.id, this.tier(claim.id))
    return changes
  }

  remove(id: NodeId): TierChanges {
    const member = this.#members.get(id)
    if (member) {
      this.#take(member)
      this.#settle(member.claim.groups, null)
    }
    const changes = this.#drain()
    changes.delete(id)
    return changes
  }

  #drain(): TierChanges {
    const changes = this.#changes
    this.#changes = new Map()
    return changes
  }

  /** Removes a member from everything, without looking at who may fit now. */
  #take(member: Member): void {
    this.#setFits(member, false)
    this.#members.delete(member.claim.id)
    for (const { key } of member.claim.groups) {
      const group = this.#groups.get(key)
      group?.delete(member)
      if (group?.size === 0) this.#groups.delete(key)
    }
  }

  /** Decides anew who fits among all whose case may depend on these groups, through groups that are over their caps. */
  #settle(seeds: readonly Group[], added: Member | null): void {
    const affected = new Set<Member>()
    if (added) affected.add(added)
    const seen = new Set<string>()
    const queue: string[] = []
    const visit = (key: string): void => {
      if (seen.has(key)) return
      seen.add(key)
      queue.push(key)
    }
    for (const { key, cap } of seeds) {
      // Below its cap with the newcomer in it, a group has never refused anybody. One that has just lost a member may have.
      const size = this.#groups.get(key)?.size ?? 0
      if (size > cap || (size === cap && !added?.claim.groups.some((group) => group.key === key))) visit(key)
    }
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      for (const member of this.#groups.get(key) ?? []) {
        if (affected.has(member) && member !== added) continue
        affected.add(member)
        for (const group of member.claim.groups) if (this.#isContested(group)) visit(group.key)
      }
    }
    const room = new Map<string, number>()
    for (const member of [...affected].sort(byRank)) {
      let fits = true
      for (const group of member.claim.groups) {
        if (this.#isContested(group) && (room.get(group.key) ?? group.cap) <= 0) fits = false
      }
      if (fits) for (const { key, cap } of member.claim.groups) room.set(key, (room.get(key) ?? cap) - 1)
      this.#setFits(member, fits)
    }
  }

  #isContested(group: Group): boolean {
    return (this.#groups.get(group.key)?.size ?? 0) > group.cap
  }

  #setFits(member: Member, fits: boolean): void {
    if (member.fits === fits) return
    member.fits = fits
    const at = this.#position(member)
    const { maxRelays } = this.#limits
    if (fits) {
      this.#fitting.splice(at, 0, member)
      if (at < maxRelays) this.#setKnown(member, true)
      const pushedOut = this.#fitting[maxRelays]
      if (pushedOut) this.#setKnown(pushedOut, false)
    } else {
      assert(this.#fitting[at] === member, 'a member that fits is in its place')
      this.#fitting.splice(at, 1)
      this.#setKnown(member, false)
      const movedUp = this.#fitting[maxRelays - 1]
      if (movedUp) this.#setKnown(movedUp, true)
    }
  }

  #setKnown(member: Member, known: boolean): void {
    if (member.known === known) return
    member.known = known
    this.#changes.set(member.claim.id, known ? 'known' : 'reserve')
  }

  /** Where a member is in `#fitting`, or would be. */
  #position(member: Member): number {
    let low = 0
    let high = this.#fitting.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (byRank(this.#fitting[middle]!, member) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Drops the last of those who wait where too many do. */
  #trim(groups: readonly Group[]): void {
    const { maxRelays, maxReserve, reservePerGroup } = this.#limits
    for (const { key, cap } of groups) {
      const group = this.#groups.get(key)
      if (group && group.size > cap + reservePerGroup) this.#dropLast(group)
    }
    if (this.#members.size > maxRelays + maxReserve) this.#dropLast(this.#members.values())
  }

  #dropLast(members: Iterable<Member>): void {
    let last: Member | null = null
    for (const member of members) if (!member.known && (!last || byRank(member, last) > 0)) last = member
    if (!last) return
    const heldPlaces = last.fits
    this.#take(last)
    if (heldPlaces) this.#settle(last.claim.groups, null)
    this.#changes.set(last.claim.id, null)
  }
}

function byRank(a: Member, b: Member): number {
  if (a.claim.rank !== b.claim.rank) return a.claim.rank < b.claim.rank ? -1 : 1
  return a.claim.id < b.claim.id ? -1 : a.claim.id > b.claim.id ? 1 : 0
}

function sameGroups(a: readonly Group[], b: readonly Group[]): boolean {
  return a.length === b.length && a.every((group, i) => group.key === b[i]!.key)
}
