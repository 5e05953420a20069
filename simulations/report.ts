import type { ExposureReport } from './exposure.ts'
import type { Spread } from './observations.ts'
import type { Scenario } from './scenarios.ts'
import type { Report } from './simulation.ts'
import type { HomesReport } from './traffic.ts'

/** Rows of the table of convergence at most. */
const CONVERGENCE_ROWS = 12

/** The report as people read it. A function of the report alone: the same seed gives the same text. */
export function formatReport(report: Report, scenario: Scenario): string {
  const { builds, view, network } = report
  const sections = [
    `${report.scenario}: ${scenario.asks}`,
    `seed ${report.seed}, ${report.relays} relays and ${report.clients} clients, ${report.hours} hours of virtual time`,
    '',
    'Circuits',
    table([
      ['requests', String(builds.requests), 'served', percent(builds.served)],
      ['paths built', String(builds.builds), 'of them whole', percent(builds.buildSuccess)],
      ['first paths whole', percent(builds.firstTrySuccess), 'build p50 / p95', `${ms(builds.buildMsHalf)} / ${ms(builds.buildMsMost)}`],
      ['with real machines', String(builds.withMachines), 'of them whole', percent(builds.withMachinesSuccess)],
    ]),
    ...Object.entries(builds.failures).map(([what, count]) => `  failed: ${count} × ${what}`),
    '',
    'Spread of a new edition, seconds until it is at',
    table([
      ['among', 'editions', '50 %', '95 %', '99 %', 'worst 99 %', 'never 99 %'],
      ...(['relay', 'client'] as const).map((kind) => spreadRow(`${kind}s`, report.spread[kind])),
    ]),
    '',
    'Views',
    table([
      ['minute', 'nodes up', 'identical', 'newest editions held'],
      ...thinned(report.convergence).map((row) => [
        String(row.atMinutes),
        String(row.nodesUp),
        percent(row.identical),
        percent(row.current),
      ]),
    ]),
    `  a client knows ${view.known.toFixed(1)} relays and uses ${view.eligible.toFixed(1)} at the end${report.ends.hostileRelays > 0 ? `; ${view.hostileKnown.toFixed(1)} of ${report.ends.hostileRelays} hostile ones are known` : ''}`,
    '',
    'Load against capacity (1: exactly its share)',
    table([
      ['position', 'relays', 'p5', 'p50', 'p95', 'most'],
      ...report.load.map((row) => [row.position, String(row.relays), ratio(row.low), ratio(row.half), ratio(row.high), ratio(row.most)]),
    ]),
    ...(report.homes ? ['', ...formatHomes(report.homes)] : []),
    ...(report.ends.hostileRelays > 0 ? ['', ...formatEnds(report)] : []),
    '',
    `carried: ${network.messages} messages, ${network.megabytes} MB; ${network.pulls} pulls, ${network.pullsSame} of them found nothing to do; ${network.events} events`,
  ]
  return `${sections.join('\n')}\n`
}

function formatHomes({ punchable, notPunchable, capacity, middlesPunchable, middlesNotPunchable, exits }: HomesReport): string[] {
  return [
    'Behind NAT',
    table([
      ['punchable relays', String(punchable), 'not punchable', String(notPunchable)],
      ['share of the capacity of middles', percent(capacity), 'exits of circuits', percent(exits)],
      ['middles of circuits, punchable', percent(middlesPunchable), 'of last resort', percent(middlesNotPunchable)],
    ]),
  ]
}

function formatEnds({ ends, exposure }: Report): string[] {
  const lines = [
    'Both ends',
    table([
      ['hostile relays', String(ends.hostileRelays), 'their share of capacity c', percent(ends.hostileCapacity)],
      ['hostile first hops', percent(ends.guardHostile), 'hostile exits', percent(ends.exitHostile)],
      ['both, measured', percent(ends.both), 'expected of independent ends / c²', `${percent(ends.expected)} / ${percent(ends.squared)}`],
    ]),
  ]
  return exposure ? [...lines, '', ...formatExposure(exposure)] : lines
}

function formatExposure({ clients, circuitsADay, guardsUsed, days }: ExposureReport): string[] {
  return [
    `Months: ${clients} clients, ${circuitsADay} circuits a day each, ${guardsUsed.toFixed(1)} guards used on the mean`,
    table([
      ['day', 'had a hostile guard', 'exposed at least once', 'the same without guards', 'circuits with both ends'],
      ...days.map((row) => [
        String(row.day),
        percent(row.hostileGuard),
        percent(row.exposed),
        percent(row.withoutGuards),
        percent(row.bothEnds),
      ]),
    ]),
  ]
}

function spreadRow(among: string, spread: Spread): string[] {
  const { editions, half, most, all, worst, unfinished } = spread
  return [among, String(editions), seconds(half), seconds(most), seconds(all), seconds(worst), String(unfinished)]
}

function thinned<T>(rows: readonly T[]): readonly T[] {
  const step = Math.ceil(rows.length / CONVERGENCE_ROWS)
  return rows.filter((_, index) => (rows.length - 1 - index) % step === 0)
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')}`.trimEnd()).join('\n')
}

const percent = (value: number): string => (Number.isNaN(value) ? '-' : `${(value * 100).toFixed(value > 0 && value < 0.01 ? 3 : 1)} %`)
const ms = (value: number): string => (Number.isNaN(value) ? '-' : `${Math.round(value)} ms`)
const seconds = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(1))
const ratio = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(2))
