import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { ShallotError } from '../base/index.ts'
import { pathConfig } from '../path/index.ts'
import { relayingConfig } from '../relaying/index.ts'
import { isErrno } from '../store/index.ts'
import { crossCheck } from './config-rules.ts'
import { loadNetwork, type Network } from './network-file.ts'
import { controlSection, logSection, nodeSection } from './sections.ts'
import { ConfigError, freeze, loadToml } from './toml-load.ts'

/** The file's name in a node's directory. */
export const CONFIG_FILE = 'shallot.toml'

/** `shallot.toml`: a section for each subsystem, whose schema stands beside it. */
export const configSchema = z.strictObject({
  node: nodeSection.prefault({}),
  path: pathConfig.prefault({}).describe('Which relays the circuits of this client go through.'),
  relaying: relayingConfig.prefault({}).describe('Limits of what this node does for the circuits of others.'),
  control: controlSection.prefault({}),
  log: logSection.prefault({}),
})

export type ConfigSections = z.output<typeof configSchema>

/** Everything a node is started with: frozen, checked, paths absolute. */
export interface NodeConfig extends ConfigSections {
  /** The directory of keys and state: `node.data_dir`, absolute. */
  readonly dir: string
  readonly net: Network
}

/**
 * Reads a configuration and the network file it names.
 * @throws ConfigError with everything that is wrong; ShallotError 'config-unreadable'
 */
export async function loadConfig(path: string): Promise<NodeConfig> {
  return parseConfig(await readText(path, 'the configuration'), path, (file) => readText(file, 'the network file'))
}

/** The same from text. @param path names the text in messages, and its directory is what relative paths start from */
export async function parseConfig(text: string, path: string, read: (file: string) => Promise<string>): Promise<NodeConfig> {
  const loaded = loadToml(text, path, configSchema)
  const base = dirname(resolve(path))
  const networkFile = resolve(base, loaded.value.node.network)
  const problems = crossCheck(loaded)
  if (problems.length > 0) throw new ConfigError(path, problems)
  const net = loadNetwork(await read(networkFile), networkFile)
  if (net.bootstrap.length === 0 && !loaded.value.node.roles.includes('bootstrap')) {
    const message = `${networkFile} names no bootstrap address, so this node could find nobody; add one to its bootstrap list, or the role bootstrap to node.roles`
    throw new ConfigError(path, [loaded.problem(['node', 'network'], message)])
  }
  return freeze({ ...loaded.value, dir: resolve(base, loaded.value.node.dataDir), net })
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const problem = isErrno(error, 'ENOENT')
      ? 'there is no such file'
      : isErrno(error, 'EACCES', 'EPERM')
        ? 'permission denied'
        : isErrno(error, 'EISDIR')
          ? 'it is a directory'
          : String(error)
    throw new ShallotError('config-unreadable', `${what}, ${path}, cannot be read: ${problem}`, {
      kind: 'config',
      retry: 'never',
      cause: error,
    })
  }
}
