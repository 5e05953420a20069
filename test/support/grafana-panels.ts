/** What the Grafana dashboards of the role folders show. */

export type Kit = 'bootstrap' | 'relay' | 'exit'

export interface Target {
  readonly expr: string
  readonly legend: string
}

export interface Panel {
  readonly title: string
  readonly description: string
  readonly unit: string
  readonly targets: readonly Target[]
  /** Of a number: where it becomes yellow and red, or words for values. */
  readonly stat?: { readonly warn?: number; readonly bad?: number; readonly words?: Readonly<Record<number, readonly [string, string]>> }
  readonly stacked?: true
  /** Lines that are limits: dashed, and not filled. */
  readonly limits?: readonly string[]
  readonly max?: number
}

export interface Section {
  readonly title: string
  readonly panels: readonly Panel[]
}

/** A metric of the chosen nodes. */
export const of = (name: string, more = ''): string => `${name}{instance=~"$instance"${more === '' ? '' : `,${more}`}}`
const rate = (name: string, more = ''): string => `rate(${of(`${name}_total`, more)}[5m])`
/** Sums over the chosen nodes' series by these labels. */
const sum = (by: string, expr: string): string => `sum by (instance${by === '' ? '' : `, ${by}`}) (${expr})`
export const node = '{{instance}}'
const line = (expr: string, legend: string = node): Target => ({ expr, legend })

const vitals: Section = {
  title: 'Vital signs',
  panels: [
    {
      title: 'Ready',
      description: 'Whether the node does what its roles say. If not: shallot doctor.',
      unit: 'short',
      targets: [line(of('shallot_node_ready'))],
      stat: { words: { 1: ['ready', 'green'], 0: ['not ready', 'red'] } },
    },
    {
      title: 'Warnings',
      description: 'What shallot status warns of.',
      unit: 'short',
      targets: [line(of('shallot_node_warnings'))],
      stat: { warn: 1 },
    },
    {
      title: 'Leaving',
      description: 'Whether it drains: no new circuits, and it stops with the last.',
      unit: 'short',
      targets: [line(of('shallot_node_draining'))],
      stat: { words: { 1: ['leaving', 'yellow'], 0: ['no', 'green'] } },
    },
    {
      title: 'Started',
      description: 'When the process was started.',
      unit: 'dateTimeFromNow',
      targets: [line(`${of('shallot_node_start_timestamp_seconds')} * 1000`)],
      stat: {},
    },
    {
      title: 'Event loop, p99 late',
      description: 'How late the one thread of the node comes to its work. Above 100 ms everybody on it waits.',
      unit: 's',
      targets: [line(of('nodejs_eventloop_lag_p99_seconds'))],
      stat: { warn: 0.1, bad: 0.5 },
    },
    {
      title: 'Heard of the network',
      description: 'How long ago the view was last compared with that of a peer.',
      unit: 's',
      targets: [line(`time() - ${of('shallot_view_synced_timestamp_seconds')}`)],
      stat: { warn: 3600, bad: 7200 },
    },
  ],
}

const circuits: Section = {
  title: 'Circuits',
  panels: [
    {
      title: 'Circuits served',
      description: 'Now, and how many may be.',
      unit: 'short',
      targets: [line(of('shallot_relay_circuits')), line(of('shallot_relay_circuits_limit'), `${node} limit`)],
      limits: ['limit'],
    },
    {
      title: 'New circuits',
      description: 'Handshakes that were answered, a second.',
      unit: 'ops',
      targets: [line(rate('shallot_relay_circuits_opened'))],
    },
    {
      title: 'Ended, by reason',
      description: 'overloaded and timeout are circuits that were shed.',
      unit: 'ops',
      targets: [line(sum('reason', rate('shallot_relay_circuits_closed')), `${node} {{reason}}`)],
      stacked: true,
    },
  ],
}

const relayTraffic: Panel = {
  title: 'Traffic of circuits',
  description: 'Bytes of cells forwarded, a second. Every byte crosses the line twice: in and out.',
  unit: 'Bps',
  targets: [line(rate('shallot_relay_bytes'))],
}
const queues: Panel = {
  title: 'Bytes in queues',
  description: 'Cells that wait for a slow side, against relaying.queue_budget_bytes. Near the limit the oldest circuits are closed.',
  unit: 'bytes',
  targets: [line(of('shallot_relay_queued_bytes')), line(of('shallot_relay_queue_limit_bytes'), `${node} limit`)],
  limits: ['limit'],
}
const links: Panel = {
  title: 'Links',
  description: 'Connections to other nodes, of either kind.',
  unit: 'short',
  targets: [line(of('shallot_links'))],
}
const refusedCircuits: Panel = {
  title: 'Circuits refused, by reason',
  description: 'Limits of [relaying] in docs/configuration.md. leaving and shutting-down are in order.',
  unit: 'ops',
  targets: [line(sum('reason', rate('shallot_relay_circuits_refused')), `${node} {{reason}}`)],
  stacked: true,
}

