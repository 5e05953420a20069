import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AllowedPeer } from '../../src/vpn/index.ts'
import { delay, type Program, until } from '../support/processes.ts'
import { missingPackages } from './lab/index.ts'
import { type LabNode, nodePort } from './support/lab-mesh.ts'
import { sendFrame, type UplinkCapture } from './support/vpn-capture.ts'
import { AllowWatch, networkState, VpnClient } from './support/vpn-client.ts'
import { reasonAgainstVpn, reasonAgainstVpnLab, VpnLab } from './support/vpn-lab.ts'
import { names } from './support/vpn-names.ts'
import { type ProgramWorld, webRtcCandidates } from './support/vpn-programs.ts'
import { elsewhere, udp } from './support/vpn-strays.ts'
import { UplinkCheck } from './support/vpn-uplink-check.ts'

const reason = (await reasonAgainstVpnLab({ curl: 'curl' })) ?? reasonAgainstVpn
const noiseProgram = fileURLToPath(new URL('support/vpn-noise.py', import.meta.url))
const floodProgram = fileURLToPath(new URL('support/vpn-flood.py', import.meta.url))
const noChromium = missingPackages({ chromium: 'chromium' }).length > 0
const python = '/usr/bin/python3'

/**
 * One life of a VPN that is up whenever its node runs, told in order: while a program tries every way past it, nothing leaves the machine but link
 * control and what the VPN itself names, from the moment the kill switch stands until it is taken down.
 */
