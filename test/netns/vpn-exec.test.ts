import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { projectRoot, run, runOk, shallot } from '../support/processes.ts'
import type { LabNode } from './support/lab-mesh.ts'
import type { UplinkCapture } from './support/vpn-capture.ts'
import { networkState, VpnClient } from './support/vpn-client.ts'
import { reasonAgainstVpn, reasonAgainstVpnLab, VpnLab } from './support/vpn-lab.ts'
import { names } from './support/vpn-names.ts'
import { elsewhere } from './support/vpn-strays.ts'

/** Nobody special. */
const NOBODY = 65_534
const asNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--']

const reason =
  (await reasonAgainstVpnLab({ curl: 'curl', dig: 'bind9-dnsutils', setpriv: 'util-linux' })) ??
  reasonAgainstVpn ??
  (await reasonAgainstExec())

async function reasonAgainstExec(): Promise<string | null> {
  if (!(await shallot(['vpn', '--help'])).stdout.includes('exec')) return 'this clone has no `shallot vpn exec` yet'
  const [command, ...rest] = [...asNobody, process.execPath, '--check', join(projectRoot, 'src', 'cli', 'main.ts')]
  if ((await run(command!, rest)).code !== 0) return 'this clone is not readable for others, or setpriv is missing'
  return existsSync('/dev/net/tun') ? null : 'there is no /dev/net/tun'
}

/** One program inside the mesh, without privileges anywhere: the client, its user, and the exit with its netstack. */
describe.skipIf(reason !== null)(`a program of an ordinary user in the VPN${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: VpnLab
  let client: LabNode
  let capture: UplinkCapture
  let before: string

  beforeAll(async () => {
    lab = await VpnLab.build()
    await lab.startMesh({ client: (idOf) => ({ path: { exitNodes: [idOf('exit-netstack')] } }) })
    client = lab.mesh.node('client')
    const exit = lab.mesh.node('exit-netstack')
    await exit.stop()
    // As udev has it on a desktop; in a folder of the machine's own.
    await lab.pc.shell('mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 10 200')
    await runOk('chmod', ['755', lab.mesh.dir])
    for (const node of [exit, client]) {
      await runOk('chown', ['-R', `${NOBODY}:${NOBODY}`, node.dir])
      await node.start({ wrapper: asNobody, env: { HOME: node.dir } })
    }
    before = await networkState(lab.pc)
    capture = await lab.captureUplink()
  })
  afterAll(() => lab?.remove())

  const inside = (command: string, ...args: readonly string[]) =>
    lab.pc.run('sh', [join(projectRoot, 'bin', 'shallot'), 'vpn', 'exec', '--dir', client.dir, '--', command, ...args], {
      wrapper: asNobody,
      env: { HOME: client.dir },
      timeoutMs: 90_000,
    })

  test('reaches servers by both families, and they see the exit', async () => {
    for (const family of ['-4', '-6']) {
      const { code, stdout, log } = await inside('curl', '-q', '-sSf', '-m', '60', family, `http://${names.web}/`)
      expect(code, log).toBe(0)
      expect(stdout).toContain('a page of the lab')
    }
    const seen = new Set(lab.servers.requests().map((line) => line.split(' ')[0]))
    expect(lab.lab.publicAddressesOf('exit-netstack')).toEqual(expect.arrayContaining([...seen]))
  })

  test('asks names, pings, and ends with the code of its own', async () => {
    expect((await inside('dig', '+short', '+time=20', names.text, 'TXT')).stdout).toContain('"said by the lab"')
    expect((await inside('ping', '-c', '3', '-W', '20', lab.servers.web.address)).stdout).toMatch(/[123] received/)
    expect((await inside('sh', '-c', 'exit 42')).code).toBe(42)
  })

  test('leaves the rest of the machine alone', async () => {
    expect(await networkState(lab.pc)).toBe(before)
    expect((await lab.pc.run('curl', ['-q', '-sSf', '-m', '20', `http://${names.web}/`])).code).toBe(0)
    expect(lab.servers.requests().at(-1)).toContain(lab.lab.home('home').hasIpv6 ? lab.pc.ipv6 : lab.lab.home('home').publicAddress)
  })

  test('cannot get out when its node is gone', async () => {
    const from = (await capture.sent()).length
    const running = inside(
      'sh',
      '-c',
      `for i in $(seq 30); do ping -c 1 -W 1 ${elsewhere.ipv4}; curl -sm 1 http://${elsewhere.ipv4}/; done`,
    )
    await client.stop('SIGKILL')
    await running
    const strangers = (await capture.sent()).slice(from).filter(({ frame }) => frame.ip?.destination === elsewhere.ipv4)
    expect(strangers).toEqual([])
  })
})

/** The other way about: everything inside but one program. */
describe.skipIf(reason !== null)('a program that goes around a VPN', () => {
  let lab: VpnLab
  let vpn: VpnClient

  beforeAll(async () => {
    lab = await VpnLab.build()
    await lab.startMesh({ client: {} })
    vpn = new VpnClient(lab.mesh.node('client'))
    await vpn.node.start()
    expect((await vpn.up()).code).toBe(0)
  })
  afterAll(() => lab?.remove())

  test('is seen as the machine itself, while the others are not', async () => {
    const [four] = lab.servers.addresses
    const curl = ['curl', '-q', '-sSf', '-m', '30', `http://${four}/`] as const
    const around = await vpn.command('exec', '--bypass', '--', ...curl)
    expect(around.code, around.log).toBe(0)
    expect(lab.servers.requests().at(-1)).toContain(`${lab.lab.home('home').publicAddress} `)
    expect((await lab.pc.run(curl[0], curl.slice(1), { timeoutMs: 40_000 })).code).toBe(0)
    expect(lab.servers.requests().at(-1)).not.toContain(`${lab.lab.home('home').publicAddress} `)
  })
})
