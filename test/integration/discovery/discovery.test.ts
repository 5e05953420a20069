import { afterEach, describe, expect, test } from 'vitest'
import { type NodeId, nodeIdFromKey } from '../../../src/base/index.ts'
import {
  decodeSyncRequest,
  encodeGossip,
  encodeSyncAnswer,
  type NetworkRules,
  signDescriptor,
  solveWork,
  workPeriod,
} from '../../../src/directory/index.ts'
import { FrameStream } from '../../../src/discovery/frames.ts'
import { DHT_PROTOCOL, GOSSIP_PROTOCOL, recordKey, VIEW_PROTOCOL } from '../../../src/discovery/index.ts'
import { Peers } from '../../../src/discovery/peers.ts'
import { createHost, type Host } from '../../../src/link/index.ts'
import {
  bootstrapAddress,
  type DiscoveryNode,
  meshRules,
  meshSuite,
  type NodeOptions,
  startNode,
  until,
} from '../../support/discovery-mesh.ts'

const running = new Set<DiscoveryNode>()
const hosts = new Set<Host>()
/** How far the nodes' clocks are ahead of the machine's, ms. */
let ahead = 0

afterEach(async () => {
  await Promise.all([...running].map((node) => node.stop()))
  await Promise.all([...hosts].map((host) => host.stop()))
  running.clear()
  hosts.clear()
  ahead = 0
})

async function start(options: NodeOptions): Promise<DiscoveryNode> {
  const node = await startNode({ now: () => Date.now() + ahead, ...options })
  running.add(node)
  return node
}

async function stop(...nodes: DiscoveryNode[]): Promise<void> {
  for (const node of nodes) running.delete(node)
  await Promise.all(nodes.map((node) => node.stop()))
}

async function bareHost(net: number): Promise<Host> {
  const host = (await createHost({ key: meshSuite.random(32), mode: 'server', listen: [`/ip4/127.${net}.0.1/tcp/0`] })) as Host
  hosts.add(host)
  return host
}

/** One bootstrap node and as many others as make `count`. */
async function mesh(
  count: number,
  changes: Parameters<typeof meshRules>[0] = {},
): Promise<{ rules: NetworkRules; boot: DiscoveryNode; nodes: DiscoveryNode[] }> {
  const boot = await start({ rules: meshRules(changes), net: 1 })
  const rules = meshRules({ ...changes, bootstrap: [bootstrapAddress(boot)] })
  const others = await Promise.all(Array.from({ length: count - 1 }, (_, i) => start({ rules, net: i + 2 })))
  return { rules, boot, nodes: [boot, ...others] }
}

const everybodyKnows = (nodes: readonly DiscoveryNode[], size: number) => (): boolean => nodes.every(({ view }) => view.size === size)

