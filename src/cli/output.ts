/** What a terminal shows: colours where they help and are wanted, tables that fit 80 columns. */

const WIDTH = 80

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

const codes: Readonly<Record<Style, readonly [number, number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
}

/** Whether standard output is a terminal that wants colours (https://no-color.org). */
function wantsColour(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
}

/** The text in a style, where colours are wanted. */
export function styled(style: Style, text: string): string {
  if (!wantsColour()) return text
  const [on, off] = codes[style]
  return `\x1b[${on}m${text}\x1b[${off}m`
}

/** A line on standard output. */
export function say(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** A line on standard error. */
export function complain(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** One JSON value on a line of standard output. */
export function sayJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** Rows under headings, columns as wide as they must be; the last column is cut so that a line fits the terminal's 80 columns. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, i) => Math.max(heading.length, ...rows.map((row) => (row[i] ?? '').length)))
  const line = (cells: readonly string[]): string => {
    const text = cells
      .map((cell, i) => (i === cells.length - 1 ? cell : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd()
    return text.length > WIDTH ? `${text.slice(0, WIDTH - 1)}…` : text
  }
  return [styled('dim', line(headings)), ...rows.map((row) => line(row.map(visible)))].join('\n')
}

/** Facts as "name   value" lines, long values continued under themselves. */
export function facts(entries: readonly (readonly [string, string])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length)) + 2
  return entries
    .map(([name, value]) => `${styled('dim', name.padEnd(width))}${wrap(visible(value), WIDTH - width).join(`\n${' '.repeat(width)}`)}`)
    .join('\n')
}

/** Lines of at most `width` columns, broken at spaces. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}

/** Text from the network without anything that could move a terminal's cursor, turn its order of reading, or not be seen. */
export function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
}

/** The end of a node id, which is what differs. */
export function shortId(id: string): string {
  return `…${id.slice(-8)}`
}

/** "Germany (DE)" */
export function countryText(code: string): string {
  try {
    const name = new Intl.DisplayNames('en', { type: 'region', fallback: 'none' }).of(code)
    return name === undefined ? code : `${name} (${code})`
  } catch {
    return visible(code)
  }
}

/** "12.3 MB": powers of 1000, three digits. */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toPrecision(value >= 9.995 ? 3 : 2)} ${units[unit]}`
}

/** "850 ms", "12 s", "3 min 20 s", "5 h 3 min", "12 d 4 h"; nothing lasts less than 0. */
export function durationText(given: number): string {
  const ms = Math.max(0, given)
  if (ms < 1000) return `${Math.round(ms)} ms`
  const seconds = Math.floor(ms / 1000)
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}
