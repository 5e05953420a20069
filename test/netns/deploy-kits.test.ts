import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { NodeStatus, RelayFacts } from '../../src/node/index.ts'
import {
  hasCommand,
  Program,
  projectRoot,
  run,
  runOk,
  shallot,
  startNode,
  startTestnet,
  type Testnet,
  temporaryFolder,
  until,
  writeClientConfig,
} from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

// Each unit's own command line, as its user and within its restrictions. No service manager runs here: unshare, mounts and setpriv put on what the unit
// asks for (a root that is read-only, no homes, no devices, no capability, no new privileges); the filter of system calls needs a manager.

const reason =
  process.getuid?.() === 0 && (await hasCommand('unshare')) && (await hasCommand('setpriv')) ? null : 'needs root, unshare and setpriv'
const hasSystemd = await hasCommand('systemd-analyze')
const KITS = ['bootstrap', 'relay', 'exit'] as const
const USER = 64_970
const BYTES = 300_000

const unitOf = (kit: string): string => readFileSync(join(projectRoot, kit, 'shallot.service'), 'utf8')
const value = (unit: string, key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1]

/** A shell script that puts the unit's restrictions on, and becomes its command line. */
function sandboxOf(unit: string, dir: string): string {
  for (const [key, wanted] of Object.entries({
    ProtectSystem: 'strict',
    ProtectHome: 'yes',
    PrivateTmp: 'yes',
    PrivateDevices: 'yes',
    NoNewPrivileges: 'yes',
    CapabilityBoundingSet: '',
    StateDirectory: 'shallot',
    LimitNOFILE: '65536',
  }))
    expect(value(unit, key), key).toBe(wanted)
  return `set -e
mount -t tmpfs none /mnt
mkdir /mnt/state /mnt/code /mnt/dev
mount --bind '${dir}' /mnt/state
mount --bind '${projectRoot}' /mnt/code
mount -t tmpfs none /opt && mkdir /opt/shallot && mount --bind /mnt/code /opt/shallot && mount -o remount,bind,ro /opt/shallot
mount -t tmpfs none /var/lib && mkdir /var/lib/shallot && mount --bind /mnt/state /var/lib/shallot
mount -t tmpfs -o mode=755 none /home && mount -t tmpfs -o mode=700 none /root && mount -t tmpfs -o mode=1777 none /tmp
for device in null zero full random urandom tty; do touch /mnt/dev/$device && mount --bind /dev/$device /mnt/dev/$device; done
mount --rbind /mnt/dev /dev
mount -o remount,bind,ro /
umask 0077
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
cd /
exec setpriv --reuid ${USER} --regid ${USER} --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs ${value(unit, 'ExecStart')}`
}

describe.each(KITS)('the kit of a %s', (kit) => {
  test('has no file that its guide does not speak of', () => {
    const guide = readFileSync(join(projectRoot, kit, 'README.md'), 'utf8')
    const files = readdirSync(join(projectRoot, kit)).filter((file) => !['README.md', 'index.ts'].includes(file))
    expect(files.filter((file) => !guide.includes(`](${file})`))).toEqual([])
  })

  test.skipIf(!hasSystemd)('has a unit that systemd takes, and finds as tight as its guide says', async () => {
    const folder = temporaryFolder('kit-unit')
    const file = join(folder.path, 'shallot.service')
    writeFileSync(file, unitOf(kit).replaceAll('/opt/shallot', projectRoot))
    const verify = await run('systemd-analyze', ['verify', '--man=no', file])
    expect([verify.code, verify.log]).toEqual([0, ''])
    const security = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', file])
    expect(security.code, security.log).toBe(0)
    const score = /exposure level for shallot.service: (\S+)/.exec(security.log)?.[1]
    expect(readFileSync(join(projectRoot, kit, 'README.md'), 'utf8')).toContain(`gives it ${score} `)
    folder.remove()
  })

  test('is supervised, and given the time that a drain takes', () => {
    const unit = unitOf(kit)
    expect([value(unit, 'Type'), value(unit, 'NotifyAccess'), value(unit, 'WatchdogSec')]).toEqual(['notify', 'main', '60'])
    expect(Number(value(unit, 'TimeoutStopSec'))).toBeGreaterThanOrEqual(20 + 15)
    expect(readFileSync(join(projectRoot, kit, 'compose.yaml'), 'utf8')).toContain('stop_grace_period: 60s')
  })
})

