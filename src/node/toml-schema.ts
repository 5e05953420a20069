import { z } from 'zod'

/** `idleTimeoutMs` -> `idle_timeout_ms`: how a key of a schema is spelled in TOML. */
export function tomlKey(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** A path of schema keys and list positions as it is spelled in TOML: `exit.policy[2].ports`. Names that a person chose are kept as they are. */
export function tomlPath(schema: z.ZodType, path: readonly PropertyKey[]): string {
  let text = ''
  let at: z.ZodType | null = schema
  for (const step of path) {
    if (typeof step === 'number') {
      text += `[${step}]`
    } else {
      const bare: z.ZodType | null = at === null ? null : bareSchema(at)
      const name = bare instanceof z.ZodRecord ? String(step) : tomlKey(String(step))
      text += `${text === '' ? '' : '.'}${/^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name)}`
    }
    at = at === null ? null : childSchema(at, step)
  }
  return text
}

/** The schema without defaults, optionality and the like around it. */
export function bareSchema(schema: z.ZodType): z.ZodType {
  let at: unknown = schema
  for (;;) {
    if (
      at instanceof z.ZodDefault ||
      at instanceof z.ZodPrefault ||
      at instanceof z.ZodOptional ||
      at instanceof z.ZodNullable ||
      at instanceof z.ZodReadonly
    )
      at = at.unwrap()
    else if (at instanceof z.ZodPipe) at = at.in
    else return at as z.ZodType
  }
}

/** What lies one step inside a schema, or null where the schema has no such place. */
export function childSchema(schema: z.ZodType, step: PropertyKey): z.ZodType | null {
  const bare = bareSchema(schema)
  if (bare instanceof z.ZodObject) return Object.hasOwn(bare.shape, step) ? bare.shape[String(step)] : null
  if (bare instanceof z.ZodArray) return bare.element as z.ZodType
  if (bare instanceof z.ZodRecord) return bare.valueType as z.ZodType
  if (bare instanceof z.ZodUnion) {
    for (const option of bare.options) {
      const child = childSchema(option as z.ZodType, step)
      if (child !== null) return child
    }
  }
  return null
}

/** The value a key has when it is not written; undefined when it then has none. */
export function defaultOf(schema: z.ZodType): unknown {
  const parsed = schema.safeParse(undefined)
  return parsed.success ? (parsed.data ?? undefined) : undefined
}

/** The help of a key, wherever in its wrapping it was given, as a sentence; a first word that is to be typed as it stands stays so. Empty when there is none. */
export function helpOf(schema: z.ZodType): string {
  const help = (schema.description ?? bareSchema(schema).description ?? '').trim()
  return help === ''
    ? ''
    : `${/^\S+[:_]\S/.test(help) ? help[0] : help[0]!.toUpperCase()}${help.slice(1)}${/[.!?:…]$/.test(help) ? '' : '.'}`
}

/** What a value must be, as a person would say it: "a whole number from 1 to 10". */
export function describeType(schema: z.ZodType): string {
  const bare = bareSchema(schema)
  if (bare instanceof z.ZodBoolean) return 'true or false'
  if (bare instanceof z.ZodNumber) {
    const whole = bare.format === 'safeint' || bare.format?.includes('int') === true
    const least = bare.minValue ?? Number.NEGATIVE_INFINITY
    const most = bare.maxValue ?? Number.POSITIVE_INFINITY
    const open = Number.MAX_SAFE_INTEGER
    const kind = whole ? 'a whole number' : 'a number'
    if (least > -open && most < open) return `${kind} from ${least} to ${most}`
    if (least > -open) return `${kind}, at least ${least}`
    if (most < open) return `${kind}, at most ${most}`
    return kind
  }
  if (bare instanceof z.ZodEnum) return listOf(bare.options.map((option) => JSON.stringify(option)))
  if (bare instanceof z.ZodLiteral) return listOf([...bare.values].map((value) => JSON.stringify(value)))
  if (bare instanceof z.ZodArray) return `a list; each entry: ${describeType(bare.element as z.ZodType)}`
  if (bare instanceof z.ZodRecord) return `a table of names; each value: ${describeType(bare.valueType as z.ZodType)}`
  if (bare instanceof z.ZodObject) return `a table with ${Object.keys(bare.shape).map(tomlKey).join(', ')}`
  if (bare instanceof z.ZodUnion) return bare.options.map((option) => describeType(option as z.ZodType)).join('; or ')
  if (bare instanceof z.ZodString) return 'text'
  if (bare instanceof z.ZodStringFormat) return bare.format?.startsWith('ipv') === true ? `an IP${bare.format.slice(2)} address` : 'text'
  return 'a value'
}

function listOf(words: readonly string[]): string {
  return words.length === 1 ? words[0]! : `one of ${words.join(', ')}`
}
