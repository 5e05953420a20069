import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { METRICS } from '../../../src/metrics/index.ts'
import { projectRoot, temporaryFolder } from '../../support/processes.ts'
import { metricNames } from '../../support/promql.ts'

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly datasource?: { readonly type: string; readonly uid: string }
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } }
  readonly targets?: readonly {
    readonly refId: string
    readonly expr: string
    readonly legendFormat: string
    readonly datasource: { readonly uid: string }
  }[]
}

interface Dashboard {
  readonly uid: string
  readonly schemaVersion: number
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly type: string; readonly query: unknown }[] }
  readonly annotations: { readonly list: readonly { readonly expr: string }[] }
}

/** Grafana's names of units (packages/grafana-data, valueFormats/categories.ts) that are used here. */
const UNITS = ['short', 's', 'bytes', 'Bps', 'ops', 'pps', 'percentunit', 'dateTimeFromNow']
const variable = '${'.concat('datasource}')
const promtool = spawnSync('promtool', ['--version']).status === 0
const folder = temporaryFolder('grafana')
afterAll(() => folder.remove())

const load = (kit: string): Dashboard => JSON.parse(readFileSync(join(projectRoot, kit, 'grafana.json'), 'utf8')) as Dashboard
const expressions = (kit: string): string[] => [
  ...load(kit).panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
  ...load(kit).annotations.list.map(({ expr }) => expr),
]

describe.each(['relay', 'exit', 'bootstrap'])('the dashboard of %s', (kit) => {
  test('asks the data source that is chosen, of the nodes that are chosen', () => {
    const { templating, panels } = load(kit)
    expect(templating.list.map(({ name, type }) => [name, type])).toEqual([
      ['datasource', 'datasource'],
      ['instance', 'query'],
    ])
    for (const { datasource, targets = [], type } of panels) {
      if (type !== 'row') expect(datasource?.uid).toBe(variable)
      for (const target of targets) expect(target.datasource.uid).toBe(variable)
    }
    for (const expr of expressions(kit)) for (const name of metricNames(expr)) expect(expr).toContain(`${name}{instance=~"$instance"`)
  })

  test('lays its panels out without holes in the ids and without overlaps, within 24 columns', () => {
    const { panels } = load(kit)
    expect(panels.map(({ id }) => id)).toEqual(panels.map((_, i) => i + 1))
    const taken = new Set<string>()
    for (const { title, gridPos } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x} ${y}`), `${title} at ${x},${y}`).toBe(false)
          taken.add(`${x} ${y}`)
        }
    }
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length)
  })

  test('begins with the vital signs, and says of every panel what it is and in which unit', () => {
    const { panels, schemaVersion, uid } = load(kit)
    expect(schemaVersion).toBeGreaterThanOrEqual(39)
    expect(uid).toBe(`shallot-${kit}`)
    expect(panels.slice(0, 7).map(({ type }) => type)).toEqual(['row', ...Array(6).fill('stat')])
    for (const { type, title, description, fieldConfig, targets = [] } of panels) {
      if (type === 'row') continue
      expect(description, title).toMatch(/\.$/)
      expect(UNITS, title).toContain(fieldConfig?.defaults.unit)
      expect(
        targets.map(({ refId }) => refId),
        title,
      ).toEqual(targets.map((_, i) => String.fromCharCode(65 + i)))
      for (const { legendFormat } of targets) expect(legendFormat).toContain('{{instance}}')
    }
  })

  test('shows counters as rates, gauges as they are, in a unit that goes with the metric', () => {
    const types = new Map(METRICS.map(({ name, type }) => [name, type]))
    for (const { title, fieldConfig, targets = [] } of load(kit).panels) {
      const unit = fieldConfig?.defaults.unit
      for (const { expr } of targets) {
        for (const name of metricNames(expr)) {
          expect(types.has(name), `${title}: ${name}`).toBe(true)
          expect(expr.includes(`rate(${name}`), `${title}: ${name}`).toBe(types.get(name) === 'counter')
          if (unit === 'Bps' || unit === 'bytes') expect(name, title).toMatch(/_bytes(_total)?$/)
        }
      }
    }
  })

  test.skipIf(!promtool)('holds expressions that Prometheus can read (skipped without promtool)', () => {
    const file = join(folder.path, `${kit}.yml`)
    const rules = expressions(kit).map((expr, i) => `      - { record: "panel:${i}", expr: ${JSON.stringify(expr)} }`)
    writeFileSync(file, `groups:\n  - name: panels\n    rules:\n${rules.join('\n')}\n`)
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', file], { encoding: 'utf8' })
    expect(status, stdout + stderr).toBe(0)
  })
})

test('what is published is shown by a dashboard, but for what only a person looks up', () => {
  const shown = new Set(['relay', 'exit', 'bootstrap'].flatMap(expressions).flatMap(metricNames))
  const unseen = METRICS.filter(({ name, audience }) => audience === 'public' && !shown.has(name)).map(({ name }) => name)
  expect(unseen.sort()).toEqual([
    'nodejs_gc_runs_total',
    'nodejs_heap_size_total_bytes',
    'process_open_resources',
    'process_start_time_seconds',
    'shallot_build_info',
    'shallot_exit_packet_backend_info',
    'shallot_nat_relay_connections_opened_total',
    'shallot_nat_relay_held_bytes',
    'shallot_nat_relay_reservations_ended_total',
    'shallot_nat_relay_reservations_granted_total',
    'shallot_node_role',
    'shallot_onion_key_start_timestamp_seconds',
    'shallot_relay_cells_total',
  ])
})
