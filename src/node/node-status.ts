import { totalmem } from 'node:os'
import { constrainedMemory, memoryUsage } from 'node:process'
import type { OwnCircuit } from '../client/index.ts'
import { guardFacts, onionKeyFacts, roleCounts, wayMs } from './facts.ts'
import type { Totals } from './history.ts'
import { ruleChanges } from './network-file.ts'
import type { ClientFacts, GuardFacts, NodeStatus } from './node-control.ts'
import type { ClientParts, NodeParts } from './node-parts.ts'
import { exitFacts, relayingFacts } from './serving-facts.ts'
import { VERSION } from './version.ts'

/** What a node is and does as a whole, gathered from its parts. */
export function statusOf(parts: NodeParts, run: Pick<NodeStatus, 'startedAt' | 'uptimeMs' | 'ready' | 'outage' | 'draining'>): NodeStatus {
  const { live, view, client, serving, nat, standing, warnings, clocks, crypto } = parts
  const config = live.current
  const { id, host, discovery } = parts.presence()
  const wall = clocks.wall()
  const memory = memoryUsage()
  return {
    id,
    roles: config.node.roles,
    version: VERSION,
    pid: process.pid,
    startedAt: run.startedAt,
    uptimeMs: run.uptimeMs,
    ready: run.ready,
    outage: run.outage,
    crypto,
    network: {
      name: config.network.name,
      changes: ruleChanges(config.network),
      bootstrap: config.network.bootstrap,
      signature: config.signature,
    },
    listening: host.addresses(),
    socks: client?.socks?.addresses[0] ?? null,
    http: client?.http?.addresses[0] ?? null,
    dns: client?.dns?.addresses[0] ?? null,
    control: null,
    dashboard: null,
    view: {
      known: roleCounts(view.relays().map(({ descriptor }) => descriptor.roles)),
      eligible: roleCounts(view.eligible(wall).map(({ descriptor }) => descriptor.roles)),
      syncedAt: discovery.status.lastSyncAt,
      refused: view.refusedForTime(wall),
    },
    guards: guardsOf(parts),
    client: client ? clientFacts(client) : null,
    relaying: serving ? relayingFacts(serving.engine, serving.exit) : null,
    exit: serving?.exit ? exitFacts(serving.exit) : null,
    reachability: nat?.facts().state ?? null,
    natRelay: nat?.relayStats ?? null,
    stun: nat?.stunStats ?? null,
    onionKey: standing && serving ? onionKeyFacts(standing.keyring) : null,
    draining: run.draining,
    memory: { rssBytes: memory.rss, heapBytes: memory.heapUsed, externalBytes: memory.external, limitBytes: memoryLimit() },
    links: host.links().length,
    warnings: warnings.list(),
  }
}

/** How many relays the view knows, and how many of them are for one's own paths. */
export function countView({ view, clocks }: NodeParts): { known: number; eligible: number } {
  return { known: view.relays().length, eligible: view.eligible(clocks.wall()).length }
}

/** What the plots are made of: counts since the start, and what there is now. */
export function totalsOf({ client, serving }: NodeParts): Totals {
  const facts = client ? clientFacts(client) : null
  const relaying = serving?.engine.stats()
  const exit = serving?.exit?.counts
  return {
    sent: facts?.bytesSent ?? 0,
    received: facts?.bytesReceived ?? 0,
    rttMs: client ? rttInUse(client) : null,
    circuitsBuilt: facts?.circuitsBuilt ?? 0,
    circuitsFailed: facts?.circuitsFailed ?? 0,
    streamsOpen: facts?.streamsOpen ?? 0,
    cells: relaying?.cellsRelayed ?? 0,
    circuitsServed: relaying?.circuits ?? 0,
    exitBytesIn: exit?.bytesFromServers ?? 0,
    exitBytesOut: exit?.bytesToServers ?? 0,
    queuedBytes: relaying?.queuedBytes ?? 0,
    rssBytes: memoryUsage.rss(),
  }
}

/** The round trip of the circuit that the last stream took, or of the newest; null where none is open or measured. */
function rttInUse({ pool }: ClientParts): number | null {
  const open = pool.circuits().flatMap(({ state, circuit }) => (state === 'ready' && circuit?.rttMs != null ? [circuit] : []))
  const inUse = open.reduce<OwnCircuit | null>(
    (last, one) => (last === null || (one.usedAt ?? Number.NEGATIVE_INFINITY) >= (last.usedAt ?? Number.NEGATIVE_INFINITY) ? one : last),
    null,
  )
  return inUse === null ? null : wayMs(inUse)
}

/** The guards of a client in order; null for a node that is none. */
export function guardsOf({ client, clocks }: NodeParts): readonly GuardFacts[] | null {
  if (client === null) return null
  const warnings = client.guards.warnings()
  return client.guards.facts(clocks.now()).map((guard, rank) => guardFacts(guard, rank, warnings))
}

function clientFacts({ pool, client }: ClientParts): ClientFacts {
  const circuits = pool.circuits()
  const sum = (of: (entry: (typeof circuits)[number]) => number): number => circuits.reduce((total, entry) => total + of(entry), 0)
  return {
    circuitsOpen: circuits.filter(({ state }) => state === 'ready' || state === 'retired').length,
    circuitsBuilding: circuits.filter(({ state }) => state === 'building').length,
    circuitsBuilt: pool.counts.built,
    circuitsFailed: pool.counts.failed,
    streamsOpen: sum((entry) => entry.circuit?.openStreams ?? 0),
    streamsOpened: client.counts.opened,
    streamsFailed: client.counts.failed,
    bytesSent: pool.bytes.sent,
    bytesReceived: pool.bytes.received,
  }
}

/** Of the control group, where there is one: what the whole machine has says nothing of this process. */
function memoryLimit(): number | null {
  const limit = constrainedMemory()
  return limit > 0 && limit < totalmem() ? limit : null
}
