import type { z } from 'zod'
import { networkRules } from '../directory/index.ts'
import { type ConfigSections, configSchema } from './config.ts'
import { liveByRule } from './live-config.ts'
import { rolesOfSection } from './roles.ts'
import { isSection, shapeOf, tomlValue } from './toml-example.ts'
import { defaultOf, describeType, helpOf, tomlKey } from './toml-schema.ts'

/** The text of docs/configuration.md: every key of both files, from the schemas. */
export function configReference(): string {
  const lines = [
    '# Configuration',
    '',
    'This file is made from the schemas: `sh bin/tool node test/support/generated-files.ts` writes it, and a test holds it to them.',
    '',
    'A node reads `shallot.toml`; what its whole network shares is in `network.toml`, which `node.network` names. Every key has a default, unknown keys are refused,',
    'and `shallot check-config FILE` says what is wrong, with line and key. Complete examples: [a client](../shallot.example.toml), [a relay](../relay/shallot.example.toml),',
    '[an exit](../exit/shallot.example.toml), [a bootstrap node](../bootstrap/shallot.example.toml).',
    '',
    'What changes in `shallot.toml` while the node runs is read at SIGHUP, and whenever the dashboard or the control API changes a key. The column',
    '"counts" says when a changed value is in force: **at once**, for what is opened, asked or built from then on, or at the next **start** of the node.',
    '',
    'Keys end in their unit: `_ms` milliseconds, `_bytes` bytes, `_per_second`, `_days`. `[[name.list]]` tables stand for the entries of a list of tables.',
    '',
    '## shallot.toml',
  ]
  for (const [section, schema] of Object.entries(shapeOf(configSchema))) {
    const roles = rolesOfSection(section as keyof ConfigSections)
    lines.push(...sectionText([section], schema, roles === null ? '' : ` Only for the roles ${roles.join(', ')}.`))
  }
  lines.push(
    '',
    '## network.toml',
    '',
    'All nodes of a network need the same file: where their rules differ, their views do.',
    '',
    ...keyTable(networkRules),
  )
  for (const [section, schema] of Object.entries(shapeOf(networkRules)))
    if (isSection(schema)) lines.push(...sectionText([section], schema, '', false))
  return `${lines.join('\n')}\n`
}

/** @param counts whether to say when a change of a key counts */
function sectionText(path: readonly string[], schema: z.ZodType, more: string, counts = true): string[] {
  const heading = `### \`[${path.map(tomlKey).join('.')}]\``
  const lines = ['', heading, '', `${helpOf(schema)}${more}`.trim(), '', ...keyTable(schema, counts ? path : null)]
  for (const [key, inner] of Object.entries(shapeOf(schema)))
    if (isSection(inner)) lines.push(...sectionText([...path, key], inner, '', counts))
  return lines
}

/** @param path of the section whose keys count at some time; null: nobody changes them in a node that runs */
function keyTable(schema: z.ZodType, path: readonly string[] | null = null): string[] {
  const keys = Object.entries(shapeOf(schema)).filter(([, key]) => !isSection(key))
  if (keys.length === 0) return []
  const rows = keys.map(([key, keySchema]) => {
    const value = defaultOf(keySchema)
    const counts = path === null ? '' : ` ${whenItCounts([...path, key])} |`
    return `| \`${tomlKey(key)}\` | ${value === undefined ? '' : `\`${cell(tomlValue(value))}\``} | ${cell(helpOf(keySchema))} | ${cell(describeType(keySchema))} |${counts}`
  })
  const [names, line] = path === null ? ['', ''] : [' counts |', ' --- |']
  return [`| key | default | what it does | value |${names}`, `| --- | --- | --- | --- |${line}`, ...rows]
}

function whenItCounts(path: readonly string[]): string {
  const live = liveByRule(path)
  return live === null ? 'at once; with `exit.packets = "tun"` at the next start' : live ? 'at once' : 'start'
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}
