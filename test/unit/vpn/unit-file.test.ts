import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { NFT_TABLE } from '../../../src/vpn/index.ts'
import { hasCommand, projectRoot, run, shallot, temporaryFolder } from '../../support/processes.ts'

const hasSystemd = await hasCommand('systemd-analyze')
const unit = readFileSync(join(projectRoot, 'docs', 'shallot-vpn.service'), 'utf8')

/** The values of a key, in order. */
function values(key: string): string[] {
  return unit.split('\n').flatMap((line) => (line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : []))
}

test('the unit of an always-on VPN gives one capability and one device, and blocks before the network', () => {
  const told = ['User', 'CapabilityBoundingSet', 'AmbientCapabilities', 'NoNewPrivileges', 'DevicePolicy', 'DeviceAllow', 'Wants', 'Before']
  expect(told.map((key) => values(key).join())).toEqual([
    'shallot',
    'CAP_NET_ADMIN',
    'CAP_NET_ADMIN',
    'yes',
    'closed',
    '/dev/net/tun rw',
    'network-pre.target',
    'network-pre.target',
  ])
  expect(values('ExecStartPost').join()).toContain(`list table inet ${NFT_TABLE} `)
})

test('its command line is one of ours, and its guide speaks of it', async () => {
  const [program, ...args] = values('ExecStart')[0]!.split(' ')
  expect(program).toBe('/opt/shallot/bin/shallot')
  const folder = temporaryFolder('vpn-unit')
  const { code, log } = await shallot(args.map((arg) => (arg === '/var/lib/shallot' ? folder.path : arg)))
  folder.remove()
  // Understood (2 would be a command line that is wrong), and nothing there to run.
  expect(code, log).toBe(1)
  expect(log).toContain('shallot init')
  expect(readFileSync(join(projectRoot, 'docs', 'vpn.md'), 'utf8')).toContain('](shallot-vpn.service)')
})

test.skipIf(!hasSystemd)('systemd takes it, and finds it tight', async () => {
  const folder = temporaryFolder('vpn-unit')
  const file = join(folder.path, 'shallot-vpn.service')
  writeFileSync(file, unit.replaceAll('/opt/shallot', projectRoot))
  const verify = await run('systemd-analyze', ['verify', '--man=no', file])
  expect([verify.code, verify.log]).toEqual([0, ''])
  const security = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', file])
  expect(security.code, security.log).toBe(0)
  folder.remove()
})
