import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../support/processes.ts'
import { sha256OfBytes } from '../support/web-server.ts'
import { Lab, type LinkLabel, labelLink, type Observer, reasonAgainstLab } from './lab/index.ts'
import { LabMesh, type LabNode } from './support/lab-mesh.ts'

const reason = await reasonAgainstLab()
const webProgram = fileURLToPath(new URL('support/web.ts', import.meta.url))
const megabyte = 1_048_576
const transferBytes = 50 * megabyte
/** What may go through relays while a circuit is built and its links become direct. */
const startBytes = 2 * megabyte
const relays = ['relay1', 'relay2', 'relay3', 'relay4', 'relay5', 'relay6'] as const

describe.skipIf(reason !== null)('nodes at home that serve', () => {
  let lab: Lab
  let mesh: LabMesh
  let observer: Observer
  let web: string

  beforeAll(async () => {
    lab = await Lab.build({
      hosts: Object.fromEntries(['web', 'guard', 'exit', ...relays].map((name) => [name, {}]).concat([['boot', { addresses: 2 }]])),
      homes: {
        anna: { nat: 'port-restricted' },
        bert: { nat: 'port-changing' },
        cleo: { nat: 'symmetric', machines: ['by-anna', 'by-bert', 'at-dora'] },
        dora: { nat: 'address-restricted' },
      },
    })
    observer = await lab.observe()
    web = `http://${lab.host('web').address}`
    await lab
      .host('web')
      .startNode(webProgram, [lab.host('web').address, '80'])
      .waitFor(/^ready/m, 10_000)
    // One relay each, so that two of them can be in one circuit: no two nodes behind the same relay ever are.
    const oneRelay = { nat: { relays: { relays: 1 } } }
    const cleo = lab.home('cleo')
    mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      ...relays.map((name) => ({ name, on: lab.host(name), roles: ['relay'] as const })),
      { name: 'guard', on: lab.host('guard'), roles: ['guard'] },
      { name: 'exit', on: lab.host('exit'), roles: ['exit'] },
      { name: 'anna', on: lab.home('anna').machine(), roles: ['middle'], more: oneRelay },
      { name: 'bert', on: lab.home('bert').machine(), roles: ['middle'], more: oneRelay },
      { name: 'dora', on: lab.home('dora').machine(), roles: ['exit'], more: oneRelay },
      {
        name: 'by-anna',
        on: cleo.machine('by-anna'),
        roles: ['client'],
        more: (idOf) => ({ path: { excludeNodes: [idOf('bert')], exitNodes: [idOf('exit')] } }),
      },
      {
        name: 'by-bert',
        on: cleo.machine('by-bert'),
        roles: ['client'],
        more: (idOf) => ({ path: { excludeNodes: [idOf('anna')], exitNodes: [idOf('exit')] } }),
      },
      { name: 'at-dora', on: cleo.machine('at-dora'), roles: ['client'], more: (idOf) => ({ path: { exitNodes: [idOf('dora')] } }) },
    ])
    await mesh.startAll(mesh.nodes.filter(({ id }) => id !== null))
    await Promise.all(['anna', 'bert', 'dora'].map((name) => punchable(mesh.node(name))))
    await differentRelay(mesh.node('dora'), [mesh.node('anna'), mesh.node('bert')])
  })
  afterAll(async () => {
    await mesh?.stop()
    await lab?.remove()
  })

  for (const middle of ['anna', 'bert']) {
    test(`a circuit through ${middle}, a middle at home, carries 50 MB by direct links`, async () => {
      await carries(`by-${middle}`, [middle, 'exit'], ['direct', 'reversed', 'punched-tcp'])
    })
  }

  test('an exit at home and a middle at home have a punched link', async () => {
    const { path, labels } = await carries('at-dora', ['dora'], ['direct', 'reversed', 'punched-tcp', 'punched-udp'])
    const [, middle] = path
    expect(labels.get(`${middle}-dora`)).toMatch(/^punched/)
  })

  /** Sends 50 MB through a circuit of the client, and sees that it is intact, what path it took and how the links were made. */
  async function carries(name: string, members: readonly string[], allowed: readonly LinkLabel[]) {
    const client = mesh.node(name)
    await client.start()
    try {
      await until(`${name} has a circuit`, 60_000, async () => (await client.curl(`${web}/`)).code === 0)
      const before = await observer.bytes()
      const relayedBefore = await relayedBytes()
      const fetched = await client.curl(`${web}/bytes/${transferBytes}`, '-o', `${client.dir}/fetched`, '-w', '%{time_total}')
      expect(fetched.code, fetched.log).toBe(0)
      const [sum] = (await client.machine.runOk('sha256sum', [`${client.dir}/fetched`])).split(' ')
      expect(sum).toBe(sha256OfBytes(transferBytes))
      const path = await usedPath(client)
      expect(path).toEqual(expect.arrayContaining([...members]))
      expect((await relayedBytes()) - relayedBefore).toBeLessThan(startBytes)
      const flows = await observer.flows()
      const labels = new Map<string, LinkLabel>()
      for (const [i, from] of path.slice(0, -1).entries()) {
        const to = path[i + 1]!
        const { label, flow } = labelLink(flows, lab.publicAddressesOf(from), lab.publicAddressesOf(to), before)
        labels.set(`${from}-${to}`, label)
        expect(allowed, `${from} to ${to}`).toContain(label)
        expect((flow?.bytesFromA ?? 0) + (flow?.bytesFromB ?? 0)).toBeGreaterThan(transferBytes)
      }
      return { path, labels }
    } finally {
      await client.stop()
    }
  }

  /** The names of the hops that the client's last used circuit went through. */
  async function usedPath(client: LabNode): Promise<readonly string[]> {
    const used = (await client.control.circuits()).filter(({ firstUsedAt }) => firstUsedAt !== null)
    const last = used.sort((a, b) => b.firstUsedAt! - a.firstUsedAt!)[0]
    return last?.path.map(({ id }) => mesh.nodes.find((node) => node.id === id)!.plan.name) ?? []
  }

  /** What all relays have carried for others. */
  async function relayedBytes(): Promise<number> {
    const all = await Promise.all(relays.map(async (name) => (await mesh.node(name).control.status()).natRelay!.bytes))
    return all.reduce((sum, { fromReserved, toReserved }) => sum + fromReserved + toReserved, 0)
  }

  async function punchable(node: LabNode): Promise<void> {
    await until(`${node.plan.name} is punchable`, 60_000, async () => {
      const facts = await node.control.nat()
      return facts?.state === 'punchable' && facts.relays.length > 0
    })
  }

  /** Chance may give all of them the same relay: then the node starts again. */
  async function differentRelay(node: LabNode, others: readonly LabNode[]): Promise<void> {
    const relayOf = async (one: LabNode): Promise<string | undefined> => (await one.control.nat())?.relays[0]?.relay
    const taken = await Promise.all(others.map(relayOf))
    for (let tries = 0; tries < 5; tries++) {
      const own = await relayOf(node)
      if (taken.some((relay) => relay !== own)) return
      await mesh.restart([node])
      await punchable(node)
    }
    throw new Error('all of them always have the same relay')
  }
})
