import { readFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { formatHostPort, messageOf, parseIp, ShallotError } from '../../base/index.ts'
import { addressScope, type NetworkRulesInput, type NetworkSignature, type Role } from '../../directory/index.ts'
import {
  briefToml,
  CONFIG_FILE,
  configSchema,
  createIdentity,
  defaultsOf,
  encodeIdentity,
  IDENTITY_FILE,
  type Identity,
  isLoopback,
  isWildcard,
  NETWORK_FILE,
  networkToml,
  OPERATOR_METRICS,
  type Overrides,
  parseConfig,
  parseIpPort,
  parseNodeAddress,
  roleProfiles,
  verifyNetwork,
} from '../../node/index.ts'
import { createFile, makeDirectory } from '../../store/index.ts'
import { say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { systemSuite } from '../system-suite.ts'
import { publisherOf, signatureText } from './network.ts'

export interface InitOptions {
  readonly role?: readonly Role[]
  readonly network?: string
  readonly publisher?: string
  readonly bootstrap?: readonly string[]
  readonly listen?: readonly string[]
  readonly advertise?: readonly string[] | undefined
  readonly dir?: string
  readonly json?: boolean
}

/** `shallot init`: everything is checked before the first file is written, and no file is ever overwritten. */
export async function init(options: InitOptions): Promise<number> {
  const roles = options.role ?? ['client']
  const dir = resolve(options.dir ?? defaultDir())
  const listens = roles.some((role) => roleProfiles[role].listens)
  const advertise = listens ? advertised(options, roles) : undefined
  const identity = listens ? createIdentity(systemSuite()) : null
  const own = identity === null ? [] : ownAddresses({ ...options, advertise }, identity)
  const network = await networkText(options, roles, own)
  const signature = await verifyNetwork(network, options.network ?? NETWORK_FILE, publisherOf(options.publisher))
  // Whoever signed the first file is held to from now on.
  const config = configText({ ...options, advertise, ...(signature && { publisher: signature.publisher }) }, roles)
  await parseConfig(config, join(dir, CONFIG_FILE), async () => network)

  await makeDirectory(dir)
  const files = [join(dir, CONFIG_FILE), join(dir, NETWORK_FILE)]
  // The configuration first: when there is one already, nothing else is touched.
  await createFile(files[0]!, config)
  await createFile(files[1]!, network, 0o644)
  if (identity !== null) {
    const file = join(dir, IDENTITY_FILE)
    await makeDirectory(dirname(file))
    await createFile(file, encodeIdentity(identity))
    files.push(file)
  }
  if (options.json) {
    sayJson({ dir, roles, id: identity?.id ?? null, addresses: own, publisher: signature?.publisher ?? null, files })
    return 0
  }
  say(`A new node, ${roles.join(', ')}:`)
  for (const file of files) say(`  ${file}`)
  if (options.network !== undefined) sayWhoseNetwork(options, signature)
  if (identity !== null) say(`Its id is ${identity.id}. Whoever has ${files.at(-1)} is this node: keep a copy, show it to nobody.`)
  if (options.advertise === undefined && advertise !== undefined)
    say(`Others are told ${advertise.join(', ')}: if that is not where they reach it, change node.advertise.`)
  if (roles.includes('bootstrap')) for (const address of own) say(`Newcomers reach it at ${address}`)
  say(`Start it with: shallot run${options.dir === undefined ? '' : ` --dir ${options.dir}`}`)
  return 0
}

function sayWhoseNetwork(options: InitOptions, signature: NetworkSignature | null): void {
  if (signature === null) {
    say(`The network file is not signed: that it is the one you wanted, only where you have it from can tell.`)
    return
  }
  say(`The network file is ${signatureText(signature)}: later ones must be too (node.network_publisher).`)
  if (options.publisher === undefined) say('Compare that key with what its publisher tells elsewhere.')
}

async function networkText(options: InitOptions, roles: readonly Role[], own: readonly string[]): Promise<string> {
  if (options.network !== undefined && options.bootstrap !== undefined)
    throw usage('give --network or --bootstrap, not both: a network file names its bootstrap nodes itself')
  if (options.publisher !== undefined && options.network === undefined)
    throw usage('--publisher needs --network: a file of this machine is signed by nobody yet')
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
  overrides.node = { ...overrides.node, roles, ...(options.publisher !== undefined && { networkPublisher: options.publisher }) }
  if (options.advertise !== undefined) overrides.node.advertise = options.advertise
  if (options.listen !== undefined) overrides.link = { ...overrides.link, listen: options.listen }
  if (roles.some((role) => roleProfiles[role].listens)) overrides.metrics = { listen: [metricsAddress(options.listen)] }
  const heading =
    'A Shallot node. Every key that is not here is at its default; docs/configuration.md has them all.\nCheck changes with: shallot check-config shallot.toml'
  return briefToml(configSchema, overrides as Overrides, heading)
}

/** On this machine alone. A node that is tried on a loopback address of its own has its numbers there too: others may be tried beside it. */
function metricsAddress(listen: readonly string[] = []): string {
  const { host, port } = parseIpPort(OPERATOR_METRICS)!
  const own = listen.map(parseNodeAddress).find((address) => address !== null && isLoopback(address.host))
  return formatHostPort(own?.host ?? host, port)
}

/**
 * What the others are to be told: as given; nothing when the listening addresses say it; else the most public address of this machine's
 * interfaces, which a person may have to correct.
 */
function advertised(options: InitOptions, roles: readonly Role[]): readonly string[] | undefined {
  if (options.advertise !== undefined) return options.advertise
  const listen = options.listen ?? defaultsOf(roles).link?.listen ?? []
  const wildcard = listen.map(parseNodeAddress).find((address) => address !== null && isWildcard(address.host))
  if (wildcard == null) return undefined
  const scopes = ['public', 'private', 'unusable']
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter((address) => address.family === 'IPv4' && !address.internal)
    .map((address) => address.address)
    .sort((a, b) => scopes.indexOf(addressScope(parseIp(a))) - scopes.indexOf(addressScope(parseIp(b))))
  return [`/ip4/${found[0] ?? '127.0.0.1'}/tcp/${wildcard.port}`]
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
