import { access, constants, realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { parse, stringify } from 'smol-toml'
import { z } from 'zod'
import { messageOf } from '../base/index.ts'
import { replaceFile } from '../store/index.ts'
import { type ConfigSections, configSchema, loadConfig, type NodeConfig, parseConfig, readConfig, readNetwork } from './config.ts'
import { isGuardedKey } from './guarded-keys.ts'
import { isLiveKey, type LiveConfig } from './live-config.ts'
import { rolesOfSection } from './roles.ts'
import { editToml } from './toml-edit.ts'
import { isSection, shapeOf, tomlValue } from './toml-example.ts'
import { ConfigError, type ConfigProblem, nearest } from './toml-load.ts'
import { bareSchema, defaultOf, describeType, helpOf, tomlKey } from './toml-schema.ts'

/** A value as TOML has it. */
export type SettingValue = string | number | boolean | readonly SettingValue[] | { readonly [name: string]: SettingValue }

/** The configuration as a person sees and changes it while the node runs. */
export interface SettingsFacts {
  readonly file: string
  /** Whether this process may write the file: where it may not, nothing can be changed but by hand. */
  readonly writable: boolean
  readonly sections: readonly {
    /** As the file spells it: "ingress.socks". */
    readonly name: string
    readonly help: string
    readonly keys: readonly SettingFacts[]
  }[]
}

export interface SettingFacts {
  readonly key: string
  readonly help: string
  readonly type: string
  readonly schema: Readonly<Record<string, unknown>>
  readonly default?: SettingValue
  readonly value?: SettingValue
  readonly set: boolean
  readonly live: boolean
  readonly secret: boolean
  readonly change: 'session' | 'token'
  readonly pending: boolean
}

export interface SettingsChange {
  /** By key as the file spells it; null: the key leaves the file. */
  readonly set: Readonly<Record<string, unknown>>
  /** Only say what is wrong. */
  readonly check?: boolean
}

export interface SettingsChanged {
  readonly changed: readonly string[]
  readonly applied: readonly string[]
  readonly restart: readonly string[]
}

/** A key of the configuration, with its schema. */
interface Key {
  /** As the file spells it, and as the schema does. */
  readonly name: string
  readonly path: readonly string[]
  readonly schema: z.ZodType
}

/** How deep a value may be. */
const MAX_DEPTH = 8

const allKeys: readonly Key[] = keysOf(configSchema, [])
const keyNames: ReadonlyMap<string, Key> = new Map(allKeys.map((key) => [key.name, key]))

/** Shows and changes the configuration of a running node. Changes wait for each other. */
export class Settings {
  readonly #live: LiveConfig
  #turn: Promise<unknown> = Promise.resolve()

  constructor(live: LiveConfig) {
    this.#live = live
  }

  /** @throws ConfigError when the file cannot be used any more; ShallotError 'config-unreadable' */
  async facts(): Promise<SettingsFacts> {
    const { current } = this.#live
    const text = await this.#text()
    const file = await this.#parse(text)
    const written = parse(text) as Record<string, unknown>
    const sections = new Map<string, { name: string; help: string; keys: SettingFacts[] }>()
    for (const key of allKeys) {
      const roles = rolesOfSection(key.path[0] as keyof ConfigSections)
      if (roles !== null && !roles.some((role) => current.node.roles.includes(role))) continue
      const name = key.name.slice(0, key.name.lastIndexOf('.'))
      const section = sections.get(name) ?? { name, help: helpOf(schemaAt(key.path.slice(0, -1))), keys: [] }
      sections.set(name, section)
      section.keys.push(this.#factsOf(key, current, file, written))
    }
    return { file: current.file, writable: await isWritable(current.file), sections: [...sections.values()] }
  }

  /**
   * Writes the keys, and puts in force what can be.
   * @throws ConfigError with what is wrong, by key; ShallotError 'config-unreadable', 'directory-unwritable', 'write-failed'
   */
  change({ set, check }: SettingsChange): Promise<SettingsChanged> {
    return this.#inTurn(async () => {
      const { file } = this.#live.current
      const text = await this.#text()
      const next = edited(text, readChange(file, set), file)
      const config = await this.#parse(next)
      const changed = differences(await this.#parse(text), config)
      if (check === true) return { ...this.#outcome(changed, config) }
      if (next !== text) {
        const place = await realpath(file)
        await replaceFile(place, next, (await stat(place)).mode & 0o777)
      }
      return this.#apply(changed, config)
    })
  }

  /** Reads the file again. @throws as `facts` */
  reload(): Promise<SettingsChanged> {
    return this.#inTurn(async () => {
      const config = await loadConfig(this.#live.current.file)
      return this.#apply(differences(this.#live.current, config), config)
    })
  }

  #apply(changed: readonly string[], config: NodeConfig): SettingsChanged {
    const outcome = this.#outcome(changed, config)
    this.#live.apply(config, outcome.applied)
    return outcome
  }

  /** What differs from what is in force is put in force, or waits for the next start. */
  #outcome(changed: readonly string[], config: NodeConfig): SettingsChanged {
    const { current } = this.#live
    const different = differences(current, config)
    const isLive = (name: string): boolean => {
      const key = keyNames.get(name)!
      return isLiveKey(current, key.path)
    }
    return { changed, applied: different.filter(isLive), restart: different.filter((name) => !isLive(name)) }
  }

  #factsOf(key: Key, current: NodeConfig, file: NodeConfig, written: Record<string, unknown>): SettingFacts {
    const secret = holdsSecret(key.schema)
    const [value, usual] = [valueAt(current, key.path), defaultOf(key.schema)] as (SettingValue | undefined)[]
    return {
      key: key.name,
      help: helpOf(key.schema),
      type: describeType(key.schema),
      schema: jsonSchema(key.schema),
      ...(usual === undefined ? {} : { default: usual }),
      ...(secret || value === undefined ? {} : { value: value }),
      set: valueAt(written, key.path.map(tomlKey)) !== undefined,
      live: isLiveKey(current, key.path),
      secret,
      change: isGuardedKey(key.name) ? 'token' : 'session',
      pending: !isDeepStrictEqual(value, valueAt(file, key.path)),
    }
  }

  #text(): Promise<string> {
    return readConfig(this.#live.current.file)
  }

  #parse(text: string): Promise<NodeConfig> {
    return parseConfig(text, this.#live.current.file, readNetwork)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => {})
    return result
  }
}

