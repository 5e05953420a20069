import { type NetworkRules, type NetworkRulesInput, networkRules, ruleDifferences } from '../directory/index.ts'
import type { RuleChange } from './node-control.ts'
import { briefToml } from './toml-example.ts'
import { freeze, loadToml } from './toml-load.ts'
import { childSchema, helpOf, tomlPath } from './toml-schema.ts'

/** The file's name in a node's directory. */
export const NETWORK_FILE = 'network.toml'

/** Reads a network file. @param file how messages name it @throws ConfigError */
export function loadNetwork(text: string, file: string): NetworkRules {
  return freeze(loadToml(text, file, networkRules).value)
}

/** The text of a network file with these values; what is not given is left out and stays at its default. */
export function networkToml(rules: NetworkRulesInput, heading: string): string {
  return briefToml(networkRules, rules, heading)
}

/** What a network has changed of the defaults, each with its help: shown by `shallot status`. */
export function ruleChanges(rules: NetworkRules): RuleChange[] {
  return ruleDifferences(rules).map(({ key, value, normal }) => {
    const path = key.split('.')
    let at = childSchema(networkRules, path[0]!)
    for (const step of path.slice(1)) at = at === null ? null : childSchema(at, step)
    return { key: tomlPath(networkRules, path), value, default: normal, help: at === null ? '' : helpOf(at) }
  })
}
