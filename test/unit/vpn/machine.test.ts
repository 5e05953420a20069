import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checkPrivileges, defaultVpnConfig, repair, runProgram, vpnKeys, vpnWithoutNode } from '../../../src/vpn/index.ts'
import { hasIpv6, strictDevices } from '../../../src/vpn/machine-facts.ts'
import { mayAdministerNetwork } from '../../../src/vpn/privileges.ts'
import { mustRun } from '../../../src/vpn/programs.ts'
import { freshState, VpnStateFile } from '../../../src/vpn/state.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'shallot-vpn-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe('privileges', () => {
  const status = (euid: number, effective: string, bounding: string, ambient: string) =>
    `Name:\tnode\nUid:\t1000\t${euid}\t0\t0\nCapInh:\t0000000000000000\nCapEff:\t${effective}\nCapBnd:\t${bounding}\nCapAmb:\t${ambient}\n`
  const [all, admin, none] = ['000001ffffffffff', '0000000000001000', '0000000000000000']

  test.each([
    ['root', status(0, all, all, none), true],
    ['root of a container without the capability', status(0, none, '00000000a80425fb', none), false],
    ['a user with the capability for its programs too', status(998, admin, all, admin), true],
    ['a user whose programs would not have it', status(998, admin, all, none), false],
    ['anybody', status(1000, none, all, none), false],
  ] as const)('%s', (_who, text, may) => expect(mayAdministerNetwork(text)).toBe(may))

  test('without them, and elsewhere than on Linux, there is an error that says what is missing', async () => {
    await expect(checkPrivileges('darwin')).rejects.toMatchObject({ code: 'vpn-not-on-this-platform', retry: 'never' })
    const file = join(folder, 'status')
    writeFileSync(file, status(1000, none, all, none))
    await expect(checkPrivileges('linux', file)).rejects.toMatchObject({
      code: 'vpn-not-permitted',
      message: expect.stringMatching(/CAP_NET_ADMIN.*AmbientCapabilities/),
    })
  })
})

describe('programs of the system', () => {
  test('their output and end are told, input is given', async () => {
    expect(await runProgram('sh', ['-c', 'cat; echo bad >&2; exit 3'], 'in')).toEqual({ code: 3, stdout: 'in', stderr: 'bad\n' })
  })

  test('one that is missing, and one that refuses, are typed errors', async () => {
    await expect(runProgram('shallot-no-such-program', [])).rejects.toMatchObject({ code: 'vpn-program-missing' })
    await expect(
      mustRun(async () => ({ code: 2, stdout: '', stderr: 'Error: bad table\nmore' }), 'it failed', 'ip', []),
    ).rejects.toMatchObject({
      code: 'vpn-system-refused',
      message: 'it failed: ip says: Error: bad table',
    })
    for (const stderr of [
      'RTNETLINK answers: Operation not permitted\n',
      'Error: Could not process rule: Operation not permitted (you must be root)\n',
    ])
      await expect(mustRun(async () => ({ code: 2, stdout: '', stderr }), 'it failed', 'ip', [])).rejects.toMatchObject({
        code: 'vpn-not-permitted',
      })
  })
})

describe('the machine', () => {
  const set = (path: string, value: string): void => {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), `${value}\n`)
  }

  test('may have IPv6 or not', () => {
    expect(hasIpv6(folder)).toBe(false)
    set('net/ipv6/conf/default/disable_ipv6', '0')
    set('net/ipv6/conf/all/disable_ipv6', '0')
    expect(hasIpv6(folder)).toBe(true)
    set('net/ipv6/conf/all/disable_ipv6', '1')
    expect(hasIpv6(folder)).toBe(false)
  })

  test('has strict reverse-path filters where the larger of both settings is 1', () => {
    expect(strictDevices('shallot0', folder)).toEqual([])
    for (const [device, value] of [
      ['all', 0],
      ['default', 1],
      ['lo', 1],
      ['shallot0', 1],
      ['eth0', 1],
      ['wlan0', 2],
      ['eth1', 0],
    ] as const)
      set(`net/ipv4/conf/${device}/rp_filter`, `${value}`)
    expect(strictDevices('shallot0', folder)).toEqual(['eth0'])
    set('net/ipv4/conf/all/rp_filter', '1')
    expect(strictDevices('shallot0', folder)).toEqual(['eth0', 'eth1'])
    set('net/ipv4/conf/all/rp_filter', '2')
    expect(strictDevices('shallot0', folder)).toEqual([])
  })
})

describe('the state file', () => {
  const open = () => new VpnStateFile(folder, () => '0123456789abcdef')

  test('is there as long as there is something to undo, or the VPN is wanted', async () => {
    const state = open()
    expect(await state.load()).toBe(false)
    await state.save({ wanted: true, killSwitch: true })
    await state.save({ wanted: false })
    const again = open()
    expect(await again.load()).toBe(true)
    expect(again.current).toEqual({ ...freshState('0123456789abcdef'), killSwitch: true })
    await again.save({ killSwitch: false })
    expect(existsSync(again.path)).toBe(false)
  })

  test.each(['', '{', '{"version":2}', '{"version":1,"id":"x"}', '{"version":1,"id":"0123456789abcdef","wanted":true}'])(
    'damaged (%s), it is an error, and what can be said without a node is that it is blocked',
    async (text) => {
      writeFileSync(join(folder, 'vpn.json'), text)
      await expect(open().load()).rejects.toMatchObject({ code: 'vpn-state-damaged' })
      expect(await vpnWithoutNode(folder, 5)).toMatchObject({ state: 'blocked', since: 5, problems: [expect.stringMatching(/damaged/)] })
    },
  )

  test('without one the VPN is down', async () => {
    const none = { code: 1, stdout: '', stderr: 'Error: No such file or directory' }
    expect(await vpnWithoutNode(join(folder, 'none'), 5, async () => none)).toMatchObject({ state: 'down', problems: [] })
    const notPermitted = { code: 1, stdout: '', stderr: 'Operation not permitted (you must be root)' }
    expect((await vpnWithoutNode(join(folder, 'none'), 5, async () => notPermitted)).state).toBe('down')
  })

  test("another node's block is no VPN that is down", async () => {
    const stands = { code: 0, stdout: 'table inet shallot_vpn {\n\tcomment "shallot 0123456789abcdef"\n}', stderr: '' }
    expect(await vpnWithoutNode(join(folder, 'none'), 5, async () => stands)).toMatchObject({
      state: 'blocked',
      problems: [expect.stringMatching(/another Shallot node/)],
    })
  })
})

describe('the settings', () => {
  test('by default nothing goes around, and nothing is up', () => {
    expect(defaultVpnConfig).toMatchObject({ up: false, bypass: [], localNetwork: false, dns: 'auto', whenStopped: 'block' })
  })

  test.each([
    ['10.0.0.0/8', true],
    ['2001:db8::/32', true],
    ['192.0.2.7', true],
    ['0.0.0.0/0', false],
    ['::/0', false],
    ['example.com', false],
    ['10.0.0.0/33', false],
  ])('a network around the tunnel: %s', (text, fine) => {
    expect(vpnKeys.bypass.safeParse([text]).success).toBe(fine)
  })
})

test('repair refuses a directory that a node holds', async (context) => {
  if (process.getuid?.() !== 0 || process.platform !== 'linux') context.skip('needs root')
  writeFileSync(join(folder, 'lock'), `${process.pid} -\n`)
  await expect(repair(folder, { run: async () => ({ code: 1, stdout: '', stderr: 'No such file or directory' }) })).rejects.toMatchObject({
    code: 'directory-in-use',
  })
})
