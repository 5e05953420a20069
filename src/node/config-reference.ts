import type { z } from 'zod'
import { networkRules } from '../directory/index.ts'
import { type ConfigSections, configSchema } from './config.ts'
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
    'Keys end in their unit: `_ms` milliseconds, `_bytes` bytes, `_per_second`, `_days`. `[[name.list]]` tables stand for the entries of a list of tables.',
    '',
    '## shallot.toml',
  ]
  for (const [section, schema] of Object.entries(shapeOf(configSchema))) {
    const roles = rolesOfSection(section as keyof ConfigSections)
    lines.push(...sectionText(tomlKey(section), schema, roles === null ? '' : ` Only for the roles ${roles.join(', ')}.`))
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
    if (isSection(schema)) lines.push(...sectionText(tomlKey(section), schema, ''))
  return `${lines.join('\n')}\n`
}

function sectionText(name: string, schema: z.ZodType, more: string): string[] {
  const lines = ['', `### \`[${name}]\``, '', `${helpOf(schema)}${more}`.trim(), '', ...keyTable(schema)]
  for (const [key, inner] of Object.entries(shapeOf(schema)))
    if (isSection(inner)) lines.push(...sectionText(`${name}.${tomlKey(key)}`, inner, ''))
  return lines
}

function keyTable(schema: z.ZodType): string[] {
  const keys = Object.entries(shapeOf(schema)).filter(([, key]) => !isSection(key))
  if (keys.length === 0) return []
  const rows = keys.map(([key, keySchema]) => {
    const value = defaultOf(keySchema)
    return `| \`${tomlKey(key)}\` | ${value === undefined ? '' : `\`${cell(tomlValue(value))}\``} | ${cell(helpOf(keySchema))} | ${cell(describeType(keySchema))} |`
  })
  return ['| key | default | what it does | value |', '| --- | --- | --- | --- |', ...rows]
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}