describe('a mesh of serving nodes', () => {
  test('comes to know all of itself, and a node that joins late is known to all soon', async () => {
    const { rules, nodes } = await mesh(8)
    await until('everybody knows everybody', everybodyKnows(nodes, 8))
    const roots = new Set(nodes.map(({ view }) => Buffer.from(view.buckets.root()).toString('hex')))
    expect(roots.size).toBe(1)
    const late = await start({ rules, net: 20 })
    await until('the late one is known, and knows', everybodyKnows([...nodes, late], 9))
    expect(late.discovery.state).toBe('joined')
  })

  test('hears of a change at once, without waiting for the next pull', async () => {
    const { nodes } = await mesh(5, { spread: { joinSyncMs: 200, syncMs: 60_000 } })
    await until('everybody knows everybody', everybodyKnows(nodes, 5))
    await until('all are linked', () => nodes.every(({ discovery }) => discovery.status.gossipLinks === 4))
    const changed = nodes[3]!
    const before = changed.discovery.own!.descriptor.sequence
    changed.discovery.changed()
    await until('the change is known to all', () => nodes.every(({ view }) => view.get(changed.id)!.descriptor.sequence > before), 3_000)
  })

  test('takes a node back that has only its disk, with no bootstrap node alive', async () => {
    const { rules, boot, nodes } = await mesh(5)
    await until('everybody knows everybody', everybodyKnows(nodes, 5))
    const leaving = nodes[4]!
    await stop(leaving)
    await stop(boot)
    const back = await start({ rules, net: 6, seed: leaving.seed, store: leaving.store })
    expect(back.view.size).toBeGreaterThanOrEqual(4)
    await back.discovery.whenJoined(AbortSignal.timeout(10_000))
    const { sequence } = back.discovery.own?.descriptor ?? { sequence: 0 }
    expect(sequence).toBeGreaterThan(leaving.discovery.own!.descriptor.sequence)
    await until('the others have its new edition', () =>
      nodes.slice(1, 4).every(({ view }) => view.get(back.id)?.descriptor.sequence === back.discovery.own?.descriptor.sequence),
    )
  })

  test('takes a node back whose stored view has expired', async () => {
    const { rules, boot, nodes } = await mesh(4)
    await until('everybody knows everybody', everybodyKnows(nodes, 4))
    const leaving = nodes[3]!
    const stored = leaving.view.relays().map(({ signed }) => signed)
    await stop(leaving, boot)
    const back = await start({ rules, net: 6, seed: leaving.seed, store: leaving.store })
    // As if the node had been away for longer than descriptors live: only places are left.
    back.view.expire(Date.now() + 86_400_000)
    expect([back.view.size, back.view.stale().length]).toEqual([0, stored.length])
    await until('it is back', () => back.view.size >= 3)
  })

  test('keeps the records of its relays in the DHT', async () => {
    const { nodes } = await mesh(6)
    await until('everybody knows everybody', everybodyKnows(nodes, 6))
    await until('routing tables are full', () => nodes.every(({ discovery }) => (discovery.status.dhtPeers ?? 0) >= 5))
    const [asking, asked] = [nodes[1]!, nodes[4]!]
    const dht = (
      asking.host.libp2p.services as never as {
        dht: { get(key: Uint8Array, options: object): AsyncIterable<{ name: string; value?: Uint8Array }> }
      }
    ).dht
    await until('announced', () => asked.discovery.own !== null)
    let found: Uint8Array | undefined
    for (let tries = 0; tries < 20 && !found; tries++) {
      for await (const event of dht.get(recordKey(asked.id), { signal: AbortSignal.timeout(5_000) }))
        if (event.name === 'VALUE') found = event.value
      if (!found) await new Promise((resolve) => setTimeout(resolve, 250))
    }
    expect(asking.view.inspect(found!, Date.now(), asked.id)).toBeNull()
  })
})

