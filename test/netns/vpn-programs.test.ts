import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { missingPackages } from './lab/index.ts'
import type { UplinkCapture } from './support/vpn-capture.ts'
import { AllowWatch, VpnClient } from './support/vpn-client.ts'
import { packetExits, reasonAgainstVpn, reasonAgainstVpnLab, VpnLab } from './support/vpn-lab.ts'
import { everyday, type ProgramCheck, type ProgramWorld, pings, quickOnes, traces, udpTraces } from './support/vpn-programs.ts'
import { UplinkCheck } from './support/vpn-uplink-check.ts'

const reason = (await reasonAgainstVpnLab()) ?? reasonAgainstVpn

/**
 * Programs that know nothing of us, on a machine at home whose VPN is up: all of them work, in both families, by whichever exit, and nothing but
 * links to guards leaves the machine meanwhile.
 */
describe.skipIf(reason !== null)(`programs through the VPN${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: VpnLab
  let world: ProgramWorld
  let capture: UplinkCapture
  let check: UplinkCheck

  beforeAll(async () => {
    lab = await VpnLab.build()
    const settings = (exit: string, tun: Record<string, unknown>) => (idOf: (name: string) => string) => ({
      path: { exitNodes: [idOf(exit)] },
      ingress: { tun },
    })
    await lab.startMesh(
      Object.fromEntries(
        packetExits.flatMap((exit) => [
          [`streams-${exit}`, settings(`exit-${exit}`, {})],
          [`packets-${exit}`, settings(`exit-${exit}`, { tcp: 'packets', udp: 'packets' })],
        ]),
      ),
    )
    const seenAs = packetExits.flatMap((exit) => lab.lab.publicAddressesOf(`exit-${exit}`))
    world = { machine: lab.pc, servers: lab.servers, folder: lab.folder, seenAs, routers: lab.lab.routersOf('web') }
    capture = await lab.captureUplink()
    check = new UplinkCheck(capture.uplink.networks)
  })
  afterAll(() => lab?.remove())

  for (const exit of packetExits) {
    for (const how of ['streams', 'packets']) {
      describe(`${how} by the exit with ${exit}`, () => {
        let vpn: VpnClient
        let watch: AllowWatch
        let upAt = 0

        beforeAll(async () => {
          vpn = new VpnClient(lab.mesh.node(`${how}-${exit}`))
          await vpn.node.start()
          watch = new AllowWatch(vpn, check)
          const up = await vpn.up()
          expect(up.code, up.log).toBe(0)
          await vpn.isIn('up')
          // Before, this node went its own ways with nothing to hold it back.
          upAt = Date.now()
        })
        afterAll(async () => {
          await watch?.stop()
          const down = await vpn.down()
          expect(down.code, down.log).toBe(0)
          await vpn.node.stop()
        })

        const all =
          how === 'packets'
            ? [...quickOnes, ...pings]
            : exit === 'tun'
              ? [...everyday, ...pings, ...traces, ...udpTraces]
              : [...quickOnes, ...pings, ...traces]
        for (const one of all) program(one)
        test('none of it has left the machine but through the mesh', async () => {
          await watch.look()
          const sent = (await capture.sent()).filter(({ at }) => at >= upAt)
          expect(sent.length).toBeGreaterThan(0)
          expect(check.strays(sent)).toEqual([])
        })
      })
    }
  }

  test('the servers have seen nobody but exits', () => {
    const web = lab.servers.requests().map((line) => line.split(' ')[0]!)
    const dns = lab.servers.questions().map((line) => line.split(' ')[2]!)
    const strangers = [...web, ...dns].filter((address) => !world.seenAs.includes(address))
    expect(web.length).toBeGreaterThan(0)
    expect(strangers).toEqual([])
  })

  function program({ name, needs, run }: ProgramCheck): void {
    const missing = missingPackages(needs)
    test.skipIf(missing.length > 0)(`${name}${missing.length > 0 ? ` (needs ${missing.join(', ')})` : ''}`, { timeout: 180_000 }, () =>
      run(world),
    )
  }
})
