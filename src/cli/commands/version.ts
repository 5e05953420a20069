import packageJson from '../../../package.json' with { type: 'json' }
import { chooseSuite } from '../../crypto/index.ts'
import { facts, say, sayJson } from '../output.ts'

/** `shallot version` */
export async function version(options: { readonly json?: boolean }): Promise<number> {
  const { suite, reason } = chooseSuite('auto')
  const known = {
    version: packageJson.version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    crypto: { name: suite.name, description: suite.description, reason },
  }
  if (options.json) sayJson(known)
  else {
    say(
      facts([
        ['shallot', known.version],
        ['Node.js', known.node],
        ['platform', known.platform],
        ['crypto', `${known.crypto.name} (${known.crypto.description}): ${reason}`],
      ]),
    )
  }
  return 0
}