/** Whether the file can be replaced: its folder takes another (systemd's ProtectSystem and a read-only disk do not). */
async function isWritable(file: string): Promise<boolean> {
  try {
    await access(dirname(await realpath(file)), constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** The wanted values as TOML, by key; null takes one away. @throws ConfigError */
function readChange(file: string, set: SettingsChange['set']): [Key, { readonly toml: string; readonly value: unknown } | null][] {
  const problems: ConfigProblem[] = []
  const wanted = Object.entries(set).flatMap(([name, value]): ReturnType<typeof readChange> => {
    const key = keyNames.get(name)
    if (key === undefined) {
      const near = nearest(name, [...keyNames.keys()])
      problems.push({
        key: name,
        line: null,
        message: near === null ? 'there is no such key' : `there is no such key; did you mean ${near}?`,
      })
      return []
    }
    if (value === null) return [[key, null]]
    if (!isTomlValue(value, 0)) {
      problems.push({ key: name, line: null, message: `${name} cannot be written: it must be ${describeType(key.schema)}` })
      return []
    }
    return [[key, { toml: tomlText(value), value }]]
  })
  if (problems.length > 0) throw new ConfigError(file, problems)
  return wanted
}

/** The text with other values. Where its form does not let single keys be edited, it is written anew, without its comments. */
function edited(text: string, changes: ReturnType<typeof readChange>, file: string): string {
  const wanted = parseText(text, file)
  let next = text
  for (const [key, change] of changes) {
    const path = key.path.map(tomlKey)
    put(wanted, path, change?.value)
    next = editToml(next, path, change?.toml ?? null)
  }
  try {
    // Cloned: the parser's tables have no prototype.
    if (isDeepStrictEqual(structuredClone(parse(next)), structuredClone(wanted))) return next
  } catch {}
  const heading = '# Written anew by the node: the earlier form of this file could not be edited in place.\n'
  return `${heading}${stringify(wanted)}`
}

function parseText(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text) as Record<string, unknown>
  } catch (error) {
    throw new ConfigError(file, [{ key: '', line: null, message: messageOf(error) }], error)
  }
}

function put(into: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = into
  for (const step of path.slice(0, -1)) {
    if (at[step] === undefined && value === undefined) return
    at[step] ??= {}
    const next = at[step]
    if (typeof next !== 'object' || next === null) return
    at = next as Record<string, unknown>
  }
  if (value === undefined) delete at[path.at(-1)!]
  else at[path.at(-1)!] = value
}

/** JSON that TOML can hold, and not too deep. */
function isTomlValue(value: unknown, depth: number): boolean {
  if (depth > MAX_DEPTH || value === null || value === undefined) return false
  if (typeof value === 'string') return value.isWellFormed()
  if (typeof value !== 'object') return true
  return Object.entries(value).every(([name, entry]) => name.isWellFormed() && name !== '__proto__' && isTomlValue(entry, depth + 1))
}

/** A value on one line, names as they are. */
function tomlText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlText).join(', ')}]`
  if (typeof value !== 'object' || value === null) return tomlValue(value)
  const entries = Object.entries(value).map(([name, entry]) => `${/^[\w-]+$/.test(name) ? name : tomlValue(name)} = ${tomlText(entry)}`)
  return entries.length === 0 ? '{}' : `{ ${entries.join(', ')} }`
}

/** Keys whose values differ. */
function differences(a: NodeConfig, b: NodeConfig): string[] {
  return allKeys.filter(({ path }) => !isDeepStrictEqual(valueAt(a, path), valueAt(b, path))).map(({ name }) => name)
}

function keysOf(schema: z.ZodType, path: readonly string[]): Key[] {
  return Object.entries(shapeOf(schema)).flatMap(([key, inner]) => {
    const at = [...path, key]
    return isSection(inner) ? keysOf(inner, at) : [{ name: at.map(tomlKey).join('.'), path: at, schema: inner }]
  })
}

function schemaAt(path: readonly string[]): z.ZodType {
  return path.reduce<z.ZodType>((schema, step) => shapeOf(schema)[step]!, configSchema)
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (at, step) => (typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[step] : undefined),
    value,
  )
}

/** Whether a value of this key holds what must not be shown. */
function holdsSecret(schema: z.ZodType): boolean {
  const bare = bareSchema(schema)
  if (bare instanceof z.ZodArray) return holdsSecret(bare.element as z.ZodType)
  if (!(bare instanceof z.ZodObject)) return false
  return Object.entries(bare.shape as Record<string, z.ZodType>).some(
    ([key, inner]) => /password|secret|token/i.test(key) || holdsSecret(inner),
  )
}

/** A key's schema for whoever makes a form of it, without what the facts say beside. */
function jsonSchema(schema: z.ZodType): Record<string, unknown> {
  const made = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return Object.fromEntries(Object.entries(made).filter(([key]) => !['$schema', 'default', 'description'].includes(key)))
}
