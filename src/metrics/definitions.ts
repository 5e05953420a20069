import type { NodeConfig, NodeStatus } from '../node/index.ts'

/**
 * Every metric of a node: its name, its help, and how it is read from the node's status. Nothing else is published; names and labels follow
 * https://prometheus.io/docs/practices/naming/. No label tells of a user, a peer or a destination: their values are words of this program.
 * How coarse the numbers are: docs/decisions/2026-11-21-metrics-safe-to-publish.md
 */

/** Counts of what people do are multiples of this. */
export const COUNT_STEP = 8
/** Bytes of what people do are multiples of this. */
export const BYTES_STEP = 1 << 20

export interface Source {
  readonly status: NodeStatus
  readonly config: NodeConfig
}

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

export interface Metric {
  readonly name: string
  readonly help: string
  readonly type: 'gauge' | 'counter'
  readonly labels: readonly string[]
  /** `public`: may be on a page that anybody reads. `local`: about the node's own user, for listeners of the loopback only. */
  readonly audience: 'public' | 'local'
  /** What it is made coarser to. */
  readonly step: number
  /** Empty where the node has nothing of the kind. */
  readonly read: (source: Source) => readonly Sample[]
}

type Read = (source: Source) => readonly Sample[] | number | null | undefined
interface Options {
  readonly labels?: readonly string[]
  readonly step?: number
  readonly audience?: 'local'
}

function metric(type: Metric['type'], name: string, help: string, read: Read, { labels = [], step = 1, audience }: Options = {}): Metric {
  return {
    name: `shallot_${name}`,
    help,
    type,
    labels,
    step,
    audience: audience ?? 'public',
    read: (source) => {
      const value = read(source)
      return value === null || value === undefined ? [] : typeof value === 'number' ? [{ value }] : value
    },
  }
}

const gauge = (name: string, help: string, read: Read, options?: Options): Metric => metric('gauge', name, help, read, options)
const counter = (name: string, help: string, read: Read, options?: Options): Metric =>
  metric('counter', `${name}_total`, help, read, options)

const counts = { step: COUNT_STEP } as const
const bytes = { step: BYTES_STEP } as const
const byReason = { labels: ['reason'], step: COUNT_STEP } as const
const byDirection = { labels: ['direction'], step: BYTES_STEP } as const
const ownCounts = { step: COUNT_STEP, audience: 'local' } as const

