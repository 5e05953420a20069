import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { NodeId } from '../../src/base/index.ts'
import { until } from '../support/processes.ts'
import { type Home, Lab, reasonAgainstLab } from './lab/index.ts'
import { LabMesh, type LabNode } from './support/lab-mesh.ts'

const reason = await reasonAgainstLab()
const webProgram = fileURLToPath(new URL('support/web.ts', import.meta.url))
const relays = ['relay1', 'relay2', 'relay3', 'relay4'] as const
/** From what happens to the home until the client's traffic flows again. */
const backWithinMs = 10_000
/** Until the middle at home is reached again. */
const reachedWithinMs = 60_000

/** Whatever happens to the home of the middle that carries a client's circuit, the client goes on, and the middle comes back. */
describe.skipIf(reason !== null)('a middle at home', () => {
  let lab: Lab
  let mesh: LabMesh
  let web: string

  beforeAll(async () => {
    lab = await Lab.build({
      hosts: Object.fromEntries(
        ['web', 'guard', 'exit', 'client', ...relays].map((name) => [name, {}]).concat([['boot', { addresses: 2 }]]),
      ),
      homes: { anna: { nat: 'port-restricted' }, bert: { nat: 'port-changing' } },
    })
    web = `http://${lab.host('web').address}`
    await lab
      .host('web')
      .startNode(webProgram, [lab.host('web').address, '80'])
      .waitFor(/^ready/m, 10_000)
    mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      ...relays.map((name) => ({ name, on: lab.host(name), roles: ['relay'] as const })),
      { name: 'guard', on: lab.host('guard'), roles: ['guard'] },
      { name: 'exit', on: lab.host('exit'), roles: ['exit'] },
      { name: 'anna', on: lab.home('anna').machine(), roles: ['middle'] },
      { name: 'bert', on: lab.home('bert').machine(), roles: ['middle'] },
      { name: 'client', on: lab.host('client'), roles: ['client'] },
    ])
    await mesh.startAll(mesh.nodes.filter(({ id }) => id !== null))
    await Promise.all(['anna', 'bert'].map((name) => ready(mesh.node(name))))
    await mesh.node('client').start()
  })
  afterAll(async () => {
    await mesh?.stop()
    await lab?.remove()
  })

  beforeEach(async () => {
    for (const name of relays) if (!isRunning(mesh.node(name))) await mesh.node(name).start()
    await Promise.all(['anna', 'bert'].map((name) => ready(mesh.node(name))))
  })

  const events: Readonly<Record<string, (home: Home, node: LabNode) => Promise<unknown>>> = {
    'whose relays are killed': (_, node) => killRelays(node),
    'whose router restarts': (home) => home.rebootRouter(),
    'whose public address changes': (home) => home.changePublicAddress(),
    'whose relays are killed while its router restarts with another address': (home, node) =>
      Promise.all([killRelays(node), home.changePublicAddress()]),
  }
  for (const [what, happens] of Object.entries(events)) {
    test(`${what} costs its client seconds`, { timeout: 180_000 }, async () => {
      const client = mesh.node('client')
      const name = await middleInUse(client)
      const startedAt = Date.now()
      await happens(lab.home(name), mesh.node(name))
      await until('the client fetches again', 30_000, async () => (await client.curl(`${web}/`, '-m', '3')).code === 0)
      expect(Date.now() - startedAt).toBeLessThan(backWithinMs)
      await until(`${name} is reached again`, reachedWithinMs, async () => {
        return (await mesh.node('guard').control.reach(mesh.node(name).servingId)).how !== 'unreachable'
      })
    })
  }

  /** Fetches, and gives the name of the middle that carried it. */
  async function middleInUse(client: LabNode): Promise<string> {
    return until('the client has a circuit', 60_000, async () => {
      if ((await client.curl(`${web}/`, '-m', '5')).code !== 0) return false
      const used = (await client.control.circuits()).filter(({ state, firstUsedAt }) => state === 'open' && firstUsedAt !== null)
      const id = used.sort((a, b) => b.firstUsedAt! - a.firstUsedAt!)[0]?.path[1]?.id
      return mesh.nodes.find((node) => node.id === id)?.plan.name
    })
  }

  async function killRelays(node: LabNode): Promise<void> {
    const facts = await node.control.nat()
    const ids = new Set<NodeId>(facts?.relays.map(({ relay }) => relay))
    await Promise.all(mesh.nodes.filter(({ id }) => id !== null && ids.has(id)).map((relay) => relay.stop('SIGKILL')))
  }

  async function ready(node: LabNode): Promise<void> {
    await until(`${node.plan.name} is punchable`, 90_000, async () => {
      const facts = await node.control.nat()
      return facts?.state === 'punchable' && facts.relays.length > 0
    })
  }

  function isRunning(node: LabNode): boolean {
    try {
      return node.running.program.exit === null
    } catch {
      return false
    }
  }
})