const network: Section = {
  title: 'Network',
  panels: [
    {
      title: 'Relays known, by role',
      description: 'Of the view of this node.',
      unit: 'short',
      targets: [line(of('shallot_view_relays', 'state="known",role!="total"'), `${node} {{role}}`)],
    },
    {
      title: 'Relays known and eligible',
      description: 'Known: stored and passed on. Eligible: what a path of this node might use.',
      unit: 'short',
      targets: [line(of('shallot_view_relays', 'role="total"'), `${node} {{state}}`)],
    },
  ],
}

const onionKey: Panel = {
  title: 'Onion key, until it is replaced',
  description: 'Falls to nothing, and begins anew: once a week.',
  unit: 's',
  targets: [line(`${of('shallot_onion_key_expiry_timestamp_seconds')} - time()`)],
}

const resources: Section = {
  title: 'Resources',
  panels: [
    {
      title: 'Memory',
      description: 'Resident, heap and buffers, against what the system lets the process have.',
      unit: 'bytes',
      targets: [
        line(of('process_resident_memory_bytes'), `${node} resident`),
        line(of('nodejs_heap_size_used_bytes'), `${node} heap`),
        line(of('nodejs_external_memory_bytes'), `${node} buffers`),
        line(of('shallot_memory_limit_bytes'), `${node} limit`),
      ],
      limits: ['limit'],
    },
    {
      title: 'Processor and thread',
      description: 'Processors in use, and the share of its one thread that is busy: at 100 % of the thread the node is full.',
      unit: 'percentunit',
      targets: [line(rate('process_cpu_seconds'), `${node} processors`), line(rate('nodejs_eventloop_active_seconds'), `${node} thread`)],
    },
    {
      title: 'Event loop, late by',
      description: 'Over each minute: half of the time, 99 of 100 times, and at worst.',
      unit: 's',
      targets: [
        line(of('nodejs_eventloop_lag_p50_seconds'), `${node} p50`),
        line(of('nodejs_eventloop_lag_p99_seconds'), `${node} p99`),
        line(of('nodejs_eventloop_lag_max_seconds'), `${node} worst`),
      ],
    },
    {
      title: 'Open files',
      description: 'Every connection is one.',
      unit: 'short',
      targets: [line(of('process_open_fds')), line(of('process_max_fds'), `${node} limit`)],
      limits: ['limit'],
    },
    {
      title: 'Collecting garbage, share of time',
      description: 'Above a tenth the heap is too small or too busy.',
      unit: 'percentunit',
      targets: [line(sum('kind', rate('nodejs_gc_duration_seconds')), `${node} {{kind}}`)],
      stacked: true,
    },
    {
      title: 'Heap against its limit',
      description: 'At 100 % the process ends.',
      unit: 'percentunit',
      targets: [line(`${of('nodejs_heap_size_used_bytes')} / ${of('nodejs_heap_size_limit_bytes')}`)],
      max: 1,
    },
  ],
}

