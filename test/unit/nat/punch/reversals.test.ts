import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, test } from 'vitest'
import type { ReachFacts } from '../../../../src/nat/facts.ts'
import { relayedAddress, startRelay, stopRelayedNodes, until } from '../../../support/relayed-nodes.ts'
import { type HiddenNode, type HiddenOptions, startHidden, stopHiddenNodes, type World } from './nodes.ts'

afterEach(async () => {
  await stopHiddenNodes()
  await stopRelayedNodes()
})

interface Pair {
  readonly world: World
  /** Seeks the other, which is behind NAT. */
  readonly seeker: HiddenNode
  readonly sought: HiddenNode
  /** The sought one through its relay. */
  readonly relayed: string
  readonly reach: () => Promise<ReachFacts>
}

async function pair(seekerIs: HiddenOptions = {}, soughtIs: HiddenOptions = {}): Promise<Pair> {
  const relay = await startRelay()
  const world: World = new Map()
  const seeker = await startHidden(world, relay, seekerIs)
  const sought = await startHidden(world, relay, soughtIs)
  await until('the reservation', () => sought.reservations.current().length === 1)
  const relayed = relayedAddress(relay, sought.id)
  const reach = () => seeker.puncher.reach(sought.id, [relayed], AbortSignal.timeout(15_000))
  return { world, seeker, sought, relayed, reach }
}

/** An ordinary libp2p connection, as for the view or for records. */
async function connect(from: HiddenNode, to: HiddenNode): Promise<void> {
  const address = to.host.addresses().find((text) => !text.endsWith('/tls'))!
  await from.host.libp2p.dial(multiaddr(`${address}/p2p/${to.id}`))
  await until('the connection at both ends', () => to.host.libp2p.getPeers().some((peer) => peer.toString() === from.id))
}

describe('a node behind NAT that has dialled the one which seeks it', () => {
  test('opens a direct link at once, though no relay is in it', async () => {
    const { seeker, sought, reach } = await pair({ isDirect: true })
    await connect(sought, seeker)
    const facts = await reach()
    expect(facts).toMatchObject({
      how: 'reversed',
      steps: ['over a connection that the peer had opened', 'the peer opened a direct link'],
    })
    expect(facts.upgradedMs).toBeGreaterThanOrEqual(facts.reachedMs!)
    expect(facts.upgradedMs).toBeLessThan(700)
    expect(seeker.host.directLink(sought.id)).toMatchObject({ direction: 'inbound', origin: 'accepted' })
    expect(
      seeker.host.libp2p.getConnections().some(({ limits, remotePeer }) => limits != null && remotePeer.toString() === sought.id),
    ).toBe(false)
    // The link is there, and still not of the seeker's making.
    expect(await reach()).toMatchObject({ how: 'reversed', steps: ['over a direct link that the peer had opened'] })
  })

  test('does so once the view has the other', async () => {
    const { world, seeker, sought, relayed } = await pair({ isDirect: true })
    const known = world.get(seeker.id)!
    world.delete(seeker.id)
    await connect(sought, seeker)
    const channel = await seeker.host.dialer.openChannel(sought.id, [relayed], AbortSignal.timeout(5000))
    channel.attach({ cells: () => {}, drained: () => {}, ended: () => {} })
    await new Promise((resolve) => setTimeout(resolve, 250))
    expect(channel.kind).toBe('libp2p')
    world.set(seeker.id, known)
    await until('the channel to move', () => channel.kind === 'tls')
    channel.abort()
  })

  test('dials nobody whose descriptor names no address to dial; the answer says whose connection it is, and does not wait', async () => {
    const { seeker, sought, reach } = await pair()
    await connect(sought, seeker)
    const startedAt = performance.now()
    expect(await reach()).toMatchObject({ how: 'reversed', steps: ['over a connection that the peer had opened'] })
    expect(performance.now() - startedAt).toBeLessThan(700)
    expect(sought.host.directLink(seeker.id)).toBeNull()
  })

  test('tries a dead address once, and not again before its time', async () => {
    const calls: string[] = []
    const counts: HiddenOptions = {
      prepare: (host) =>
        Object.assign(host, {
          connectDirect: async (id: string) => {
            calls.push(id)
            throw new Error('no answer')
          },
        }),
    }
    const { seeker, sought, reach } = await pair({ isDirect: true }, counts)
    await connect(sought, seeker)
    const facts = await reach()
    // It waits a moment for the peer, and says what there is.
    expect(facts).toMatchObject({ how: 'reversed', upgradedMs: facts.reachedMs, steps: ['over a connection that the peer had opened'] })
    await reach()
    expect(calls).toEqual([seeker.id])
    sought.puncher.networkChanged()
    await reach()
    expect(calls).toEqual([seeker.id, seeker.id])
  })
})

describe('what reach says', () => {
  test('direct, of a connection that this node has opened', async () => {
    const { seeker, sought, reach } = await pair()
    await connect(seeker, sought)
    const facts = await reach()
    expect(facts).toMatchObject({ how: 'direct', upgradedMs: facts.reachedMs, steps: ['over a connection that was there'] })
    await seeker.host.connectDirect(sought.id, sought.host.addresses(), AbortSignal.timeout(5000))
    expect(await reach()).toMatchObject({ how: 'direct', steps: ['over a direct link that was there'] })
  })

  test('direct, of a link that is dialled for it', async () => {
    const { seeker, sought } = await pair()
    const facts = await seeker.puncher.reach(sought.id, sought.host.addresses(), AbortSignal.timeout(5000))
    expect(facts).toMatchObject({ how: 'direct', upgradedMs: facts.reachedMs, steps: ['over a direct link that was dialled'] })
  })

  test('reversed through a relay, with what was tried', async () => {
    const { reach } = await pair({ isDirect: true })
    const { how, steps } = await reach()
    expect(how).toBe('reversed')
    expect([steps[0], steps.at(-1)]).toEqual(['through a relay', 'the peer opened a direct link'])
  })
})

describe('the relayed connection', () => {
  const none: HiddenOptions = { prepare: (host) => Object.assign(host, { preparePunching: async () => {} }), config: { webrtc: false } }

  test('is not cut as soon as the peer is linked directly, however old it is', async () => {
    const { seeker, sought, reach } = await pair(none, none)
    expect((await reach()).how).toBe('relayed')
    const through = () => seeker.host.libp2p.getConnections().filter((one) => one.remotePeer.toString() === sought.id && one.limits != null)
    // Longer than it is left alone after the upgrade.
    await new Promise((resolve) => setTimeout(resolve, 700))
    await sought.host.connectDirect(seeker.id, seeker.host.addresses(), AbortSignal.timeout(5000))
    const linkedAt = performance.now()
    await until('the relayed connection to be closed', () => through().length === 0)
    expect(performance.now() - linkedAt).toBeGreaterThan(550)
    expect(seeker.host.directLink(sought.id)).not.toBeNull()
  })
})
