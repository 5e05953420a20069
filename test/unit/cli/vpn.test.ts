import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { ShallotError, silentLogger } from '../../../src/base/index.ts'
import { vpnText } from '../../../src/cli/commands/vpn.ts'
import { type ControlServer, startControl } from '../../../src/control/index.ts'
import type { VpnFacts } from '../../../src/vpn/index.ts'
import { FakeNode, fakeVpn } from '../../support/fake-node.ts'
import { shallot, temporaryFolder } from '../../support/processes.ts'

const folder = temporaryFolder('vpn-cli')
let runtimeDir: string | undefined
beforeAll(() => {
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
})
afterAll(() => {
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})

const cli = (...args: string[]) =>
  shallot(['vpn', ...args], {
    env: { XDG_RUNTIME_DIR: folder.path, XDG_DATA_HOME: join(folder.path, 'data'), SHALLOT_DIR: undefined, NO_COLOR: '1' },
    cwd: folder.path,
  })

describe('with a running node', () => {
  let node: FakeNode
  let control: ControlServer
  beforeEach(async () => {
    node = new FakeNode()
    control = await startControl(node, {
      config: { enabled: true, listen: '127.0.0.1:0' },
      dir: folder.path,
      logger: silentLogger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
  })
  afterEach(() => control.close())

  test('up, status and down do and say so, for people and for programs', async () => {
    const up = await cli('up')
    expect(up).toMatchObject({ code: 0, log: expect.stringMatching(/^VPN\s+up: everything goes through the mesh/) })
    const status = await cli('status', '--json')
    expect(status.code).toBe(0)
    expect(JSON.parse(status.stdout)).toEqual(fakeVpn)
    expect((await cli('down')).log).toBe('The VPN is down: this machine sends as it did before.\n')
    expect((await cli('status')).code).toBe(3)
    expect(node.asked).toEqual(['vpnUp', 'vpnDown'])
  })

  test('what is blocked has codes of its own, and says why', async () => {
    node.vpnUp = async () => ({ ...fakeVpn, state: 'blocked', problems: ['no circuit carries packets now'] })
    node.vpnFacts = await node.vpnUp()
    const up = await cli('up')
    expect(up.code).toBe(1)
    expect(up.stdout).toMatch(/problem {2}no circuit carries packets now/)
    expect((await cli('status')).code).toBe(4)
  })

  test('a refusal of the node is told as it is', async () => {
    node.failure = new ShallotError('vpn-not-permitted', 'the VPN needs CAP_NET_ADMIN', { kind: 'host', retry: 'never' })
    expect(await cli('up')).toMatchObject({ code: 1, log: 'shallot: the VPN needs CAP_NET_ADMIN\n' })
  })

  test('over SSH it is not brought up where that ends the session, but for who insists', async () => {
    const state = node.vpnFacts
    node.vpnFacts = { ...fakeVpn, state: 'down', bypass: ['192.0.2.0/24'] }
    const from = (address: string, ...args: string[]) =>
      shallot(['vpn', 'up', ...args], {
        env: { XDG_RUNTIME_DIR: folder.path, SHALLOT_DIR: undefined, SSH_CONNECTION: `${address} 50000 10.0.0.1 22` },
      })
    const refused = await from('198.51.100.7')
    expect(refused.code).toBe(1)
    expect(refused.log).toContain('bypass = ["198.51.100.7/32"]')
    expect(node.asked).toEqual([])
    expect((await from('192.0.2.7')).code).toBe(0)
    node.vpnFacts = { ...fakeVpn, state: 'down' }
    expect((await from('198.51.100.7', '--cut-ssh')).code).toBe(0)
    node.vpnFacts = state
  })

  test('a node that is no client has none', async () => {
    expect(await cli('status')).toMatchObject({ code: 2, log: expect.stringMatching(/not the role "client"/) })
  })
})

describe('without a node', () => {
  test('it is down, and there is nothing to repair', async () => {
    expect(await cli('status')).toMatchObject({ code: 3, stdout: 'VPN  down\n' })
    expect(await cli('down')).toMatchObject({ code: 0, stdout: 'The VPN is down: this machine sends as it did before.\n' })
    const up = await cli('up')
    expect(up).toMatchObject({ code: 1, log: expect.stringMatching(/no node of this user is running/) })
  })

  test('what it has left is said, and what to do', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    const state = { version: 1, id: '0123456789abcdef', wanted: true, killSwitch: true, routing: null, resolvConf: null, resolved: null }
    writeFileSync(join(dir, 'vpn.json'), JSON.stringify(state))
    const { code, stdout } = await cli('status', '--dir', dir)
    expect(code).toBe(4)
    expect(stdout).toMatch(/^VPN\s+blocked: nothing/)
    expect(stdout.replace(/\s+/g, ' ')).toContain('`shallot run` takes it over, `shallot vpn down` lifts it')
    expect((JSON.parse((await cli('status', '--json', '--dir', dir)).stdout) as VpnFacts).state).toBe('blocked')
  })
})

describe('what a person reads', () => {
  test('everything that is up, in 80 columns', () => {
    const allowed = Array.from({ length: 30 }, (_, i) => ({
      ip: `192.0.2.${i}`,
      protocol: 'tcp' as const,
      port: 4460,
      why: 'peer' as const,
    }))
    const text = vpnText(
      { ...fakeVpn, allowed, serving: [{ protocol: 'udp', port: 4460 }], problems: ['eth0 is strict\u001b[31m'] },
      fakeVpn.since + 61_000,
    )
    expect(text.split('\n').every((line) => line.length <= 80)).toBe(true)
    const flat = text.replace(/\s+/g, ' ')
    for (const part of [
      'up: everything goes through the mesh, for 1 min 1 s',
      'shallot0, MTU 1420, 10.83.104.2/30',
      '10.83.104.1, by resolv.conf',
      '7 packets that would have gone around',
      'out of reach',
      '192.0.2.0/24',
      'from UDP port 4460',
      '192.0.2.0:4460/tcp (peer)',
      'and 18 more',
      'problem eth0 is strict?[31m',
    ])
      expect(flat).toContain(part)
  })
})
