import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { missingPackages } from './lab/index.ts'
import { reasonAgainstVpnLab, VpnLab } from './support/vpn-lab.ts'
import { everyday, type ProgramWorld, pings, traces, udpTraces } from './support/vpn-programs.ts'

const reason = await reasonAgainstVpnLab()

/** What the tests of the VPN stand on: where a program fails through the VPN, it is not the lab's fault. */
describe.skipIf(reason !== null)(`without a VPN${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: VpnLab
  let world: ProgramWorld

  beforeAll(async () => {
    lab = await VpnLab.build()
    world = {
      machine: lab.pc,
      servers: lab.servers,
      folder: lab.folder,
      seenAs: [lab.lab.home('home').publicAddress, lab.pc.ipv6!],
      routers: lab.lab.routersOf('web'),
    }
  })
  afterAll(() => lab?.remove())

  for (const { name, needs, run } of [...everyday, ...pings, ...traces, ...udpTraces]) {
    const missing = missingPackages(needs)
    test.skipIf(missing.length > 0)(`${name}${missing.length > 0 ? ` (needs ${missing.join(', ')})` : ''}`, () => run(world))
  }

  test('the DNS server is asked by the machine itself', () => {
    expect(
      lab.servers.questions().some((line) => line.startsWith('A www.example.net ') && line.endsWith(lab.lab.home('home').publicAddress)),
    ).toBe(true)
  })
})
