import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parseNetwork } from '../../src/base/index.ts'
import { exitConfig } from '../../src/egress/index.ts'
import { rulesetText } from '../../src/egress/tun-nat/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { hasCommand, projectRoot, run, shallot, temporaryFolder } from '../support/processes.ts'

const reason = enterOwnNetwork()
const hasSystemd = await hasCommand('systemd-analyze')
const kit = join(projectRoot, 'exit')
const read = (name: string): string => readFileSync(join(kit, name), 'utf8')

/** The values of a key, in order. */
function values(unit: string, key: string): string[] {
  return unit.split('\n').flatMap((line) => (line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : []))
}

/** The unit as it stands on a machine, with or without the drop-in; its program is this clone's. */
function installed(withTun: boolean): { unit: string; remove(): void } {
  const folder = temporaryFolder('exit-kit')
  const unit = join(folder.path, 'shallot.service')
  writeFileSync(unit, read('shallot.service').replaceAll('/opt/shallot', projectRoot))
  if (withTun) {
    mkdirSync(`${unit}.d`)
    cpSync(join(kit, 'shallot-exit-tun.conf'), join(`${unit}.d`, 'tun.conf'))
  }
  return { unit, remove: folder.remove }
}

describe('the deploy kit of an exit', () => {
  test('has no file that its guide does not speak of', () => {
    const files = readdirSync(kit).filter((file) => !['README.md', 'index.ts'].includes(file))
    expect(files.filter((file) => !read('README.md').includes(`](${file})`))).toEqual([])
  })

  test("the unit's command line is one of ours", async () => {
    const [start] = values(read('shallot.service'), 'ExecStart')
    const [program, ...args] = start!.split(' ')
    expect(program).toBe('/opt/shallot/bin/shallot')
    const folder = temporaryFolder('exit-kit-dir')
    const { code, log } = await shallot(args.map((arg) => (arg === '/var/lib/shallot' ? folder.path : arg)))
    folder.remove()
    // Understood (2 would be a command line that is wrong), and nothing there to run.
    expect(code, log).toBe(1)
    expect(log).toContain('shallot init')
  })

  test('the unit gives no capability, the drop-in for a TUN the one, and the device', () => {
    const unit = read('shallot.service')
    expect([values(unit, 'User'), values(unit, 'CapabilityBoundingSet'), values(unit, 'NoNewPrivileges')]).toEqual([
      ['shallot'],
      [''],
      ['yes'],
    ])
    const tun = read('shallot-exit-tun.conf')
    expect([
      values(tun, 'CapabilityBoundingSet'),
      values(tun, 'AmbientCapabilities'),
      values(tun, 'DeviceAllow'),
      values(tun, 'DevicePolicy'),
    ]).toEqual([['CAP_NET_ADMIN'], ['CAP_NET_ADMIN'], ['/dev/net/tun rw'], ['closed']])
  })

  test.skipIf(!hasSystemd).each([false, true])('systemd takes the unit, with the drop-in %s, and finds it tight', async (withTun) => {
    const { unit, remove } = installed(withTun)
    const verify = await run('systemd-analyze', ['verify', '--man=no', unit])
    expect([verify.code, verify.log]).toEqual([0, ''])
    const security = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', unit])
    expect(security.code, security.log).toBe(0)
    expect(security.log).toMatch(withTun ? /✗ CapabilityBoundingSet=~CAP_NET_ADMIN/ : /✓ CapabilityBoundingSet=~CAP_NET_ADMIN/)
    remove()
  })

  test('the notice has the names to fill in, and no request of its own', () => {
    const page = read('exit-notice.html')
    for (const name of ['OPERATOR', 'CONTACT@EXAMPLE.ORG', 'NETWORK']) expect(page).toContain(name)
    expect(page).not.toMatch(/src=|@import|url\(|<script/)
  })

  test('the guide names keys that there are', () => {
    const keys = (table: object): string[] =>
      Object.entries(table).flatMap(([key, value]) => [
        key,
        ...(value && typeof value === 'object' && !Array.isArray(value) ? keys(value) : []),
      ])
    const known = new Set(keys(exitConfig.parse({})).map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)))
    const limits = read('README.md').split('## Limits')[1]!.split('##')[0]!
    const named = [...limits.matchAll(/`(?:tun\.)?([a-z_]+)`/g)].map(([, key]) => key!)
    expect(named.length).toBeGreaterThan(15)
    expect(named.filter((key) => !known.has(key))).toEqual([])
  })

  describe.skipIf(reason !== null)(`in a namespace${reason === null ? '' : ` (${reason})`}`, () => {
    test('the kernel knows every setting, and takes those of a network', async () => {
      const { code, log } = await run('sysctl', ['-p', join(kit, '90-shallot-exit.conf')])
      // The size of the connection table is not a namespace's to set.
      expect(code, log).toBe(0)
      expect(log.split('\n').filter((line) => /cannot|error/.test(line) && !line.includes('nf_conntrack_max'))).toEqual([])
      expect(shellOk('sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding').trim()).toBe('1\n1')
    })

    test('the firewall loads, twice, and beside the exit own table, which stays when it is loaded anew', async () => {
      const { name, mtu, protocols, maxFlows, newFlowsPerSecond, newFlowBurst } = exitConfig.parse({}).tun
      const table = rulesetText({
        device: name,
        mtu,
        network4: parseNetwork(exitConfig.parse({}).packetNetworkIpv4),
        network6: parseNetwork(exitConfig.parse({}).packetNetworkIpv6),
        outboundInterface: 'eth0',
        outbound4: '192.0.2.1',
        outbound6: '2001:db8::1',
        protocols,
        maxFlows,
        newFlowsPerSecond,
        newFlowBurst,
        timeouts: { connectMs: 20_000, streamMs: 7_440_000, datagramMs: 300_000 },
        lines: exitConfig.parse({}).policy,
        privateDestinations: [],
        ownAddresses: [],
      })
      for (const input of [read('nftables.conf'), table, read('nftables.conf'), table]) {
        const { code, log } = await run('nft', ['-f', '-'], { input })
        expect(code, log).toBe(0)
      }
      expect(shellOk('nft list tables').trim().split('\n').sort()).toEqual(['table inet host', 'table inet shallot_exit'])
      expect(read('nftables.conf')).toContain(`"${name}"`)
    })
  })
})
