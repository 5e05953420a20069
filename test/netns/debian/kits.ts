import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseRules, testnetRules } from '../../../src/directory/index.ts'
import { networkToml } from '../../../src/node/index.ts'
import { projectRoot, runOk, temporaryFolder } from '../../support/processes.ts'
import type { Machine } from '../lab/index.ts'
import { commandsOf, withValues } from './guide.ts'
import type { Layer } from './layer.ts'
import { DebianMachine } from './machine.ts'

export type Kit = 'bootstrap' | 'relay' | 'exit'

/** A tarball of this clone's last commit as `npm run package` makes it. */
export interface Package {
  readonly version: string
  readonly folder: string
  /** Such as shallot-0.1.0.tar.gz. */
  readonly file: string
  remove(): void
}

export async function makePackage(): Promise<Package> {
  const folder = temporaryFolder('package')
  await runOk('sh', [join(projectRoot, 'bin/package'), folder.path], { timeoutMs: 120_000 })
  const { version } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string }
  return { version, folder: folder.path, file: `shallot-${version}.tar.gz`, remove: folder.remove }
}

/** The same package as another version: what a later release is to the machine that is upgraded. */
export async function asVersion(made: Package, version: string): Promise<Package> {
  const folder = temporaryFolder('package')
  const [name, file] = [`shallot-${version}`, `shallot-${version}.tar.gz`]
  await runOk('sh', [
    '-ec',
    `cd '${folder.path}'; tar -xzf '${join(made.folder, made.file)}'; mv 'shallot-${made.version}' ${name}
sed -i 's/^  "version": ".*",$/  "version": "${version}",/' ${name}/package.json
tar -czf ${file} ${name}; rm -rf ${name}; sha256sum ${file} >${file}.sha256`,
  ])
  return { version, folder: folder.path, file, remove: folder.remove }
}

/** A Debian on which everything of docs/operating.md, "Install", was typed, word for word. */
export async function installed(fresh: Layer, made: Package): Promise<Layer> {
  const layer = fresh.child()
  const [fetched, then] = commandsOf('docs/operating.md', 'Install')
  const values = made.version === '0.1.0' ? {} : { '0.1.0': made.version }
  const given = `cp /package/* /root; cd /root; : >network.toml`
  await layer.runOk(`${given}\n${withValues(fetched!, values)}`, { fetches: true, binds: { [made.folder]: '/package' } })
  await layer.runOk(`cd /root\n${then!}`)
  return layer
}

/** The machines of a network of kits. */
export class KitMachine {
  readonly debian: DebianMachine
  readonly kit: Kit
  readonly id: string

  private constructor(debian: DebianMachine, kit: Kit, id: string) {
    this.debian = debian
    this.kit = kit
    this.id = id
  }

  /** What the kit's guide says under "Start one", word for word but for the address, the roles, and a file of the network that a test can wait for. */
  static async start(
    system: Layer,
    place: Machine,
    kit: Kit,
    options: { network: string | null; roles?: string; listen?: string },
  ): Promise<KitMachine> {
    const debian = await DebianMachine.boot(system.child(), place)
    const [commands] = commandsOf(`${kit}/README.md`, 'Start one')
    const values: Record<string, string> = { '/ip4/198.51.100.7/tcp/4460': options.listen ?? `/ip4/${place.address}/tcp/4460` }
    if (options.roles !== undefined) values['--role guard --role middle'] = options.roles
    if (options.network === null) values['--network /etc/shallot/network.toml '] = ''
    else debian.write('/etc/shallot/network.toml', options.network)
    const typed = withValues(commands!, values)
    if (options.network !== null) {
      await debian.runOk(typed)
      return new KitMachine(debian, kit, await idOf(debian))
    }
    // Who founds a network changes its rules before the first start: those of a testnet here, by which a relay is known in seconds.
    const [init, ...rest] = typed.split('\n')
    await debian.runOk(init!)
    const network = debian.read('/var/lib/shallot/network.toml')
    const bootstrap = /^bootstrap = (\[[^\]]*\])/m.exec(network)![1]!
    const rules = parseRules({
      ...testnetRules,
      privateDestinations: false,
      admission: { privateAddresses: false },
      bootstrap: JSON.parse(bootstrap),
    })
    debian.write('/var/lib/shallot/network.toml', networkToml(rules, 'A network of kits.'))
    await debian.runOk(rest.join('\n'))
    return new KitMachine(debian, kit, await idOf(debian))
  }

  /** What the kernel says of the node's process. */
  async process(): Promise<{ pid: number; status: string }> {
    const pid = Number(await this.debian.property('shallot', 'MainPID'))
    return { pid, status: await this.debian.runOk(`cat /proc/${pid}/status`) }
  }
}

async function idOf(debian: DebianMachine): Promise<string> {
  const status = await debian.runOk('shallot status --json --dir /var/lib/shallot')
  return (JSON.parse(status) as { id: string }).id
}
