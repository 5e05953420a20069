import { stringify } from 'smol-toml'
import { z } from 'zod'
import { bareSchema, defaultOf, describeType, helpOf, tomlKey } from './toml-schema.ts'

/** Line width of the comments in an example. */
const WIDTH = 100

/** Values that differ from the schema's defaults, nested as the schema is, in its spelling. */
export interface Overrides {
  readonly [key: string]: unknown
}

/**
 * A whole file: every section and key with its help, at the default or at the override. A key without a default is shown in a comment.
 * @param schema an object of keys and of sections, which may hold sections
 */
export function exampleToml(schema: z.ZodType, overrides: Overrides, heading: string): string {
  return `${[comment(heading), ...exampleSection(schema, overrides, '')].join('\n')}\n`
}

function exampleSection(schema: z.ZodType, overrides: Overrides, path: string): string[] {
  const parts: string[] = []
  const sections: [string, z.ZodType][] = []
  for (const [key, keySchema] of Object.entries(shapeOf(schema))) {
    if (isSection(keySchema)) {
      sections.push([key, keySchema])
      continue
    }
    const value = overrides[key] ?? defaultOf(keySchema)
    parts.push(
      '',
      comment(`${helpOf(keySchema)} (${describeType(keySchema)})`),
      value === undefined ? `# ${tomlKey(key)} =` : assignment(key, value),
    )
  }
  for (const [key, section] of sections) {
    const name = path === '' ? tomlKey(key) : `${path}.${tomlKey(key)}`
    const help = helpOf(section)
    parts.push('', '', ...(help === '' ? [] : [comment(help)]), `[${name}]`, ...exampleSection(section, inner(overrides, key), name))
  }
  return parts
}

/** Only the overrides, with their help: what `init` writes, short enough to be read. */
export function briefToml(schema: z.ZodType, overrides: Overrides, heading: string): string {
  return `${[comment(heading), ...briefSection(schema, overrides, '')].join('\n')}\n`
}

function briefSection(schema: z.ZodType, overrides: Overrides, path: string): string[] {
  const keys = shapeOf(schema)
  const given = Object.entries(overrides).filter(([key, value]) => value !== undefined && Object.hasOwn(keys, key))
  const parts: string[] = []
  for (const [key, value] of given) {
    if (!isSection(keys[key]!)) parts.push('', comment(helpOf(keys[key]!)), assignment(key, value))
  }
  for (const [key] of given) {
    if (!isSection(keys[key]!)) continue
    const name = path === '' ? tomlKey(key) : `${path}.${tomlKey(key)}`
    const lines = briefSection(keys[key]!, inner(overrides, key), name)
    const onlySections = lines.find((line) => line !== '')?.startsWith('[') === true
    if (lines.length > 0) parts.push(...(onlySections ? [] : ['', `[${name}]`]), ...lines)
  }
  return parts
}

/** Whether a key holds a table of its own keys, always there. */
export function isSection(schema: z.ZodType): boolean {
  return bareSchema(schema) instanceof z.ZodObject
}

function inner(overrides: Overrides, key: string): Overrides {
  const value = overrides[key]
  return typeof value === 'object' && value !== null ? (value as Overrides) : {}
}

/** The sections or keys of an object schema. */
export function shapeOf(schema: z.ZodType): Record<string, z.ZodType> {
  const bare = bareSchema(schema)
  return bare instanceof z.ZodObject ? (bare.shape as Record<string, z.ZodType>) : {}
}

/** `key = value` on one line; tables inside are inline. */
function assignment(key: string, value: unknown): string {
  return `${tomlKey(key)} = ${tomlValue(value)}`
}

/** A value in TOML, on one line. */
export function tomlValue(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `[${value.map(tomlValue).join(', ')}]`
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, entry]) => entry !== undefined)
    return entries.length === 0 ? '{}' : `{ ${entries.map(([key, entry]) => assignment(key, entry)).join(', ')} }`
  }
  return stringify({ x: value }).trim().slice('x = '.length)
}

function comment(text: string): string {
  const lines: string[] = []
  for (const paragraph of text.split('\n')) {
    let line = '#'
    for (const word of paragraph.split(' ')) {
      if (line.length + 1 + word.length > WIDTH && line !== '#') {
        lines.push(line)
        line = '#'
      }
      line += ` ${word}`
    }
    lines.push(line.trimEnd())
  }
  return lines.join('\n')
}
