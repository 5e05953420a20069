import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { ALERT_RULES } from '../../support/alert-rules.ts'
import { projectRoot, temporaryFolder } from '../../support/processes.ts'

const promtool = spawnSync('promtool', ['--version']).status === 0
const folder = temporaryFolder('alerts')
afterAll(() => folder.remove())

/** Series in promtool's notation: the first value, what each minute adds, and how often; by the metric with its own labels. */
type Series = Readonly<Record<string, string>>

const MINUTES = 26 * 60

/** A node of all roles that is well, for a day and two hours. */
const well: Series = {
  up: `1x${MINUTES}`,
  shallot_node_ready: `1x${MINUTES}`,
  shallot_node_warnings: `0x${MINUTES}`,
  // Started at the beginning of the test's time.
  shallot_node_start_timestamp_seconds: `0x${MINUTES}`,
  shallot_view_synced_timestamp_seconds: `0+60x${MINUTES}`,
  process_resident_memory_bytes: `130e6x${MINUTES}`,
  shallot_memory_limit_bytes: `512e6x${MINUTES}`,
  nodejs_heap_size_used_bytes: `60e6x${MINUTES}`,
  nodejs_heap_size_limit_bytes: `2e9x${MINUTES}`,
  process_open_fds: `400x${MINUTES}`,
  process_max_fds: `65536x${MINUTES}`,
  nodejs_eventloop_lag_p99_seconds: `0.004x${MINUTES}`,
  nodejs_eventloop_active_seconds_total: `0+12x${MINUTES}`,
  shallot_relay_queued_bytes: `8e6x${MINUTES}`,
  shallot_relay_queue_limit_bytes: `134e6x${MINUTES}`,
  shallot_relay_circuits: `2000x${MINUTES}`,
  shallot_relay_circuits_limit: `10000x${MINUTES}`,
  'shallot_relay_circuits_refused_total{reason="rate"}': `0+8x${MINUTES}`,
  'shallot_relay_circuits_refused_total{reason="leaving"}': `0+600x${MINUTES}`,
  shallot_onion_key_expiry_timestamp_seconds: `604800x${MINUTES}`,
  'shallot_exit_refused_total{reason="policy"}': `0+40x${MINUTES}`,
  shallot_exit_streams_opened_total: `0+600x${MINUTES}`,
  'shallot_exit_bytes_total{direction="from_servers"}': `0+9000000x${MINUTES}`,
  shallot_exit_streams: `900x${MINUTES}`,
  shallot_exit_streams_limit: `16384x${MINUTES}`,
  'shallot_exit_dns_unanswered_total{reason="failed"}': `0+8x${MINUTES}`,
  'shallot_exit_dns_unanswered_total{reason="refused"}': `0+600x${MINUTES}`,
  shallot_exit_dns_questions_total: `0+900x${MINUTES}`,
  shallot_exit_packet_buffer_bytes: `2e6x${MINUTES}`,
  shallot_exit_packet_buffer_limit_bytes: `268e6x${MINUTES}`,
  'shallot_exit_packets_dropped_total{reason="policy"}': `0+64x${MINUTES}`,
  'shallot_exit_packets_total{direction="from_clients"}': `0+60000x${MINUTES}`,
  'shallot_exit_packets_total{direction="to_clients"}': `0+90000x${MINUTES}`,
  'shallot_stun_dropped_total{reason="malformed"}': `0+8x${MINUTES}`,
  shallot_stun_answers_total: `0+300x${MINUTES}`,
  'shallot_view_relays{state="known",role="total"}': `800x${MINUTES}`,
  'shallot_view_relays{state="known",role="guard"}': `400x${MINUTES}`,
}

