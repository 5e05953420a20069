import type { Kit } from './grafana-panels.ts'

/** The alert rules of the role folders, made from one list. `node test/support/generated-files.ts` writes them. */

export interface AlertRule {
  readonly alert: string
  readonly kits: readonly Kit[]
  readonly severity: 'warning' | 'critical'
  readonly expr: string
  readonly for: string
  readonly summary: string
  readonly description: string
}

const all: readonly Kit[] = ['bootstrap', 'relay', 'exit']
const serving: readonly Kit[] = ['relay', 'exit']
/** Names that other programs have too. */
const own = (name: string): string => `${name}{job="shallot"}`

export const ALERT_RULES: readonly AlertRule[] = [
  {
    alert: 'ShallotDown',
    kits: all,
    severity: 'critical',
    expr: `${own('up')} == 0`,
    for: '5m',
    summary: 'is not answering',
    description:
      'The node or its machine is down, or metrics.listen is not what Prometheus asks. See systemctl status shallot and journalctl -u shallot.',
  },
  {
    alert: 'ShallotNotReady',
    kits: all,
    severity: 'critical',
    expr: 'shallot_node_ready == 0 and on (instance) (time() - shallot_node_start_timestamp_seconds) > 600',
    for: '10m',
    summary: 'is not part of the network',
    description: 'Run shallot doctor there.',
  },
  {
    alert: 'ShallotWarnings',
    kits: all,
    severity: 'warning',
    expr: 'shallot_node_warnings > 0',
    for: '30m',
    summary: 'has something to say',
    description: 'shallot status shows its warnings, shallot doctor what to do.',
  },
  {
    alert: 'ShallotRestarts',
    kits: all,
    severity: 'warning',
    expr: 'changes(shallot_node_start_timestamp_seconds[1h]) > 3',
    for: '0m',
    summary: 'was started again and again',
    description: 'journalctl -u shallot says why it ended; the watchdog and the out-of-memory killer show in systemctl status.',
  },
  {
    alert: 'ShallotViewOld',
    kits: all,
    severity: 'warning',
    expr: 'time() - shallot_view_synced_timestamp_seconds > 7200',
    for: '15m',
    summary: 'has heard nothing of the network for hours',
    description: 'Its way out or its clock may be wrong: shallot doctor.',
  },
  {
    alert: 'ShallotMemoryNearLimit',
    kits: all,
    severity: 'warning',
    expr: `${own('process_resident_memory_bytes')} / on (instance) shallot_memory_limit_bytes > 0.9`,
    for: '15m',
    summary: 'is near its memory limit',
    description: 'Raise MemoryMax, or lower relaying.queue_budget_bytes and the limits of circuits and streams.',
  },
  {
    alert: 'ShallotHeapNearLimit',
    kits: all,
    severity: 'warning',
    expr: `${own('nodejs_heap_size_used_bytes')} / ${own('nodejs_heap_size_limit_bytes')} > 0.85`,
    for: '15m',
    summary: 'has a heap that is nearly full',
    description:
      'At the limit the process ends. Lower the limits of circuits and streams; if the heap only ever grows, tell the developers.',
  },
  {
    alert: 'ShallotFilesNearLimit',
    kits: all,
    severity: 'warning',
    expr: `${own('process_open_fds')} / ${own('process_max_fds')} > 0.8`,
    for: '15m',
    summary: 'has nearly as many files open as it may',
    description: 'Every connection is one. Raise LimitNOFILE in the unit.',
  },
  {
    alert: 'ShallotLoopLate',
    kits: all,
    severity: 'warning',
    expr: `${own('nodejs_eventloop_lag_p99_seconds')} > 0.5`,
    for: '10m',
    summary: 'is slow: its event loop is half a second late',
    description: 'Everybody on it waits. The processor is too small or shared with too much: lower node.bandwidth_bytes_per_second.',
  },
  {
    alert: 'ShallotThreadFull',
    kits: all,
    severity: 'warning',
    expr: `rate(${own('nodejs_eventloop_active_seconds_total')}[15m]) > 0.9`,
    for: '30m',
    summary: 'has no processor time left',
    description: 'One node uses one thread. Lower node.bandwidth_bytes_per_second, or run a second node beside it.',
  },
  {
    alert: 'ShallotQueuesFull',
    kits: serving,
    severity: 'warning',
    expr: 'shallot_relay_queued_bytes / shallot_relay_queue_limit_bytes > 0.8',
    for: '10m',
    summary: 'queues more than it sends',
    description: 'The line or the processor is too small for what is claimed: lower node.bandwidth_bytes_per_second.',
  },
  {
    alert: 'ShallotCircuitsNearLimit',
    kits: serving,
    severity: 'warning',
    expr: 'shallot_relay_circuits / shallot_relay_circuits_limit > 0.9',
    for: '15m',
    summary: 'serves nearly as many circuits as it may',
    description: 'Further ones are refused. Raise relaying.max_circuits where memory allows it.',
  },
  {
    alert: 'ShallotRefusesCircuits',
    kits: serving,
    severity: 'warning',
    expr: 'rate(shallot_relay_circuits_refused_total{reason!~"leaving|shutting-down"}[15m]) > 1',
    for: '30m',
    summary: 'refuses circuits ({{ $labels.reason }})',
    description: 'A limit is reached, or somebody tries to. See [relaying] in docs/configuration.md.',
  },
  {
    alert: 'ShallotOnionKeyOld',
    kits: serving,
    severity: 'critical',
    expr: 'time() > shallot_onion_key_expiry_timestamp_seconds + 3600',
    for: '5m',
    summary: 'did not replace its onion key',
    description: 'Its directory may not be writable: shallot doctor.',
  },
  {
    alert: 'ShallotExitRefuses',
    kits: ['exit'],
    severity: 'warning',
    expr: 'sum by (instance) (rate(shallot_exit_refused_total[15m])) > 4 * sum by (instance) (rate(shallot_exit_streams_opened_total[15m])) + 1',
    for: '30m',
    summary: 'refuses more than it serves',
    description: 'Somebody may be scanning through it; or its resolver or its way out is broken. See the reasons in the dashboard.',
  },
  {
    alert: 'ShallotExitCarriesNothing',
    kits: ['exit'],
    severity: 'critical',
    expr: 'increase(shallot_exit_bytes_total{direction="from_servers"}[30m]) == 0 and on (instance) increase(shallot_exit_streams_opened_total[30m]) > 100',
    for: '15m',
    summary: 'opens streams, and nothing comes from servers',
    description: 'Its way out is broken: firewall, route, MTU.',
  },
  {
    alert: 'ShallotExitStreamsNearLimit',
    kits: ['exit'],
    severity: 'warning',
    expr: 'shallot_exit_streams / shallot_exit_streams_limit > 0.9',
    for: '15m',
    summary: 'has nearly as many streams as it may',
    description: 'Further ones are refused. Raise exit.max_streams, and the limit of open files with it.',
  },
  {
    alert: 'ShallotExitNamesFail',
    kits: ['exit'],
    severity: 'warning',
    expr: 'sum by (instance) (rate(shallot_exit_dns_unanswered_total{reason="failed"}[15m])) > 0.5 * sum by (instance) (rate(shallot_exit_dns_questions_total[15m])) + 0.1',
    for: '15m',
    summary: 'does not get answers about names',
    description: 'Its resolver is down or blocks it: exit.resolvers, /etc/resolv.conf.',
  },
  {
    alert: 'ShallotExitPacketMemoryFull',
    kits: ['exit'],
    severity: 'warning',
    expr: 'shallot_exit_packet_buffer_bytes / shallot_exit_packet_buffer_limit_bytes > 0.9',
    for: '10m',
    summary: 'has no memory left for connections of raw packets',
    description: 'Whoever holds most loses them. Raise exit.packet_buffer_bytes, or lower exit.max_packet_leases.',
  },
  {
    alert: 'ShallotExitDropsPackets',
    kits: ['exit'],
    severity: 'warning',
    expr: 'sum by (instance) (rate(shallot_exit_packets_dropped_total[15m])) > 0.2 * sum by (instance) (rate(shallot_exit_packets_total{direction="from_clients"}[15m])) + 10',
    for: '30m',
    summary: 'drops a fifth of its raw packets',
    description: 'By which reason shows the dashboard: source and malformed are hostile, rate and limit are limits of [exit].',
  },
  {
    alert: 'ShallotStunDrops',
    kits: ['bootstrap'],
    severity: 'warning',
    expr: 'sum by (instance) (rate(shallot_stun_dropped_total[15m])) > sum by (instance) (rate(shallot_stun_answers_total[15m])) + 1',
    for: '30m',
    summary: 'drops more STUN requests than it answers',
    description: 'Somebody floods it, or its limits (nat.stun.server.limits) are too low.',
  },
  {
    alert: 'ShallotViewShrank',
    kits: ['bootstrap'],
    severity: 'critical',
    expr: 'shallot_view_relays{state="known",role="total"} < 0.5 * (shallot_view_relays{state="known",role="total"} offset 1d)',
    for: '30m',
    summary: 'has lost half of the network from its view',
    description: 'Relays ended, or this node is cut off from them.',
  },
]

/** The text of a kit's `alerts.yml`. */
export function alertRules(kit: Kit): string {
  const rules = ALERT_RULES.filter(({ kits }) => kits.includes(kit)).map(
    ({ alert, expr, for: duration, severity, summary, description }) => `      - alert: ${alert}
        expr: ${expr.includes(': ') || expr.startsWith('{') ? JSON.stringify(expr) : expr}
        for: ${duration}
        labels:
          severity: ${severity}
        annotations:
          summary: "{{ $labels.instance }} ${summary}"
          description: ${JSON.stringify(description)}
`,
  )
  return `# Alert rules for Prometheus, for a node with the role ${kit}. Its job is named shallot; see docs/operating.md.
groups:
  - name: shallot-${kit}
    rules:
${rules.join('')}`
}
