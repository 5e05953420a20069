import {
  type CountryCode,
  type CountryOf,
  type IpAddress,
  type IpNetwork,
  type NodeId,
  networkContains,
  parseNetwork,
  parseNodeId,
} from '../base/index.ts'
import { PACKET_VERSION } from '../onion/index.ts'
import type { PathConfig } from './config.ts'
import type { Position, RelayFacts } from './relay-facts.ts'

/** The version of the circuit protocol that this client speaks (`/shallot/circuit/1`). */
export const CIRCUIT_VERSIONS: readonly number[] = [1]
/** The versions of raw packets that this client speaks. */
export const PACKET_VERSIONS: readonly number[] = [PACKET_VERSION]

/**
 * Why a relay can't be at a position of a path. In this order a candidate is held against them, and counted under the first it breaks.
 * The first group is about the relay alone, the second about this request, the third about the relays already chosen.
 */
export const RULES = [
  'role', // does not serve the position
  'not-eligible', // known, but not yet good enough for one's own paths
  'version', // speaks no circuit version of ours
  'no-address', // has no IP address that could be held against the diversity rules
  'not-direct', // behind NAT, and a guard must be reached directly
  'not-punchable', // an exit behind a NAT that nothing can be punched through
  'nat-relay-unknown', // reached through NAT relays none of which is in the view, itself reached directly and in the role
  'excluded-node',
  'excluded-network',
  'excluded-country',
  'country-unknown', // the user chose by country, and nobody knows where it is
  'not-in-exit-nodes', // the user set a strict list of exits
  'not-in-exit-countries', // the user chose where to come out, and it is elsewhere, or in several countries
  'own-node', // this node itself, or one that shares network, family or NAT relay with it
  'no-weight', // has no capacity to offer
  'port', // the exit's policy refuses the port
  'packets', // the exit serves no raw packets
  'not-in-view', // a guard of the sample that the view does not hold
  'set-aside', // failed too often lately
  'excluded-here', // refused this very request before
  'same-node',
  'same-nat-relay', // behind the same NAT relay (known or not), or one is the other's
  'same-network', // the same /16 (IPv4) or /32 (IPv6)
  'same-family', // mutually declared
  'nat-only-last-resort', // only ever reached through its NAT relay, and there is a middle that is not
] as const

export type Rule = (typeof RULES)[number]
/** How many candidates each rule refused. */
export type RuleCounts = Partial<Record<Rule, number>>

/** What holds for every path of this node. */
export interface PathConstraints {
  /** This node itself when it serves as a relay; null for a pure client. */
  readonly self: NodeId | null
  readonly circuitVersions: readonly number[]
  readonly excludeNodes: ReadonlySet<NodeId>
  readonly excludeNetworks: readonly IpNetwork[]
  /** Empty: any exit. */
  readonly exitNodes: ReadonlySet<NodeId>
  readonly excludeCountries: ReadonlySet<CountryCode>
  /** Empty: any. */
  readonly exitCountries: ReadonlySet<CountryCode>
  /** The countries of a relay's addresses, as far as they are known. Asked only where one of the two sets above holds something. */
  readonly countriesOf: (relay: Pick<RelayFacts, 'addresses'>) => readonly CountryCode[]
}

/**
 * The constraints that a configuration means. Its texts have been checked by `pathConfig`.
 * @param self this node's id when it serves as a relay
 * @param countryOf where countries are looked up; each address once
 */
export function constraintsOf(
  config: Pick<PathConfig, 'excludeNodes' | 'excludeNetworks' | 'exitNodes' | 'excludeCountries' | 'exitCountries'>,
  self: NodeId | null = null,
  countryOf: CountryOf = () => null,
): PathConstraints {
  return {
    self,
    circuitVersions: CIRCUIT_VERSIONS,
    excludeNodes: new Set(config.excludeNodes.map(parseNodeId)),
    excludeNetworks: config.excludeNetworks.map(parseNetwork),
    exitNodes: new Set(config.exitNodes.map(parseNodeId)),
    excludeCountries: new Set(config.excludeCountries),
    exitCountries: new Set(config.exitCountries),
    countriesOf: countriesOnce(countryOf),
  }
}

