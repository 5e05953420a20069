import type { Role } from '../directory/index.ts'
import { type ConfigSections, configSchema } from './config.ts'
import { defaultsOf, rolesOfSection } from './roles.ts'
import { exampleToml, shapeOf } from './toml-example.ts'

/** An address of the documentation range (RFC 5737), for what only the operator knows. */
const EXAMPLE_ADDRESS = '/ip4/198.51.100.7/tcp/4460'

/** Where the numbers of a node that serves others are told, in the file that `shallot init` writes and in the examples: on this machine alone. */
export const OPERATOR_METRICS = '127.0.0.1:9297'

/** What an example sets other than the defaults. */
export function exampleOverrides(roles: readonly Role[]): Record<string, Record<string, unknown>> {
  const overrides = structuredClone(defaultsOf(roles)) as Record<string, Record<string, unknown>>
  if (roles.some((role) => role !== 'client')) {
    overrides.node = { ...overrides.node, advertise: [EXAMPLE_ADDRESS] }
    overrides.metrics = { listen: [OPERATOR_METRICS] }
  }
  return overrides
}

/** The text of a complete `shallot.toml` for these roles: each section that matters to them, each key, at its default. */
export function exampleConfig(roles: readonly Role[]): string {
  const relevant = (section: string): boolean =>
    rolesOfSection(section as keyof ConfigSections)?.some((role) => roles.includes(role)) ?? true
  const sections = Object.fromEntries(
    Object.keys(shapeOf(configSchema))
      .filter(relevant)
      .map((section) => [section, true as const]),
  )
  const heading = [
    `A complete configuration of a node with the roles ${roles.join(', ')}.`,
    'Every key is here with its help, what it may be, and its default; what a role sets otherwise is node.roles, link.listen, node.advertise and metrics.listen.',
    'A real file needs only what differs: `shallot init` writes one.',
  ].join('\n')
  return exampleToml(configSchema.pick(sections as Record<keyof ConfigSections, true>), exampleOverrides(roles), heading)
}
