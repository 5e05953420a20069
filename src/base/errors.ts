/** Where a failure happened: what a person would have to look at. */
export type ErrorKind =
  | 'usage' // the call or command was wrong
  | 'config' // a configuration value is wrong
  | 'process' // this process or its files
  | 'host' // this machine: ports, permissions, resources
  | 'link' // the connection to a peer
  | 'relay' // a relay of a circuit
  | 'exit' // the exit refused or could not
  | 'remote' // the server or name beyond the exit
  | 'peer' // a peer broke a protocol

/** When trying again makes sense. */
export type Retry = 'now' | 'later' | 'elsewhere' | 'never'

export interface ErrorFacts {
  readonly kind: ErrorKind
  readonly retry: Retry
  readonly cause?: unknown
}

/**
 * The one family of errors that asynchronous edges throw.
 * `code` is stable and kebab-case; the message names the thing and what would be right.
 */
export class ShallotError extends Error {
  readonly code: string
  readonly kind: ErrorKind
  readonly retry: Retry

  constructor(code: string, message: string, facts: ErrorFacts) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.name = 'ShallotError'
    this.code = code
    this.kind = facts.kind
    this.retry = facts.retry
  }
}

/** Bytes from the outside that are not of the form they claim. Every decoder's only throw. */
export class MalformedError extends ShallotError {
  /** @param what the thing that was decoded, @param problem what is wrong with it (never the bytes themselves) */
  constructor(what: string, problem: string) {
    super('malformed', `${what}: ${problem}`, { kind: 'peer', retry: 'never' })
    this.name = 'MalformedError'
  }
}

/** Our own mistake, never a peer's: thrown by `assert` and not caught. */
export class AssertionError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'AssertionError'
  }
}

/** @throws AssertionError when the condition does not hold */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** For the `default` of a switch over a union: the compiler proves it is not reached. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${String(value)}`)
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
