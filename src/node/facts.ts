import type { NodeId } from '../base/index.ts'
import type { OwnCircuit, PooledCircuit, StreamFacts as PoolStreamFacts } from '../client/index.ts'
import type { PortRange, ServingRole, View } from '../directory/index.ts'
import type { OnionKeyring } from '../onion/index.ts'
import { explain, type GuardWarning, type GuardFacts as PathGuardFacts, POSITIONS } from '../path/index.ts'
import type { CircuitFacts, GuardFacts, HopFacts, HopReason, OnionKeyFacts, RelayFacts, RoleCounts, StreamFacts } from './node-control.ts'
import type { RelayCountries } from './relay-countries.ts'

/** Turns what the modules know into what `NodeControl` gives. */

const SERVING_ROLES: readonly ServingRole[] = ['guard', 'middle', 'exit', 'relay', 'bootstrap']

/** Monotonic to wall-clock ms. */
export interface Clocks {
  readonly now: () => number
  readonly wall: () => number
}

export function wallTime(clocks: Clocks, at: number): number {
  return Math.round(clocks.wall() - (clocks.now() - at))
}

/** When something began that begins now, and for how long it lasts at each later call: a clock that is set meanwhile does not matter. */
export function lifeFrom(clocks: Clocks): () => { readonly startedAt: number; readonly uptimeMs: number } {
  const startedAt = clocks.wall()
  const begunAt = clocks.now()
  return () => ({ startedAt, uptimeMs: Math.round(clocks.now() - begunAt) })
}

export function circuitFacts(entry: PooledCircuit, view: View, countries: RelayCountries, clocks: Clocks, why: boolean): CircuitFacts {
  const established = entry.circuit?.hops ?? 0
  const rtts = entry.circuit?.hopRttsMs() ?? []
  return {
    id: entry.id,
    state: entry.state === 'ready' ? 'open' : entry.state,
    purpose: entry.purpose ?? 'streams',
    path: entry.choice.path.map(
      (id, index): HopFacts => ({
        id,
        position: POSITIONS[index]!,
        address: shownAddress(id, view),
        country: countries.of(view.get(id)?.descriptor),
        established: index < established,
        rttMs: rtts[index] ?? null,
      }),
    ),
    createdAt: wallTime(clocks, entry.createdAt),
    buildMs: entry.readyAt === null ? null : Math.round((entry.readyAt - entry.createdAt) * 1000) / 1000,
    firstUsedAt: entry.firstUsedAt === null ? null : wallTime(clocks, entry.firstUsedAt),
    rttMs: entry.circuit ? wayMs(entry.circuit) : null,
    streams: entry.circuit?.openStreams ?? 0,
    isolation: isolationShown(entry),
    bytesSent: entry.circuit?.bytesOut ?? 0,
    bytesReceived: entry.circuit?.bytesIn ?? 0,
    closed: entry.end === null ? null : { reason: entry.end.reason, hop: entry.end.hop },
    why: why ? hopReasons(entry) : null,
  }
}

/** The round trip to the last hop, by the same measure as those of the hops before it. */
export function wayMs(circuit: OwnCircuit): number | null {
  return circuit.hopRttsMs().at(-1) ?? circuit.rttMs
}

function hopReasons(entry: PooledCircuit): HopReason[] {
  const lines = explain(entry.choice)
  return POSITIONS.map((position) => ({
    position,
    reasons: lines.filter((line) => line.startsWith(`${position} `)).map((line) => line.slice(position.length + 1)),
  }))
}

/** "IP:PORT" of the relay's first address. */
function shownAddress(id: NodeId, view: View): string {
  const address = view.get(id)?.descriptor.addresses[0]
  if (address === undefined) return 'gone'
  const [, protocol, host, , port] = address.split('/')
  return protocol === 'ip6' ? `[${host}]:${port}` : `${host}:${port}`
}

