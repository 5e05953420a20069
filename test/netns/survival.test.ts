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

/** Whatever happens to the home of the middle that carries a client's circuit, or to the client's own, the client goes on, and the middle comes back. */
describe.skipIf(reason !== null)('homes that something happens to', () => {
  let lab: Lab
  let mesh: LabMesh
  let web: string
  /** What the client's requests have in common: one circuit. */
  let isolation = 0

  beforeAll(async () => {
    lab = await Lab.build({
      hosts: Object.fromEntries(
        ['web', 'guard', 'exit', 'client', 'client-of-anna', ...relays].map((name) => [name, {}]).concat([['boot', { addresses: 2 }]]),
      ),
      homes: { anna: { nat: 'port-restricted' }, bert: { nat: 'port-changing' }, cleo: { nat: 'port-restricted' } },
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
      {
        name: 'client-of-anna',
        on: lab.host('client-of-anna'),
        roles: ['client'],
        more: (idOf) => ({ path: { excludeNodes: [idOf('bert')] } }),
      },
      { name: 'client-at-home', on: lab.home('cleo').machine(), roles: ['client'] },
    ])
    await mesh.startAll(mesh.nodes.filter(({ id }) => id !== null))
    await Promise.all(['anna', 'bert'].map((name) => ready(mesh.node(name))))
    await mesh.startAll(mesh.nodes.filter(({ id }) => id === null))
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
  for (const [client, middle] of [
    ['client', 'a middle'],
    // Nothing else carries its circuits: they come back when the node is reached again.
    ['client-of-anna', 'the only middle'],
  ] as const) {
    for (const [what, happens] of Object.entries(events)) {
      test(`${middle} ${what} costs its client seconds`, { timeout: 180_000 }, async () => {
        const name = await middleInUse(mesh.node(client))
        const startedAt = Date.now()
        await happens(lab.home(name), mesh.node(name))
        await comesBack(mesh.node(client), startedAt)
        await until(`${name} is reached again`, reachedWithinMs, async () => {
          return (await mesh.node('guard').control.reach(mesh.node(name).servingId)).how !== 'unreachable'
        })
      })
    }
  }

  const ownEvents: Readonly<Record<string, (home: Home) => Promise<unknown>>> = {
    'whose own router restarts': (home) => home.rebootRouter(),
    'whose own public address changes': (home) => home.changePublicAddress(),
  }
  for (const [what, happens] of Object.entries(ownEvents)) {
    test(`a client at home ${what} goes on within seconds`, { timeout: 180_000 }, async () => {
      const client = mesh.node('client-at-home')
      await middleInUse(client)
      const startedAt = Date.now()
      await happens(lab.home('cleo'))
      await comesBack(client, startedAt)
    })
  }

  /** Fetches by a circuit of its own, and gives the name of the middle that carried it. What is fetched later goes by the same, as long as it is there. */
  async function middleInUse(client: LabNode): Promise<string> {
    isolation++
    return until(`${client.plan.name} has a circuit`, 60_000, async () => {
      if ((await fetch(client, 5)) !== 0) return false
      const used = (await client.control.circuits()).filter(({ state, firstUsedAt }) => state === 'open' && firstUsedAt !== null)
      const id = used.sort((a, b) => b.firstUsedAt! - a.firstUsedAt!)[0]?.path[1]?.id
      return mesh.nodes.find((node) => node.id === id)?.plan.name
    })
  }

  /** As an impatient application does: it gives up after three seconds and tries again. */
  async function comesBack(client: LabNode, startedAt: number): Promise<void> {
    await until('the client fetches again', 30_000, async () => (await fetch(client, 3)) === 0)
    const took = Date.now() - startedAt
    console.info(`back after ${(took / 1000).toFixed(1)} s`)
    expect(took).toBeLessThan(backWithinMs)
  }

  async function fetch(client: LabNode, seconds: number): Promise<number> {
    return (await client.curl(`${web}/`, '-m', String(seconds), '--proxy-user', `test:${isolation}`)).code
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