describe('a node behind NAT', () => {
  test('joins and asks before it can say anything, and is known to all as soon as it can', async () => {
    const { rules, nodes, boot } = await mesh(4, { spread: { joinSyncMs: 200, syncMs: 60_000 } })
    await until('everybody knows everybody', everybodyKnows(nodes, 4))
    let isKnown = false
    const home = await start({
      rules,
      net: 30,
      says: (direct) => (isKnown ? { ...direct, reach: { kind: 'relayed', via: [boot.id], punchable: true }, roles: ['middle'] } : null),
    })
    await home.discovery.whenJoined(AbortSignal.timeout(10_000))
    await until('it knows the others', () => home.view.size === 4)
    expect([home.discovery.own, home.discovery.status.gossipLinks]).toEqual([null, 0])
    isKnown = true
    home.discovery.changed()
    await until('all know it', everybodyKnows([...nodes, home], 5), 3_000)
    expect(boot.view.get(home.id)!.descriptor.reach).toEqual({ kind: 'relayed', via: [boot.id], punchable: true })

    // News reach it over the links that it has opened itself.
    await until('it takes part in gossip', () => home.discovery.status.gossipLinks > 0)
    const before = nodes[2]!.discovery.own!.descriptor.sequence
    nodes[2]!.discovery.changed()
    await until('it hears of a change', () => home.view.get(nodes[2]!.id)!.descriptor.sequence > before, 3_000)

    // Nobody dials it, and the DHT is not served by it.
    for (const node of nodes) {
      const { dht } = node.host.libp2p.services as never as { dht: { routingTable: { find(id: unknown): Promise<unknown> } } }
      expect(await dht.routingTable.find(home.host.libp2p.peerId)).toBeUndefined()
      const dialled = node.host.libp2p.getConnections(home.host.libp2p.peerId).filter(({ direction }) => direction === 'outbound')
      expect(dialled).toEqual([])
    }
    expect(home.host.libp2p.getProtocols()).not.toContain(DHT_PROTOCOL)
    expect(home.discovery.status.dhtPeers).toBeGreaterThan(0)
  })

  test('serves the DHT when it turns out to be reached directly, and no more when not', async () => {
    const { rules, nodes, boot } = await mesh(3)
    let isDirect = false
    const node = await start({
      rules,
      net: 31,
      says: (direct) =>
        isDirect ? direct : { ...direct, reach: { kind: 'relayed', via: [boot.id], punchable: false }, roles: ['middle'] },
    })
    const serves = (): boolean => node.host.libp2p.getProtocols().includes(DHT_PROTOCOL)
    await until('it is known', everybodyKnows([...nodes, node], 4))
    expect(serves()).toBe(false)
    isDirect = true
    node.discovery.changed()
    await until('it serves the DHT', serves)
    await until('it is known as direct', () => boot.view.get(node.id)?.descriptor.reach.kind === 'direct')
    isDirect = false
    // Changes that overlap end in what holds last.
    for (let i = 0; i < 5; i++) node.discovery.changed()
    await until('it serves it no more', () => !serves())
  })

  test('whose NAT changes five times in a row is known to all as it is at last', async () => {
    const { rules, nodes, boot } = await mesh(4, { spread: { joinSyncMs: 50, syncMs: 120_000 } })
    let bandwidth = 1
    const home = await start({
      rules,
      net: 32,
      // Its records would bring the editions as well.
      dht: false,
      says: (direct) => ({ ...direct, bandwidth, reach: { kind: 'relayed', via: [boot.id], punchable: true }, roles: ['middle'] }),
    })
    await until('it is known', everybodyKnows([...nodes, home], 5))
    await until('all are linked', () => home.discovery.status.gossipLinks === 4)
    // Longer than the rounds in which a node that joins asks for news: from here on it is gossip alone.
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    for (bandwidth = 2; bandwidth < 8; bandwidth++) {
      home.discovery.changed()
      const { sequence } = home.discovery.own!.descriptor
      await until('another edition', () => home.discovery.own!.descriptor.sequence > sequence)
    }
    const { sequence } = home.discovery.own!.descriptor
    const haveLast = (): boolean => nodes.every(({ view }) => view.get(home.id)?.descriptor.sequence === sequence)
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    expect(haveLast(), 'more editions at once than are handed on').toBe(false)
    ahead += 25_000
    await until('all have the last', haveLast, 5_000)
  })
})