export function relayFacts(id: NodeId, view: View, countries: RelayCountries, wall: number): RelayFacts | null {
  const entry = view.get(id)
  if (!entry) return null
  const { descriptor } = entry
  const verdict = view.eligibility(id, wall)
  const reasons = verdict.eligible ? [] : [verdict.reason]
  if (verdict.eligible && descriptor.roles.includes('guard')) {
    const asGuard = view.eligibility(id, wall, 'guard')
    if (!asGuard.eligible) reasons.push(asGuard.reason)
  }
  return {
    id,
    roles: descriptor.roles,
    addresses: descriptor.addresses,
    country: countries.of(descriptor),
    reach: descriptor.reach.kind === 'direct' ? 'direct' : descriptor.reach.punchable ? 'punchable' : 'relayed',
    eligible: verdict.eligible,
    notEligible: reasons,
    bandwidth: descriptor.bandwidth,
    weight: view.weight(id),
    firstSeenAt: view.ages.since(id) ?? wall,
    publishedAt: descriptor.publishedAt,
    expiresAt: descriptor.expiresAt,
    software: descriptor.software,
    exitPorts: descriptor.exitPolicy === null ? null : portsText(descriptor.exitPolicy.ipv4, descriptor.exitPolicy.ipv6),
    family: descriptor.family,
  }
}

function portsText(ipv4: readonly PortRange[], ipv6: readonly PortRange[]): string {
  const text = (ranges: readonly PortRange[]): string =>
    ranges.length === 0 ? 'none' : ranges.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)).join(', ')
  const [four, six] = [text(ipv4), text(ipv6)]
  return four === six ? four : `IPv4 ${four}; IPv6 ${six}`
}

export function roleCounts(roles: Iterable<readonly ServingRole[]>): RoleCounts {
  const counts: Record<string, number> = { total: 0 }
  for (const role of SERVING_ROLES) counts[role] = 0
  for (const list of roles) {
    counts.total!++
    for (const role of list) counts[role]!++
  }
  return counts as RoleCounts
}

export function guardFacts(guard: PathGuardFacts, rank: number, warnings: readonly GuardWarning[]): GuardFacts {
  const suspicious = warnings.some(({ id, level }) => id === guard.id && level === 'warn')
  return {
    id: guard.id,
    rank,
    state: suspicious
      ? 'suspicious'
      : guard.state === 'unusable'
        ? 'unlisted'
        : guard.state === 'failed'
          ? 'unreachable'
          : guard.primary
            ? 'primary'
            : 'sampled',
    confirmed: guard.confirmed,
    circuitsBuilt: guard.builds.succeeded,
    circuitsFailed: guard.builds.tried - guard.builds.succeeded,
  }
}

export function streamFacts(entry: PooledCircuit, clocks: Clocks): StreamFacts[] {
  return (entry.circuit?.streams() ?? []).map((stream) => streamFactsOf(stream, entry, clocks))
}

export function streamFactsOf(stream: PoolStreamFacts, entry: PooledCircuit, clocks: Clocks): StreamFacts {
  return {
    id: stream.id,
    kind: stream.kind,
    target: stream.target === null ? null : hostPort(stream.target.host, stream.target.port),
    circuit: entry.id,
    isolation: isolationShown(entry),
    state: stream.state === 'connecting' ? 'opening' : 'open',
    openedAt: wallTime(clocks, stream.openedAt),
    closedAt: null,
    end: stream.end,
    bytesSent: stream.bytesOut,
    bytesReceived: stream.bytesIn,
  }
}

/** Enough of an isolation key to tell two apart. */
function isolationShown({ isolation }: PooledCircuit): string | null {
  return isolation === null ? null : isolation.slice(0, 8)
}

function hostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** The onion key's age and end. */
export function onionKeyFacts({ createdAt, replacedAt, previousUntil }: OnionKeyring): OnionKeyFacts {
  return { since: createdAt, rotatesAt: replacedAt, previousUntil }
}
