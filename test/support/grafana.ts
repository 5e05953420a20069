import { dashboardSections, type Kit, node, of, type Panel, type Section } from './grafana-panels.ts'

/** The Grafana dashboards of the role folders. `node test/support/generated-files.ts` writes them. */

const WIDTH = 24
const STAT = { h: 4, w: 4 } as const
const PLOT = { h: 8, w: 8 } as const
// biome-ignore lint/suspicious/noTemplateCurlyInString: the dashboard's own variable
const source = { type: 'prometheus', uid: '${datasource}' } as const

const roles: Readonly<Record<Kit, string>> = { bootstrap: 'bootstrap', relay: 'guard|middle|relay', exit: 'exit' }

/** The text of a kit's `grafana.json`. */
export function grafanaDashboard(kit: Kit): string {
  const dashboard = {
    title: `Shallot: ${kit}`,
    description: `A Shallot node as ${kit}: vital signs first, then what it carries, what it refuses, and what it costs. Numbers are coarse and a minute old.`,
    uid: `shallot-${kit}`,
    id: null,
    tags: ['shallot'],
    schemaVersion: 39,
    version: 2,
    editable: true,
    graphTooltip: 1,
    timezone: 'browser',
    refresh: '1m',
    time: { from: 'now-24h', to: 'now' },
    links: [],
    annotations: {
      list: [
        {
          name: 'Starts',
          enable: true,
          iconColor: 'blue',
          datasource: source,
          expr: `changes(${of('shallot_node_start_timestamp_seconds')}[2m]) > 0`,
          titleFormat: 'started',
          textFormat: node,
        },
      ],
    },
    templating: { list: [datasourceVariable, instanceVariable(kit)] },
    panels: laidOut(dashboardSections[kit]),
  }
  return `${JSON.stringify(dashboard, null, 2)}\n`
}

const datasourceVariable = {
  name: 'datasource',
  label: 'Data source',
  type: 'datasource',
  query: 'prometheus',
  current: {},
  hide: 0,
  options: [],
  refresh: 1,
  regex: '',
  multi: false,
  includeAll: false,
}

function instanceVariable(kit: Kit): object {
  const query = `label_values(shallot_node_role{role=~"${roles[kit]}"}, instance)`
  return {
    name: 'instance',
    label: 'Node',
    type: 'query',
    datasource: source,
    definition: query,
    query: { query, refId: 'instances' },
    current: {},
    hide: 0,
    options: [],
    refresh: 2,
    regex: '',
    sort: 1,
    multi: true,
    includeAll: true,
  }
}

/** Sections under each other, panels from left to right. */
function laidOut(list: readonly Section[]): object[] {
  const panels: object[] = []
  let y = 0
  for (const { title, panels: own } of list) {
    panels.push({ id: panels.length + 1, type: 'row', title, collapsed: false, gridPos: { h: 1, w: WIDTH, x: 0, y }, panels: [] })
    y++
    let x = 0
    let height = 0
    for (const panel of own) {
      const { h, w } = panel.stat ? STAT : PLOT
      if (x + w > WIDTH) {
        x = 0
        y += height
      }
      panels.push(panelJson(panels.length + 1, panel, { h, w, x, y }))
      x += w
      height = h
    }
    y += height
  }
  return panels
}

function panelJson(id: number, panel: Panel, gridPos: object): object {
  const { title, description, targets } = panel
  return {
    id,
    type: panel.stat ? 'stat' : 'timeseries',
    title,
    description,
    datasource: source,
    gridPos,
    fieldConfig: panel.stat ? statFields(panel) : plotFields(panel),
    options: panel.stat ? statOptions : plotOptions,
    targets: targets.map(({ expr, legend }, i) => ({
      refId: String.fromCharCode(65 + i),
      datasource: source,
      editorMode: 'code',
      expr,
      legendFormat: legend,
      range: panel.stat === undefined,
      instant: panel.stat !== undefined,
    })),
  }
}

const statOptions = {
  colorMode: 'value',
  graphMode: 'none',
  justifyMode: 'auto',
  orientation: 'auto',
  textMode: 'auto',
  reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
}
const plotOptions = {
  legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
  tooltip: { mode: 'multi', sort: 'desc' },
}

function statFields({ unit, stat = {} }: Panel): object {
  const { warn, bad, words } = stat
  const steps = [
    { color: 'green', value: null },
    ...(warn === undefined ? [] : [{ color: 'yellow', value: warn }]),
    ...(bad === undefined ? [] : [{ color: 'red', value: bad }]),
  ]
  const mapped = Object.entries(words ?? {}).map(([value, [text, color]], index) => [value, { text, color, index }])
  const mappings = words === undefined ? [] : [{ type: 'value', options: Object.fromEntries(mapped) }]
  return { defaults: { unit, mappings, thresholds: { mode: 'absolute', steps }, color: { mode: 'thresholds' } }, overrides: [] }
}

function plotFields({ unit, stacked, limits = [], max }: Panel): object {
  const custom = {
    drawStyle: 'line',
    lineInterpolation: 'linear',
    lineWidth: 1,
    fillOpacity: stacked ? 30 : 8,
    showPoints: 'never',
    spanNulls: 180_000,
    stacking: { mode: stacked ? 'normal' : 'none', group: 'A' },
  }
  const dashed = (name: string): object => ({
    matcher: { id: 'byRegexp', options: `/ ${name}$/` },
    properties: [
      { id: 'custom.lineStyle', value: { fill: 'dash', dash: [8, 8] } },
      { id: 'custom.fillOpacity', value: 0 },
      { id: 'color', value: { mode: 'fixed', fixedColor: 'red' } },
    ],
  })
  return {
    defaults: { unit, min: 0, ...(max !== undefined && { max }), color: { mode: 'palette-classic' }, custom, mappings: [] },
    overrides: limits.map(dashed),
  }
}
