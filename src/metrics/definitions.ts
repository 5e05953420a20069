import { counter, gauge, type Metric, type Sample } from './metric.ts'
import { PROCESS_METRICS } from './process-metrics.ts'

/**
 * Every metric of a node: its name, its help, and how it is read from the node's status. Nothing else is published; names and labels follow
 * https://prometheus.io/docs/practices/naming/. No label tells of a user, a peer or a destination: their values are words of this program.
 * How coarse the numbers are: docs/decisions/2026-11-21-metrics-safe-to-publish.md
 */

/** Counts of what people do are multiples of this. */
export const COUNT_STEP = 8
/** Bytes of what people do are multiples of this. */
export const BYTES_STEP = 1 << 20
/** Packets of what people do: about a MiB of full ones. */
export const PACKETS_STEP = 1024

const counts = { step: COUNT_STEP } as const
const bytes = { step: BYTES_STEP } as const
const byReason = { labels: ['reason'], step: COUNT_STEP } as const
const byDirection = { labels: ['direction'], step: BYTES_STEP } as const
const ownCounts = { step: COUNT_STEP, audience: 'local' } as const

export const METRICS: readonly Metric[] = [
  gauge(
    'shallot_build_info',
    'The version of the program and its implementation of the primitives; always 1.',
    ({ status }) => [{ labels: { version: status.version, crypto: status.crypto.name }, value: 1 }],
    { labels: ['version', 'crypto'] },
  ),
  gauge('shallot_node_role', 'Roles of the node; always 1.', ({ status }) => status.roles.map((role) => ({ labels: { role }, value: 1 })), {
    labels: ['role'],
  }),
  gauge('shallot_node_ready', 'Whether the node does what its roles say.', ({ status }) => Number(status.ready)),
  gauge('shallot_node_draining', 'Whether the node is leaving and takes no new circuits.', ({ status }) =>
    Number(status.draining !== null),
  ),
  gauge('shallot_node_warnings', 'Warnings that shallot status shows.', ({ status }) => status.warnings.length),
  gauge('shallot_node_start_timestamp_seconds', 'When the node was started.', ({ status }) => Math.floor(status.startedAt / 1000)),
  gauge('shallot_links', 'Links to other nodes.', ({ status }) => status.links, counts),
  gauge('shallot_memory_limit_bytes', 'What the system lets the process have.', ({ status }) => status.memory.limitBytes),
  gauge(
    'shallot_view_relays',
    'Relays of the view by what they are to this node; the role total is all of them.',
    ({ status: { view } }) =>
      (['known', 'eligible'] as const).flatMap((state) =>
        Object.entries(view[state]).map(([role, value]) => ({ labels: { state, role }, value })),
      ),
    { labels: ['state', 'role'] },
  ),
  gauge(
    'shallot_view_synced_timestamp_seconds',
    'When the view was last compared with that of a peer.',
    ({ status: { view } }) => (view.syncedAt === null ? null : Math.floor(view.syncedAt / 1000)),
    { step: 60 },
  ),

  gauge('shallot_relay_circuits', 'Circuits that are served.', ({ status: { relaying } }) => relaying?.circuitsOpen, counts),
  gauge('shallot_relay_circuits_limit', 'How many circuits may be served.', ({ status: { relaying } }) => relaying?.circuitsLimit),
  counter(
    'shallot_relay_circuits_opened',
    'Circuits that were opened here.',
    ({ status: { relaying } }) => relaying?.circuitsCreated,
    counts,
  ),
  counter(
    'shallot_relay_circuits_refused',
    'Circuits that were refused.',
    ({ status: { relaying } }) => relaying && tally(relaying.refused),
    byReason,
  ),
  counter(
    'shallot_relay_circuits_closed',
    'Circuits that ended.',
    ({ status: { relaying } }) => relaying && tally(relaying.closed),
    byReason,
  ),
  counter('shallot_relay_cells', 'Cells forwarded.', ({ status: { relaying } }) => relaying?.cellsForwarded, { step: 2048 }),
  counter('shallot_relay_bytes', 'Bytes of the cells forwarded.', ({ status: { relaying } }) => relaying?.bytesForwarded, bytes),
  gauge(
    'shallot_relay_queued_bytes',
    'Bytes of cells that wait in queues.',
    ({ status: { relaying } }) => relaying?.budget.usedBytes,
    bytes,
  ),
  gauge('shallot_relay_queue_limit_bytes', 'How many bytes of cells may wait.', ({ status: { relaying } }) => relaying?.budget.limitBytes),
  gauge(
    'shallot_onion_key_start_timestamp_seconds',
    'When the onion key was made.',
    ({ status: { onionKey } }) => onionKey && Math.floor(onionKey.since / 1000),
  ),
  gauge(
    'shallot_onion_key_expiry_timestamp_seconds',
    'When the onion key is replaced.',
    ({ status: { onionKey } }) => onionKey && Math.floor(onionKey.rotatesAt / 1000),
  ),

  gauge(
    'shallot_exit_packet_backend_info',
    'How raw packets leave; always 1.',
    ({ status, config }) => status.exit && [{ labels: { backend: config.exit.packets }, value: 1 }],
    { labels: ['backend'] },
  ),
  gauge('shallot_exit_streams', 'TCP streams open at the exit.', ({ status: { exit } }) => exit?.streamsOpen, counts),
  gauge('shallot_exit_associations', 'UDP associations open at the exit.', ({ status: { exit } }) => exit?.associationsOpen, counts),
  gauge('shallot_exit_packet_leases', 'Leases for raw packets open at the exit.', ({ status: { exit } }) => exit?.packetLeasesOpen, counts),
  counter('shallot_exit_streams_opened', 'TCP streams opened at the exit.', ({ status: { exit } }) => exit?.streamsOpened, counts),
  counter(
    'shallot_exit_refused',
    'What was asked of the exit and not served.',
    ({ status: { exit } }) => exit && tally(exit.refused),
    byReason,
  ),
  counter(
    'shallot_exit_bytes',
    'Payload bytes between the exit and servers, whatever carried them.',
    ({ status: { exit } }) =>
      exit && [
        { labels: { direction: 'from_servers' }, value: exit.bytesFromServers },
        { labels: { direction: 'to_servers' }, value: exit.bytesToServers },
      ],
    byDirection,
  ),
  gauge('shallot_exit_streams_limit', 'How many TCP streams may be open.', ({ status: { exit } }) => exit?.limits.streams),
  gauge('shallot_exit_associations_limit', 'How many UDP associations may be open.', ({ status: { exit } }) => exit?.limits.associations),
  counter('shallot_exit_dns_questions', 'Questions to the resolver of the exit.', ({ status: { exit } }) => exit?.dns.questions, counts),
  counter(
    'shallot_exit_dns_remembered',
    'Questions that were answered from memory.',
    ({ status: { exit } }) => exit?.dns.remembered,
    counts,
  ),
  counter(
    'shallot_exit_dns_unanswered',
    'Questions that were refused by rule, or that failed.',
    ({ status: { exit } }) => exit && tally({ refused: exit.dns.refused, failed: exit.dns.failed }),
    byReason,
  ),

  gauge(
    'shallot_exit_packet_leases_limit',
    'How many leases for raw packets may be open.',
    ({ status: { exit } }) => exit?.packets && exit.limits.packetLeases,
  ),
  counter(
    'shallot_exit_packets',
    'Raw packets of clients, and for them.',
    ({ status: { exit } }) =>
      exit?.packets && [
        { labels: { direction: 'from_clients' }, value: exit.packets.packetsFromClients },
        { labels: { direction: 'to_clients' }, value: exit.packets.packetsToClients },
      ],
    { labels: ['direction'], step: PACKETS_STEP },
  ),
  counter(
    'shallot_exit_packet_bytes',
    'Bytes of raw packets.',
    ({ status: { exit } }) =>
      exit?.packets && [
        { labels: { direction: 'from_clients' }, value: exit.packets.bytesFromClients },
        { labels: { direction: 'to_clients' }, value: exit.packets.bytesToClients },
      ],
    byDirection,
  ),
  counter(
    'shallot_exit_packets_dropped',
    'Raw packets that went no further.',
    ({ status: { exit } }) => exit?.packets && tally(exit.packets.dropped),
    byReason,
  ),
  gauge(
    'shallot_exit_packet_flows',
    'Connections, UDP ports and pings that the userspace stack has open.',
    ({ status: { exit } }) =>
      exit?.packets?.stack && [
        { labels: { protocol: 'tcp' }, value: exit.packets.stack.tcpConnections },
        { labels: { protocol: 'udp' }, value: exit.packets.stack.udpPorts },
        { labels: { protocol: 'icmp' }, value: exit.packets.stack.echoes },
      ],
    { labels: ['protocol'], step: COUNT_STEP },
  ),
  gauge(
    'shallot_exit_packet_buffer_bytes',
    'Memory of the connections of the userspace stack.',
    ({ status: { exit } }) => exit?.packets?.stack?.bufferBytes,
    bytes,
  ),
  gauge(
    'shallot_exit_packet_buffer_limit_bytes',
    'How much of it there may be.',
    ({ status: { exit } }) => exit?.packets?.stack?.bufferLimitBytes,
  ),
  counter(
    'shallot_exit_packet_retransmissions',
    'TCP segments that the userspace stack sent again to clients.',
    ({ status: { exit } }) => exit?.packets?.stack?.retransmissions,
    counts,
  ),

  gauge(
    'shallot_nat_relay_reservations',
    'Nodes behind NAT that have a place at this relay.',
    ({ status: { natRelay } }) => natRelay?.reservations.open,
    counts,
  ),
  counter('shallot_nat_relay_reservations_granted', 'Places given.', ({ status: { natRelay } }) => natRelay?.reservations.granted, counts),
  counter(
    'shallot_nat_relay_reservations_refused',
    'Places refused.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.reservations.refused),
    byReason,
  ),
  counter(
    'shallot_nat_relay_reservations_ended',
    'Places that ended.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.reservations.ended),
    byReason,
  ),
  gauge('shallot_nat_relay_connections', 'Relayed connections.', ({ status: { natRelay } }) => natRelay?.connections.open, counts),
  counter(
    'shallot_nat_relay_connections_opened',
    'Relayed connections that were opened.',
    ({ status: { natRelay } }) => natRelay?.connections.total,
    counts,
  ),
  counter(
    'shallot_nat_relay_connections_refused',
    'Relayed connections that were refused.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.connections.refused),
    byReason,
  ),
  counter(
    'shallot_nat_relay_bytes',
    'Bytes relayed.',
    ({ status: { natRelay } }) =>
      natRelay && [
        { labels: { direction: 'from_reserved' }, value: natRelay.bytes.fromReserved },
        { labels: { direction: 'to_reserved' }, value: natRelay.bytes.toReserved },
      ],
    byDirection,
  ),
  gauge('shallot_nat_relay_held_bytes', 'Bytes held for slow sides.', ({ status: { natRelay } }) => natRelay?.bytes.held, bytes),

  counter('shallot_stun_requests', 'STUN requests.', ({ status: { stun } }) => stun?.requests, counts),
  counter('shallot_stun_answers', 'STUN answers.', ({ status: { stun } }) => stun?.answers, counts),
  counter(
    'shallot_stun_dropped',
    'STUN datagrams not answered.',
    ({ status: { stun } }) =>
      stun &&
      [
        ['malformed', stun.droppedMalformed],
        ['rate', stun.droppedOverRate],
        ['bytes', stun.droppedOverBytes],
        ['unable', stun.droppedUnable],
      ].map(([reason, value]) => ({ labels: { reason: String(reason) }, value: Number(value) })),
    byReason,
  ),
  counter(
    'shallot_stun_bytes',
    'Bytes of STUN.',
    ({ status: { stun } }) =>
      stun && [
        { labels: { direction: 'received' }, value: stun.bytesReceived },
        { labels: { direction: 'sent' }, value: stun.bytesSent },
      ],
    byDirection,
  ),

  gauge(
    'shallot_client_circuits',
    "The client's circuits.",
    ({ status: { client } }) =>
      client && [
        { labels: { state: 'open' }, value: client.circuitsOpen },
        { labels: { state: 'building' }, value: client.circuitsBuilding },
      ],
    { labels: ['state'], step: 1, audience: 'local' },
  ),
  counter('shallot_client_circuits_built', 'Circuits that the client built.', ({ status: { client } }) => client?.circuitsBuilt, ownCounts),
  counter(
    'shallot_client_circuits_failed',
    'Circuits that the client could not build.',
    ({ status: { client } }) => client?.circuitsFailed,
    ownCounts,
  ),
  gauge('shallot_client_streams', "The client's open streams.", ({ status: { client } }) => client?.streamsOpen, ownCounts),
  counter('shallot_client_streams_opened', 'Streams that the client opened.', ({ status: { client } }) => client?.streamsOpened, ownCounts),
  counter(
    'shallot_client_streams_failed',
    'Streams that the client could not open.',
    ({ status: { client } }) => client?.streamsFailed,
    ownCounts,
  ),
  counter(
    'shallot_client_bytes',
    "Payload bytes of the client's circuits.",
    ({ status: { client } }) =>
      client && [
        { labels: { direction: 'sent' }, value: client.bytesSent },
        { labels: { direction: 'received' }, value: client.bytesReceived },
      ],
    { labels: ['direction'], step: BYTES_STEP, audience: 'local' },
  ),

  ...PROCESS_METRICS,
]

/** Reasons are words of this program: what is none is not passed on. */
function tally(counted: Readonly<Record<string, number | undefined>>): Sample[] {
  const sums = new Map<string, number>()
  for (const [reason, value] of Object.entries(counted)) {
    const word = /^[a-z]{1,20}(-[a-z]{1,20}){0,5}$/.test(reason) ? reason : 'other'
    sums.set(word, (sums.get(word) ?? 0) + (value ?? 0))
  }
  return [...sums].map(([reason, value]) => ({ labels: { reason }, value }))
}
