import { formatIp, type IpAddress } from '../../base/index.ts'
import type { Endpoint, FilteringBehaviour, MappingBehaviour, NatBehaviour } from '../behaviour.ts'
import { formatEndpoint, sameEndpoint, sameIp } from './endpoint.ts'

/** A server said where it saw a request come from that was sent to `to`. */
export interface MappingObservation {
  /** Which server's, as an index: one IP address is one server, and its second address is still the same server. */
  readonly server: number
  readonly to: Endpoint
  readonly mapped: Endpoint
}

/** What came of asking a server to answer from where nothing had been sent to: another address, or another port of the same address. */
export interface FilteringObservation {
  readonly server: number
  readonly from: 'other-address' | 'other-port'
  readonly outcome: 'answered' | 'silent' | 'unable'
}

/** All that one run of tests over one socket saw. */
export interface StunObservations {
  readonly family: 4 | 6
  /** Where the socket is bound; its address may be a wildcard. */
  readonly local: Endpoint
  /** This machine's own addresses. */
  readonly localAddresses: readonly IpAddress[]
  /** How many servers were asked. */
  readonly servers: number
  /** In the order in which they came: the first of a server is what it said at its first address and port. */
  readonly mappings: readonly MappingObservation[]
  readonly filterings: readonly FilteringObservation[]
  /** Whether a packet to the own public endpoint came back. */
  readonly hairpin: boolean | null
  readonly bindingLifetimeMs: number | null
}

/** believed: the majority says so; alone: nobody else confirms or denies it; lying: it says something else than the majority. */
export type StunVerdict = 'believed' | 'silent' | 'lying' | 'alone'

/** A NAT in plain words. `cone`: mapping does not depend on the destination, whom it lets in was not found out. `unknown`: too little was. */
export type NatKind =
  | 'no NAT'
  | 'full cone'
  | 'address-restricted cone'
  | 'port-restricted cone'
  | 'cone'
  | 'symmetric'
  | 'firewall'
  | 'blocked'
  | 'unknown'

export interface Classification {
  readonly behaviour: NatBehaviour
  readonly kind: NatKind
  /** One per server. */
  readonly verdicts: readonly StunVerdict[]
  /** What was not found out, and what was strange: plain sentences. */
  readonly notes: readonly string[]
}

/** What the observations say of the NAT between this machine and the servers. Pure. RFC 5780 §4.3 and §4.4, over several servers. */
export function classify(seen: StunObservations): Classification {
  const notes: string[] = []
  const firsts = firstOfEach(seen)
  const { verdicts, believed, isAgreed } = judge(seen, firsts, notes)
  const publicEndpoint = isAgreed ? mostCommon(believed.map(({ mapped }) => mapped)).endpoint : null
  const trusted = seen.mappings.filter(({ server }) => verdicts[server] === 'believed' || verdicts[server] === 'alone')
  const mapping = publicEndpoint === null ? null : findMapping(seen, trusted, believed, publicEndpoint, notes)
  const filterings = seen.filterings.filter(({ server }) => verdicts[server] !== 'lying')
  const filtering = publicEndpoint === null ? null : findFiltering(filterings, notes)
  const behaviour: NatBehaviour = {
    family: seen.family,
    publicEndpoint,
    mapping,
    filtering,
    portPreserved: publicEndpoint === null ? null : believed.every(({ mapped }) => mapped.port === seen.local.port),
    hairpin: mapping === 'none' ? null : seen.hairpin,
    bindingLifetimeMs: seen.bindingLifetimeMs,
  }
  return { behaviour, kind: natKind(behaviour, firsts.length > 0), verdicts, notes }
}

/** The kind that fits a behaviour. @param anyAnswer whether any server answered at all */
export function natKind({ mapping, filtering, publicEndpoint }: NatBehaviour, anyAnswer: boolean): NatKind {
  if (publicEndpoint === null) return anyAnswer ? 'unknown' : 'blocked'
  switch (mapping) {
    case null:
      return 'unknown'
    case 'none':
      return filtering === null || filtering === 'endpoint-independent' ? 'no NAT' : 'firewall'
    case 'endpoint-independent':
      if (filtering === null) return 'cone'
      if (filtering === 'endpoint-independent') return 'full cone'
      return filtering === 'address-dependent' ? 'address-restricted cone' : 'port-restricted cone'
    default:
      return 'symmetric'
  }
}

/** What each server said first, of those that answered. */
function firstOfEach(seen: StunObservations): MappingObservation[] {
  return seen.mappings.filter((one, i) => seen.mappings.findIndex(({ server }) => server === one.server) === i)
}

interface Judgement {
  readonly verdicts: StunVerdict[]
  /** First observations that count. */
  readonly believed: readonly MappingObservation[]
  /** Whether they agree on the public address. */
  readonly isAgreed: boolean
}

/**
 * More than half of those that answered must say the same address; more than half of these, and at least two, the same port: then whoever says another is
 * lying. Where every port differs nobody is, since a symmetric NAT looks like that. One server's word stands alone.
 */
