import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino'
import { type LogFields, type Logger, type LogLevel, Sensitive } from '../base/index.ts'
import { LOG_SEVERITY, LogBook, type LogLevels, type NodeLogs } from './log-book.ts'
import type { LogSection } from './sections.ts'

/** How deep a field's value is looked into for sensitive parts; what lies deeper is left out. */
const MAX_DEPTH = 4
/** Longest text of one field: untrusted values must not fill a disk. */
const MAX_TEXT = 500

/** A logger whose levels can be changed, and whose last lines are remembered. */
export interface NodeLogger extends Logger {
  readonly logs: NodeLogs
}

/**
 * A logger to a stream of lines (standard error when not given) by the `[log]` section. A value marked `sensitive` shows only in lines
 * at debug and trace; in every other it reads "[scrubbed]".
 */
export function createLogger(config: LogSection, destination?: DestinationStream): NodeLogger {
  const stream = destination ?? pino.destination({ dest: 2, sync: true })
  const sink = config.format === 'text' ? textLines(stream) : stream
  const lines = pino(
    { level: 'trace', base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    sink,
  )
  return new SubsystemLogger({ lines, book: new LogBook(), levels: config, edition: 0 }, '')
}

/** What all loggers of a process share. */
interface Sink {
  readonly lines: PinoLogger
  readonly book: LogBook
  levels: LogLevels
  /** Rises when the levels change. */
  edition: number
}

class SubsystemLogger implements NodeLogger {
  readonly #sink: Sink
  readonly #name: string
  #least = 0
  #edition = -1

  constructor(sink: Sink, name: string) {
    this.#sink = sink
    this.#name = name
  }

  get logs(): NodeLogs {
    const sink = this.#sink
    return {
      page: (query) => sink.book.page(query),
      follow: (listener) => sink.book.follow(listener),
      get levels() {
        return { level: sink.levels.level, subsystems: { ...sink.levels.subsystems } }
      },
      setLevels: (levels) => {
        sink.levels = levels
        sink.edition++
      },
    }
  }

  error(message: string, fields?: LogFields): void {
    this.#write('error', message, fields)
  }
  warn(message: string, fields?: LogFields): void {
    this.#write('warn', message, fields)
  }
  info(message: string, fields?: LogFields): void {
    this.#write('info', message, fields)
  }
  debug(message: string, fields?: LogFields): void {
    this.#write('debug', message, fields)
  }
  trace(message: string, fields?: LogFields): void {
    this.#write('trace', message, fields)
  }

  /** Names nest with dots: a child "dialer" of "link" is "link.dialer". */
  child(subsystem: string): Logger {
    return new SubsystemLogger(this.#sink, this.#name === '' ? subsystem : `${this.#name}.${subsystem}`)
  }

  #write(level: LogLevel, message: string, fields: LogFields | undefined): void {
    const { lines, book, levels, edition } = this.#sink
    if (this.#edition !== edition) {
      this.#edition = edition
      this.#least = LOG_SEVERITY[levelOf(this.#name, levels)]
    }
    if (LOG_SEVERITY[level] < this.#least) return
    const open = LOG_SEVERITY[level] <= LOG_SEVERITY.debug
    const shown: Record<string, unknown> = {}
    if (fields !== undefined)
      for (const [key, value] of Object.entries(fields)) shown[RESERVED.has(key) ? `${key}_` : key] = plain(value, open, 0)
    lines[level](this.#name === '' ? shown : { sub: this.#name, ...shown }, message)
    const chars = message.length + (fields === undefined ? 0 : JSON.stringify(shown).length)
    book.add({ at: Date.now(), level, sub: this.#name, message, fields: shown }, chars)
  }
}

/** Keys of the line itself. */
const RESERVED: ReadonlySet<string> = new Set(['level', 'time', 'msg', 'sub'])

/** The level of the longest configured name that this name is or begins with. */
function levelOf(name: string, config: LogLevels): LogLevel {
  let best = ''
  for (const candidate of Object.keys(config.subsystems)) {
    if ((name === candidate || name.startsWith(`${candidate}.`)) && candidate.length > best.length) best = candidate
  }
  return config.subsystems[best] ?? config.level
}

/** A value as plain JSON: sensitive parts open or scrubbed, errors by name and message, bytes by their length only. */
function plain(value: unknown, open: boolean, depth: number): unknown {
  if (value instanceof Sensitive) return open ? plain(value.value, open, depth) : value.toString()
  if (typeof value === 'string') return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` : value
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'function' || typeof value === 'symbol') return undefined
  if (typeof value !== 'object' || value === null) return value
  if (ArrayBuffer.isView(value)) return `(${value.byteLength} bytes)`
  // The message of a foreign error may hold an address or a name ("connect ECONNREFUSED 192.0.2.1:80"): its code says enough above debug.
  if (value instanceof Error)
    return open
      ? { name: value.name, message: value.message, stack: value.stack }
      : { name: value.name, code: 'code' in value ? value.code : undefined }
  if (depth >= MAX_DEPTH) return '(…)'
  if (Array.isArray(value)) return value.map((entry) => plain(entry, open, depth + 1))
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry, open, depth + 1)]))
}

/** Pino's JSON lines as text for people: time, level, subsystem, message, fields. */
function textLines(stream: DestinationStream): DestinationStream {
  return {
    write(line: string): void {
      const { level, time, msg, sub, ...fields } = JSON.parse(line) as Record<string, unknown>
      const details = Object.entries(fields).map(([key, value]) => `${key}=${oneLine(value)}`)
      stream.write(
        `${[String(time), String(level).toUpperCase().padEnd(5), ...(sub === undefined ? [] : [`${sub}:`]), String(msg), ...details].join(' ')}\n`,
      )
    },
  }
}

/** Text that cannot break the line or the terminal. */
function oneLine(value: unknown): string {
  const text = typeof value === 'string' && /^[\w./:@[\]…()+-]+$/.test(value) ? value : JSON.stringify(value)
  return text.replace(/\p{Cc}/gu, '?')
}
