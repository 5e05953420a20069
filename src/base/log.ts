export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** Values that may only be shown at debug level or below: addresses, names, paths, targets. */
export class Sensitive {
  readonly value: unknown
  constructor(value: unknown) {
    this.value = value
  }
  toString(): string {
    return '[scrubbed]'
  }
  toJSON(): string {
    return '[scrubbed]'
  }
}

/** Marks a value that must never be seen above debug level. */
export function sensitive(value: unknown): Sensitive {
  return new Sensitive(value)
}

export type LogFields = Readonly<Record<string, unknown>>

/** What every module logs through. Messages are fixed text; what varies goes into fields. */
export interface Logger {
  error(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  debug(message: string, fields?: LogFields): void
  trace(message: string, fields?: LogFields): void
  /** A logger whose lines carry this subsystem's name. */
  child(subsystem: string): Logger
}

const nothing = (): void => {}

/** A logger that says nothing: the default of tests and libraries. */
export const silentLogger: Logger = {
  error: nothing,
  warn: nothing,
  info: nothing,
  debug: nothing,
  trace: nothing,
  child: () => silentLogger,
}
