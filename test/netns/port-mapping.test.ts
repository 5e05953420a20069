import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../support/processes.ts'
import { Lab, missingPackages, reasonAgainstLab, UpnpDaemon } from './lab/index.ts'
import { LabMesh, nodePort } from './support/lab-mesh.ts'

const reason = await reasonAgainstLab()
const missing = missingPackages({ miniupnpd: 'miniupnpd' })

describe.skipIf(reason !== null || missing.length > 0)('a node whose router forwards ports on request', () => {
  let lab: Lab
  let mesh: LabMesh
  const homes = { upnp: { upnp: true, pcp: false }, pcp: { upnp: false, pcp: true } }

  beforeAll(async () => {
    lab = await Lab.build({
      hosts: { boot: { addresses: 2 }, relay1: {}, relay2: {}, far: {} },
      homes: Object.fromEntries(Object.keys(homes).map((name) => [name, { nat: 'port-restricted' as const }])),
    })
    mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      ...['relay1', 'relay2'].map((name) => ({ name, on: lab.host(name), roles: ['relay'] as const })),
      { name: 'far', on: lab.host('far'), roles: ['middle'] },
      ...lab.homes.map((home) => ({ name: home.name, on: home.machine(), roles: ['middle'] as const })),
    ])
    await mesh.startAll(mesh.nodes.filter(({ isOnHost }) => isOnHost))
  })
  afterAll(async () => {
    await mesh?.stop()
    await lab?.remove()
  })

  for (const [name, options] of Object.entries(homes)) {
    test(`gets a mapping by ${name}, is reached there, and gives it back when it stops`, async () => {
      const home = lab.home(name)
      const node = mesh.node(name)
      const daemon = await UpnpDaemon.start(home, options)
      try {
        await node.start()
        const facts = await until(`a mapping: ${daemon.tail()}`, 30_000, async () => {
          const facts = await node.control.nat()
          return facts?.state === 'mapped' && facts
        })
        expect(facts.mapping?.protocol).toBe(name)
        expect(facts.mapping?.external.startsWith(`${home.publicAddress}:`)).toBe(true)
        expect(await daemon.mappings()).toContain(`tcp ${facts.mapping!.external.split(':')[1]} to ${home.machine().address}:${nodePort}`)
        const far = mesh.node('far')
        await until('the mapped address is known', 30_000, async () => (await far.control.reach(node.servingId)).how === 'direct')
        await node.stop()
        expect(await daemon.mappings()).toEqual([])
      } finally {
        await node.stop()
        await daemon.stop()
      }
    })
  }
})
