import { describe, expect, test } from 'vitest'
import { importsOf, repositoryFiles } from '../support/repository.ts'

/** Lower numbers are lower layers. docs/architecture.md has the same table for people. */
const ranks: Readonly<Record<string, number>> = {
  base: 0,
  crypto: 1,
  dns: 1,
  packet: 1,
  onion: 2,
  netstack: 2,
  directory: 3,
  path: 4,
  link: 5,
  store: 5,
  tun: 5,
  geo: 5,
  drive: 6,
  discovery: 6,
  nat: 6,
  client: 7,
  relaying: 7,
  vpn: 8,
  ingress: 8,
  egress: 8,
  node: 9,
  control: 10,
  metrics: 10,
  cli: 11,
  dashboard: 12,
}

/** Beside each other by intent: the folder may import those, though they have its own rank. */
const beside: Readonly<Record<string, readonly string[]>> = {}

/** What the control API says, made from its document. */
const apiTypes = 'src/control/api-types.ts'

/** The folders of the server roles stand beside `node`: it takes their profiles, they take its types. */
const roleFolders = ['bootstrap', 'relay', 'exit']

const sources = repositoryFiles().filter((file) => /^(src|bootstrap|relay|exit)\/.*\.tsx?$/.test(file))

interface Place {
  readonly folder: string
  readonly rank: number
}

function placeOf(file: string): Place | null {
  const [top, second] = file.split('/')
  if (roleFolders.includes(top!)) return { folder: top!, rank: ranks.node! }
  if (top !== 'src' || second === undefined || !file.slice(4).includes('/')) return null
  return { folder: second, rank: ranks[second] ?? Number.NaN }
}

/** Why an import is not allowed; null when it is. */
function objection(from: string, to: string, typeOnly: boolean): string | null {
  const importer = placeOf(from)
  const imported = placeOf(to)
  if (to === 'package.json') return null
  if (imported === null) return 'it is no source of the program'
  if (importer === null || importer.folder === imported.folder) return null
  if (importer.folder === 'dashboard') {
    return to === apiTypes && typeOnly ? null : `the dashboard runs in a browser: of the program it takes the types of ${apiTypes} alone`
  }
  const door = roleFolders.includes(imported.folder) ? imported.folder : `src/${imported.folder}`
  // Settings have a door of their own: every node reads all of them, and few nodes load what they are for.
  const isSettings = to === `${door}/config.ts` && from === 'src/node/config.ts'
  if (to !== `${door}/index.ts` && !isSettings) {
    return `only the door of ${imported.folder}, its index.ts, may be imported from outside`
  }
  if (importer.folder === 'node' && roleFolders.includes(imported.folder)) return null
  if (roleFolders.includes(importer.folder) && imported.folder === 'node')
    return typeOnly ? null : 'a role folder takes only types from node, which takes its profile'
  if (imported.rank < importer.rank || beside[importer.folder]?.includes(imported.folder)) return null
  const relation = imported.rank === importer.rank ? 'stands beside' : 'lies above'
  return `${imported.folder} (rank ${imported.rank}) ${relation} ${importer.folder} (rank ${importer.rank}); define the interface you want in ${importer.folder} and let ${imported.folder} implement it`
}

describe('layers', () => {
  test('every folder of src has a rank', () => {
    const folders = new Set(sources.filter((file) => file.startsWith('src/')).map((file) => file.split('/')[1]!))
    expect([...folders].filter((folder) => ranks[folder] === undefined)).toEqual([])
  })

  test('imports go downwards and through doors', () => {
    const objections = sources
      .flatMap(importsOf)
      .filter((found) => found.target !== null)
      .map((found) => ({ found, why: objection(found.file, found.target!, found.typeOnly) }))
      .filter(({ why }) => why !== null)
      .map(({ found, why }) => `${found.file}:${found.line} imports ${found.specifier}: ${why}`)
    expect(objections).toEqual([])
  })

  test('the test sees an import that goes up, one past a door, and one beside', () => {
    expect(objection('src/onion/cell.ts', 'src/link/index.ts', false)).toMatch(/lies above/)
    expect(objection('src/link/link.ts', 'src/onion/cell.ts', false)).toMatch(/door/)
    expect(objection('src/client/pool.ts', 'src/relaying/index.ts', false)).toMatch(/stands beside/)
    expect(objection('exit/index.ts', 'src/node/index.ts', false)).toMatch(/only types/)
    expect(objection('src/cli/main.ts', 'src/control/index.ts', false)).toBeNull()
    expect(objection('src/dashboard/api.ts', 'src/control/index.ts', true)).toMatch(/browser/)
    expect(objection('src/dashboard/api.ts', 'src/control/api-types.ts', true)).toBeNull()
    expect(objection('src/cli/main.ts', 'src/dashboard/api.ts', false)).toMatch(/door/)
  })
})
