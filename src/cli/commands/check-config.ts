import { resolve } from 'node:path'
import { ShallotError } from '../../base/index.ts'
import { ConfigError, loadConfig, ruleChanges } from '../../node/index.ts'
import { complain, facts, say, sayJson } from '../output.ts'
import { signatureText } from './network.ts'

/** `shallot check-config FILE` */
export async function checkConfig(file: string, options: { readonly json?: boolean }): Promise<number> {
  try {
    const config = await loadConfig(file)
    const changes = ruleChanges(config.network)
    if (options.json) {
      sayJson({
        valid: true,
        file: resolve(file),
        roles: config.node.roles,
        dir: config.dir,
        network: config.network.name,
        publisher: config.signature?.publisher ?? null,
        changes,
        cautions: config.cautions,
      })
      return 0
    }
    say(`${file} is right.`)
    say(
      facts([
        ['roles', config.node.roles.join(', ')],
        ['directory', config.dir],
        ['network', `${config.network.name}, ${signatureText(config.signature)}`],
        ...config.bootstrap.map(({ name, addresses }) => ['way in', `${name}: ${addresses.length} bootstrap addresses`] as const),
        ...config.cautions.map((caution) => ['caution', caution] as const),
        ...changes.map(
          (change) => ['differs', `${change.key} = ${JSON.stringify(change.value)} (usually ${JSON.stringify(change.default)})`] as const,
        ),
      ]),
    )
    return 0
  } catch (error) {
    if (!(error instanceof ShallotError) || error.kind !== 'config') throw error
    if (options.json) {
      const problems =
        error instanceof ConfigError
          ? error.problems.map((problem) => ({ file: error.file, ...problem }))
          : [{ file, key: '', line: null, message: error.message }]
      sayJson({ valid: false, problems })
    } else {
      complain(error.message)
    }
    return 1
  }
}
