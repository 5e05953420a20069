import { formatIp, type IpAddress, parseHostPort, parseIp } from '../base/index.ts'
import { addressScope } from '../directory/index.ts'
import { formatTcpAddress, parseTcpAddress, type TcpAddress } from '../link/index.ts'
import { AddressChecks } from './address-checks.ts'
import { type FilteringBehaviour, isPunchable, type NatBehaviour } from './behaviour.ts'
import type { FamilyFacts, MappingFacts, NatFacts, Reachability as ReachState, ReservationFacts, StunServerFacts } from './facts.ts'
import type {
  Announcement,
  DirectSource,
  FamilyView,
  ReachabilityEvent,
  ReachabilityOptions,
  Situation,
  Wants,
} from './reachability-types.ts'
import { adviceFor, kindOf, reasonsFor, servicesFor } from './reachability-words.ts'

/** A relayed descriptor names at most so many relays (docs/spec/descriptor.md). */
export const VIA_MAX = 3
/** A node with a reachable IPv6 address but IPv4 behind NAT waits so long for a relay before it announces IPv6 alone. */
export const IPV6_ONLY_AFTER_MS = 30_000
/** Relays are kept this long after a direct address was found: descriptors that name them are still about. */
export const HOLD_RELAYS_MS = 10 * 60_000
/** STUN is asked again this often, and sooner while nobody answers. */
export const STUN_MS = 30 * 60_000
export const STUN_RETRY_MS = 60_000
/** Peers whose view of our address is remembered. */
const MAX_OBSERVERS = 16

/**
 *                 own public address, operator's word, or a forwarded port that was dialled from outside
 *        ┌───────────────────────────────────────────────────────────────► public ─┐
 *   unknown ── STUN: mapping does not depend on the destination ──► punchable ──┐   │ two failed rounds
 *     ▲  └──── STUN: it does, or no answer at all ───────────────► relayed ──┐  │   │ of dial-backs
 *     │                                                             ▲        │  ▼   ▼
 *     └── the network changed                     dial-backs fail ──┴── mapped ◄── router forwards, and two peers came through
 *
 * The state is a function of the facts that are current, not of the way they came in: the same facts give the same state, and a fact ends
 * by its own time or by a newer one.
 */
export class Reachability {
  readonly #options: ReachabilityOptions
  readonly #checks = new AddressChecks()
  readonly #stun = new Map<4 | 6, StunResult>()
  readonly #observed = new Map<string, IpAddress>()
  #listening: readonly TcpAddress[] = []
  #advertised: readonly TcpAddress[] = []
  #mapping: MappingFacts | null = null
  #mappingProblem: string | null = null
  #reservations: readonly ReservationFacts[] = []
  #punching = { tcp: false, udp: false }
  #families: readonly FamilyView[] = []
  #state: ReachState = 'unknown'
  #since: number
  #announce: Announcement | null = null
  #wants: Wants = { mapping: false, reservations: 0, dialBacks: [], stun: false }
  #deadline: number | null = null
  /** Since when there is no relay. */
  #aloneSince: number
  /** Relays are wanted until then though the node is reached directly. */
  #holdUntil = Number.NEGATIVE_INFINITY

  constructor(options: ReachabilityOptions) {
    this.#options = options
    this.#since = options.now
    this.#aloneSince = options.now
    this.#advertised = this.#usable(options.advertise ?? [])
    this.#settle(options.now)
  }

