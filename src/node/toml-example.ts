import { stringify } from 'smol-toml'
import { z } from 'zod'
import { bareSchema, defaultOf, describeType, helpOf, tomlKey } from './toml-schema.ts'

/** Line width of the comments in an example. */
const WIDTH = 100

/** Values that differ from the schema's defaults, by section and key in schema spelling. */
export type Overrides = Readonly<Record<string, Readonly<Record<string, unknown>>>>

/**
 * A whole configuration file: every section and key with its help, at the default or at the override. A key without a default is shown in a comment.
 * @param schema an object of sections, each an object of keys
 */
export function exampleToml(schema: z.ZodType, overrides: Overrides, heading: string): string {
  const parts = [comment(heading)]
  for (const [section, sectionSchema] of Object.entries(shapeOf(schema))) {
    const help = helpOf(sectionSchema)
    parts.push('', ...(help === '' ? [] : [comment(help)]), `[${tomlKey(section)}]`)
    for (const [key, keySchema] of Object.entries(shapeOf(sectionSchema))) {
      const value = overrides[section]?.[key] ?? defaultOf(keySchema)
      parts.push('', comment(`${helpOf(keySchema)} (${describeType(keySchema)})`))
      parts.push(value === undefined ? `# ${tomlKey(key)} =` : assignment(key, value))
    }
  }
  return `${parts.join('\n')}\n`
}

/** Only what differs from the defaults: what `init` writes, short enough to be read. */
export function briefToml(schema: z.ZodType, overrides: Overrides, heading: string): string {
  const parts = [comment(heading)]
  for (const [section, sectionSchema] of Object.entries(shapeOf(schema))) {
    const values = overrides[section]
    if (values === undefined) continue
    const keys = shapeOf(sectionSchema)
    parts.push('', `[${tomlKey(section)}]`)
    for (const [key, value] of Object.entries(values)) {
      const keySchema = keys[key]
      if (keySchema !== undefined) parts.push(comment(helpOf(keySchema)))
      parts.push(assignment(key, value))
    }
  }
  return `${parts.join('\n')}\n`
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
