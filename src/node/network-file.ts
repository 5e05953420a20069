import { z } from 'zod'
import { parseNodeAddress } from './multiaddr.ts'
import type { RuleChange } from './node-control.ts'
import { shapeOf, tomlValue } from './toml-example.ts'
import { freeze, loadToml } from './toml-load.ts'
import { defaultOf, helpOf, tomlKey } from './toml-schema.ts'

/** The file's name in a node's directory. */
export const NETWORK_FILE = 'network.toml'
/** Bootstrap addresses of a network. */
const MAX_BOOTSTRAP = 64

const rulesSchema = z.strictObject({})

const bootstrapAddress = z.string().refine((text) => {
  const address = parseNodeAddress(text)
  return address?.id != null && address.port !== 0 && !address.tls
}, 'not the address of a bootstrap node: /ip4/A.B.C.D/tcp/PORT/p2p/ID')

/** `network.toml`: what all nodes of a network share. */
export const networkSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,31}$/, { error: 'it must be 1 to 32 lower-case letters, digits and dashes' })
    .default('shallot')
    .describe('The name of the network. Nodes of another name are not talked to.'),
  bootstrap: z
    .array(bootstrapAddress)
    .max(MAX_BOOTSTRAP)
    .default([])
    .describe('Where newcomers come in: addresses of bootstrap nodes, each with its node id.'),
  rules: rulesSchema.prefault({}).describe('Rules that all nodes of a network must hold alike. What is not written is at its default.'),
})

/** What a network shares, as its file says. */
export interface Network extends z.output<typeof networkSchema> {
  /** The rules that differ from the defaults. */
  readonly changes: readonly RuleChange[]
}

/** @throws ConfigError */
export function loadNetwork(text: string, file: string): Network {
  const { value } = loadToml(text, file, networkSchema)
  return freeze({ ...value, changes: ruleChanges(value.rules) })
}

/** The text of a network file that has these values; rules at their default are left out. */
export function networkToml(
  network: { readonly name: string; readonly bootstrap: readonly string[]; readonly rules: Readonly<Record<string, unknown>> },
  heading: string,
): string {
  const lines = [...heading.split('\n').map((line) => `# ${line}`.trimEnd()), '', `name = ${tomlValue(network.name)}`, 'bootstrap = [']
  lines.push(...network.bootstrap.map((address) => `  ${tomlValue(address)},`), ']')
  const changes = ruleChanges(network.rules)
  if (changes.length > 0) lines.push('', '[rules]')
  for (const change of changes)
    lines.push(
      `# ${change.help} Default: ${tomlValue(change.default)}.`,
      `${change.key.slice('rules.'.length)} = ${tomlValue(change.value)}`,
    )
  return `${lines.join('\n')}\n`
}

function ruleChanges(rules: Readonly<Record<string, unknown>>): RuleChange[] {
  const changes: RuleChange[] = []
  for (const [key, schema] of Object.entries(shapeOf(rulesSchema))) {
    const usual = defaultOf(schema)
    if (rules[key] === undefined || JSON.stringify(rules[key]) === JSON.stringify(usual)) continue
    changes.push({ key: `rules.${tomlKey(key)}`, value: rules[key], default: usual, help: helpOf(schema) })
  }
  return changes
}
