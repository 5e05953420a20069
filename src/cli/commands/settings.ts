import { parse, stringify } from 'smol-toml'
import { ShallotError } from '../../base/index.ts'
import type { Api } from '../../control/index.ts'
import { say, sayJson, styled, visible } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

interface Options extends NodeChoice {
  readonly json?: boolean
}

/** `shallot settings [PART]` */
export async function settings(part: string, options: Options & { readonly setOnly?: boolean }): Promise<number> {
  const facts = await (await findNode(options)).settings()
  const wanted = (setting: Api.Setting): boolean => setting.key.includes(part) && (!options.setOnly || setting.set)
  const sections = facts.sections
    .map((section) => ({ ...section, keys: section.keys.filter(wanted) }))
    .filter(({ keys }) => keys.length > 0)
  if (options.json) sayJson({ ...facts, sections })
  else {
    for (const { keys } of sections) for (const key of keys) say(settingLine(key))
    say(styled('dim', sections.length === 0 ? 'No such keys.' : `The file: ${facts.file}`))
  }
  return 0
}

/** "log.level = "info"  live": a key, what is in force, and when a change would be. */
export function settingLine({ key, value, secret, set, live, pending }: Api.Setting): string {
  const shown = secret ? (set ? '(hidden)' : '(not set)') : value === undefined ? '(not set)' : tomlText(value)
  const when = pending ? 'waits' : live ? 'live' : 'restart'
  return `${visible(`${key} = ${shown}`)}  ${styled('dim', `# ${when}${set ? ', in the file' : ''}`)}`
}

/** `shallot set KEY VALUE` */
export async function set(
  key: string,
  value: string | null,
  options: Options & { readonly default?: boolean; readonly check?: boolean },
): Promise<number> {
  if ((value === null) !== (options.default === true)) throw usage('give a value, or --default')
  const node = await findNode(options)
  const known = (await node.settings()).sections.flatMap(({ keys }) => keys).find((one) => one.key === key)
  const wanted = value === null ? null : known === undefined ? value : typedValue(value, known.schema)
  const outcome = await node.changeSettings({ set: { [key]: wanted }, ...(options.check && { check: true }) })
  if (options.json) sayJson(outcome)
  else if (options.check) say(`${key} may be that.`)
  else sayOutcome(outcome, 'Nothing to change: the file says that already.')
  return 0
}

/** `shallot reload` */
export async function reload(options: Options): Promise<number> {
  const outcome = await (await findNode(options)).reload()
  if (options.json) sayJson(outcome)
  else sayOutcome(outcome, 'Read again: it says what is in force.')
  return 0
}

function sayOutcome({ changed, applied, restart }: Api.SettingsChanged, otherwise: string): void {
  if (applied.length > 0) say(`In force: ${applied.map(visible).join(', ')}.`)
  if (restart.length > 0) say(`From the next start: ${restart.map(visible).join(', ')}.`)
  if (changed.length + applied.length + restart.length === 0) say(otherwise)
}

/**
 * What a person typed as the value of a key: words for a text, commas or TOML for a list, TOML for the rest. What is none of it is sent as it is, for
 * the node to say what is wrong. Pure.
 */
export function typedValue(text: string, schema: Readonly<Record<string, unknown>>): Api.SettingValue {
  if (schema.type === 'string') return unquoted(text)
  if (schema.type === 'array' && !text.trimStart().startsWith('[')) {
    const entries = text.split(',').map((entry) => entry.trim())
    return entries.filter((entry) => entry !== '').map((entry) => typedValue(entry, (schema.items ?? {}) as Record<string, unknown>))
  }
  return asToml(text) ?? text
}

function unquoted(text: string): string {
  const value = /^".*"$|^'.*'$/s.test(text) ? asToml(text) : null
  return typeof value === 'string' ? value : text
}

function asToml(text: string): Api.SettingValue | null {
  try {
    return parse(`x = ${text}`).x as Api.SettingValue
  } catch {
    return null
  }
}

function tomlText(value: unknown): string {
  return Array.isArray(value) && value.length === 0
    ? '[]'
    : typeof value === 'object' && !Array.isArray(value)
      ? JSON.stringify(value)
      : stringify({ x: value }).trim().slice('x = '.length)
}

function usage(message: string): ShallotError {
  return new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
}
