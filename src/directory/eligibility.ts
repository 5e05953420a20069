import type { Descriptor, ServingRole } from './descriptor.ts'
import type { NetworkRules } from './rules.ts'

/** Why a relay is not used for one's own paths. */
export type Ineligible =
  | 'unknown' // not in the view
  | 'reserve' // in the view only as a runner-up
  | 'expired'
  | 'role' // does not have the role in question
  | 'leaving' // says itself that it is about to end
  | 'too-new' // not known for long enough
  | 'burst' // came with too many others at once

export type EligibilityVerdict =
  | { readonly eligible: true }
  | {
      readonly eligible: false
      readonly reason: Ineligible /** Wall ms when it may change by itself, or null. */
      readonly until: number | null
    }

/** What the age rules look at: of one relay, and of all known ones together. */
export interface Census {
  /** Wall ms since which the oldest known relay is known. */
  readonly networkSince: number
  /** Known relays in each window of first sight (window number to count). */
  readonly cohorts: ReadonlyMap<number, number>
  /** Known relays first seen before a window. */
  readonly before: (window: number) => number
}

/** Counts relays by the window they were first seen in. @param since wall ms of each known relay */
export function takeCensus(since: Iterable<number>, rules: NetworkRules, now: number): Census {
  const { burstWindowMs } = rules.eligibility
  const cohorts = new Map<number, number>()
  let networkSince = now
  for (const time of since) {
    const window = Math.floor(time / burstWindowMs)
    cohorts.set(window, (cohorts.get(window) ?? 0) + 1)
    if (time < networkSince) networkSince = time
  }
  const beforeWindow = new Map<number, number>()
  let total = 0
  for (const window of [...cohorts.keys()].sort((a, b) => a - b)) {
    beforeWindow.set(window, total)
    total += cohorts.get(window)!
  }
  return { networkSince, cohorts, before: (window) => beforeWindow.get(window) ?? total }
}

/**
 * The age and growth rules. In a network younger than the rules ask for, half of the network's own age is enough:
 * there is nobody older to prefer, and its oldest relay ages with it.
 */
export function judgeAge(since: number, role: ServingRole | null, census: Census, rules: NetworkRules, now: number): EligibilityVerdict {
  const { minAgeMs, guardMinAgeMs, burstWindowMs, burstFloor, burstFraction, burstAgeMs } = rules.eligibility
  const half = Math.max(0, (now - census.networkSince) / 2)
  const age = now - since
  const wanted = role === 'guard' ? Math.max(minAgeMs, guardMinAgeMs) : minAgeMs
  if (age < Math.min(wanted, half)) return { eligible: false, reason: 'too-new', until: latest(since, wanted, census.networkSince) }
  const window = Math.floor(since / burstWindowMs)
  const cohort = census.cohorts.get(window) ?? 0
  const allowed = Math.max(burstFloor, burstFraction * census.before(window))
  if (cohort > allowed && age < Math.min(burstAgeMs, half)) {
    return { eligible: false, reason: 'burst', until: latest(since, burstAgeMs, census.networkSince) }
  }
  return { eligible: true }
}

/** When the age is reached at the latest: `since + wanted`, or, in a young network, when the relay is half as old as the network. */
function latest(since: number, wanted: number, networkSince: number): number {
  return Math.min(since + wanted, 2 * since - networkSince)
}

/** Whether a descriptor has the role that a position needs. */
export function hasRole(descriptor: Descriptor, role: ServingRole | null): boolean {
  return role === null || descriptor.roles.includes(role)
}
