import type { LinkLabel } from '../lab/index.ts'
import type { Attempt } from './matrix.ts'
import { demandOf, kinds, type Pair, satisfying } from './places.ts'

/** All attempts of one pair. */
export interface PairResult {
  readonly pair: Pair
  readonly attempts: readonly Attempt[]
  /** What is wrong with them; empty when the pair does what it has to. */
  readonly faults: readonly string[]
}

/** Of a pair that can have a direct link, so many of its tries must get one. */
const leastDirect = 0.95

export function resultsOf(pairs: readonly Pair[], attempts: readonly Attempt[]): readonly PairResult[] {
  return pairs.map((pair) => {
    const own = attempts.filter((attempt) => attempt.pair === pair)
    return { pair, attempts: own, faults: faultsOf(pair, own) }
  })
}

/** What one attempt contradicts or lacks, whatever the others did. */
export function faultOf({ pair, said, seen, lasts, seeker, sought, steps }: Attempt): string | null {
  const who = `${seeker} to ${sought}`
  if (!lasts) return `${who}: the link by ${seen} ended at once (${steps.join('; ')})`
  if (said === null || said === 'unreachable') return `${who}: not reached (${steps.join('; ')})`
  // Both began at the same time, but one of them was let in before the other's request was needed: only the packets can tell.
  const needless = said === 'punched-tcp' && demandOf(pair) === 'open' && (seen === 'direct' || seen === 'reversed')
  if (said !== seen && !needless) return `${who}: the node says ${said}, the packets ${seen} (${steps.join('; ')})`
  return null
}

function faultsOf(pair: Pair, attempts: readonly Attempt[]): readonly string[] {
  const faults = attempts.flatMap((attempt) => faultOf(attempt) ?? [])
  const demand = demandOf(pair)
  const good = attempts.filter(({ seen }) => satisfying[demand].includes(seen)).length
  if (demand === 'relayed' || attempts.length === 0 || good >= leastDirect * attempts.length) return faults
  const wanted = demand === 'punched' ? 'a punched link' : 'a direct link'
  return [...faults, `${pair.a} and ${pair.b}: ${wanted} in ${good} of ${attempts.length} tries`]
}

/** A Markdown table of all kinds against all: what their links were. */
export function matrixTable(results: readonly PairResult[]): string {
  const present = kinds.filter((kind) => results.some(({ pair }) => pair.a === kind || pair.b === kind))
  const cell = (row: string, column: string): string => {
    const result = results.find(({ pair }) => (pair.a === row && pair.b === column) || (pair.a === column && pair.b === row))
    return result ? countsText(result.attempts) : ''
  }
  const rows = present.map((row) => [`**${row}**`, ...present.map((column) => cell(row, column))])
  return table(['', ...present], rows)
}

/** A Markdown table with a line for each pair. Times in ms, median and longest. */
export function pairTable(results: readonly PairResult[]): string {
  const rows = results.map(({ pair, attempts, faults }) => {
    const direct = attempts.filter(({ seen }) => seen !== 'relayed').length
    const reached = attempts.filter(({ reachedMs }) => reachedMs !== null).length
    return [
      `${pair.a} – ${pair.b}`,
      String(attempts.length),
      percent(reached, attempts.length),
      percent(direct, attempts.length),
      countsText(attempts),
      times(attempts.flatMap(({ reachedMs }) => reachedMs ?? [])),
      times(attempts.flatMap(({ upgradedMs }) => upgradedMs ?? [])),
      faults.length === 0 ? 'holds' : '**fails**',
    ]
  })
  return table(['pair', 'tries', 'reached', 'direct link', 'by', 'ms to reach', 'ms to the direct link', ''], rows)
}

const labels: readonly LinkLabel[] = ['direct', 'reversed', 'punched-tcp', 'punched-udp', 'relayed']

function countsText(attempts: readonly Attempt[]): string {
  const counts = labels
    .map((label) => [label, attempts.filter(({ seen }) => seen === label).length] as const)
    .filter(([, count]) => count > 0)
  return counts.map(([label, count]) => (counts.length === 1 ? label : `${label} ${count}`)).join(', ')
}

function percent(part: number, whole: number): string {
  return whole === 0 ? '' : `${Math.round((100 * part) / whole)} %`
}

function times(values: readonly number[]): string {
  if (values.length === 0) return ''
  const sorted = [...values].sort((a, b) => a - b)
  return `${Math.round(sorted[Math.floor((sorted.length - 1) / 2)]!)} / ${Math.round(sorted.at(-1)!)}`
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}