/** What is otherwise where a rule is to fire: when it is looked at, and the labels of its own that it fires with. */
const ill: Readonly<Record<string, { readonly series: Series; readonly at?: string; readonly labels?: Series }>> = {
  ShallotDown: { series: { up: `0x${MINUTES}` } },
  ShallotNotReady: { series: { shallot_node_ready: `0x${MINUTES}` } },
  ShallotWarnings: { series: { shallot_node_warnings: `1x${MINUTES}` } },
  ShallotRestarts: { series: { shallot_node_start_timestamp_seconds: `0+600x${MINUTES}` } },
  ShallotViewOld: { series: { shallot_view_synced_timestamp_seconds: `0x${MINUTES}` }, at: '150m' },
  ShallotMemoryNearLimit: { series: { process_resident_memory_bytes: `490e6x${MINUTES}` } },
  ShallotHeapNearLimit: { series: { nodejs_heap_size_used_bytes: `1.8e9x${MINUTES}` } },
  ShallotFilesNearLimit: { series: { process_open_fds: `60000x${MINUTES}` } },
  ShallotLoopLate: { series: { nodejs_eventloop_lag_p99_seconds: `0.7x${MINUTES}` } },
  ShallotThreadFull: { series: { nodejs_eventloop_active_seconds_total: `0+58x${MINUTES}` } },
  ShallotQueuesFull: { series: { shallot_relay_queued_bytes: `120e6x${MINUTES}` } },
  ShallotCircuitsNearLimit: { series: { shallot_relay_circuits: `9600x${MINUTES}` } },
  ShallotRefusesCircuits: {
    series: { 'shallot_relay_circuits_refused_total{reason="rate"}': `0+160x${MINUTES}` },
    labels: { reason: 'rate' },
  },
  ShallotOnionKeyOld: { series: { shallot_onion_key_expiry_timestamp_seconds: `600x${MINUTES}` }, at: '100m' },
  ShallotExitRefuses: { series: { 'shallot_exit_refused_total{reason="policy"}': `0+3200x${MINUTES}` } },
  ShallotExitCarriesNothing: {
    series: { 'shallot_exit_bytes_total{direction="from_servers"}': `7340032x${MINUTES}` },
    labels: { direction: 'from_servers' },
  },
  ShallotExitStreamsNearLimit: { series: { shallot_exit_streams: `16000x${MINUTES}` } },
  ShallotExitNamesFail: { series: { 'shallot_exit_dns_unanswered_total{reason="failed"}': `0+800x${MINUTES}` } },
  ShallotExitPacketMemoryFull: { series: { shallot_exit_packet_buffer_bytes: `260e6x${MINUTES}` } },
  ShallotExitDropsPackets: { series: { 'shallot_exit_packets_dropped_total{reason="rate"}': `0+30000x${MINUTES}` } },
  ShallotStunDrops: { series: { 'shallot_stun_dropped_total{reason="rate"}': `0+900x${MINUTES}` } },
  ShallotViewShrank: {
    series: { 'shallot_view_relays{state="known",role="total"}': `800x1440 300x${MINUTES - 1440}` },
    at: '1500m',
    labels: { state: 'known', role: 'total' },
  },
}

/** Rules whose labels are those of the sum, without the job. */
const summed = /sum by \(instance\)| on \(instance\) shallot_memory_limit/

function withLabels(name: string): string {
  const [metric, labels = ''] = name.replace(/\}$/, '').split('{')
  return `${metric}{job="shallot",instance="relay-1"${labels === '' ? '' : `,${labels}`}}`
}

function runPromtool(kit: string, series: Series, checks: string): string {
  const file = join(folder.path, `${kit}-${Math.random().toString(36).slice(2)}.yml`)
  writeFileSync(
    file,
    `rule_files: [${JSON.stringify(join(projectRoot, kit, 'alerts.yml'))}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
${Object.entries(series)
  .map(([name, values]) => `      - { series: '${withLabels(name)}', values: '${values}' }`)
  .join('\n')}
    alert_rule_test:
${checks}`,
  )
  const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' })
  return status === 0 ? '' : stdout + stderr
}

function check(alert: string, at: string, labels: Series | null): string {
  const all = labels === null ? '' : `[{ exp_labels: ${JSON.stringify(labels)}, exp_annotations: ANNOTATIONS }]`
  return `      - { eval_time: ${at}, alertname: ${alert}, exp_alerts: ${all === '' ? '[]' : all} }\n`
}

describe.skipIf(!promtool)('alert rules (skipped without promtool of the package prometheus)', () => {
  test('have a case each', () => {
    expect(Object.keys(ill).sort()).toEqual(ALERT_RULES.map(({ alert }) => alert).sort())
  })

  test.each(['relay', 'exit', 'bootstrap'] as const)('of %s are accepted', (kit) => {
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', join(projectRoot, kit, 'alerts.yml')], { encoding: 'utf8' })
    expect(status, stdout + stderr).toBe(0)
  })

  test.each(['relay', 'exit', 'bootstrap'] as const)('of %s are silent while the node is well', (kit) => {
    const rules = ALERT_RULES.filter(({ kits }) => kits.includes(kit))
    const checks = rules.flatMap(({ alert }) => ['45m', '120m', '1500m'].map((at) => check(alert, at, null))).join('')
    expect(runPromtool(kit, well, checks)).toBe('')
  })

  test.each(ALERT_RULES.map((rule) => [rule.alert, rule] as const))('%s fires on what it names, once it has lasted', (alert, rule) => {
    const { series, at = '90m', labels = {} } = ill[alert]!
    const place: Series = summed.test(rule.expr) ? { instance: 'relay-1' } : { instance: 'relay-1', job: 'shallot' }
    const text = (template: string): string =>
      template.replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => ({ ...place, ...labels })[name] ?? '')
    const annotations = JSON.stringify({ summary: `relay-1 ${text(rule.summary)}`, description: rule.description })
    const firing = check(alert, at, { severity: rule.severity, ...place, ...labels }).replace('ANNOTATIONS', annotations)
    const tooEarly = rule.for === '0m' ? '' : check(alert, '1m', null)
    for (const kit of rule.kits) expect(runPromtool(kit, { ...well, ...series }, firing + tooEarly)).toBe('')
  })
})
