import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { messageOf, ShallotError } from '../base/index.ts'
import { TomlLines } from './toml-lines.ts'
import { bareSchema, childSchema, describeType, tomlKey, tomlPath } from './toml-schema.ts'

/** One thing that is wrong in a configuration. */
export interface ConfigProblem {
  /** The key's path in TOML spelling; empty when it is the whole file. */
  readonly key: string
  readonly line: number | null
  /** What was given and what would be right. */
  readonly message: string
}

/** A configuration file that cannot be used; `message` holds every problem, one a line, each with its file and line. */
export class ConfigError extends ShallotError {
  readonly file: string
  readonly problems: readonly ConfigProblem[]

  constructor(file: string, problems: readonly ConfigProblem[], cause?: unknown) {
    const lines = sortProblems(problems).map((problem) => `${file}${problem.line === null ? '' : `:${problem.line}`}: ${problem.message}`)
    super('config-invalid', lines.join('\n'), { kind: 'config', retry: 'never', cause })
    this.name = 'ConfigError'
    this.file = file
    this.problems = sortProblems(problems)
  }
}

/** A parsed file: the frozen value, and a way to name a place of it in a further problem. */
export interface LoadedToml<T> {
  readonly value: T
  /** The problem of a key (a path of schema keys). */
  problem(path: readonly PropertyKey[], message: string): ConfigProblem
  /** Whether the file itself says something about the key. */
  isSet(path: readonly string[]): boolean
}

/**
 * Reads TOML text by a schema whose keys are camelCase; in the text they are snake_case.
 * @param file how messages name the text
 * @throws ConfigError with everything that is wrong
 */
export function loadToml<S extends z.ZodType>(text: string, file: string, schema: S): LoadedToml<z.output<S>> {
  const raw = parseText(text, file)
  const lines = new TomlLines(text)
  const problems: ConfigProblem[] = []
  const place = (path: readonly PropertyKey[], message: string): ConfigProblem => {
    const key = tomlPath(schema, path)
    return { key, line: lines.lineOf(key), message }
  }
  const renamed = rename(schema, raw, '', (key, message) => problems.push({ key, line: lines.lineOf(key), message }))
  const parsed = schema.safeParse(renamed, { reportInput: true })
  if (!parsed.success) for (const issue of parsed.error.issues) problems.push(place(issue.path, explain(schema, issue)))
  if (problems.length > 0 || !parsed.success) throw new ConfigError(file, problems)
  return {
    value: freeze(parsed.data),
    problem: place,
    isSet: (path) => path.reduce<unknown>((at, step) => (isTable(at) ? at[step] : undefined), renamed) !== undefined,
  }
}

function parseText(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text, { unsafeKeyBehaviour: 'throw', maxDepth: 32 })
  } catch (error) {
    if (!(error instanceof TomlError)) throw new ConfigError(file, [{ key: '', line: null, message: messageOf(error) }], error)
    const problem = error.message.split('\n')[0]!.replace(/^Invalid TOML document: /, '')
    throw new ConfigError(file, [{ key: '', line: error.line, message: `not valid TOML, at column ${error.column}: ${problem}` }], error)
  }
}

/** Gives the value with the schema's own keys in place of TOML's; unknown keys are reported and left out. */
function rename(schema: z.ZodType, value: unknown, path: string, unknown: (key: string, message: string) => void): unknown {
  const bare = bareSchema(schema)
  // No key takes a date, and a Date object would pass for an empty table.
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) {
    const element = childSchema(bare, 0)
    return element === null ? value : value.map((entry, i) => rename(element, entry, `${path}[${i}]`, unknown))
  }
  if (!isTable(value)) return value
  if (bare instanceof z.ZodRecord) {
    const each = bare.valueType as z.ZodType
    return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, rename(each, entry, `${path}.${name}`, unknown)]))
  }
  const option =
    bare instanceof z.ZodUnion ? bare.options.map((one) => bareSchema(one as z.ZodType)).find((one) => one instanceof z.ZodObject) : bare
  if (!(option instanceof z.ZodObject)) return value
  const keys = new Map(Object.keys(option.shape).map((key) => [tomlKey(key), key]))
  const renamed: Record<string, unknown> = {}
  for (const [name, entry] of Object.entries(value)) {
    const key = keys.get(name)
    const full = path === '' ? name : `${path}.${name}`
    if (key === undefined) unknown(full, unknownKey(full, path, name, isTable(entry) && path === '', [...keys.keys()]))
    else renamed[key] = rename(option.shape[key], entry, full, unknown)
  }
  return renamed
}

function unknownKey(full: string, path: string, name: string, isSection: boolean, known: readonly string[]): string {
  const near = nearest(name, known)
  const shown = isSection ? `section [${full}]` : `key ${full}`
  if (near === null) return `unknown ${shown}; known here: ${known.join(', ')}`
  return `unknown ${shown}; did you mean ${isSection ? `[${near}]` : path === '' ? near : `${path}.${near}`}?`
}

/** The known word that is closest, when it is close enough to be meant. */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null
  let least = Math.max(2, Math.floor(word.length / 3)) + 1
  const wanted = word.toLowerCase().replaceAll('-', '_')
  for (const candidate of known) {
    // A word without its unit is the word: idle_timeout for idle_timeout_ms.
    const distance = candidate.startsWith(`${wanted}_`) ? 1 : editDistance(wanted, candidate)
    if (distance < least) {
      least = distance
      best = candidate
    }
  }
  return best
}

/** Levenshtein, over one row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}

function explain(schema: z.ZodType, issue: z.core.$ZodIssue): string {
  const key = tomlPath(schema, issue.path)
  let at: z.ZodType | null = schema
  for (const step of issue.path) at = at === null ? null : childSchema(at, step)
  const given = shown(issue.path.at(-1), issue.input)
  if (issue.code === 'custom') return `${key} is ${given}: ${issue.message}`
  if (issue.input === undefined) return `${key} is missing; it must be ${at === null ? 'given' : describeType(at)}`
  if (issue.code === 'too_big' && issue.origin === 'array') return `${key} has more than ${issue.maximum} entries`
  if (issue.code === 'too_small' && issue.origin === 'array')
    return `${key} needs at least ${issue.minimum} ${issue.minimum === 1 ? 'entry' : 'entries'}`
  if (issue.code === 'too_small' && issue.origin === 'string')
    return `${key} is ${given}; it must have at least ${issue.minimum} characters`
  if (issue.code === 'too_big' && issue.origin === 'string') return `${key} is too long; it may have at most ${issue.maximum} characters`
  if (issue.code === 'invalid_format') return `${key} is ${given}; ${issue.message}`
  return `${key} is ${given}; it must be ${at === null ? issue.message : describeType(at)}`
}

/** A value as a person wrote it, short, and hidden where the key names a secret. */
function shown(key: PropertyKey | undefined, value: unknown): string {
  if (/password|secret|token/i.test(String(key))) return '(hidden)'
  const text = typeof value === 'object' && value !== null && !Array.isArray(value) ? 'a table' : (JSON.stringify(value) ?? String(value))
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`
}

function sortProblems(problems: readonly ConfigProblem[]): ConfigProblem[] {
  return [...problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** Freezes a value of tables and lists all the way down. */
export function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value) && !ArrayBuffer.isView(value)) {
    Object.freeze(value)
    for (const part of Object.values(value)) freeze(part)
  }
  return value
}
