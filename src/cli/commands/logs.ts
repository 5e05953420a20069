import { setTimeout as pause } from 'node:timers/promises'
import type { Api, ControlClient } from '../../control/index.ts'
import { say, sayJson, styled, visible } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

/** Between two looks at the log of a node that is followed. */
const FOLLOW_MS = 500
const colours = { error: 'red', warn: 'yellow', info: 'green', debug: 'dim', trace: 'dim' } as const

interface LogsOptions extends NodeChoice {
  readonly level?: Api.LogLevel
  readonly sub?: string
  readonly lines?: number
  readonly follow?: boolean
  readonly json?: boolean
}

/** `shallot logs [--follow]`: the last lines that the node remembers, and on request those to come, until the node or the person ends it. */
export async function logs(options: LogsOptions): Promise<number> {
  const node = await findNode(options)
  const filter = { ...(options.level && { level: options.level }), ...(options.sub !== undefined && { sub: options.sub }) }
  let page = await node.log({ ...filter, limit: options.lines ?? 100 })
  sayLines(page.lines, options.json === true)
  if (page.lines.length === 0 && !options.follow && !options.json) say('No such lines.')
  while (options.follow) {
    await pause(FOLLOW_MS)
    const next = await node.log({ ...filter, since: page.next, limit: MOST_LINES })
    if (next.missed && !options.json) say(styled('dim', '… lines were forgotten before they could be shown'))
    sayLines(next.lines, options.json === true)
    page = next
  }
  return 0
}

/** The API's limit of one answer. */
const MOST_LINES = 2_000

function sayLines(lines: readonly Api.LogLine[], isJson: boolean): void {
  for (const line of lines) {
    if (isJson) sayJson(line)
    else say(lineText(line))
  }
}

/** As the node writes it to standard error. */
export function lineText({ at, level, sub, message, fields }: Api.LogLine): string {
  const details = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' && !/[\s"=]/.test(value) ? value : JSON.stringify(value)}`,
  )
  const words = [styled('dim', new Date(at).toISOString()), styled(colours[level], level.toUpperCase().padEnd(5))]
  return [...words, ...[...(sub === '' ? [] : [`${sub}:`]), message, ...details].map(visible)].join(' ')
}

interface LevelOptions extends NodeChoice {
  readonly json?: boolean
}

/**
 * `shallot log-level [LEVEL] [SUBSYSTEM]`: what the node writes at all, and another choice until it ends.
 * @param level null: nothing is changed; 'default': a subsystem as everything else
 */
export async function logLevel(level: Api.LogLevel | 'default' | null, sub: string | null, options: LevelOptions): Promise<number> {
  const node = await findNode(options)
  const now = await node.logLevels()
  const levels = level === null ? now : await node.setLogLevels(changed(now, level, sub))
  if (options.json) sayJson(levels)
  else await sayLevels(node, levels)
  return 0
}

/** Pure. */
export function changed({ level, subsystems }: Api.LogLevels, wanted: Api.LogLevel | 'default', sub: string | null): Api.LogLevels {
  if (sub === null) return wanted === 'default' ? { level: 'info', subsystems: {} } : { level: wanted, subsystems }
  const { [sub]: _, ...others } = subsystems
  return { level, subsystems: wanted === 'default' ? others : { ...others, [sub]: wanted } }
}

async function sayLevels(node: ControlClient, { level, subsystems }: Api.LogLevels): Promise<void> {
  say(`Written: ${level} and above`)
  for (const [name, one] of Object.entries(subsystems).sort()) say(`  ${visible(name)}: ${one} and above`)
  const names = (await node.log({ limit: 1 })).subsystems.filter((name) => name !== '')
  if (names.length > 0) say(styled('dim', `Parts that have written something: ${names.map(visible).join(', ')}`))
}