export const dashboardSections: Readonly<Record<Kit, readonly Section[]>> = {
  bootstrap: [
    vitals,
    {
      title: 'STUN',
      panels: [
        {
          title: 'Requests and answers',
          description: 'Of nodes that want to know how their NAT behaves.',
          unit: 'ops',
          targets: [line(rate('shallot_stun_requests'), `${node} requests`), line(rate('shallot_stun_answers'), `${node} answers`)],
        },
        {
          title: 'Not answered, by reason',
          description: 'rate and bytes are limits of nat.stun.server.',
          unit: 'ops',
          targets: [line(sum('reason', rate('shallot_stun_dropped')), `${node} {{reason}}`)],
          stacked: true,
        },
        {
          title: 'Bytes',
          description: 'What is sent must not be much more than what is received.',
          unit: 'Bps',
          targets: [line(rate('shallot_stun_bytes'), `${node} {{direction}}`)],
        },
      ],
    },
    { ...network, panels: [...network.panels, links] },
    resources,
  ],
  relay: [
    vitals,
    { title: 'Traffic', panels: [relayTraffic, queues, links] },
    circuits,
    {
      title: 'Refusals',
      panels: [
        refusedCircuits,
        {
          title: 'Nodes behind NAT refused, by reason',
          description: 'Limits of [relay] in docs/configuration.md.',
          unit: 'ops',
          targets: [
            line(sum('reason', rate('shallot_nat_relay_reservations_refused')), `${node} place {{reason}}`),
            line(sum('reason', rate('shallot_nat_relay_connections_refused')), `${node} connection {{reason}}`),
          ],
          stacked: true,
        },
        onionKey,
      ],
    },
    {
      title: 'Nodes behind NAT (role relay)',
      panels: [
        {
          title: 'Places taken',
          description: 'Nodes behind NAT that are reached through this one.',
          unit: 'short',
          targets: [line(of('shallot_nat_relay_reservations'))],
        },
        {
          title: 'Relayed connections',
          description: 'Open now.',
          unit: 'short',
          targets: [line(of('shallot_nat_relay_connections'))],
        },
        {
          title: 'Relayed bytes',
          description: 'By direction, a second.',
          unit: 'Bps',
          targets: [line(rate('shallot_nat_relay_bytes'), `${node} {{direction}}`)],
        },
      ],
    },
    network,
    resources,
  ],
  exit: [
    vitals,
    {
      title: 'Traffic',
      panels: [
        {
          title: 'Traffic with servers',
          description: 'Payload, whatever carried it: streams, datagrams, raw packets.',
          unit: 'Bps',
          targets: [line(rate('shallot_exit_bytes'), `${node} {{direction}}`)],
        },
        relayTraffic,
        queues,
      ],
    },
    {
      title: 'Streams',
      panels: [
        {
          title: 'TCP streams',
          description: 'Open now, and how many may be.',
          unit: 'short',
          targets: [line(of('shallot_exit_streams')), line(of('shallot_exit_streams_limit'), `${node} limit`)],
          limits: ['limit'],
        },
        {
          title: 'New streams',
          description: 'Connected to servers, a second.',
          unit: 'ops',
          targets: [line(rate('shallot_exit_streams_opened'))],
        },
        {
          title: 'UDP associations',
          description: 'Open now, and how many may be.',
          unit: 'short',
          targets: [line(of('shallot_exit_associations')), line(of('shallot_exit_associations_limit'), `${node} limit`)],
          limits: ['limit'],
        },
      ],
    },
    {
      title: 'Refusals',
      panels: [
        {
          title: 'Streams not served, by reason',
          description: 'policy: the exit policy; timeout, unreachable, resolve-failed: the way out; resource-limit: the limits of [exit].',
          unit: 'ops',
          targets: [line(sum('reason', rate('shallot_exit_refused')), `${node} {{reason}}`)],
          stacked: true,
        },
        refusedCircuits,
        {
          title: 'Questions of names',
          description: 'To the resolver of this exit.',
          unit: 'ops',
          targets: [
            line(rate('shallot_exit_dns_questions'), `${node} questions`),
            line(rate('shallot_exit_dns_remembered'), `${node} from memory`),
            line(rate('shallot_exit_dns_unanswered'), `${node} {{reason}}`),
          ],
        },
      ],
    },
    {
      title: 'Raw packets',
      panels: [
        {
          title: 'Packets',
          description: 'Of clients and for them, a second.',
          unit: 'pps',
          targets: [line(rate('shallot_exit_packets'), `${node} {{direction}}`)],
        },
        {
          title: 'Bytes of packets',
          description: 'By direction, a second.',
          unit: 'Bps',
          targets: [line(rate('shallot_exit_packet_bytes'), `${node} {{direction}}`)],
        },
        {
          title: 'Packets dropped, by reason',
          description:
            'source: forged; policy: the exit policy; rate and limit: of [exit]; queue: the client takes nothing. With packets = "tun" also what the rules of the kernel dropped, such as flow-limit.',
          unit: 'pps',
          targets: [line(sum('reason', rate('shallot_exit_packets_dropped')), `${node} {{reason}}`)],
          stacked: true,
        },
        {
          title: 'Leases',
          description: 'Circuits with raw packets, and how many may be.',
          unit: 'short',
          targets: [line(of('shallot_exit_packet_leases')), line(of('shallot_exit_packet_leases_limit'), `${node} limit`)],
          limits: ['limit'],
        },
        {
          title: 'Flows of the userspace stack',
          description: 'Nothing with packets = "tun": there the kernel has them.',
          unit: 'short',
          targets: [line(of('shallot_exit_packet_flows'), `${node} {{protocol}}`)],
          stacked: true,
        },
        {
          title: 'Memory of the userspace stack',
          description: 'Against exit.packet_buffer_bytes; at the limit whoever holds most loses its connections.',
          unit: 'bytes',
          targets: [line(of('shallot_exit_packet_buffer_bytes')), line(of('shallot_exit_packet_buffer_limit_bytes'), `${node} limit`)],
          limits: ['limit'],
        },
        {
          title: 'Segments sent again',
          description: 'By the userspace stack to clients: circuits that lose or are late.',
          unit: 'pps',
          targets: [line(rate('shallot_exit_packet_retransmissions'))],
        },
      ],
    },
    circuits,
    { ...network, panels: [...network.panels, links, onionKey] },
    resources,
  ],
}
