/** A table's header or a key's assignment, and where it stands in the text. */
interface Statement {
  readonly kind: 'header' | 'list-header' | 'assignment'
  /** Its whole path; of an assignment with the table it is in. */
  readonly path: readonly string[]
  /** From the first character of its first line. */
  readonly start: number
  /** Of an assignment: the value without what follows it on the line. */
  readonly value: { readonly start: number; readonly end: number } | null
  /** Behind its last line's end. */
  readonly end: number
}

/**
 * Sets one key of a TOML text, or takes it away, and leaves all the rest as it is: comments, order, spaces. What comes out must still be parsed and
 * compared: where a table is written inline, or in any other form that is not looked into here, the edit is wrong.
 * @param text valid TOML @param path the tables and the key @param value as TOML on one line; null takes the key away
 */
export function editToml(text: string, path: readonly string[], value: string | null): string {
  const all = statements(text)
  const found = all.find(({ kind, path: at }) => kind === 'assignment' && samePath(at, path))
  if (found?.value) {
    if (value === null) return text.slice(0, found.start) + text.slice(found.end)
    return text.slice(0, found.value.start) + value + text.slice(found.value.end)
  }
  if (value === null) return text
  const line = `${quoted(path.at(-1)!)} = ${value}\n`
  const table = path.slice(0, -1)
  const header = all.findIndex(({ kind, path: at }) => kind === 'header' && samePath(at, table))
  const whole = text === '' || text.endsWith('\n') ? text : `${text}\n`
  if (table.length === 0) return line + whole
  if (header < 0) return `${whole}${whole === '' ? '' : '\n'}[${table.map(quoted).join('.')}]\n${line}`
  const at = placeIn(whole, all, header, path.at(-1)!)
  return whole.slice(0, at) + line + whole.slice(at)
}

/** Where a new key of a table goes: below a comment that holds it, as examples have, else behind the table's last key. */
function placeIn(text: string, all: readonly Statement[], header: number, key: string): number {
  const next = all.findIndex(({ kind }, i) => i > header && kind !== 'assignment')
  const { end } = all[header]!
  const limit = next < 0 ? text.length : all[next]!.start
  const commented = new RegExp(`^[ \\t]*#[ \\t]*${key}[ \\t]*=.*\\n`, 'm').exec(text.slice(end, limit))
  if (commented) return end + commented.index + commented[0].length
  const last = all.findLast(({ kind }, i) => i > header && (next < 0 || i < next) && kind === 'assignment')
  return Math.min(text.length, last?.end ?? end)
}

function statements(text: string): Statement[] {
  const found: Statement[] = []
  let table: readonly string[] = []
  let at = 0
  while (at < text.length) {
    const start = at
    at = skip(text, at, /[ \t]/)
    const char = text[at]
    if (char === undefined) break
    if (char === '#' || char === '\n' || char === '\r') {
      at = lineEnd(text, at)
      continue
    }
    if (char === '[') {
      const isList = text[at + 1] === '['
      const { names, end } = keyAt(text, at + (isList ? 2 : 1))
      table = names
      at = lineEnd(text, end)
      found.push({ kind: isList ? 'list-header' : 'header', path: names, start, value: null, end: at })
      continue
    }
    const { names, end } = keyAt(text, at)
    const valueStart = skip(text, skip(text, end, /[ \t=]/), /[ \t]/)
    const valueEnd = valueEndOf(text, valueStart)
    at = lineEnd(text, valueEnd)
    found.push({ kind: 'assignment', path: [...table, ...names], start, value: { start: valueStart, end: valueEnd }, end: at })
  }
  return found
}

/** A dotted key. */
function keyAt(text: string, from: number): { names: string[]; end: number } {
  const names: string[] = []
  let at = from
  while (at < text.length) {
    at = skip(text, at, /[ \t.]/)
    const char = text[at]
    if (char === '"' || char === "'") {
      const end = stringEnd(text, at)
      names.push(char === '"' ? unescaped(text.slice(at, end)) : text.slice(at + 1, end - 1))
      at = end
    } else {
      const end = skip(text, at, /[A-Za-z0-9_-]/)
      if (end === at) break
      names.push(text.slice(at, end))
      at = end
    }
  }
  return { names, end: at }
}

/** Behind the value that begins here: a list or a table goes over several lines. */
function valueEndOf(text: string, from: number): number {
  let depth = 0
  let last = from
  for (let at = from; at < text.length; ) {
    const char = text[at]!
    if (char === '#' || char === '\n') {
      if (depth === 0) break
      at = lineEnd(text, at)
      continue
    }
    const end = char === '"' || char === "'" ? stringEnd(text, at) : at + 1
    if (char === '[' || char === '{') depth++
    if (char === ']' || char === '}') depth--
    if (!/\s/.test(char)) last = end
    at = end
  }
  return last
}

/** Behind a text in quotes of any kind. */
function stringEnd(text: string, from: number): number {
  const quote = text[from]!
  const long = text.startsWith(quote.repeat(3), from)
  const closing = long ? quote.repeat(3) : quote
  for (let at = from + closing.length; at < text.length; at++) {
    if (quote === '"' && text[at] === '\\') at++
    else if (text.startsWith(closing, at)) {
      at += closing.length
      // Up to two quotes may stand before the three that close.
      while (long && text[at] === quote) at++
      return at
    }
  }
  return text.length
}

function skip(text: string, from: number, what: RegExp): number {
  let at = from
  while (at < text.length && what.test(text[at]!)) at++
  return at
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf('\n', from)
  return end < 0 ? text.length : end + 1
}

function unescaped(text: string): string {
  try {
    return JSON.parse(text) as string
  } catch {
    return text
  }
}

function quoted(name: string): string {
  return /^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name)
}

function samePath(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i])
}
