import type { LogLevel } from '../base/index.ts'

/** A line of the log, as it was written: what is sensitive is in it only where it is in the written line. */
export interface LogLine {
  /** Rises by one with each line of this process. */
  readonly seq: number
  readonly at: number
  readonly level: LogLevel
  /** The subsystem; empty for the node itself. */
  readonly sub: string
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>>
}

/** Which lines somebody wants. */
export interface LogFilter {
  /** No line less important than this; all when left out. */
  readonly level?: LogLevel
  /** Only this subsystem and those below it. */
  readonly sub?: string
}

export interface LogQuery extends LogFilter {
  /** From this number on. */
  readonly since?: number
  /** The last so many. */
  readonly limit?: number
}

export interface LogPage {
  readonly lines: readonly LogLine[]
  /** The number of the next line. */
  readonly next: number
  /** Whether lines after `since` are forgotten already. */
  readonly missed: boolean
  readonly subsystems: readonly string[]
}

/** The least important lines that are written. */
export interface LogLevels {
  readonly level: LogLevel
  readonly subsystems: Readonly<Record<string, LogLevel>>
}

/** The log of this process as its people see it at run time. */
export interface NodeLogs {
  page(query: LogQuery): LogPage
  /** Every line from now on, until the returned function is called. A listener must not throw, nor write to the log. */
  follow(listener: (line: LogLine) => void): () => void
  readonly levels: LogLevels
  setLevels(levels: LogLevels): void
}

/** From the most to the least important. */
export const LOG_SEVERITY: Readonly<Record<LogLevel, number>> = { error: 50, warn: 40, info: 30, debug: 20, trace: 10 }

/** Lines that are remembered, and how much text they may have together. The oldest go first. */
const MAX_LINES = 2_000
const MAX_CHARS = 1_000_000
/** What a line costs beside its text. */
const LINE_CHARS = 100
/** Names of subsystems that are remembered. */
const MAX_SUBSYSTEMS = 200
/** Lines of an answer when nothing is said. */
const USUAL_LIMIT = 500

/** The last lines of the log, in memory. */
export class LogBook {
  #lines: { readonly line: LogLine; readonly chars: number }[] = []
  #chars = 0
  #next = 0
  readonly #subsystems = new Set<string>()
  readonly #listeners = new Set<(line: LogLine) => void>()

  /** @param chars the length of the line's text, about */
  add(line: Omit<LogLine, 'seq'>, chars: number): void {
    const numbered = { seq: this.#next++, ...line }
    const cost = chars + LINE_CHARS
    this.#lines.push({ line: numbered, chars: cost })
    this.#chars += cost
    if (this.#lines.length > MAX_LINES || this.#chars > MAX_CHARS) this.#forget()
    if (line.sub !== '' && this.#subsystems.size < MAX_SUBSYSTEMS) this.#subsystems.add(line.sub)
    for (const listener of this.#listeners) listener(numbered)
  }

  page({ since, limit = USUAL_LIMIT, ...filter }: LogQuery): LogPage {
    const first = this.#lines[0]?.line.seq ?? this.#next
    const from = since ?? first
    const lines: LogLine[] = []
    for (let i = this.#lines.length - 1; i >= 0 && lines.length < limit; i--) {
      const { line } = this.#lines[i]!
      if (line.seq < from) break
      if (fitsFilter(line, filter)) lines.push(line)
    }
    return { lines: lines.reverse(), next: this.#next, missed: from < first, subsystems: [...this.#subsystems].sort() }
  }

  follow(listener: (line: LogLine) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A tenth at a time, so that not every line moves all others. */
  #forget(): void {
    let drop = 0
    const most = { lines: MAX_LINES * 0.9, chars: MAX_CHARS * 0.9 }
    while (drop < this.#lines.length - 1 && (this.#lines.length - drop > most.lines || this.#chars > most.chars))
      this.#chars -= this.#lines[drop++]!.chars
    this.#lines = this.#lines.slice(drop)
  }
}

/** Whether a line is one that the filter wants. */
export function fitsFilter(line: LogLine, { level, sub }: LogFilter): boolean {
  if (level !== undefined && LOG_SEVERITY[line.level] < LOG_SEVERITY[level]) return false
  return sub === undefined || line.sub === sub || line.sub.startsWith(`${sub}.`)
}

/** The logs of a node whose logger remembers nothing. */
export function noLogs(): NodeLogs {
  const book = new LogBook()
  let levels: LogLevels = { level: 'info', subsystems: {} }
  return {
    page: (query) => book.page(query),
    follow: (listener) => book.follow(listener),
    get levels() {
      return levels
    },
    setLevels: (next) => {
      levels = next
    },
  }
}
