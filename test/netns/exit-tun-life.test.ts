import { spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { readCounters } from '../../src/egress/tun-nat/nft.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { hasCommand, Program, temporaryFolder, until } from '../support/processes.ts'

const reason = enterOwnNetwork()
const program = new URL('support/exit-tun-program.ts', import.meta.url).pathname
const NOBODY = 65_534
const asNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
/** The device file as udev makes it, for everybody (mode 666), in a mount namespace of the program's own: a bare machine may have it for root alone. */
const withDeviceFile = [
  'unshare',
  '--mount',
  'sh',
  '-c',
  'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"',
  'sh',
]
/** As `exit/shallot-exit-tun.conf` has it: an ordinary user with this one capability, which its programs (ip, nft) inherit. */
const withCapability = [
  ...withDeviceFile,
  ...asNobody,
  '--bounding-set=-all,+net_admin',
  '--inh-caps=-all,+net_admin',
  '--ambient-caps=-all,+net_admin',
  '--no-new-privs',
  '--',
]
const mayRead = reason === null && spawnSync(asNobody[0]!, [...asNobody.slice(1), '--', process.execPath, '--check', program]).status === 0

const hasDevice = () => spawnSync('ip', ['link', 'show', 'dev', 'shallot-exit']).status === 0
const tables = () =>
  shellOk('nft list tables')
    .trim()
    .split('\n')
    .filter((line) => line.includes('shallot'))
const forward = (on: 0 | 1) => shellOk(`sysctl -qw net.ipv4.ip_forward=${on} net.ipv6.conf.all.forwarding=${on}`)

describe.skipIf(reason !== null)(`the life of an exit's TUN${reason === null ? '' : ` (${reason})`}`, () => {
  const programs: Program[] = []

  beforeAll(() => {
    shellOk(
      'nft add table inet operators; ip link add wan type veth peer name far; ip link set far up; ip address add 11.0.0.1/24 dev wan; ip link set wan up; ip route add default dev wan',
    )
  })
  afterEach(async () => {
    for (const one of programs.splice(0)) await one.stop('SIGKILL')
    shellOk('nft delete table inet shallot_exit 2>/dev/null || true')
    forward(1)
  })

  async function started(
    config: object = {},
    wrapper: readonly string[] = [],
    env: Record<string, string> = {},
  ): Promise<{ one: Program; said: Record<string, unknown> }> {
    const one = Program.node(program, [JSON.stringify(config)], { wrapper, env })
    programs.push(one)
    const [line] = await one.waitFor(/^\{.*\}$/m, 15_000)
    return { one, said: JSON.parse(line) as Record<string, unknown> }
  }

  test('stopped in order it leaves nothing: no device, no table, no flow', async () => {
    forward(1)
    const { one, said } = await started()
    expect(said.leases).toEqual(['100.89.0.2', '100.89.0.3'])
    expect([hasDevice(), tables()]).toEqual([true, ['table inet shallot_exit']])
    await one.stop('SIGTERM')
    expect(one.stdout).toContain('stopped')
    expect([hasDevice(), tables()]).toEqual([false, []])
  })

  test('after SIGKILL its rules stand and its device is gone; the next start replaces them in one step, and no flow of before is left', async () => {
    forward(1)
    const { one } = await started()
    shellOk('ping -c 1 -W 0.1 -I 11.0.0.1 11.0.0.9 || true')
    await one.stop('SIGKILL')
    expect([hasDevice(), tables()]).toEqual([false, ['table inet shallot_exit']])
    shellOk('nft add rule inet shallot_exit forward counter name invalid drop')
    // A flow of the one that was killed.
    shellOk('conntrack -I -p tcp -s 100.89.0.2 -d 11.0.0.7 --sport 1111 --dport 443 --state ESTABLISHED -t 1000')
    const monitor = Program.start('nft', ['monitor', 'tables'])
    programs.push(monitor)
    const { one: next, said } = await started()
    expect(said.leases).toEqual(['100.89.0.2', '100.89.0.3'])
    expect(shellOk('nft list chain inet shallot_exit forward')).not.toContain('counter name')
    expect(shellOk('conntrack -L 2>/dev/null')).not.toContain('100.89.0.2')
    await until('the monitor saw it', 3000, () => /add table inet shallot_exit/.test(monitor.stdout))
    await next.stop('SIGTERM')
    expect([hasDevice(), tables()]).toEqual([false, []])
  })

  test('what its rules count can be read by name', async () => {
    forward(1)
    const { one } = await started()
    expect(await readCounters('shallot_exit')).toMatchObject({ flow_limit: 0, flow_rate: 0, to_this_host: 0 })
    shellOk(`nft 'add chain inet shallot_exit seen { type filter hook output priority 0; }'
      nft add rule inet shallot_exit seen ip daddr 127.0.0.1 counter name to_this_host
      ping -c 2 -i 0.1 127.0.0.1`)
    expect((await readCounters('shallot_exit')).to_this_host).toBeGreaterThanOrEqual(2)
    await one.stop('SIGTERM')
    await expect(readCounters('shallot_exit')).rejects.toMatchObject({ code: 'exit-tun-unavailable' })
  })

  test("a second exit with the same device is refused, and the first one's rules stand", async () => {
    forward(1)
    await started()
    const { said } = await started()
    expect(said).toMatchObject({ code: 'exit-tun-unavailable' })
    expect(said.message).toMatch(/in use by another program/)
    expect(tables()).toEqual(['table inet shallot_exit'])
  })

  test("others' tables are not touched", async () => {
    forward(1)
    const { one } = await started()
    await one.stop('SIGTERM')
    expect(shellOk('nft list tables')).toContain('table inet operators')
  })

  test('without forwarding it says what to set, and sets it only when it may', async () => {
    forward(0)
    const { said } = await started()
    expect(said.code).toBe('exit-tun-forwarding-off')
    expect(said.message).toContain('sysctl -w net.ipv6.conf.all.forwarding=1; sysctl -w net.ipv4.ip_forward=1')
    expect([hasDevice(), tables()]).toEqual([false, []])
    expect((await started({ tun: { setSysctls: true } })).said.leases).toBeDefined()
    expect(shellOk('sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding').split('\n').slice(0, 2)).toEqual(['1', '1'])
  })

  test('a network of this machine that overlaps the leases is named', async () => {
    forward(1)
    const { said } = await started({ packetNetworkIpv4: '11.0.0.0/16' })
    expect(said).toMatchObject({ code: 'exit-tun-network-in-use' })
    expect(said.message).toContain('11.0.0.0/24')
  })

  test('without nft it names the program to install', async () => {
    forward(1)
    const folder = temporaryFolder('no-nft')
    mkdirSync(join(folder.path, 'bin'))
    symlinkSync(shellOk('command -v ip').trim(), join(folder.path, 'bin', 'ip'))
    // The system's own folders are looked into as well: here they are others.
    const { said } = await started({}, ['unshare', '--mount', 'sh', '-ec', 'mount -t tmpfs none /usr/sbin; exec "$@"', 'sh'])
    folder.remove()
    expect(said).toMatchObject({ code: 'exit-tun-no-nft' })
    expect(said.message).toMatch(/install nftables/)
  })

  test.skipIf(!mayRead)('as an ordinary user it is refused, and says what is missing', async () => {
    forward(1)
    const { said } = await started({}, [...asNobody, '--'])
    expect(said).toMatchObject({ code: 'exit-tun-not-permitted' })
    expect(said.message).toMatch(/CAP_NET_ADMIN/)
  })

  test.skipIf(!mayRead)('as an ordinary user with CAP_NET_ADMIN and nothing else it works, from start to stop', async () => {
    forward(1)
    const { one, said } = await started({}, withCapability)
    expect(said, one.log).toMatchObject({ leases: ['100.89.0.2', '100.89.0.3'], uid: NOBODY })
    expect(tables()).toEqual(['table inet shallot_exit'])
    await one.stop('SIGTERM')
    expect([hasDevice(), tables()]).toEqual([false, []])
  })

  test('the tools of these tests are here', async () => {
    expect(await hasCommand('conntrack')).toBe(true)
  })
})
