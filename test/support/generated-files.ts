import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import packageJson from '../../package.json' with { type: 'json' }
import { buildProgram } from '../../src/cli/program.ts'
import { modelOf } from '../../src/cli/shells/command-model.ts'
import { manualPage } from '../../src/cli/shells/manual.ts'
import { apiDocument } from '../../src/control/api/document.ts'
import type { Role } from '../../src/directory/index.ts'
import { configReference, exampleConfig } from '../../src/node/index.ts'
import { alertRules } from './alert-rules.ts'
import { apiTypes } from './api-types.ts'
import { grafanaDashboard } from './grafana.ts'

/** Which roles each example is for. */
export const examples: readonly { readonly path: string; readonly roles: readonly Role[] }[] = [
  { path: 'shallot.example.toml', roles: ['client'] },
  { path: 'bootstrap/shallot.example.toml', roles: ['bootstrap'] },
  { path: 'relay/shallot.example.toml', roles: ['guard', 'middle', 'relay'] },
  { path: 'exit/shallot.example.toml', roles: ['exit'] },
]

/** Files that are made from the schemas and the command line, with the text they must have. `node test/support/generated-files.ts` writes them. */
export async function generatedFiles(): Promise<{ readonly path: string; readonly text: string }[]> {
  const api = `${JSON.stringify(apiDocument(), null, 2)}\n`
  return [
    { path: 'docs/configuration.md', text: configReference() },
    ...examples.map(({ path, roles }) => ({ path, text: exampleConfig(roles) })),
    { path: 'man/shallot.1', text: manualPage(modelOf(buildProgram(() => {})), packageJson.version, dateOfVersion()) },
    ...(['bootstrap', 'relay', 'exit'] as const).flatMap((kit) => [
      { path: `${kit}/alerts.yml`, text: alertRules(kit) },
      { path: `${kit}/grafana.json`, text: grafanaDashboard(kit) },
    ]),
    { path: 'docs/openapi.json', text: api },
    { path: 'src/control/api-types.ts', text: await apiTypes(JSON.parse(api)) },
  ]
}

/** That the changelog gives its newest version. */
function dateOfVersion(): string {
  const heading = readFileSync(join(import.meta.dirname, '../../CHANGELOG.md'), 'utf8').match(/^## .*$/m)?.[0] ?? ''
  const date = heading.match(/\d{4}-\d{2}-\d{2}/)?.[0]
  if (date === undefined) throw new Error('CHANGELOG.md: the newest version has no date YYYY-MM-DD')
  return date
}

if (import.meta.main) {
  for (const { path, text } of await generatedFiles()) {
    const file = join(import.meta.dirname, '../..', path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
  }
}
