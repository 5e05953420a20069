import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { ShallotError } from '../base/index.ts'
import { clientConfig } from '../client/config.ts'
import type { NetworkRules, NetworkSignature } from '../directory/index.ts'
import { type BootstrapSource, discoveryConfig } from '../discovery/index.ts'
import { exitConfig } from '../egress/config.ts'
import { type GeoConfig, geoConfig } from '../geo/index.ts'
import { ingressConfig, tunKeys } from '../ingress/config.ts'
import { linkConfig } from '../link/index.ts'
import { natConfig, relayServerConfig } from '../nat/index.ts'
import { pathConfig } from '../path/index.ts'
import { relayingConfig } from '../relaying/index.ts'
import { isErrno } from '../store/index.ts'
import { vpnKeys } from '../vpn/config.ts'
import { parseBootstrapFile } from './bootstrap-file.ts'
import { crossCheck } from './config-rules.ts'
import { loadNetwork } from './network-file.ts'
import { verifyNetwork } from './network-publisher.ts'
import { controlSection, dashboardSection, logSection, MAX_BOOTSTRAP, metricsSection, nodeSection } from './sections.ts'
import { ConfigError, freeze, type LoadedToml, loadToml } from './toml-load.ts'

/** The file's name in a node's directory. */
export const CONFIG_FILE = 'shallot.toml'

/** How the device carries packets, and what of this machine goes through it. */
const tunSection = z
  .strictObject({ ...tunKeys, ...vpnKeys })
  .prefault({})
  .describe('A TUN device that takes the traffic of the whole machine, or of one program.')

/** `shallot.toml`: a section for each subsystem, whose schema stands beside it. */
export const configSchema = z.strictObject({
  node: nodeSection.prefault({}).describe('What this node is.'),
  link: linkConfig.prefault({}).describe('Connections to other nodes.'),
  client: clientConfig.prefault({}).describe('Streams of this client.'),
  ingress: ingressConfig.extend({ tun: tunSection }).prefault({}).describe('Where the traffic of this machine comes in.'),
  path: pathConfig.prefault({}).describe('Which relays the circuits of a client go through.'),
  geo: geoConfig
    .prefault({})
    .describe('In which countries relays are: for display, and for path.exit_countries and path.exclude_countries.'),
  discovery: discoveryConfig.prefault({}).describe('How this node looks for others and keeps its view.'),
  nat: natConfig.prefault({}).describe('How a node that others connect to is reached: behind a home router too.'),
  relay: relayServerConfig.prefault({}).describe('Limits of what a relay does for nodes behind NAT.'),
  relaying: relayingConfig.prefault({}).describe('Limits of what a relay does for the circuits of others.'),
  exit: exitConfig.prefault({}).describe('What an exit lets through, and its limits.'),
  control: controlSection.prefault({}).describe('How commands and programs on this machine talk to the node.'),
  metrics: metricsSection.prefault({}).describe('Numbers of this node for those who watch over it.'),
  dashboard: dashboardSection.prefault({}).describe('The page that shows the node in a browser on this machine.'),
  log: logSection.prefault({}).describe('What the node says of itself.'),
})

export type ConfigSections = z.output<typeof configSchema>

/** Everything a node is started with: checked, frozen, paths absolute. */
export interface NodeConfig extends ConfigSections {
  /** The file it was read from, absolute. */
  readonly file: string
  /** The directory of keys and state: `node.data_dir`, absolute. */
  readonly dir: string
  /** What `network.toml` says. */
  readonly network: NetworkRules
  /** The file that says it, absolute. */
  readonly networkFile: string
  /** Who signed that file; null when nobody did. */
  readonly signature: NetworkSignature | null
  /** Where the way into the network is asked for, in this order. */
  readonly bootstrap: readonly BootstrapSource[]
  /** What is wrong and does not keep the node from starting: a file of bootstrap nodes that cannot be read, where there are others. */
  readonly cautions: readonly string[]
}

