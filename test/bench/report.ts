import type { Limit } from './tor.ts'

export type Row = readonly [label: string, ...values: readonly (string | number)[]]

/** Columns of even width, numbers to the right. */
export function table(title: string, head: Row | null, rows: readonly Row[]): string {
  const all = [...(head ? [head] : []), ...rows].map((row) => row.map((value) => (typeof value === 'number' ? show(value) : value)))
  const columns = Math.max(...all.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    `  ${row.map((value, column) => (column === 0 ? value.padEnd(widths[column]!) : value.padStart(widths[column]!))).join('  ')}`.trimEnd()
  return `${title}\n${all.map(line).join('\n')}\n`
}

export function limitTable(limits: readonly Limit[]): string {
  const rows = limits.map(
    (limit): Row => [limit.name, limit.value, `${limit.atLeast ? 'at least' : 'at most'} ${limit.limit}`, limit.holds ? 'holds' : 'MISSED'],
  )
  return table('What must hold', null, rows)
}

/** Three significant digits below 100, none after the point above. */
function show(value: number): string {
  if (!Number.isFinite(value)) return '-'
  return Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString()
}