/** Looks the countries of a relay up once: its list of addresses is the same object in every version of the view. */
function countriesOnce(countryOf: CountryOf): PathConstraints['countriesOf'] {
  const known = new WeakMap<readonly IpAddress[], readonly CountryCode[]>()
  return ({ addresses }) => {
    let countries = known.get(addresses)
    if (!countries) {
      countries = [...new Set(addresses.flatMap((address) => countryOf(address) ?? []))]
      known.set(addresses, countries)
    }
    return countries
  }
}

/**
 * A relay fits the network's rules for a position, whatever the user wants: what balances of capacity are reckoned from.
 * @param isInFront whether one of its NAT relays is in the view and can relay
 */
export function networkRule(facts: RelayFacts, position: Position, constraints: PathConstraints, isInFront: boolean): Rule | null {
  if (!facts.positions.includes(position) || (position === 'exit' && !facts.exitPolicy)) return 'role'
  if (!(position === 'guard' ? facts.eligibleAsGuard : facts.eligible)) return 'not-eligible'
  if (!facts.circuitVersions.some((version) => constraints.circuitVersions.includes(version))) return 'version'
  if (facts.networks.length === 0) return 'no-address'
  if (facts.reach === 'direct') return null
  if (position === 'guard') return 'not-direct'
  if (position === 'exit' && facts.reach !== 'punchable') return 'not-punchable'
  return isInFront ? null : 'nat-relay-unknown'
}

/** What the user's configuration says against a relay (or the relays in front of it) at a position. */
export function userRule(facts: RelayFacts, front: readonly RelayFacts[], position: Position, constraints: PathConstraints): Rule | null {
  const { excludeNodes, excludeNetworks, exitNodes } = constraints
  if (excludeNodes.size > 0 && [facts.id, ...facts.via].some((id) => excludeNodes.has(id))) return 'excluded-node'
  const inNetwork = (place: RelayFacts): boolean =>
    place.addresses.some((address) => excludeNetworks.some((network) => networkContains(network, address)))
  if (excludeNetworks.length > 0 && [facts, ...front].some(inNetwork)) return 'excluded-network'
  const country = excludedCountry([facts, ...front], constraints)
  if (country) return country
  if (position !== 'exit') return null
  if (exitNodes.size > 0 && !exitNodes.has(facts.id)) return 'not-in-exit-nodes'
  return exitCountry(facts, constraints)
}

/** One address in an excluded country is enough; and whoever excludes countries does not want a relay that may be in one of them. */
function excludedCountry(places: readonly RelayFacts[], { excludeCountries, countriesOf }: PathConstraints): Rule | null {
  if (excludeCountries.size === 0) return null
  const countries = places.map(countriesOf)
  if (countries.some((of) => of.some((country) => excludeCountries.has(country)))) return 'excluded-country'
  return countries.some((of) => of.length === 0) ? 'country-unknown' : null
}

/** All known addresses must be in the wanted countries: from which of them an exit connects is its own choice. */
function exitCountry(exit: RelayFacts, { exitCountries, countriesOf }: PathConstraints): Rule | null {
  if (exitCountries.size === 0) return null
  const countries = countriesOf(exit)
  if (countries.length === 0) return 'country-unknown'
  return countries.every((country) => exitCountries.has(country)) ? null : 'not-in-exit-countries'
}

/** Adds one refusal. */
export function countRule(counts: RuleCounts, rule: Rule, by = 1): void {
  counts[rule] = (counts[rule] ?? 0) + by
}

/** The rule that took the last candidate: the last, in the order of RULES, that refused any. Null when there was none to refuse. */
export function emptyingRule(counts: RuleCounts): Rule | null {
  return RULES.findLast((rule) => (counts[rule] ?? 0) > 0) ?? null
}
