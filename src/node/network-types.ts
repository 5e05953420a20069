import type { CountryCode, NodeId } from '../base/index.ts'
import type { ServingRole } from '../directory/index.ts'

/** The view and the traffic as the dashboard shows them: plain JSON, as everything of `NodeControl`. */

/** Which relays are wanted. */
export interface RelayQuery {
  readonly role?: ServingRole
  /** "??" for those whose country is not known. */
  readonly country?: CountryCode
  /** Those that follow this id. */
  readonly after?: string
  readonly limit?: number
}

/** A relay of the view, as far as a list of all of them needs. */
export interface RelayBrief {
  readonly id: NodeId
  readonly roles: readonly ServingRole[]
  readonly country: CountryCode | null
  readonly eligible: boolean
  readonly weight: number
  readonly software: string
  readonly firstSeenAt: number
}

export interface RelayPage {
  readonly total: number
  readonly relays: readonly RelayBrief[]
  /** Null at the end. */
  readonly next: NodeId | null
}

export interface Share {
  readonly key: string
  readonly known: number
  readonly eligible: number
}

/** How many relays there were at a time. */
export interface ViewCount {
  readonly at: number
  readonly known: number
  readonly eligible: number
}

export interface NetworkSummary {
  readonly roles: readonly Share[]
  /** The key is "??" where the country is not known; `exits` are the eligible ones there. */
  readonly countries: readonly (Share & { readonly exits: number })[]
  readonly versions: readonly Share[]
  /** One for each minute, oldest first. */
  readonly history: readonly ViewCount[]
}

/** What happened in one second. */
export interface TrafficSample {
  readonly at: number
  /** Payload bytes of this machine's applications. */
  readonly sent: number
  readonly received: number
  /** The round trip of the circuit that the last stream took; null without one. */
  readonly rttMs: number | null
  readonly circuitsBuilt: number
  readonly circuitsFailed: number
  readonly streamsOpen: number
  /** Cells carried for others, and their circuits. */
  readonly cells: number
  readonly circuitsServed: number
  /** As an exit: from servers, and to them. */
  readonly exitBytesIn: number
  readonly exitBytesOut: number
  readonly queuedBytes: number
  readonly rssBytes: number
}