/** Gives the text of a file that the configuration names. @param what how people call it; the network file when not given */
export type ReadNamed = (file: string, what?: string) => Promise<string>

/**
 * Reads a configuration and the network file it names.
 * @throws ConfigError with everything that is wrong; ShallotError 'config-unreadable', and those of `verifyNetwork`
 */
export async function loadConfig(path: string): Promise<NodeConfig> {
  return parseConfig(await readConfig(path), path, readNetwork)
}

/** The text of a configuration. @throws ShallotError 'config-unreadable' */
export function readConfig(path: string): Promise<string> {
  return readText(path, 'the configuration')
}

/** The text of a network file. @throws ShallotError 'config-unreadable' */
export function readNetwork(path: string, what = 'the network file'): Promise<string> {
  return readText(path, what)
}

/** The same from text. @param path names the text in messages, and its directory is what relative paths start from */
export async function parseConfig(text: string, path: string, read: ReadNamed): Promise<NodeConfig> {
  const loaded = loadToml(text, path, configSchema)
  const { node } = loaded.value
  const problems = crossCheck(loaded, resolve(path))
  if (problems.length > 0) throw new ConfigError(path, problems)
  const base = dirname(resolve(path))
  const networkFile = resolve(base, node.network)
  const networkText = await read(networkFile)
  const network = loadNetwork(networkText, networkFile)
  const signature = await verifyNetwork(networkText, networkFile, node.networkPublisher)
  const { bootstrap, unread } = await bootstrapOf(loaded, network, base, read)
  // Who has no other way in must know at once; a bootstrap node starts networks, and needs none.
  if (unread.length > 0 && bootstrap.length === 0 && !node.roles.includes('bootstrap')) throw unread[0]
  if (bootstrap.every(({ addresses }) => addresses.length === 0) && !node.roles.includes('bootstrap')) {
    const message = `${networkFile} names no bootstrap address, so this node could find nobody; add one to its list \`bootstrap\` or to node.bootstrap, or the role "bootstrap" to node.roles`
    throw new ConfigError(path, [loaded.problem(['node', 'network'], message)])
  }
  return freeze({
    ...loaded.value,
    geo: withAbsoluteFile(loaded.value.geo, base),
    file: resolve(path),
    dir: resolve(base, node.dataDir),
    network,
    networkFile,
    signature,
    bootstrap,
    cautions: unread.map(({ message }) => message),
  })
}

async function bootstrapOf(
  loaded: LoadedToml<ConfigSections>,
  network: NetworkRules,
  base: string,
  read: ReadNamed,
): Promise<{ readonly bootstrap: BootstrapSource[]; readonly unread: ShallotError[] }> {
  const { bootstrap, bootstrapFiles, network: name } = loaded.value.node
  const sources: BootstrapSource[] = [
    { name, addresses: network.bootstrap },
    { name: 'node.bootstrap', addresses: bootstrap },
  ]
  const unread: ShallotError[] = []
  for (const [i, file] of bootstrapFiles.entries()) {
    const text = await read(resolve(base, file), 'the file of bootstrap nodes').catch((error) => {
      if (!(error instanceof ShallotError)) throw error
      unread.push(error)
      return null
    })
    if (text === null) continue
    const source = parseBootstrapFile(text, file, MAX_BOOTSTRAP)
    if (typeof source === 'string') throw new ConfigError(resolve(base, file), [loaded.problem(['node', 'bootstrapFiles', i], source)])
    sources.push(source)
  }
  return { bootstrap: sources.filter(({ addresses }) => addresses.length > 0), unread }
}

function withAbsoluteFile({ countriesFile }: GeoConfig, base: string): GeoConfig {
  return { countriesFile: countriesFile === '' ? '' : resolve(base, countriesFile) }
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const problem = Object.entries(reasons).find(([code]) => isErrno(error, code))?.[1] ?? String(error)
    throw new ShallotError('config-unreadable', `${what}, ${path}, cannot be read: ${problem}`, {
      kind: 'config',
      retry: 'never',
      cause: error,
    })
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'a part of the path is not a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a directory',
}