describe('a client', () => {
  test('learns the view and leaves no trace in views, routing tables and protocols', async () => {
    const { rules, nodes } = await mesh(5)
    await until('everybody knows everybody', everybodyKnows(nodes, 5))
    const guards: NodeId[] = []
    const client = await start({ rules, net: 50, mode: 'client', peers: () => guards })
    await client.discovery.whenJoined(AbortSignal.timeout(10_000))
    expect(client.view.size).toBe(5)
    expect(
      client.host.libp2p.getProtocols().filter((protocol) => [VIEW_PROTOCOL, GOSSIP_PROTOCOL, DHT_PROTOCOL].includes(protocol)),
    ).toEqual([])
    // From its first guard on it asks nobody else.
    guards.push(nodes[2]!.id)
    const { complete } = client.discovery.status.pulls.bootstrap
    await until('it asks its guard', () => client.discovery.status.pulls.guard.complete >= 2)
    const late = await start({ rules, net: 21 })
    client.discovery.refresh()
    await until('it hears of the late relay', () => client.view.isKnown(late.id))
    expect(client.discovery.status.pulls.bootstrap.complete - complete).toBeLessThanOrEqual(1)
    const peers = new Set(client.host.libp2p.getConnections().map(({ remotePeer }) => remotePeer.toString()))
    expect([...peers].sort()).toEqual([nodes[0]!.id, nodes[2]!.id].sort())
    for (const node of nodes) {
      expect(node.view.get(client.id)).toBeUndefined()
      const { routingTable } = (node.host.libp2p.services as never as { dht: { routingTable: { find(id: unknown): Promise<unknown> } } })
        .dht
      expect(await routingTable.find(client.host.libp2p.peerId)).toBeUndefined()
    }
  })

  test('goes on with its guard when the bootstrap node is gone, and back to the disk after a restart', async () => {
    const { rules, boot, nodes } = await mesh(4)
    await until('everybody knows everybody', everybodyKnows(nodes, 4))
    const guard = nodes[2]!
    const first = await start({ rules, net: 50, mode: 'client', peers: () => [guard.id] })
    await first.discovery.whenJoined(AbortSignal.timeout(10_000))
    await stop(first, boot)
    const second = await start({ rules, net: 50, mode: 'client', store: first.store, peers: () => [guard.id] })
    expect(second.id).not.toBe(first.id)
    await second.discovery.whenJoined(AbortSignal.timeout(10_000))
    expect(second.host.libp2p.getConnections().map(({ remotePeer }) => remotePeer.toString())).toEqual([guard.id])
  })
})