describe.skipIf(reason !== null)(`a machine whose VPN is up${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: VpnLab
  let client: LabNode
  let vpn: VpnClient
  let capture: UplinkCapture
  let check: UplinkCheck
  let watch: AllowWatch
  let noise: Program
  let before: string
  let world: ProgramWorld

  beforeAll(async () => {
    lab = await VpnLab.build()
    await lab.startMesh({ client: { ingress: { tun: { up: true } } } })
    client = lab.mesh.node('client')
    vpn = new VpnClient(client)
    before = await networkState(lab.pc)
    const seenAs = ['exit-netstack', 'exit-tun'].flatMap((exit) => lab.lab.publicAddressesOf(exit))
    world = { machine: lab.pc, servers: lab.servers, folder: lab.folder, seenAs, routers: [] }
    capture = await lab.captureUplink()
    check = new UplinkCheck(capture.uplink.networks)
    watch = new AllowWatch(vpn, check)
  })
  afterAll(async () => {
    await watch?.stop()
    await noise?.stop('SIGKILL')
    await lab?.remove()
  })

  /** A page by the VPN, with a program's patience. */
  const fetch = (seconds = 20, ...more: readonly string[]) =>
    lab.pc.run('curl', ['-q', '-sSf', '-m', String(seconds), ...more, `http://${names.web}/`], { timeoutMs: 60_000 })
  const comesThrough = (withinMs = 60_000) => until('a page comes through the VPN', withinMs, async () => (await fetch(5)).code === 0)
  const blocks = async () => (await lab.pc.run('nft', ['list', 'table', 'inet', 'shallot_vpn'])).code === 0

  /** What left the machine since the last look and may not have. */
  let looked = 0
  async function strays(): Promise<readonly string[]> {
    await watch.look()
    const sent = await capture.sent()
    const fresh = sent.slice(looked)
    looked = sent.length
    return check.strayKinds(fresh)
  }
  async function nothingLeft(): Promise<void> {
    expect(noise.exit, noise.tail()).toBe(null)
    expect(await strays()).toEqual([])
  }

  const everyRelay = (): AllowedPeer[] =>
    lab.mesh.nodes
      .filter(({ id }) => id !== null)
      .flatMap(({ plan }) => lab.lab.publicAddressesOf(plan.name))
      .map((ip) => ({ ip, protocol: 'tcp', port: nodePort, why: 'peer' }))

  test('while it starts', async () => {
    const starting = client.start()
    await until('the kill switch stands', 60_000, blocks, 20)
    const args = ['lan', lab.router.address, lab.router.ipv6!, elsewhere.ipv4, elsewhere.ipv6]
    noise = lab.pc.start(python, [noiseProgram, ...args])
    await noise.waitFor(/^ready/m, 10_000)
    await starting
    await vpn.isIn('up')
    await nothingLeft()
  })

  test('while it runs, and its status is the same by its command and by the API', async () => {
    for (const family of ['-4', '-6'])
      expect(await fetch(20, family)).toMatchObject({ code: 0, stdout: expect.stringContaining('a page of the lab') })
    const status = await vpn.status()
    expect(status).toMatchObject({ state: 'up', bypass: [], localNetwork: false, problems: [] })
    expect(status.allowed).toEqual((await vpn.facts()).allowed)
    await until('what was dropped is counted', 15_000, async () => (await vpn.facts()).counts!.blocked > 0)
    await nothingLeft()
  })

  test('a client may reach guards and bootstrap nodes alone, each at its port', () => {
    expect(watch.seen.length).toBeGreaterThan(0)
    expect(watch.seen.filter(({ why, port }) => !['guard', 'bootstrap'].includes(why) || port === null)).toEqual([])
  })

  test('during a flood of DNS questions to everybody', async () => {
    const servers = [lab.router.address, lab.servers.dns.address, elsewhere.ipv4, lab.servers.dns.ipv6!, elsewhere.ipv6]
    await lab.pc.run(python, [floodProgram, '3000', ...servers], { timeoutMs: 60_000 })
    await comesThrough()
    await nothingLeft()
  })

  test.skipIf(noChromium)('with WebRTC in Chromium, which learns nothing of the machine', async () => {
    const found = (await webRtcCandidates(world)).join('\n')
    for (const own of [lab.pc.address, lab.pc.ipv6!, lab.lab.home('home').publicAddress]) expect(found).not.toContain(own)
    await nothingLeft()
  })

  test('when the guard dies', async () => {
    const guards = async () => new Set((await client.control.circuits()).flatMap(({ path }) => path[0]?.id ?? []))
    await comesThrough()
    const ids = await guards()
    const dying = lab.mesh.nodes.filter(({ id }) => id !== null && ids.has(id))
    expect(dying.length).toBeGreaterThan(0)
    await dying[0]!.stop('SIGKILL')
    await comesThrough(90_000)
    const left = await strays()
    await dying[0]!.start()
    expect(left).toEqual([])
  })

  test('when the node is killed, and nothing comes through', async () => {
    await client.stop('SIGKILL')
    for (const family of ['-4', '-6']) expect((await fetch(3, family)).code).not.toBe(0)
    expect(await blocks()).toBe(true)
    // Time for the noise.
    await delay(2000)
    await nothingLeft()
  })

  test('when it starts again after that', async () => {
    await client.start()
    await vpn.isIn('up')
    await comesThrough()
    await nothingLeft()
  })

  test('when the node is stopped and started in order', async () => {
    await client.stop()
    expect((await fetch(3)).code).not.toBe(0)
    const [left, stands] = [await strays(), await blocks()]
    await client.start()
    expect(left).toEqual([])
    expect(stands).toBe(true)
    await vpn.isIn('up')
    await comesThrough()
    await nothingLeft()
  })

  test('when no guard is left', async () => {
    const relays = lab.mesh.nodes.filter(({ plan }) => plan.name.startsWith('guard'))
    await Promise.all(relays.map((node) => node.stop('SIGKILL')))
    const blocked = await vpn.isIn('blocked', 90_000).catch((error: Error) => error)
    const { code } = await fetch(5)
    const left = await strays()
    await lab.mesh.startAll(relays)
    expect(blocked).toMatchObject({ state: 'blocked' })
    expect(code).not.toBe(0)
    expect(left).toEqual([])
    await vpn.isIn('up', 90_000)
    await comesThrough()
    await nothingLeft()
  })

  test('while it is taken down, and afterwards the machine is as it was', async () => {
    // What is not on its way through the VPN would rightly leave by the uplink afterwards.
    await noise.stop('SIGTERM')
    expect(noise.log).toMatch(/taken \d{3,}/)
    // The kernel says twice, a second apart, which groups its programs have left (RFC 3810 §9.11): to be held back while the VPN stands.
    await delay(4000)
    const down = await vpn.down()
    expect(down.code, down.log).toBe(0)
    // From then on the node may ask any relay for the view again.
    check.allow(Date.now(), { allowed: everyRelay() })
    expect(await strays()).toEqual([])
    expect(await networkState(lab.pc)).toBe(before)
    expect((await vpn.facts()).state).toBe('down')
    // Without the VPN, as before it.
    expect((await fetch(5)).code).toBe(0)
    expect((await strays()).join('\n')).toContain(`to ${lab.servers.dns.address} port 53`)
  })

  test('one stray frame is found all the same', async () => {
    const again = new UplinkCheck(capture.uplink.networks)
    const from = (await capture.sent()).length
    await sendFrame(lab.pc, 'lan', udp(lab.pc.address, elsewhere.ipv4, 40_000, 443))
    expect(again.strays((await capture.sent()).slice(from))).toContainEqual(
      expect.stringContaining(`UDP from ${lab.pc.address} port 40000`),
    )
  })

  describe('gives back', () => {
    const resolvers: Readonly<Record<string, string>> = {
      'a resolv.conf that is a link': 'cp /etc/resolv.conf /etc/resolv.real; ln -sfn resolv.real /etc/resolv.conf',
      'a resolv.conf that is mounted over, as in a container':
        'cp /etc/resolv.conf /etc/resolv.real; mount --bind /etc/resolv.real /etc/resolv.conf',
    }
    for (const [what, prepare] of Object.entries(resolvers)) {
      test(what, async () => {
        await lab.pc.shell(`original=$(cat /etc/resolv.conf); rm -f /etc/resolv.conf; echo "$original" > /etc/resolv.conf; ${prepare}`)
        const state = await networkState(lab.pc)
        expect((await vpn.up()).code).toBe(0)
        await comesThrough()
        expect(await lab.pc.shell('cat /etc/resolv.conf')).not.toContain(lab.servers.dns.address)
        expect((await vpn.down()).code).toBe(0)
        expect(await networkState(lab.pc)).toBe(state)
      })
    }

    test('everything by `repair`, after a crash', async () => {
      const state = await networkState(lab.pc)
      expect((await vpn.up()).code).toBe(0)
      await client.stop('SIGKILL')
      expect(await blocks()).toBe(true)
      const repaired = await vpn.command('repair')
      expect(repaired.code, repaired.log).toBe(0)
      expect(await networkState(lab.pc)).toBe(state)
    })
  })
})
