import type { Setting, SettingValue } from '../control/api-types.ts'

/** How a key is edited. What the node accepts is for the node to say: the form only finds the right field. */
export type Field =
  | { readonly kind: 'switch' }
  | { readonly kind: 'choice'; readonly of: readonly string[] }
  | { readonly kind: 'choices'; readonly of: readonly string[] }
  | { readonly kind: 'number'; readonly min: number | null; readonly max: number | null; readonly whole: boolean }
  | { readonly kind: 'text' }
  | { readonly kind: 'lines' }
  | { readonly kind: 'json' }

interface JsonSchema {
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly minimum?: number
  readonly maximum?: number
}

/** The field for a key, by its JSON schema. */
export function fieldOf({ schema }: Pick<Setting, 'schema'>): Field {
  const { type, enum: of, items, anyOf, minimum, maximum } = schema as JsonSchema
  if (of !== undefined) return { kind: 'choice', of: of.map(String) }
  if (anyOf !== undefined) return anyOf.every(isPlain) ? { kind: 'text' } : { kind: 'json' }
  if (type === 'boolean') return { kind: 'switch' }
  if (type === 'integer' || type === 'number')
    return { kind: 'number', min: minimum ?? null, max: maximum ?? null, whole: type === 'integer' }
  if (type === 'array' && items?.enum !== undefined) return { kind: 'choices', of: items.enum.map(String) }
  if (type === 'array' && items !== undefined && (items.type === 'string' || (items.anyOf ?? []).some(({ type: of }) => of === 'string'))) {
    return { kind: 'lines' }
  }
  return type === 'string' ? { kind: 'text' } : { kind: 'json' }
}

function isPlain({ type, const: only }: JsonSchema): boolean {
  return only !== undefined || type === 'string' || type === 'boolean' || type === 'number' || type === 'integer'
}

/** A value as the field shows it. */
export function textOf(field: Field, value: SettingValue | null | undefined): string {
  if (value === undefined || value === null) return ''
  if (field.kind === 'lines') return Array.isArray(value) ? value.join('\n') : ''
  return field.kind === 'json' || (field.kind === 'text' && typeof value === 'object') ? JSON.stringify(value) : String(value)
}

/** What was typed, as a value. What cannot be one stays text, and the node says what it should be. */
export function typedValue(field: Field, setting: Pick<Setting, 'schema'>, text: string): SettingValue {
  switch (field.kind) {
    case 'number': {
      const value = Number(text.replaceAll(/[ ,_]/g, ''))
      return text.trim() === '' || Number.isNaN(value) ? text : value
    }
    case 'lines':
      return text
        .split('\n')
        .map((line) => line.trim())
        .filter((line) => line !== '')
    case 'json':
      try {
        return JSON.parse(text)
      } catch {
        return text
      }
    case 'text': {
      const types = ((setting.schema as JsonSchema).anyOf ?? []).map(({ type }) => type)
      if (types.includes('boolean') && (text === 'true' || text === 'false')) return text === 'true'
      if ((types.includes('integer') || types.includes('number')) && /^-?\d+(\.\d+)?$/.test(text)) return Number(text)
      return text
    }
    default:
      return text
  }
}
