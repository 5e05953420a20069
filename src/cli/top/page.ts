import type { Api } from '../../control/index.ts'
import { pathText } from '../commands/lists.ts'
import { stateText } from '../commands/status.ts'
import { bytesText, durationText, styled, visible } from '../output.ts'
import { type Rate, type Rates, type Snapshot, streamKey } from './rates.ts'

/** Lines that the parts above and between the tables need, and the least of each table that is shown. */
const LEAST_ROWS = 3

export interface PageSize {
  readonly width: number
  /** Infinity: everything. */
  readonly height: number
}

export interface PageExtras {
  /** Wall-clock ms. */
  readonly now: number
  /** Why what is shown is old; null when it is not. */
  readonly trouble: string | null
  /** What the keys do; null where nobody presses any. */
  readonly keys: string | null
}

/** The page of `shallot top`: lines that fit the size, the most moving first. */
export function pageLines(snapshot: Snapshot, rates: Rates, size: PageSize, extras: PageExtras): string[] {
  const { status } = snapshot
  const head = [...headLines(status, rates, size.width), ...warningLines(status, extras, size.width)]
  const foot = extras.keys === null ? [] : [styled('dim', cut(extras.keys, size.width))]
  if (status.client === null) return [...head, ...foot].slice(0, size.height)
  const circuits = circuitTable(snapshot, rates, extras.now, size.width)
  const streams = streamTable(snapshot, rates, extras.now)
  // Two headings and the blank lines before them.
  const room = Math.max(2 * LEAST_ROWS, size.height - head.length - foot.length - 4)
  const forCircuits = Math.min(circuits.rows.length, Math.max(LEAST_ROWS, Math.floor(room / 2), room - streams.rows.length))
  const body = [
    '',
    ...tableLines(circuits, size.width, forCircuits),
    '',
    ...tableLines(streams, size.width, Math.max(LEAST_ROWS, room - forCircuits)),
  ]
  return [...[...head, ...body].slice(0, Math.max(0, size.height - foot.length)), ...foot]
}

function headLines(status: Api.NodeStatus, rates: Rates, width: number): string[] {
  const { client, relaying } = status
  const facts = [
    `shallot ${status.version}`,
    status.roles.join(', '),
    status.draining !== null ? 'leaving' : stateText(status),
    `up ${durationText(status.uptimeMs)}`,
    `${status.view.known.total} relays`,
    `${bytesText(status.memory.rssBytes)}`,
  ]
  const lines = [styled('bold', cut(facts.join('  '), width))]
  if (client !== null) {
    const speed = rates.client === null ? 'measuring' : `down ${speedText(rates.client.down)}  up ${speedText(rates.client.up)}`
    const total = `in all ${bytesText(client.bytesReceived)} down, ${bytesText(client.bytesSent)} up`
    lines.push(cut(`${speed}  (${total})`, width))
    lines.push(
      cut(
        `circuits ${client.circuitsOpen} open, ${client.circuitsBuilding} being built, ${client.circuitsFailed} failed  streams ${client.streamsOpen} open, ${client.streamsFailed} failed`,
        width,
      ),
    )
  }
  if (relaying !== null) {
    const speed = rates.forwarded === null ? 'measuring' : speedText(rates.forwarded)
    const { usedBytes, limitBytes } = relaying.budget
    lines.push(
      cut(
        `for others ${speed}  ${relaying.circuitsOpen} circuits, ${relaying.circuitsRefused} refused  queued ${bytesText(usedBytes)} of ${bytesText(limitBytes)}`,
        width,
      ),
    )
  }
  return lines
}

function warningLines({ warnings }: Api.NodeStatus, { trouble }: PageExtras, width: number): string[] {
  const lines = warnings.slice(0, 2).map(({ message }) => styled('yellow', cut(`! ${visible(message)}`, width)))
  if (warnings.length > 2) lines.push(styled('yellow', cut(`! ${warnings.length - 2} more: shallot status`, width)))
  return trouble === null ? lines : [...lines, styled('red', cut(`! ${visible(trouble)}`, width))]
}

/** Below this width the ends of node ids are shorter. */
const NARROW = 60
const NARROW_ID = 4
/** So much of a target is worth more than what else is told of its stream. */
const LEAST_TARGET = 24

interface Table {
  /** `spare`: left out where there is no room for the last column, the highest first. */
  readonly columns: readonly { readonly name: string; readonly right?: true; readonly spare?: number }[]
  /** The width that the last column gets before others are shown. */
  readonly leastLast: number
  readonly rows: readonly { readonly cells: readonly string[]; readonly quiet: boolean }[]
  /** Said where there are no rows. */
  readonly empty: string
}

const none: Rate = { down: 0, up: 0 }
const total = (rate: Rate): number => rate.down + rate.up