function judge(seen: StunObservations, firsts: readonly MappingObservation[], notes: string[]): Judgement {
  const verdicts: StunVerdict[] = Array.from({ length: seen.servers }, () => 'silent')
  const say = (all: readonly MappingObservation[], verdict: StunVerdict): void => {
    for (const { server } of all) verdicts[server] = verdict
  }
  if (firsts.length < 2) {
    say(firsts, 'alone')
    if (firsts.length === 1) notes.push('Only one STUN server answered: nobody confirms what it said.')
    return { verdicts, believed: firsts, isAgreed: firsts.length === 1 }
  }
  const groups = Map.groupBy(firsts, ({ mapped }) => formatIp(mapped.ip))
  const majority = [...groups.values()].find((group) => group.length * 2 > firsts.length)
  if (majority === undefined) {
    say(firsts, 'alone')
    notes.push(
      'The STUN servers name different public addresses and none has a majority: several of them lie, or there are several ways out.',
    )
    return { verdicts, believed: [], isAgreed: false }
  }
  const common = mostCommon(majority.map(({ mapped }) => mapped))
  const hasPort = common.count >= 2 && common.count * 2 > majority.length
  const believed = hasPort ? majority.filter(({ mapped }) => sameEndpoint(mapped, common.endpoint)) : majority
  say(firsts, 'lying')
  say(believed, 'believed')
  return { verdicts, believed, isAgreed: true }
}

function findMapping(
  seen: StunObservations,
  trusted: readonly MappingObservation[],
  believed: readonly MappingObservation[],
  publicEndpoint: Endpoint,
  notes: string[],
): MappingBehaviour | null {
  if (believed.every(({ mapped }) => isLocal(mapped, seen))) return 'none'
  const onAddress = dependsOnAddress(trusted, believed, publicEndpoint)
  const onPort = dependsOnPort(trusted)
  if (onPort === true) return 'address-and-port-dependent'
  if (onAddress === true) {
    if (onPort === false) return 'address-dependent'
    notes.push('Whether the mapping also depends on the port of the destination was not found out; the worse is assumed.')
    return 'address-and-port-dependent'
  }
  if (onAddress === false) return 'endpoint-independent'
  notes.push('How the mapping depends on the destination was not found out: that takes two STUN servers, or one with two addresses.')
  return null
}

/** Whether other destination addresses see another public endpoint; null without two of them. */
function dependsOnAddress(
  trusted: readonly MappingObservation[],
  believed: readonly MappingObservation[],
  publicEndpoint: Endpoint,
): boolean | null {
  if (believed.length > 1) return !believed.every(({ mapped }) => sameEndpoint(mapped, publicEndpoint))
  // A single server, at both its addresses; the same port first, as in test II of RFC 5780 §4.3.
  const first = believed[0]!
  const elsewhere = trusted.filter(({ to }) => !sameIp(to.ip, first.to.ip))
  const second = elsewhere.find(({ to }) => to.port === first.to.port) ?? elsewhere[0]
  return second === undefined ? null : !sameEndpoint(second.mapped, first.mapped)
}

/** Whether other ports of one address see another public endpoint: what most pairs of observations say; null without any. */
function dependsOnPort(trusted: readonly MappingObservation[]): boolean | null {
  let same = 0
  let other = 0
  for (const [i, a] of trusted.entries()) {
    for (const b of trusted.slice(i + 1)) {
      if (a.to.port === b.to.port || !sameIp(a.to.ip, b.to.ip)) continue
      if (sameEndpoint(a.mapped, b.mapped)) same++
      else other++
    }
  }
  return same + other === 0 ? null : other >= same
}

/** An answer that came is proof, whoever sent it; silence counts only when nobody's answer came. RFC 5780 §4.4 */
function findFiltering(filterings: readonly FilteringObservation[], notes: string[]): FilteringBehaviour | null {
  const has = (from: FilteringObservation['from'], outcome: FilteringObservation['outcome']): boolean =>
    filterings.some((one) => one.from === from && one.outcome === outcome)
  if (has('other-address', 'answered')) return 'endpoint-independent'
  if (has('other-address', 'silent')) {
    if (has('other-port', 'answered')) return 'address-dependent'
    if (has('other-port', 'silent')) return 'address-and-port-dependent'
    notes.push('It lets in only whom it knows; whether by address or by address and port was not found out.')
    return null
  }
  if (has('other-port', 'answered')) {
    notes.push(
      'It lets in any port of an address it knows; whether strangers come in too was not found out: that takes a STUN server with two addresses.',
    )
    return null
  }
  if (has('other-port', 'silent')) return 'address-and-port-dependent'
  notes.push('Whom it lets in was not found out: no STUN server could answer from elsewhere.')
  return null
}

function isLocal(mapped: Endpoint, { local, localAddresses }: StunObservations): boolean {
  return mapped.port === local.port && [local.ip, ...localAddresses].some((ip) => sameIp(ip, mapped.ip))
}

/** The first of the most frequent. */
function mostCommon(endpoints: readonly Endpoint[]): { endpoint: Endpoint; count: number } {
  let best = { endpoint: endpoints[0]!, count: 0 }
  for (const group of Map.groupBy(endpoints, formatEndpoint).values()) {
    if (group.length > best.count) best = { endpoint: group[0]!, count: group.length }
  }
  return best
}
