import { z } from 'zod'
import { count, country, named, nodeId, tally, time } from './schema.ts'

/** What a node says of itself, as a client: status, circuits, streams. `src/node/node-control.ts` has the same as types; a test holds the two together. */

const role = named('Role', 'What a node does.', z.enum(['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap']))
export const servingRole = named('ServingRole', 'What a node does for others.', z.enum(['guard', 'middle', 'exit', 'relay', 'bootstrap']))
const position = named('Position', 'A place in a circuit.', z.enum(['guard', 'middle', 'exit']))

export const closeReason = named(
  'CloseReason',
  'Why a circuit ended.',
  z.enum([
    'requested',
    'finished',
    'protocol',
    'internal',
    'resource-limit',
    'overloaded',
    'timeout',
    'shutting-down',
    'unknown-relay',
    'not-allowed',
    'connect-failed',
    'identity-mismatch',
    'handshake-failed',
    'channel-lost',
  ]),
)

export const warning = named(
  'Warning',
  'What a person should know and can do something about.',
  z.object({ code: z.string().describe('Stable and kebab-case.'), message: z.string(), since: time }),
)

const roleCounts = named(
  'RoleCounts',
  'How many relays claim each role (one relay may claim several), and how many there are in all.',
  z.object({ total: count, guard: count, middle: count, exit: count, relay: count, bootstrap: count }),
)

export const guard = named(
  'Guard',
  'A relay that this client may enter by.',
  z.object({
    id: nodeId,
    rank: count.describe('Position in the ordered sample, from 0.'),
    state: z.enum(['primary', 'sampled', 'unlisted', 'unreachable', 'suspicious']),
    confirmed: z.boolean().describe('Whether a circuit was ever built through it.'),
    circuitsBuilt: count,
    circuitsFailed: count,
  }),
)

const ruleChange = named(
  'RuleChange',
  'A rule of the network that differs from the default.',
  z.object({
    key: z.string().describe('As network.toml spells it: work.bits.'),
    value: z.unknown(),
    default: z.unknown(),
    help: z.string(),
  }),
)

const clientFacts = named(
  'ClientFacts',
  'What a node has done for its own applications since its start.',
  z.object({
    circuitsOpen: count,
    circuitsBuilding: count,
    circuitsBuilt: count,
    circuitsFailed: count,
    streamsOpen: count,
    streamsOpened: count,
    streamsFailed: count,
    bytesSent: count,
    bytesReceived: count,
  }),
)

const relayingFacts = named(
  'RelayingFacts',
  "What a node has done for others' circuits since its start.",
  z.object({
    circuitsOpen: count,
    circuitsLimit: count.describe('relaying.max_circuits.'),
    circuitsCreated: count,
    circuitsRefused: count,
    circuitsShed: count.describe('Closed because the byte budget was exhausted or they stalled.'),
    cellsForwarded: count,
    bytesForwarded: count.describe('The cells, in bytes.'),
    refused: tally.describe('Circuits refused, by reason.'),
    closed: tally.describe('Circuits ended, by reason.'),
    exitStreamsOpen: count,
    exitStreamsRefused: count,
    budget: z.object({ usedBytes: count, limitBytes: count }).describe('Cells that wait in queues, and how many bytes of them may.'),
  }),
)

const exitPacketFacts = named(
  'ExitPacketFacts',
  'Raw packets at an exit since its start.',
  z.object({
    packetsFromClients: count,
    packetsToClients: count,
    bytesFromClients: count,
    bytesToClients: count,
    dropped: tally.describe('Packets that went no further, by reason: policy, rate, malformed, …'),
    stack: z
      .object({
        tcpConnections: count,
        udpPorts: count,
        echoes: count.describe('Echo requests without an answer yet.'),
        bufferBytes: count,
        bufferLimitBytes: count.describe('exit.packet_buffer_bytes.'),
        retransmissions: count.describe('Segments to clients that were sent again.'),
      })
      .nullable()
      .describe('What the userspace stack holds and did; null where the kernel has the connections.'),
  }),
)

const exitFacts = named(
  'ExitFacts',
  'What an exit has done since its start.',
  z.object({
    streamsOpen: count,
    associationsOpen: count.describe('UDP associations.'),
    streamsOpened: count,
    refused: tally.describe('Streams refused, by reason: policy, resource-limit, …'),
    bytesFromServers: count,
    bytesToServers: count,
    packetLeasesOpen: count.nullable().describe('Leases for raw packets; null where they are not served.'),
    packets: exitPacketFacts.nullable().describe('What went through them; null where raw packets are not served.'),
    dns: z
      .object({ questions: count, remembered: count, refused: count, failed: count })
      .describe("Questions of clients to the exit's resolver; of these: answered from memory, refused by rule, failed."),
    limits: z
      .object({ streams: count, associations: count, packetLeases: count })
      .describe('How many there may be at once: exit.max_streams, max_associations, max_packet_leases.'),
  }),
)

