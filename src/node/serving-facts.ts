import type { Exit } from '../egress/index.ts'
import { CELL_BYTES } from '../onion/index.ts'
import type { RelayEngine } from '../relaying/index.ts'
import type { ExitFacts, ExitPacketFacts, RelayingFacts } from './node-control.ts'

/** What a node does for others, in numbers. */
export function relayingFacts(engine: RelayEngine, exit: Exit | null): RelayingFacts {
  const stats = engine.stats()
  return {
    circuitsOpen: stats.circuits,
    circuitsLimit: stats.maxCircuits,
    circuitsCreated: stats.circuitsServed,
    circuitsRefused: sum(stats.refused),
    circuitsShed: (stats.closed.overloaded ?? 0) + (stats.closed.timeout ?? 0),
    cellsForwarded: stats.cellsRelayed,
    bytesForwarded: stats.cellsRelayed * CELL_BYTES,
    refused: { ...stats.refused },
    closed: { ...stats.closed },
    exitStreamsOpen: exit?.counts.streams ?? 0,
    exitStreamsRefused: exit ? sum(exit.counts.refused) : 0,
    budget: { usedBytes: stats.queuedBytes, limitBytes: stats.queueBudgetBytes },
  }
}

/** What an exit has done. */
export function exitFacts({ counts }: Exit): ExitFacts {
  return {
    streamsOpen: counts.streams,
    associationsOpen: counts.associations,
    streamsOpened: counts.opened,
    refused: { ...counts.refused },
    bytesFromServers: counts.bytesFromServers,
    bytesToServers: counts.bytesToServers,
    packetLeasesOpen: counts.packets?.leases ?? null,
    packets: counts.packets && packetFacts(counts.packets),
    dns: dnsFacts(counts.dns),
    limits: counts.limits,
  }
}

function packetFacts({
  packetsIn,
  packetsOut,
  bytesIn,
  bytesOut,
  dropped,
  stack,
}: NonNullable<Exit['counts']['packets']>): ExitPacketFacts {
  return {
    packetsFromClients: packetsIn,
    packetsToClients: packetsOut,
    bytesFromClients: bytesIn,
    bytesToClients: bytesOut,
    dropped: { ...dropped },
    stack,
  }
}

function dnsFacts(counts: Exit['counts']['dns']): ExitFacts['dns'] {
  const { questions = 0, remembered = 0, refused = 0, failed = 0 } = counts ?? {}
  return { questions, remembered, refused, failed }
}

function sum(counts: Readonly<Record<string, number | undefined>>): number {
  return Object.values(counts).reduce<number>((total, count) => total + (count ?? 0), 0)
}