describe.skipIf(reason !== null)(`a kit's command line, launched as its unit says${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  const folder = temporaryFolder('kits')
  const programs: Program[] = []
  let testnet: Testnet
  let web: WebServer

  beforeAll(async () => {
    chmodSync(folder.path, 0o755)
    web = await startWebServer()
    testnet = await startTestnet({ relays: 5, exits: 1 })
  })

  afterAll(async () => {
    for (const program of programs) await program.stop('SIGTERM')
    await testnet?.stop()
    await web?.close()
    folder.remove()
  })

  async function launch(
    kit: (typeof KITS)[number],
    roles: readonly string[],
  ): Promise<{ id: string; address: string; program: Program; dir: string }> {
    const dir = join(folder.path, kit)
    const port = 4460
    const listen = `/ip4/127.${240 + KITS.indexOf(kit)}.0.1/tcp/${port}`
    await runOk(join(projectRoot, 'bin/shallot'), [
      'init',
      ...roles.flatMap((role) => ['--role', role]),
      '--network',
      join(testnet.dir, 'network.toml'),
      '--listen',
      listen,
      '--dir',
      dir,
    ])
    for (const name of ['', ...readdirSync(dir, { recursive: true }).map(String)]) chownSync(join(dir, name), USER, USER)
    const program = Program.start('unshare', ['--mount', '--ipc', '--propagation', 'private', 'sh', '-c', sandboxOf(unitOf(kit), dir)])
    programs.push(program)
    await program.waitFor(/^Ready\.$/m, 30_000)
    const id = /node (12D3KooW\w+)/.exec(program.stdout)![1]!
    return { id, address: `${listen}/p2p/${id}`, program, dir }
  }

  const fetchBy = (socks: string): Promise<string> =>
    runOk('curl', [
      '-sSf',
      '--max-time',
      '30',
      '--proxy',
      `socks5h://${socks}`,
      `${web.url}/bytes/${BYTES}`,
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
    ])

  async function known(id: string): Promise<void> {
    await until(`${id} is known and eligible`, 30_000, async () => {
      const { stdout } = await shallot(['relays', '--json', '--dir', testnet.client.dir])
      return (JSON.parse(stdout) as RelayFacts[]).some((relay) => relay.id === id && relay.eligible)
    })
  }

  /** What the kernel says of the process: the restrictions are on. */
  function expectTight(program: Program): void {
    const status = readFileSync(`/proc/${program.pid}/status`, 'utf8')
    expect(status).toMatch(/^Uid:\t64970\t64970/m)
    for (const set of ['CapEff', 'CapBnd', 'CapPrm', 'CapAmb']) expect(status).toMatch(new RegExp(`^${set}:\t0+$`, 'm'))
    expect(status).toMatch(/^NoNewPrivs:\t1$/m)
    expect(readFileSync(`/proc/${program.pid}/mounts`, 'utf8')).toMatch(/^\S+ \/ \S+ ro[, ]/m)
  }

  test('a bootstrap node lets a newcomer in, whose transfer then goes through the mesh', async () => {
    const kit = await launch('bootstrap', ['bootstrap'])
    expectTight(kit.program)
    const dir = join(folder.path, 'newcomer')
    const config = writeClientConfig(testnet, dir)
    const network = readFileSync(join(testnet.dir, 'network.toml'), 'utf8').replace(
      /^bootstrap = \[[^\]]*\]/m,
      `bootstrap = ["${kit.address}"]`,
    )
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'only.toml'), network)
    writeFileSync(config, readFileSync(config, 'utf8').replace(/^network = .*$/m, 'network = "only.toml"'))
    const node = await startNode(config)
    expect(await fetchBy(node.ready.socks!)).toBe(String(BYTES))
    await node.stop()
  })

  test('an exit carries a transfer', async () => {
    const kit = await launch('exit', ['exit'])
    expectTight(kit.program)
    await known(kit.id)
    const node = await startNode(writeClientConfig(testnet, join(folder.path, 'to-exit'), ['[path]', `exit_nodes = ["${kit.id}"]`]))
    expect(await fetchBy(node.ready.socks!)).toBe(String(BYTES))
    await node.stop()
  })

  test('a relay carries a transfer, and drains when it is told to stop', async () => {
    const kit = await launch('relay', ['middle'])
    expectTight(kit.program)
    await known(kit.id)
    await until('a transfer goes through it', 50_000, async () => {
      await shallot(['new-circuit', '--dir', testnet.client.dir])
      expect(await fetchBy(testnet.ready.socks!)).toBe(String(BYTES))
      const { stdout } = await shallot(['status', '--json', '--dir', kit.dir, '--control', `unix:${join(kit.dir, 'control.sock')}`])
      return (JSON.parse(stdout) as NodeStatus).relaying!.cellsForwarded > BYTES / 512
    })
    expect((await kit.program.stop('SIGTERM')).code).toBe(0)
    expect(kit.program.log).toContain('leaving:')
  })
})