const natRelayStats = named(
  'NatRelayStats',
  'What a node did as a relay for nodes behind NAT since its start.',
  z.object({
    reservations: z.object({ open: count, strangers: count, granted: count, renewed: count, refused: tally, ended: tally }),
    connections: z.object({ open: count, total: count, refused: tally, closed: tally }),
    bytes: z.object({ fromReserved: count, toReserved: count, held: count }),
    requests: z.object({ open: count, dropped: tally }),
  }),
)

const stunStats = named(
  'StunStats',
  'What a STUN server did since its start.',
  z.object({
    requests: count,
    answers: count,
    refusals: count,
    bytesReceived: count,
    bytesSent: count,
    droppedMalformed: count,
    droppedOverRate: count,
    droppedOverBytes: count,
    droppedUnable: count,
    sources: count,
  }),
)

const drainFacts = named(
  'DrainFacts',
  'A serving node that is leaving: it takes no new circuits, and ends when the last is over or at the limit.',
  z.object({ since: time, until: time.describe('When it ends at the latest.'), circuitsLeft: count }),
)

const onionKeyFacts = named(
  'OnionKeyFacts',
  'The key by which others build circuits to this node.',
  z.object({ since: time, rotatesAt: time, previousUntil: time.nullable().describe('Until when the one before it is taken.') }),
)

export const reachability = z.enum(['unknown', 'public', 'mapped', 'punchable', 'relayed'])

const outage = named(
  'Outage',
  'Nothing can be reached: no circuit has been built since, though it was tried.',
  z.object({
    code: z.enum([
      'no-network',
      'guards-unreachable',
      'relays-unreachable',
      'exits-unreachable',
      'no-exit-known',
      'no-relay-known',
      'no-exit-for-port',
      'nothing-allowed',
    ]),
    message: z.string().describe('What is so.'),
    advice: z.string().describe('What to do.'),
    since: time,
  }),
)

export const nodeStatus = named(
  'NodeStatus',
  'What the node is and how it is doing.',
  z.object({
    id: nodeId,
    roles: z.array(role),
    version: z.string(),
    pid: z.int(),
    startedAt: time,
    uptimeMs: count,
    ready: z.boolean().describe('Whether it does what its roles say now: a client that can reach nothing does not.'),
    outage: outage.nullable().describe('Why own traffic gets nowhere now; null when it does. One of the warnings tells the same.'),
    crypto: z.object({ name: z.enum(['native', 'portable']), description: z.string() }),
    network: z.object({
      name: z.string(),
      changes: z.array(ruleChange),
      bootstrap: z.array(z.string()),
      signature: z
        .object({
          publisher: z.string().describe("The publisher's public key, in hex."),
          issued: z.string().nullable().describe('ISO 8601.'),
        })
        .nullable()
        .describe('Who signed network.toml; null when nobody did.'),
    }),
    listening: z.array(z.string()).describe('Multiaddrs; empty for a pure client.'),
    socks: z.string().nullable().describe('ADDRESS:PORT of the SOCKS5 proxy.'),
    http: z.string().nullable().describe('ADDRESS:PORT of the HTTP proxy.'),
    dns: z.string().nullable().describe('ADDRESS:PORT of the DNS listener, UDP and TCP.'),
    control: z.string().nullable().describe('ADDRESS:PORT or the path of the socket.'),
    dashboard: z.string().nullable().describe('ADDRESS:PORT of the dashboard.'),
    view: z.object({
      known: roleCounts,
      eligible: roleCounts,
      syncedAt: time.nullable(),
      refused: z
        .object({ future: count, expired: count })
        .describe('Descriptors of the last ten minutes that were refused for their times alone: dated in the future, or over.'),
    }),
    guards: z.array(guard).nullable().describe('Null for a node that is no client.'),
    client: clientFacts.nullable(),
    relaying: relayingFacts.nullable().describe('Null for a node that serves no circuits.'),
    exit: exitFacts.nullable(),
    reachability: reachability.nullable().describe('How others reach the node; null for a pure client, and with nat.enabled = false.'),
    natRelay: natRelayStats.nullable(),
    stun: stunStats.nullable(),
    onionKey: onionKeyFacts.nullable().describe('Null for a node that serves no circuits.'),
    draining: drainFacts.nullable(),
    memory: z.object({
      rssBytes: count,
      heapBytes: count,
      externalBytes: count,
      limitBytes: count.nullable().describe('What the system lets the process have; null where it sets no limit.'),
    }),
    links: count,
    warnings: z.array(warning),
  }),
)