export const METRICS: readonly Metric[] = [
  gauge(
    'build_info',
    'The version of the program and its implementation of the primitives; always 1.',
    ({ status }) => [{ labels: { version: status.version, crypto: status.crypto.name }, value: 1 }],
    { labels: ['version', 'crypto'] },
  ),
  gauge('node_role', 'Roles of the node; always 1.', ({ status }) => status.roles.map((role) => ({ labels: { role }, value: 1 })), {
    labels: ['role'],
  }),
  gauge('node_ready', 'Whether the node does what its roles say.', ({ status }) => Number(status.ready)),
  gauge('node_draining', 'Whether the node is leaving and takes no new circuits.', ({ status }) => Number(status.draining !== null)),
  gauge('node_warnings', 'Warnings that shallot status shows.', ({ status }) => status.warnings.length),
  gauge('node_start_timestamp_seconds', 'When the node was started.', ({ status }) => Math.floor(status.startedAt / 1000)),
  gauge('links', 'Links to other nodes.', ({ status }) => status.links, counts),
  gauge('memory_limit_bytes', 'What the system lets the process have.', ({ status }) => status.memory.limitBytes),
  gauge(
    'view_relays',
    'Relays of the view by what they are to this node; the role total is all of them.',
    ({ status: { view } }) =>
      (['known', 'eligible'] as const).flatMap((state) =>
        Object.entries(view[state]).map(([role, value]) => ({ labels: { state, role }, value })),
      ),
    { labels: ['state', 'role'] },
  ),
  gauge(
    'view_synced_timestamp_seconds',
    'When the view was last compared with that of a peer.',
    ({ status: { view } }) => (view.syncedAt === null ? null : Math.floor(view.syncedAt / 1000)),
    { step: 60 },
  ),

  gauge('relay_circuits', 'Circuits that are served.', ({ status: { relaying } }) => relaying?.circuitsOpen, counts),
  counter('relay_circuits_created', 'Circuits that were opened here.', ({ status: { relaying } }) => relaying?.circuitsCreated, counts),
  counter(
    'relay_circuits_refused',
    'Circuits that were refused.',
    ({ status: { relaying } }) => relaying && tally(relaying.refused),
    byReason,
  ),
  counter('relay_circuits_closed', 'Circuits that ended.', ({ status: { relaying } }) => relaying && tally(relaying.closed), byReason),
  counter('relay_cells', 'Cells forwarded.', ({ status: { relaying } }) => relaying?.cellsForwarded, { step: 2048 }),
  counter('relay_bytes', 'Bytes of the cells forwarded.', ({ status: { relaying } }) => relaying?.bytesForwarded, bytes),
  gauge('relay_queued_bytes', 'Bytes of cells that wait in queues.', ({ status: { relaying } }) => relaying?.budget.usedBytes, bytes),
  gauge('relay_queue_limit_bytes', 'How many bytes of cells may wait.', ({ status: { relaying } }) => relaying?.budget.limitBytes),
  gauge(
    'onion_key_start_timestamp_seconds',
    'When the onion key was made.',
    ({ status: { onionKey } }) => onionKey && Math.floor(onionKey.since / 1000),
  ),
  gauge(
    'onion_key_expiry_timestamp_seconds',
    'When the onion key is replaced.',
    ({ status: { onionKey } }) => onionKey && Math.floor(onionKey.rotatesAt / 1000),
  ),

  gauge(
    'exit_packet_backend_info',
    'How raw packets leave; always 1.',
    ({ status, config }) => status.exit && [{ labels: { backend: config.exit.packets }, value: 1 }],
    { labels: ['backend'] },
  ),
  gauge('exit_streams', 'TCP streams open at the exit.', ({ status: { exit } }) => exit?.streamsOpen, counts),
  gauge('exit_associations', 'UDP associations open at the exit.', ({ status: { exit } }) => exit?.associationsOpen, counts),
  gauge('exit_packet_leases', 'Leases for raw packets open at the exit.', ({ status: { exit } }) => exit?.packetLeasesOpen, counts),
  counter('exit_streams_opened', 'TCP streams opened at the exit.', ({ status: { exit } }) => exit?.streamsOpened, counts),
  counter('exit_refused', 'What was asked of the exit and not served.', ({ status: { exit } }) => exit && tally(exit.refused), byReason),
  counter(
    'exit_bytes',
    'Payload bytes between the exit and servers, whatever carried them.',
    ({ status: { exit } }) =>
      exit && [
        { labels: { direction: 'from_servers' }, value: exit.bytesFromServers },
        { labels: { direction: 'to_servers' }, value: exit.bytesToServers },
      ],
    byDirection,
  ),

  gauge(
    'nat_relay_reservations',
    'Nodes behind NAT that have a place at this relay.',
    ({ status: { natRelay } }) => natRelay?.reservations.open,
    counts,
  ),
  counter('nat_relay_reservations_granted', 'Places given.', ({ status: { natRelay } }) => natRelay?.reservations.granted, counts),
  counter(
    'nat_relay_reservations_refused',
    'Places refused.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.reservations.refused),
    byReason,
  ),
  counter(
    'nat_relay_reservations_ended',
    'Places that ended.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.reservations.ended),
    byReason,
  ),
  gauge('nat_relay_connections', 'Relayed connections.', ({ status: { natRelay } }) => natRelay?.connections.open, counts),
  counter(
    'nat_relay_connections_opened',
    'Relayed connections that were opened.',
    ({ status: { natRelay } }) => natRelay?.connections.total,
    counts,
  ),
  counter(
    'nat_relay_connections_refused',
    'Relayed connections that were refused.',
    ({ status: { natRelay } }) => natRelay && tally(natRelay.connections.refused),
    byReason,
  ),
  counter(
    'nat_relay_bytes',
    'Bytes relayed.',
    ({ status: { natRelay } }) =>
      natRelay && [
        { labels: { direction: 'from_reserved' }, value: natRelay.bytes.fromReserved },
        { labels: { direction: 'to_reserved' }, value: natRelay.bytes.toReserved },
      ],
    byDirection,
  ),
  gauge('nat_relay_held_bytes', 'Bytes held for slow sides.', ({ status: { natRelay } }) => natRelay?.bytes.held, bytes),

  counter('stun_requests', 'STUN requests.', ({ status: { stun } }) => stun?.requests, counts),
  counter('stun_answers', 'STUN answers.', ({ status: { stun } }) => stun?.answers, counts),
  counter(
    'stun_dropped',
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
    'stun_bytes',
    'Bytes of STUN.',
    ({ status: { stun } }) =>
      stun && [
        { labels: { direction: 'received' }, value: stun.bytesReceived },
        { labels: { direction: 'sent' }, value: stun.bytesSent },
      ],
    byDirection,
  ),

  gauge(
    'client_circuits',
    "The client's circuits.",
    ({ status: { client } }) =>
      client && [
        { labels: { state: 'open' }, value: client.circuitsOpen },
        { labels: { state: 'building' }, value: client.circuitsBuilding },
      ],
    { labels: ['state'], step: 1, audience: 'local' },
  ),
  counter('client_circuits_built', 'Circuits that the client built.', ({ status: { client } }) => client?.circuitsBuilt, ownCounts),
  counter(
    'client_circuits_failed',
    'Circuits that the client could not build.',
    ({ status: { client } }) => client?.circuitsFailed,
    ownCounts,
  ),
  gauge('client_streams', "The client's open streams.", ({ status: { client } }) => client?.streamsOpen, ownCounts),
  counter('client_streams_opened', 'Streams that the client opened.', ({ status: { client } }) => client?.streamsOpened, ownCounts),
  counter('client_streams_failed', 'Streams that the client could not open.', ({ status: { client } }) => client?.streamsFailed, ownCounts),
  counter(
    'client_bytes',
    "Payload bytes of the client's circuits.",
    ({ status: { client } }) =>
      client && [
        { labels: { direction: 'sent' }, value: client.bytesSent },
        { labels: { direction: 'received' }, value: client.bytesReceived },
      ],
    { labels: ['direction'], step: BYTES_STEP, audience: 'local' },
  ),
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