  get state(): ReachState {
    return this.#state
  }
  /** Wall-clock ms. */
  get since(): number {
    return this.#since
  }
  /** Null as long as there is nothing true to say. */
  get announce(): Announcement | null {
    return this.#announce
  }
  get wants(): Wants {
    return this.#wants
  }
  /** When `tick` has something to do; null: only an event changes anything. */
  get deadline(): number | null {
    return this.#deadline
  }
  /** IPv4 before IPv6; only families that this machine has. */
  get families(): readonly FamilyView[] {
    return this.#families
  }
  get reasons(): readonly string[] {
    return reasonsFor(this.#situation())
  }
  get advice(): readonly string[] {
    return adviceFor(this.#situation())
  }
  /** What the operator should be warned of: an advertised address that nobody can connect to. */
  get warning(): string | null {
    const wrong = this.#families.find(({ direct }) => direct?.source === 'advertised' && direct.check === 'failed')
    return wrong === undefined
      ? null
      : `node.advertise names ${wrong.direct!.address}, but peers that were asked to could not connect to it: check the address, the port and the firewall`
  }

  handle(event: ReachabilityEvent, now: number): void {
    switch (event.type) {
      case 'listening':
        this.#listening = tcpAddresses(event.addresses)
        break
      case 'advertise':
        this.#advertised = this.#usable(event.addresses)
        break
      case 'stun':
        this.#stun.set(event.family, stunResult(this.#stun.get(event.family), event.behaviour, now))
        break
      case 'observed':
        if (this.#isUsable(event.ip)) this.#observe(event.ip, event.network)
        break
      case 'dial-back':
        this.#checks.round(event.address, event.verdicts, event.available, now)
        break
      case 'mapping':
        this.#mapping = event.mapping
        this.#mappingProblem = event.problem
        break
      case 'reservations':
        this.#reservations = event.reservations
        break
      case 'punching':
        this.#punching = { tcp: event.tcp, udp: event.udp }
        break
      case 'network-changed':
        this.#stun.clear()
        this.#observed.clear()
        this.#checks.clear()
        this.#mapping = null
        this.#mappingProblem = null
        break
    }
    this.#settle(now)
  }

  /** To be called at `deadline`: ends what has expired. */
  tick(now: number): void {
    this.#settle(now)
  }

  /** Everything for `shallot netcheck`. @param more what others know: STUN servers asked, what this machine lacks, the roles it has */
  facts(more: { readonly stun: readonly StunServerFacts[]; readonly lost: readonly string[] }): NatFacts {
    const situation = this.#situation()
    return {
      state: this.#state,
      reasons: reasonsFor(situation),
      since: this.#since,
      ipv4: this.#familyFacts(4),
      ipv6: this.#familyFacts(6),
      listening: this.#listening.map((one) => formatTcpAddress(one.host, one.port, false)),
      announced: this.#announce?.addresses ?? [],
      mapping: this.#mapping,
      relays: this.#reservations,
      stun: more.stun,
      serves: servicesFor(situation),
      advice: adviceFor(situation),
      lost: more.lost,
    }
  }

  #situation(): Situation {
    return {
      state: this.#state,
      families: this.#families,
      announce: this.#announce,
      mapping: this.#mapping,
      mappingProblem: this.#mappingProblem,
      mappingEnabled: this.#options.mapping,
      reservations: this.#reservations.length,
      usesRelays: this.#options.reservations > 0,
      punching: this.#punching,
      port: this.#listening[0]?.port ?? null,
      warning: this.warning,
    }
  }

  #familyFacts(family: 4 | 6): FamilyFacts | null {
    const view = this.#families.find((one) => one.family === family)
    if (view === undefined) return null
    const { behaviour, direct } = view
    const endpoint = behaviour?.publicEndpoint ?? null
    return {
      local: view.local.map(({ host, port }) => hostPort(host, port)),
      public: endpoint ? hostPort(formatIp(endpoint.ip), endpoint.port) : view.publicIp ? formatIp(view.publicIp) : null,
      kind: kindOf(view),
      mapping: behaviour?.mapping ?? null,
      filtering: behaviour?.filtering ?? null,
      portPreserved: behaviour?.portPreserved ?? null,
      hairpin: behaviour?.hairpin ?? null,
      bindingLifetimeMs: behaviour?.bindingLifetimeMs ?? null,
      dialBack: view.isFirewalled || direct?.check === 'failed' ? false : direct?.check === 'confirmed' ? true : null,
    }
  }

  #observe(ip: IpAddress, network: string): void {
    this.#observed.delete(network)
    this.#observed.set(network, ip)
    if (this.#observed.size > MAX_OBSERVERS) this.#observed.delete(this.#observed.keys().next().value!)
  }

  /** Draws everything from the facts that are current. */
  #settle(now: number): void {
    if (this.#mapping !== null && this.#mapping.expiresAt <= now) this.#mapping = null
    this.#reservations = this.#reservations.filter(({ expiresAt }) => expiresAt > now)
    if (this.#reservations.length > 0) this.#aloneSince = now
    const candidates = ([4, 6] as const).map((family) => this.#candidates(family))
    this.#checks.keep(candidates.flatMap((one) => one.map(({ address }) => address)))
    this.#families = ([4, 6] as const).flatMap((family, i) => this.#family(family, candidates[i]!, now) ?? [])
    const { state, announce } = this.#decide(now)
    if (state !== this.#state) {
      this.#state = state
      this.#since = now
    }
    if (!sameAnnouncement(announce, this.#announce)) this.#announce = announce
    if (announce?.reach.kind === 'relayed') this.#holdUntil = now + HOLD_RELAYS_MS
    this.#wants = this.#want(candidates.flat(), now)
    this.#deadline = this.#nextDeadline(candidates.flat(), now)
  }

  /** Addresses at which this node might be reached in the family, the best first. */
  #candidates(family: 4 | 6): Candidate[] {
    const found: Candidate[] = []
    const add = (host: string, port: number, source: DirectSource): void => {
      const address = formatTcpAddress(host, port, false)
      if (port > 0 && !found.some((one) => one.address === address)) found.push({ address, source, isPrivate: !isPublic(host) })
    }
    const advertised = this.#advertised.filter((one) => familyOf(one) === family)
    for (const one of advertised.slice(0, 1)) add(one.host, one.port, 'advertised')
    // The operator's word is about the whole node: what it leaves out is not announced.
    if (this.#advertised.length > 0) return found
    const listening = this.#listening.filter((one) => familyOf(one) === family)
    const own = listening.filter((one) => isPublic(one.host))
    for (const one of own.slice(0, MAX_OWN)) add(one.host, one.port, 'interface')
    if (own.length === 0 && this.#options.privateAddresses) {
      const allowed = listening.find((one) => this.#isUsable(parseIp(one.host)))
      if (allowed) add(allowed.host, allowed.port, 'interface')
    }
    const port = listening[0]?.port
    const seen = this.#publicIp(family)
    if (family === 4 && this.#mapping !== null) {
      const external = endpointOf(this.#mapping)
      if (external !== null && isPublic(external.host)) add(external.host, external.port, 'mapping')
      // The router's own public address may be another's: behind two NATs, or where it is mistaken.
      if (external !== null && seen !== null && this.#provesForwarding(family)) add(formatIp(seen), external.port, 'mapping')
    }
    if (port !== undefined && seen !== null && isPublic(formatIp(seen)) && this.#provesForwarding(family))
      add(formatIp(seen), port, 'forward')
    return found
  }

  #family(family: 4 | 6, candidates: readonly Candidate[], now: number): FamilyView | null {
    const stun = this.#stun.get(family)
    const behaviour = stun?.behaviour ?? null
    const local = this.#listening.filter((one) => familyOf(one) === family && !isLocalOnly(one.host))
    const publicIp = this.#publicIp(family)
    // Private IPv6 addresses lead nowhere by themselves; private IPv4 ones lead through a NAT.
    const exists = candidates.length > 0 || publicIp !== null || (family === 4 && local.length > 0)
    if (!exists) return null
    const chosen = candidates.find((one) => this.#isGood(one, now))
    const direct = chosen === undefined ? null : { ...chosen, check: this.#checks.state(chosen.address, now) }
    const isSilent = stun !== undefined && behaviour === null
    const isFirewalled =
      direct === null && candidates.some((one) => one.source === 'interface' && this.#checks.state(one.address, now) === 'failed')
    return {
      family,
      state: this.#familyState(direct, behaviour, publicIp, isSilent),
      local,
      publicIp,
      behaviour,
      isSilent,
      direct,
      isFirewalled,
    }
  }

  /** Whether others can be told of it: by the operator's word, an own address that nothing speaks against, or witnesses. */
  #isGood({ address, source, isPrivate }: Candidate, now: number): boolean {
    if (source === 'advertised' || isPrivate) return source === 'advertised' || source === 'interface'
    const isConfirmed = this.#checks.state(address, now) === 'confirmed'
    if (source === 'interface' && !this.#trustsOwn(address)) return isConfirmed && this.#filtering(6) !== 'address-dependent'
    return source === 'interface' ? !this.#checks.isDisproved(address, now) : isConfirmed
  }

  /**
   * Whether a peer that came through proves that a port is forwarded. This node dials from its listening port, so a NAT that filters by address alone lets
   * those peers in, at least, that it has dialled itself, and one that does not filter lets in all for a while: neither is forwarding.
   */
  #provesForwarding(family: 4 | 6): boolean {
    return this.#filtering(family) === 'address-and-port-dependent'
  }

  #filtering(family: 4 | 6): FilteringBehaviour | null {
    return this.#stun.get(family)?.behaviour?.filtering ?? null
  }

  /** Beside an IPv4 address behind NAT there is a home router, and those let no stranger in to IPv6 addresses: seen from outside, or not at all. */
  #trustsOwn(address: string): boolean {
    const ipv4 = this.#listening.filter((one) => familyOf(one) === 4 && !isLocalOnly(one.host))
    return address.startsWith('/ip4/') || ipv4.length === 0 || ipv4.some(({ host }) => isPublic(host))
  }

  #familyState(direct: FamilyView['direct'], behaviour: NatBehaviour | null, publicIp: IpAddress | null, isSilent: boolean): ReachState {
    if (direct !== null) return direct.source === 'mapping' ? 'mapped' : 'public'
    if (behaviour === null) return isSilent ? 'relayed' : 'unknown'
    const canPunch = this.#punching.tcp || this.#punching.udp
    return canPunch && publicIp !== null && isPunchable(behaviour) ? 'punchable' : 'relayed'
  }

  /** By STUN; else what two peers of different networks say, or the one that says anything; else an own public address. */
  #publicIp(family: 4 | 6): IpAddress | null {
    const endpoint = this.#stun.get(family)?.behaviour?.publicEndpoint ?? null
    if (endpoint !== null && this.#isUsable(endpoint.ip)) return endpoint.ip
    const said = [...this.#observed.values()].filter((ip) => ip.family === family).map(formatIp)
    const most = said.toSorted((a, b) => count(said, b) - count(said, a) || (a < b ? -1 : 1))[0]
    if (most !== undefined && (count(said, most) > 1 || said.length === 1)) return parseIp(most)
    const own = this.#listening.find((one) => familyOf(one) === family && isPublic(one.host))
    return own ? parseIp(own.host) : null
  }

  /**
   * What holds for every peer is announced. `direct` promises that anyone can dial: so a node whose IPv4 is behind NAT says `relayed` though its IPv6
   * is open, names both addresses, and peers with IPv6 are on it directly within the first exchange; for peers with IPv4 alone `direct` would be a lie, and
   * circuits through it would fail at random. Only a node without a known public IPv4 address, or without a relay for a while, announces IPv6 alone.
   */
  #decide(now: number): { state: ReachState; announce: Announcement | null } {
    const [v4, v6] = ([4, 6] as const).map((family) => this.#families.find((one) => one.family === family))
    const direct = [v4, v6].flatMap((view) => (view?.direct ? [view.direct.address] : []))
    const directly = (view: FamilyView): { state: ReachState; announce: Announcement } => ({
      state: view.state,
      announce: { addresses: both(direct), reach: { kind: 'direct' } },
    })
    if (v4?.direct) return directly(v4)
    // Before STUN was asked a private IPv4 address may turn out to be behind a NAT.
    const knowsIpv4 = v4?.publicIp != null
    const maySeeIpv4 = knowsIpv4 || (v4 !== undefined && this.#stun.size === 0)
    const isAlone = this.#reservations.length === 0 && now - this.#aloneSince >= IPV6_ONLY_AFTER_MS
    if (v6?.direct && (v6.direct.source === 'advertised' || !maySeeIpv4 || isAlone)) return directly(v6)
    const deciding = maySeeIpv4 ? v4 : (v6 ?? v4)
    if (deciding === undefined) return { state: 'unknown', announce: null }
    const addresses = [v4, v6].flatMap((view) => (view ? (publicAddress(view) ?? []) : []))
    const via = this.#reservations.map(({ relay }) => relay).toSorted()
    // While nothing is known of the NAT but a relay is there, the relay can be told of: it works whatever the NAT is.
    const state = deciding.state === 'unknown' && addresses.length > 0 && via.length > 0 ? 'relayed' : deciding.state
    if (addresses.length === 0 || via.length === 0) return { state, announce: null }
    return {
      state,
      announce: { addresses: both(addresses), reach: { kind: 'relayed', via: via.slice(0, VIA_MAX), punchable: state === 'punchable' } },
    }
  }

  #want(candidates: readonly Candidate[], now: number): Wants {
    const v4 = this.#families.find((one) => one.family === 4)
    const isOwnWord = this.#advertised.length > 0
    const isSettled =
      this.#announce?.reach.kind === 'direct' && (isOwnWord || v4 === undefined || v4.direct !== null || v4.publicIp === null)
    const listens = this.#listening.length > 0
    const isNat4 =
      v4 !== undefined && v4.local.length > 0 && !v4.local.some(({ host }) => isPublic(host)) && v4.behaviour?.mapping !== 'none'
    return {
      mapping: this.#options.mapping && listens && isNat4 && !isOwnWord && v4.direct?.source !== 'interface',
      reservations: !listens || (isSettled && now >= this.#holdUntil) ? 0 : this.#options.reservations,
      dialBacks: listens ? candidates.filter(({ address }) => this.#checks.nextAt(address) <= now).map(({ address }) => address) : [],
      stun: this.#needsStun() && this.#stunAt() <= now,
    }
  }

  /** A node that is announced at its own addresses has no use for it. */
  #needsStun(): boolean {
    if (this.#listening.length === 0 || this.#advertised.length > 0) return false
    return this.#families.some(({ direct }) => direct?.source !== 'interface')
  }

  #stunAt(): number {
    const asked = [...this.#stun.values()]
    if (asked.length === 0) return Number.NEGATIVE_INFINITY
    const pause = asked.some(({ misses }) => misses === 0) ? STUN_MS : STUN_RETRY_MS
    return Math.max(...asked.map(({ at }) => at)) + pause
  }

  #nextDeadline(candidates: readonly Candidate[], now: number): number | null {
    const times = [
      ...(this.#mapping ? [this.#mapping.expiresAt] : []),
      ...this.#reservations.map(({ expiresAt }) => expiresAt),
      ...candidates.flatMap(({ address }) => [this.#checks.nextAt(address), this.#checks.expiresAt(address, now) ?? []].flat()),
      ...(this.#reservations.length === 0 ? [this.#aloneSince + IPV6_ONLY_AFTER_MS] : []),
      this.#holdUntil,
      ...(this.#needsStun() ? [this.#stunAt()] : []),
    ].filter((at) => at > now)
    return times.length === 0 ? null : Math.min(...times)
  }

  #usable(texts: readonly string[]): TcpAddress[] {
    return tcpAddresses(texts).filter(({ host }) => this.#isUsable(parseIp(host)))
  }

  /** Public addresses always, private ones where the network's rules allow them. */
  #isUsable(ip: IpAddress): boolean {
    const scope = addressScope(ip)
    return scope === 'public' || (scope === 'private' && this.#options.privateAddresses)
  }
}

interface StunResult {
  readonly behaviour: NatBehaviour | null
  readonly at: number
  /** Times in a row that nobody answered. */
  readonly misses: number
}

/** A few lost packets are no change of the network: what was found stays until nobody has answered this often. */
const STUN_MISSES = 3

function stunResult(before: StunResult | undefined, behaviour: NatBehaviour | null, at: number): StunResult {
  if (behaviour !== null) return { behaviour, at, misses: 0 }
  const misses = (before?.misses ?? 0) + 1
  return { behaviour: misses < STUN_MISSES ? (before?.behaviour ?? null) : null, at, misses }
}

interface Candidate {
  readonly address: string
  readonly source: DirectSource
  readonly isPrivate: boolean
}

/** Own public addresses of a family that are candidates. */
const MAX_OWN = 2

/** The multiaddrs of plain TCP among the texts: those for direct links are on the same ports. */
function tcpAddresses(texts: readonly string[]): TcpAddress[] {
  return texts.flatMap((text) => {
    const address = parseTcpAddress(text)
    return address === null || address.isDirect ? [] : [address]
  })
}

function familyOf({ host }: TcpAddress): 4 | 6 {
  return host.includes(':') ? 6 : 4
}

function isPublic(host: string): boolean {
  return addressScope(parseIp(host)) === 'public'
}

function isLocalOnly(host: string): boolean {
  return host.startsWith('127.') || host === '::1' || host.startsWith('169.254.') || /^fe[89ab]/i.test(host)
}

/** Where the family's NAT or firewall is seen from outside, with the port that is listened on. */
function publicAddress({ publicIp, direct, local }: FamilyView): string[] | null {
  if (direct !== null) return [direct.address]
  const port = local[0]?.port
  return publicIp === null || port === undefined ? null : [formatTcpAddress(formatIp(publicIp), port, false)]
}

function both(addresses: readonly string[]): string[] {
  return addresses.flatMap((address) => [address, `${address}/tls`])
}

function endpointOf(mapping: MappingFacts): { host: string; port: number } | null {
  const { host, port } = parseHostPort(mapping.external)
  return host.type === 'ip' ? { host: host.text, port } : null
}

function sameAnnouncement(a: Announcement | null, b: Announcement | null): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function count(items: readonly string[], item: string): number {
  return items.filter((one) => one === item).length
}

function hostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