const hop = named(
  'Hop',
  'A relay of a circuit.',
  z.object({
    id: nodeId,
    position,
    address: z.string().describe("One of the relay's addresses, IP:PORT."),
    country,
    established: z.boolean(),
    rttMs: z.number().nullable().describe('The measured round trip to this hop; null before it was measured.'),
  }),
)

export const circuit = named(
  'Circuit',
  'A circuit of this client.',
  z.object({
    id: count.describe('Local: means nothing to any other node.'),
    state: z.enum(['building', 'open', 'retired', 'closed']),
    purpose: z.enum(['streams', 'datagrams', 'packets']),
    path: z.array(hop).describe('Guard first. While building, the hops chosen.'),
    createdAt: time,
    buildMs: z.number().nullable(),
    firstUsedAt: time.nullable(),
    rttMs: z.number().nullable(),
    streams: count,
    isolation: z
      .string()
      .nullable()
      .describe(
        'Streams with another isolation key never share this circuit. Null before its first use. Says nothing of what the key was made of.',
      ),
    bytesSent: count,
    bytesReceived: count,
    closed: z.object({ reason: closeReason, hop: count.nullable() }).nullable().describe('Why it ended, and at which hop (from 0).'),
    why: z
      .array(named('HopReason', 'Why a hop was chosen.', z.object({ position, reasons: z.array(z.string()) })))
      .nullable()
      .describe('Null unless asked for.'),
  }),
)

export const streamEnd = named(
  'StreamEnd',
  'How a stream ended: done: in order; aborted: from this side; circuit-lost: with its circuit; everything else is what the exit said.',
  z.enum([
    'done',
    'reset',
    'refused',
    'unreachable',
    'timeout',
    'resolve-failed',
    'policy',
    'resource-limit',
    'not-exit',
    'internal',
    'circuit-lost',
    'aborted',
  ]),
)

export const stream = named(
  'Stream',
  'A stream, a datagram association or a lease of this client.',
  z.object({
    id: count,
    kind: z.enum(['stream', 'datagrams', 'dns', 'packets']),
    target: z.string().nullable().describe('HOST:PORT; for the person at this machine only. Null for every other kind than stream.'),
    circuit: count.nullable(),
    isolation: z.string().nullable(),
    state: z.enum(['waiting', 'opening', 'open', 'closing', 'closed']),
    openedAt: time,
    closedAt: time.nullable(),
    end: streamEnd.nullable().describe('How it ended; null while it is not closed.'),
    bytesSent: count,
    bytesReceived: count,
  }),
)

export const relay = named(
  'Relay',
  'A relay of the view.',
  z.object({
    id: nodeId,
    roles: z.array(servingRole),
    addresses: z.array(z.string()),
    country,
    reach: z.enum(['direct', 'punchable', 'relayed']).describe('How it is reached.'),
    eligible: z.boolean(),
    notEligible: z.array(z.string()).describe("Why it is not for one's own paths; empty when it is."),
    bandwidth: z.number().describe('Claimed capacity, bytes a second.'),
    weight: z.number().describe('What it is drawn by, bytes a second.'),
    firstSeenAt: time,
    publishedAt: time,
    expiresAt: time,
    software: z.string(),
    exitPorts: z.string().nullable(),
    family: z.array(nodeId),
  }),
)

export const relayBrief = named(
  'RelayBrief',
  'A relay of the view, as far as a list of all of them needs.',
  z.object({
    id: nodeId,
    roles: z.array(servingRole),
    country,
    eligible: z.boolean(),
    weight: z.number(),
    software: z.string(),
    firstSeenAt: time,
  }),
)

export const relayPage = named(
  'RelayPage',
  'Some of the relays, in order of their id.',
  z.object({ total: count, relays: z.array(relayBrief), next: nodeId.nullable().describe('Ask for what is after this; null at the end.') }),
)

const share = z.object({ key: z.string(), known: count, eligible: count })
export const networkSummary = named(
  'NetworkSummary',
  'The view in counts.',
  z.object({
    roles: z.array(share),
    countries: z
      .array(share.extend({ exits: count.describe('Eligible exits there.') }))
      .describe('The key is "??" where the country is not known.'),
    versions: z.array(share),
    history: z
      .array(named('ViewCount', 'How many relays there were.', z.object({ at: time, known: count, eligible: count })))
      .describe('One for each minute, oldest first, at most a day.'),
  }),
)
