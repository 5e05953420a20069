import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { type CountryCode, type NodeId, parseIp, ShallotError } from '../../base/index.ts'
import { type Role, testnetRules } from '../../directory/index.ts'
import { CountryTable } from '../../geo/index.ts'
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
  /** Networks of 127.0.0.0/8 and their countries, in the form of `geo.countries_file`: exits, and the others, are put into each of them in turn. */
  readonly countries?: string
}

/** Where the client's people and programs reach it: "ADDRESS:PORT". */
export interface ClientPorts {
  readonly socks: string
  readonly http: string
  readonly dns: string
  readonly control: string
  readonly dashboard: string
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
  /** Null where nothing says it. */
  readonly country: CountryCode | null
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
/** Where the nodes of a testnet are said to be when nothing else is: so that what shows and chooses countries has some. Nothing about it is true. */
export const MADE_UP_COUNTRIES = `# Made up: a testnet is on one machine.
127.0.0.0/11 DE
127.32.0.0/11 NL
127.64.0.0/11 IS
127.96.0.0/11 CH
127.128.0.0/11 SE
127.160.0.0/11 CA
127.192.0.0/11 JP
127.224.0.0/11 BR
`
/** The file of countries in the testnet's directory. */
const COUNTRIES_FILE = 'countries'

/**
 * Writes the network file, configurations and keys of a whole mesh below `dir`. The bootstrap node comes first, the client last.
 * @throws ShallotError 'no-loopback-addresses' where the system has only 127.0.0.1; and those of files
 */
export async function planTestnet(dir: string, size: TestnetSize, ports: ClientPorts): Promise<PlannedNode[]> {
  const wanted: { name: string; roles: readonly Role[] }[] = [{ name: 'bootstrap', roles: ['bootstrap'] }]
  for (let i = 1; i <= size.relays - size.exits; i++) wanted.push({ name: `relay${i}`, roles: ['guard', 'middle'] })
  for (let i = 1; i <= size.exits; i++) wanted.push({ name: `exit${i}`, roles: ['middle', 'exit'] })
  const table = size.countries === undefined ? null : CountryTable.parse(size.countries)
  const nets = new Nets(table)
  const addresses: { host: string; port: number }[] = []
  for (const { roles } of wanted) addresses.push(await freeAddress(nets, roles.includes('exit') ? 'exit' : 'other', wanted.length))
  const geo = table === null ? {} : { geo: { countriesFile: `../${COUNTRIES_FILE}` } }
  if (size.countries !== undefined) await createFile(join(dir, COUNTRIES_FILE), size.countries)
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
      ...geo,
    }
    planned.push({
      ...(await writeNode(dir, name, roles, config, roles.includes('bootstrap') ? '' : sectionsFor(roles, size.relaySections ?? ''))),
      address: `${host}:${port}`,
      country: nets.countryOf(host),
      id: identity.id,
    })
    await makeDirectory(dirname(join(dir, name, IDENTITY_FILE)))
    await createFile(join(dir, name, IDENTITY_FILE), encodeIdentity(identity))
  }
  const config = {
    node: { roles: ['client'], network: `../${NETWORK_FILE}` },
    ingress: { socks: { listen: [ports.socks] }, http: { listen: [ports.http] }, dns: { listen: [ports.dns] } },
    control: { listen: ports.control },
    dashboard: { listen: ports.dashboard },
    ...geo,
  }
  planned.push({ ...(await writeNode(dir, 'client', ['client'], config)), address: null, country: null, id: null })
  return planned
}

/** Takes away what an earlier testnet left in the directory. */
export async function clearTestnet(dir: string, names: readonly string[]): Promise<void> {
  for (const name of [...names, NETWORK_FILE, COUNTRIES_FILE]) await rm(join(dir, name), { recursive: true, force: true })
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

/** The nets 127.x that are left, by country: relays of one kind are spread over the countries in turn. */
class Nets {
  readonly #table: CountryTable | null
  readonly #left = new Map<CountryCode | null, number[]>()
  readonly #turns = { exit: 0, other: 0 }

  /** @throws ShallotError 'usage' when the table names no net of a testnet */
  constructor(table: CountryTable | null) {
    this.#table = table
    for (let net = FIRST_NET; net <= LAST_NET; net++) {
      const country = this.countryOf(`127.${net}.0.1`)
      this.#left.set(country, [...(this.#left.get(country) ?? []), net])
    }
    if (table !== null && this.#left.size === 1 && this.#left.has(null)) {
      const message = 'the file of --countries names no network of 127.0.0.0/8, where the nodes of a testnet are: 127.0.0.0/9 DE, say'
      throw new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
    }
  }

  countryOf(host: string): CountryCode | null {
    return this.#table?.countryOf(parseIp(host)) ?? null
  }

  /** Takes one; null when there is none left. Networks without a country come last. */
  take(kind: 'exit' | 'other'): number | null {
    const left = [...this.#left].filter(([, nets]) => nets.length > 0)
    const known = left.filter(([country]) => country !== null)
    const from = known.length > 0 ? known : left
    if (from.length === 0) return null
    const nets = from[this.#turns[kind]++ % from.length]![1]
    return nets.splice(randomInt(nets.length), 1)[0]!
  }
}

/** An address 127.x.0.1 with an x that no other node has, and a port that is free on it. @param count nodes in all */
async function freeAddress(nets: Nets, kind: 'exit' | 'other', count: number): Promise<{ host: string; port: number }> {
  for (let tries = 0; tries < count * MAX_TRIES_PER_NODE; tries++) {
    const net = nets.take(kind)
    if (net === null) break
    const host = `127.${net}.0.1`
    const port = randomInt(FIRST_PORT, LAST_PORT + 1)
    if (await isFree(host, port)) return { host, port }
  }
  const message =
    'no free addresses 127.x.0.1 were found for the nodes; on Linux all of 127.0.0.0/8 can be used, elsewhere they must be added to the loopback interface first'
  throw new ShallotError('no-loopback-addresses', message, { kind: 'host', retry: 'never' })
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
