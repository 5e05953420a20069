import { mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import type { NetworkRulesInput, Role } from '../../directory/index.ts'
import {
  briefToml,
  CONFIG_FILE,
  configSchema,
  createIdentity,
  defaultsOf,
  encodeIdentity,
  IDENTITY_FILE,
  type Identity,
  isWildcard,
  NETWORK_FILE,
  networkToml,
  type Overrides,
  parseConfig,
  parseNodeAddress,
  roleProfiles,
} from '../../node/index.ts'
import { createFile, PRIVATE_DIR_MODE } from '../../store/index.ts'
import { say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { systemSuite } from '../system-suite.ts'

export interface InitOptions {
  readonly role?: readonly Role[]
  readonly network?: string
  readonly bootstrap?: readonly string[]
  readonly listen?: readonly string[]
  readonly advertise?: readonly string[]
  readonly dir?: string
  readonly json?: boolean
}

/** `shallot init`: everything is checked before the first file is written, and no file is ever overwritten. */
export async function init(options: InitOptions): Promise<number> {
  const roles = options.role ?? ['client']
  const dir = resolve(options.dir ?? defaultDir())
  const listens = roles.some((role) => roleProfiles[role].listens)
  const identity = listens ? createIdentity(systemSuite()) : null
  const own = identity === null ? [] : ownAddresses(options, identity)
  const network = await networkText(options, roles, own)
  const config = configText(options, roles)
  await parseConfig(config, join(dir, CONFIG_FILE), async () => network)

  await mkdir(dir, { recursive: true, mode: PRIVATE_DIR_MODE }).catch((error) => {
    throw new ShallotError('directory-unwritable', `${dir} cannot be made: ${messageOf(error)}`, {
      kind: 'host',
      retry: 'never',
      cause: error,
    })
  })
  const files = [join(dir, CONFIG_FILE), join(dir, NETWORK_FILE)]
  // The configuration first: when there is one already, nothing else is touched.
  await createFile(files[0]!, config)
  await createFile(files[1]!, network, 0o644)
  if (identity !== null) {
    const file = join(dir, IDENTITY_FILE)
    await mkdir(resolve(file, '..'), { recursive: true, mode: PRIVATE_DIR_MODE })
    await createFile(file, encodeIdentity(identity))
    files.push(file)
  }
  if (options.json) {
    sayJson({ dir, roles, id: identity?.id ?? null, addresses: own, files })
    return 0
  }
  say(`A new node, ${roles.join(', ')}:`)
  for (const file of files) say(`  ${file}`)
  if (identity !== null) say(`Its id is ${identity.id}. Whoever has ${files.at(-1)} is this node: keep a copy, show it to nobody.`)
  if (roles.includes('bootstrap')) for (const address of own) say(`Newcomers reach it at ${address}`)
  say(`Start it with: shallot run${options.dir === undefined ? '' : ` --dir ${options.dir}`}`)
  return 0
}

async function networkText(options: InitOptions, roles: readonly Role[], own: readonly string[]): Promise<string> {
  if (options.network !== undefined && options.bootstrap !== undefined)
    throw usage('give --network or --bootstrap, not both: a network file names its bootstrap nodes itself')
  if (options.network !== undefined) {
    return readFile(options.network, 'utf8').catch((error) => {
      throw new ShallotError('config-unreadable', `the network file, ${options.network}, cannot be read: ${messageOf(error)}`, {
        kind: 'config',
        retry: 'never',
        cause: error,
      })
    })
  }
  const bootstrap = [...(options.bootstrap ?? [])]
  if (roles.includes('bootstrap')) bootstrap.push(...own)
  else if (bootstrap.length === 0)
    throw usage('say which network this is: --network FILE (its network.toml), or --bootstrap ADDRESS (/ip4/A.B.C.D/tcp/PORT/p2p/ID)')
  const rules: NetworkRulesInput = { bootstrap }
  return networkToml(rules, 'What all nodes of this network share. Every node needs the same file.')
}

function configText(options: InitOptions, roles: readonly Role[]): string {
  const overrides: Record<string, Record<string, unknown>> = structuredClone(defaultsOf(roles)) as Record<string, Record<string, unknown>>
  overrides.node = { ...overrides.node, roles }
  if (options.advertise !== undefined) overrides.node.advertise = options.advertise
  if (options.listen !== undefined) overrides.link = { ...overrides.link, listen: options.listen }
  const heading =
    'A Shallot node. Every key that is not here is at its default; docs/configuration.md has them all.\nCheck changes with: shallot check-config shallot.toml'
  return briefToml(configSchema, overrides as Overrides, heading)
}

/** Where others reach the node, with its id. */
function ownAddresses(options: InitOptions, identity: Identity): string[] {
  const listen = (options.advertise ?? options.listen ?? []).filter((text) => {
    const address = parseNodeAddress(text)
    return address !== null && address.port !== 0 && !isWildcard(address.host)
  })
  return listen.map((text) => `${text}/p2p/${identity.id}`)
}

function usage(message: string): ShallotError {
  return new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
}
