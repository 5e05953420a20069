import type { RuntimeFacts } from '../../src/metrics/runtime.ts'
import type { NodeStatus } from '../../src/node/index.ts'
import { fakeStatus } from './fake-node.ts'

const tally = { policy: 21, 'resource-limit': 9, '203.0.113.7': 16 }

/** A node of every role, busy; with reasons that are words of the program and one that is not. */
export const busyNode: NodeStatus = {
  ...fakeStatus,
  roles: ['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap'],
  relaying: {
    circuitsOpen: 21,
    circuitsLimit: 10_000,
    circuitsCreated: 1_003,
    circuitsRefused: 30,
    circuitsShed: 0,
    cellsForwarded: 5_000_000,
    bytesForwarded: 2_560_000_000,
    refused: tally,
    closed: { requested: 900 },
    exitStreamsOpen: 3,
    exitStreamsRefused: 4,
    budget: { usedBytes: 3_000_000, limitBytes: 134_217_728 },
  },
  exit: {
    streamsOpen: 17,
    associationsOpen: 9,
    streamsOpened: 500,
    refused: tally,
    bytesFromServers: 1e9,
    bytesToServers: 1e7,
    packetLeasesOpen: 8,
    packets: {
      packetsFromClients: 5_000,
      packetsToClients: 9_000,
      bytesFromClients: 3e6,
      bytesToClients: 4e6,
      dropped: tally,
      stack: { tcpConnections: 17, udpPorts: 9, echoes: 8, bufferBytes: 4e6, bufferLimitBytes: 268_435_456, retransmissions: 77 },
    },
    dns: { questions: 90, remembered: 40, refused: 9, failed: 8 },
    limits: { streams: 16_384, associations: 8_192, packetLeases: 1_024 },
  },
  natRelay: {
    reservations: { open: 9, strangers: 1, granted: 20, renewed: 9, refused: { full: 8 }, ended: { expired: 8 } },
    connections: { open: 17, total: 99, refused: { full: 8 }, closed: {} },
    bytes: { fromReserved: 5e6, toReserved: 6e6, held: 0 },
    requests: { open: 0, dropped: {} },
  },
  stun: {
    requests: 99,
    answers: 90,
    refusals: 0,
    bytesReceived: 5e6,
    bytesSent: 6e6,
    droppedMalformed: 8,
    droppedOverRate: 0,
    droppedOverBytes: 0,
    droppedUnable: 0,
    sources: 3,
  },
  onionKey: { since: 1_700_000_000_000, rotatesAt: 1_700_600_000_000, previousUntil: null },
} as NodeStatus

export const quietRuntime: RuntimeFacts = {
  cpuSeconds: 12.7,
  startedAt: 1_700_000_000_500,
  rssBytes: 121_000_000,
  heapUsedBytes: 41_000_000,
  heapTotalBytes: 61_000_000,
  heapLimitBytes: 2_147_483_648,
  externalBytes: 9_000_000,
  openFiles: 43,
  maxFiles: 65_536,
  resources: 17,
  loopActiveSeconds: 9.4,
  lag: { median: 0.0004, p99: 0.0031, max: 0.0312 },
  gc: [
    { kind: 'minor', runs: 90, seconds: 0.37 },
    { kind: 'major', runs: 3, seconds: 0.04 },
  ],
}