function circuitTable({ circuits }: Snapshot, rates: Rates, now: number, width: number): Table {
  const rateOf = ({ id }: Api.Circuit): Rate => rates.circuits.get(id) ?? none
  const live = circuits.filter(({ state }) => state !== 'closed')
  const sorted = [...live].sort((a, b) => total(rateOf(b)) - total(rateOf(a)) || b.streams - a.streams || a.id - b.id)
  return {
    columns: [
      { name: 'ID', right: true },
      { name: 'STATE', spare: 6 },
      { name: 'AGE', right: true, spare: 5 },
      { name: 'RTT', right: true, spare: 3 },
      { name: 'STR', right: true, spare: 4 },
      { name: 'DOWN/S', right: true, spare: 1 },
      { name: 'UP/S', right: true, spare: 2 },
      { name: 'GUARD > MIDDLE > EXIT' },
    ],
    leastLast: Number.POSITIVE_INFINITY,
    rows: sorted.map((circuit) => ({
      cells: [
        String(circuit.id),
        circuit.state,
        ageText(now - circuit.createdAt),
        circuit.rttMs === null ? '-' : `${Math.round(circuit.rttMs)} ms`,
        String(circuit.streams),
        rateText(rateOf(circuit).down),
        rateText(rateOf(circuit).up),
        pathText(circuit, width < NARROW ? NARROW_ID : undefined),
      ],
      quiet: circuit.state !== 'open',
    })),
    empty: 'no circuits',
  }
}

function streamTable({ streams }: Snapshot, rates: Rates, now: number): Table {
  const rateOf = (stream: Api.Stream): Rate => rates.streams.get(streamKey(stream)) ?? none
  const sorted = [...streams].sort((a, b) => total(rateOf(b)) - total(rateOf(a)) || b.openedAt - a.openedAt)
  return {
    columns: [
      { name: 'CIRCUIT', right: true, spare: 3 },
      { name: 'STATE', spare: 7 },
      { name: 'AGE', right: true, spare: 6 },
      { name: 'DOWN/S', right: true, spare: 1 },
      { name: 'UP/S', right: true, spare: 2 },
      { name: 'DOWN', right: true, spare: 4 },
      { name: 'UP', right: true, spare: 5 },
      { name: 'TARGET' },
    ],
    leastLast: LEAST_TARGET,
    rows: sorted.map((stream) => ({
      cells: [
        stream.circuit === null ? '-' : String(stream.circuit),
        stream.state,
        ageText(now - stream.openedAt),
        rateText(rateOf(stream).down),
        rateText(rateOf(stream).up),
        bytesText(stream.bytesReceived),
        bytesText(stream.bytesSent),
        stream.target ?? `(${stream.kind})`,
      ],
      quiet: stream.state !== 'open',
    })),
    empty: 'no streams',
  }
}

/** The heading and at most so many rows; the last line counts the rows that found no room. */
function tableLines({ columns, leastLast, rows, empty }: Table, width: number, most: number): string[] {
  if (rows.length === 0) return [styled('dim', cut(empty, width))]
  const shown = rows.length <= most ? rows : rows.slice(0, Math.max(1, most - 1))
  const widths = columns.map(({ name }, i) => Math.max(name.length, ...shown.map(({ cells }) => visible(cells[i]!).length)))
  const kept = keptColumns(columns, widths, leastLast, width)
  const line = (cells: readonly string[]): string =>
    cut(
      kept
        .map((i) => (columns[i]!.right ? cells[i]!.padStart(widths[i]!) : cells[i]!.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
      width,
    )
  const lines = [styled('dim', line(columns.map(({ name }) => name)))]
  for (const { cells, quiet } of shown) {
    const text = line(cells.map(visible))
    lines.push(quiet ? styled('dim', text) : text)
  }
  if (shown.length < rows.length) lines.push(styled('dim', cut(`${rows.length - shown.length} more`, width)))
  return lines
}

/** The columns that there is room for, by number: as many are left out as the last one needs. */
function keptColumns(columns: Table['columns'], widths: readonly number[], leastLast: number, width: number): readonly number[] {
  const last = columns.length - 1
  const needed = (kept: readonly number[]): number =>
    kept.reduce((sum, i) => sum + (i === last ? Math.min(widths[i]!, leastLast) : widths[i]! + 2), 0)
  let kept = columns.map((_, i) => i)
  const spare = kept.filter((i) => columns[i]!.spare !== undefined).sort((a, b) => columns[b]!.spare! - columns[a]!.spare!)
  for (const least of spare) {
    if (needed(kept) <= width) break
    kept = kept.filter((i) => i !== least)
  }
  return kept
}

/** "-" for nothing, so that what moves is seen. */
function rateText(bytesPerSecond: number): string {
  return bytesPerSecond < 1 ? '-' : bytesText(bytesPerSecond)
}

function speedText(bytesPerSecond: number): string {
  return `${bytesText(bytesPerSecond)}/s`
}

/** The first part of a duration: tables are narrow. */
function ageText(ms: number): string {
  return durationText(Math.max(0, ms)).replace(/^(\d+ \S+) .*$/, '$1')
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`
}
