import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { type NodeId, ShallotError } from '../../base/index.ts'
import { type Role, testnetRules } from '../../directory/index.ts'
import {
  briefToml,
  CONFIG_FILE,
  type ConfigSections,
  configSchema,
  createIdentity,
  encodeIdentity,
  IDENTITY_FILE,
  NETWORK_FILE,
  networkToml,
  type Overrides,
  rolesOfSection,
} from '../../node/index.ts'
import { createFile, makeDirectory } from '../../store/index.ts'
import { systemSuite } from '../system-suite.ts'

export interface TestnetSize {
  /** Relays in all, exits included. */
  readonly relays: number
  readonly exits: number
  /** TOML sections that are added to the configuration of every relay that they matter to: any but node, link and control, which the testnet writes. */
  readonly relaySections?: string
}

/** Where the client's people and programs reach it: "ADDRESS:PORT". */
export interface ClientPorts {
  readonly socks: string
  readonly http: string
  readonly dns: string
  readonly control: string
}

/** One node of a testnet, with its files written. */
export interface PlannedNode {
  /** Also the name of its folder: bootstrap, relay1, exit1, client. */
  readonly name: string
  readonly roles: readonly Role[]
  readonly dir: string
  readonly config: string
  /** "127.X.0.1:PORT"; null for the client, which listens on nothing. */
  readonly address: string | null
  /** Null for the client: it has another one at every start. */
  readonly id: NodeId | null
}

/** Ports for nodes: below the ephemeral range, so that outgoing connections do not take them meanwhile. */
const FIRST_PORT = 10_000
const LAST_PORT = 29_999
/** Second bytes of 127.x.0.1 to choose from: every node has another /16. */
const FIRST_NET = 1
const LAST_NET = 254
const MAX_TRIES_PER_NODE = 20

/**
 * Writes the network file, configurations and keys of a whole mesh below `dir`. The bootstrap node comes first, the client last.
 * @throws ShallotError 'no-loopback-addresses' where the system has only 127.0.0.1; and those of files
 */
export async function planTestnet(dir: string, size: TestnetSize, ports: ClientPorts): Promise<PlannedNode[]> {
  const wanted: { name: string; roles: readonly Role[] }[] = [{ name: 'bootstrap', roles: ['bootstrap'] }]
  for (let i = 1; i <= size.relays - size.exits; i++) wanted.push({ name: `relay${i}`, roles: ['guard', 'middle'] })
  for (let i = 1; i <= size.exits; i++) wanted.push({ name: `exit${i}`, roles: ['middle', 'exit'] })
  const addresses = await freeAddresses(wanted.length)
  const servers = wanted.map(({ name, roles }, i) => ({ name, roles, ...addresses[i]!, identity: createIdentity(systemSuite()) }))
  const [first] = servers
  const bootstrap = `/ip4/${first!.host}/tcp/${first!.port}/p2p/${first!.identity.id}`
  await createFile(
    join(dir, NETWORK_FILE),
    networkToml(
      { ...testnetRules, bootstrap: [bootstrap] },
      'What the nodes of this testnet share. All that differs from a real network is here.',
    ),
  )

  const planned: PlannedNode[] = []
  for (const { name, roles, host, port, identity } of servers) {
    const config = {
      node: { roles, network: `../${NETWORK_FILE}` },
      link: { listen: [`/ip4/${host}/tcp/${port}`] },
      control: { listen: '127.0.0.1:0' },
    }
    planned.push({
      ...(await writeNode(dir, name, roles, config, roles.includes('bootstrap') ? '' : sectionsFor(roles, size.relaySections ?? ''))),
      address: `${host}:${port}`,
      id: identity.id,
    })
    await makeDirectory(dirname(join(dir, name, IDENTITY_FILE)))
    await createFile(join(dir, name, IDENTITY_FILE), encodeIdentity(identity))
  }
  const config = {
    node: { roles: ['client'], network: `../${NETWORK_FILE}` },
    ingress: { socks: { listen: [ports.socks] }, http: { listen: [ports.http] }, dns: { listen: [ports.dns] } },
    control: { listen: ports.control },
  }
  planned.push({ ...(await writeNode(dir, 'client', ['client'], config)), address: null, id: null })
  return planned
}

/** Takes away what an earlier testnet left in the directory. */
export async function clearTestnet(dir: string, names: readonly string[]): Promise<void> {
  for (const name of [...names, NETWORK_FILE]) await rm(join(dir, name), { recursive: true, force: true })
}

async function writeNode(
  dir: string,
  name: string,
  roles: readonly Role[],
  overrides: Overrides,
  more = '',
): Promise<Pick<PlannedNode, 'name' | 'roles' | 'dir' | 'config'>> {
  const own = join(dir, name)
  await makeDirectory(own)
  const config = join(own, CONFIG_FILE)
  const text = briefToml(configSchema, overrides, `Node ${name} of a testnet.`)
  await createFile(config, more === '' ? text : `${text}\n${more}\n`)
  return { name, roles, dir: own, config }
}

/** Of some TOML the sections that matter to a node of these roles: a relay that is no exit refuses `[exit]`. */
function sectionsFor(roles: readonly Role[], toml: string): string {
  let kept = true
  const lines = toml.split('\n').filter((line) => {
    const section = /^\s*\[{1,2}\s*(\w+)/.exec(line)?.[1]
    if (section !== undefined) kept = rolesOfSection(section as keyof ConfigSections)?.some((role) => roles.includes(role)) ?? true
    return kept
  })
  return lines.join('\n')
}

/** Addresses 127.x.0.1, each with another x, and a port that is free on it. */
async function freeAddresses(count: number): Promise<{ host: string; port: number }[]> {
  const found: { host: string; port: number }[] = []
  const nets = Array.from({ length: LAST_NET - FIRST_NET + 1 }, (_, i) => FIRST_NET + i)
  for (let tries = 0; found.length < count; tries++) {
    if (tries > count * MAX_TRIES_PER_NODE || nets.length === 0) {
      const message =
        'no free addresses 127.x.0.1 were found for the nodes; on Linux all of 127.0.0.0/8 can be used, elsewhere they must be added to the loopback interface first'
      throw new ShallotError('no-loopback-addresses', message, { kind: 'host', retry: 'never' })
    }
    const at = randomInt(nets.length)
    const host = `127.${nets[at]}.0.1`
    const port = randomInt(FIRST_PORT, LAST_PORT + 1)
    if (!(await isFree(host, port))) continue
    nets.splice(at, 1)
    found.push({ host, port })
  }
  return found
}

async function isFree(host: string, port: number): Promise<boolean> {
  const server = createServer()
  try {
    server.listen({ host, port, exclusive: true })
    await once(server, 'listening')
    server.close()
    await once(server, 'close')
    return true
  } catch {
    return false
  }
}