describe('a hostile peer', () => {
  test('that serves invalid descriptors is dropped and named, and the node joins through others', async () => {
    const { boot, rules: plain } = await mesh(3)
    await until('the mesh is there', () => boot.view.size === 3)
    const liar = await bareHost(30)
    let asked = 0
    await liar.libp2p.handle(VIEW_PROTOCOL, async (stream) => {
      const frames = new FrameStream(stream, 10_000)
      for (;;) {
        const frame = await frames.read(AbortSignal.timeout(5_000)).catch(() => null)
        if (!frame) return
        asked++
        const request = decodeSyncRequest(frame)
        const bad = new Uint8Array(300).fill(asked)
        const digest = Buffer.from(meshSuite.sha256(bad).subarray(0, 16)).toString('hex')
        if (request.type === 'summary')
          frames.send(
            encodeSyncAnswer({ type: 'summary', relays: 9, root: bad.slice(0, 16), digests: new Array(256).fill(bad.slice(0, 16)) }),
          )
        else if (request.type === 'list') {
          const lists = request.buckets.map((b) => [b, b === 7 ? [{ tag: '0700000000000001', sequence: 1, digest }] : []] as const)
          frames.send(encodeSyncAnswer({ type: 'list', buckets: new Map(lists) }))
        } else {
          asked--
          frames.send(encodeSyncAnswer({ type: 'fetch', descriptors: [new Uint8Array(300).fill(asked)] }))
        }
      }
    })
    const liarAddress = `${liar.addresses().find((address) => !address.endsWith('/tls'))}/p2p/${liar.id}`
    const rules = { ...plain, bootstrap: [liarAddress, ...plain.bootstrap] }
    const node = await start({ rules, net: 31 })
    await until('the node has joined', () => node.view.size === 4)
    await until('the liar is named', () => node.discovery.status.banned === 1)
    const before = asked
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    expect(asked).toBe(before)
  })

  test('that floods invalid descriptors by gossip is cut off at the first, and never gets in without one of its own', async () => {
    const { boot, rules, nodes } = await mesh(3)
    await until('the mesh is there', everybodyKnows(nodes, 3))
    const hostile = await bareHost(40)
    const signal = AbortSignal.timeout(10_000)
    const peers = new Peers(hostile.libp2p, 5_000)
    const target = { id: boot.id, addresses: [boot.address] }

    // Another relay's descriptor does not do.
    const first = new FrameStream(await peers.openStream(target, GOSSIP_PROTOCOL, signal), 200_000)
    first.send(encodeGossip({ type: 'hello', networkId: boot.view.networkId, descriptor: nodes[1]!.discovery.own!.bytes }))
    await until('it is refused', () => !first.isOpen)

    const seed = meshSuite.random(32)
    const relay = (await createHost({ key: seed, mode: 'server', listen: ['/ip4/127.42.0.1/tcp/0'] })) as Host
    hosts.add(relay)
    const own = signed(rules, seed, relay.addresses())
    const link = new FrameStream(await new Peers(relay.libp2p, 5_000).openStream(target, GOSSIP_PROTOCOL, signal), 200_000)
    link.send(encodeGossip({ type: 'hello', networkId: boot.view.networkId, descriptor: own }))
    expect(await link.read(signal)).not.toBeNull()
    await until('the hostile relay is known to all', () => nodes.every(({ view }) => view.isKnown(relay.id)))

    let sent = 0
    const bad = Array.from({ length: 32 }, (_, i) => own.slice().fill(i, own.length - 1))
    while (link.isOpen && sent < 5_000) {
      link.send(encodeGossip({ type: 'descriptors', descriptors: bad }))
      sent++
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    expect(link.isOpen).toBe(false)
    expect(sent).toBeLessThan(5_000)
    expect(nodes.every(({ view }) => view.size === 4)).toBe(true)
    await expect(new Peers(relay.libp2p, 5_000).openStream(target, GOSSIP_PROTOCOL, signal)).rejects.toThrow('no room')
  })

  test('that puts invalid records into the DHT stores nothing', async () => {
    const { nodes } = await mesh(3)
    await until('the mesh is there', everybodyKnows(nodes, 3))
    const [node] = nodes
    const { dht } = node!.host.libp2p.services as never as {
      dht: { validators: Record<string, (key: Uint8Array, value: Uint8Array) => unknown> }
    }
    const check = dht.validators['shallot-relay']!
    const own = nodes[1]!.discovery.own!
    expect(() => check(recordKey(own.descriptor.id), own.bytes)).not.toThrow()
    expect(() => check(recordKey(nodes[2]!.id), own.bytes)).toThrow('foreign')
    expect(() => check(recordKey(own.descriptor.id), own.bytes.slice(1))).toThrow('malformed')
    expect(() => check(new TextEncoder().encode('/shallot-relay/nobody'), own.bytes)).toThrow()
  })
})

function signed(rules: NetworkRules, seed: Uint8Array, addresses: readonly string[]): Uint8Array {
  const suite = meshSuite
  const publishedAt = Date.now()
  const period = workPeriod(publishedAt, rules.work.periodMs)
  const id = nodeIdFromKey(suite.ed25519.keyPair(seed).publicKey)
  const networkId = running.values().next().value!.view.networkId
  return signDescriptor(suite, seed, {
    sequence: publishedAt,
    publishedAt,
    expiresAt: publishedAt + rules.descriptors.lifetimeMs,
    onionKey: { x25519: seed },
    addresses,
    reach: { kind: 'direct' },
    roles: ['middle'],
    exitPolicy: null,
    bandwidth: 1,
    family: [],
    protocols: { circuit: [1], link: [1], packet: [] },
    leaving: false,
    software: '',
    work: { period, nonce: solveWork(suite, { networkId, id, period }, rules.work.bits) },
  }).bytes
}
