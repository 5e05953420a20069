import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, test } from 'vitest'
import type { NodeId } from '../../../../src/base/index.ts'
import { encodeEndpoint, frameHolePunch, type HolePunch, HolePunchDecoder, PUNCH_PROTOCOL } from '../../../../src/nat/punch/hole-punch.ts'
import { directEndpoint, SIGNALLING_PROTOCOL } from '../../../../src/nat/punch/index.ts'
import { relayedAddress, startRelay, stopRelayedNodes, type TestRelay, until } from '../../../support/relayed-nodes.ts'
import { type HiddenNode, type HiddenOptions, startHidden, stopHiddenNodes, type World } from './nodes.ts'

afterEach(async () => {
  await stopHiddenNodes()
  await stopRelayedNodes()
})

const noTcp: HiddenOptions = { prepare: (host) => Object.assign(host, { preparePunching: async () => {} }) }
/** Quick to give up. */
const hasty = {
  rounds: 1,
  roundTimeoutMs: 300,
  answerTimeoutMs: 500,
  reverseTimeoutMs: 300,
  udpTimeoutMs: 1000,
  udpTries: 1,
  webrtc: false,
}

interface Pair {
  readonly relay: TestRelay
  readonly world: World
  readonly seeker: HiddenNode
  readonly sought: HiddenNode
  readonly address: string
}

async function pair(seekerIs: HiddenOptions = {}, soughtIs: HiddenOptions = {}): Promise<Pair> {
  const relay = await startRelay()
  const world: World = new Map()
  const seeker = await startHidden(world, relay, seekerIs)
  const sought = await startHidden(world, relay, soughtIs)
  await until('reservations', () => seeker.reservations.current().length === 1 && sought.reservations.current().length === 1)
  return { relay, world, seeker, sought, address: relayedAddress(relay, sought.id) }
}

const signal = () => AbortSignal.timeout(15_000)
const reach = ({ seeker, sought, address }: Pair) => seeker.puncher.reach(sought.id, [address], signal())

describe('two nodes that know each other through a relay', () => {
  test('meet over TCP, and both have the link', async () => {
    const both = await pair()
    const facts = await reach(both)
    expect(facts).toMatchObject({ peer: both.sought.id, how: 'punched-tcp' })
    expect(facts.upgradedMs).toBeGreaterThanOrEqual(facts.reachedMs!)
    await until('both know', () => both.seeker.upgrades.length === 1 && both.sought.upgrades.length === 1)
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(both.seeker.host.directLink(both.sought.id)).toMatchObject({ origin: 'punched', direction: 'outbound' })
    expect(both.sought.host.directLink(both.seeker.id)).toMatchObject({ origin: 'punched', direction: 'inbound' })
    expect(both.sought.upgrades[0]!.steps.at(-1)).toBe('a direct link is up')
  })

  test('meet by reversal where the seeker can be dialled, which counts as no punch', async () => {
    const both = await pair({ isDirect: true })
    expect((await reach(both)).how).toBe('reversed')
    await until('the upgrade', () => both.sought.upgrades.length === 1)
    expect(both.sought.upgrades[0]).toMatchObject({ how: 'reversed', peer: both.seeker.id })
    expect(both.seeker.host.directLink(both.sought.id)?.origin).toBe('accepted')
  })

  test('meet over UDP where TCP is not to be had', async () => {
    const both = await pair(noTcp, noTcp)
    expect(both.seeker.puncher.lost).toHaveLength(1)
    expect((await reach(both)).how).toBe('punched-udp')
    const direct = both.seeker.host.libp2p.getConnections().find((one) => one.remoteAddr.toString() === `/webrtc/p2p/${both.sought.id}`)
    expect(direct).toMatchObject({ limits: undefined, status: 'open' })
    await until('both know', () => both.sought.upgrades.length === 1)
  })

  test('stay on the relay when punching is off on either side, at once', async () => {
    const off = { config: { enabled: false } }
    const both = await pair(off, {})
    const facts = await reach(both)
    expect(facts).toMatchObject({ how: 'relayed', upgradedMs: null })
    expect(both.seeker.host.libp2p.getProtocols()).not.toContain(PUNCH_PROTOCOL)
    expect(both.seeker.puncher.lost).toEqual([])
  })

  test('meet once when each has dialled the other', async () => {
    const both = await pair()
    const { seeker, sought, relay } = both
    const channels = await Promise.all([
      seeker.host.dialer.openChannel(sought.id, [relayedAddress(relay, sought.id)], signal()),
      sought.host.dialer.openChannel(seeker.id, [relayedAddress(relay, seeker.id)], signal()),
    ])
    await until('the link', () => seeker.host.directLink(sought.id) !== null && sought.host.directLink(seeker.id) !== null)
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(seeker.host.directLink(sought.id)?.origin).toBe('punched')
    for (const channel of channels) channel.abort()
  })

  test('leave the relay to others once they have met', async () => {
    const both = await pair()
    await reach(both)
    const through = () => both.seeker.host.libp2p.getConnections().filter((one) => one.remoteAddr.toString().includes('p2p-circuit'))
    expect(through()).toHaveLength(1)
    await until('the relayed connection to be closed', () => through().length === 0)
    expect(both.seeker.host.directLink(both.sought.id)).not.toBeNull()
  })
})

describe('what could turn a node on others', () => {
  test('a peer that is not in the view is not met', async () => {
    const both = await pair({ isUnknown: true, config: hasty }, { config: hasty })
    const dialled: unknown[] = []
    Object.assign(both.sought.host, { punch: async (target: unknown) => void dialled.push(target) })
    const channel = await both.seeker.host.dialer.openChannel(both.sought.id, [both.address], signal())
    await new Promise((resolve) => setTimeout(resolve, 600))
    expect(dialled).toEqual([])
    expect(both.sought.upgrades).toEqual([])
    channel.abort()
  })

  test('a peer that names addresses of others is not met there, and is left alone for a while', async () => {
    // Its descriptor has another address than those it offers.
    const elsewhere = { endpoints: directEndpoint('/ip4/127.99.0.1/tcp/4460/tls') }
    const both = await pair({ place: elsewhere, config: hasty }, { config: hasty })
    const dialled: unknown[] = []
    Object.assign(both.sought.host, { punch: async (target: unknown) => void dialled.push(target) })
    expect((await reach(both)).how).toBe('relayed')
    expect(dialled).toEqual([])
    const again = await reach(both)
    expect(again.steps).not.toContain('TCP from both sides, round 1')
  })
})

describe('hostile peers', () => {
  /** What a seeker does in place of answering by the protocol. */
  async function answering(
    how: (messages: HolePunch[], send: (bytes: Uint8Array) => void) => void,
  ): Promise<Pair & { punches: unknown[]; asked: () => number }> {
    let asked = 0
    const both = await pair({ config: { enabled: false } }, { config: hasty })
    both.world.set(both.seeker.id, { place: { endpoints: both.seeker.host.addresses().flatMap(directEndpoint) }, directAddresses: [] })
    const punches: unknown[] = []
    Object.assign(both.sought.host, {
      punch: async (target: unknown) => {
        punches.push(target)
        throw new Error('nobody there')
      },
    })
    await both.seeker.host.libp2p.handle(
      PUNCH_PROTOCOL,
      (stream) => {
        asked++
        const decoder = new HolePunchDecoder()
        stream.addEventListener('message', (event) => {
          try {
            how(decoder.push(event.data instanceof Uint8Array ? event.data : event.data.subarray()), (bytes) => void stream.send(bytes))
          } catch {
            // The other side has closed it.
          }
        })
      },
      { runOnLimitedConnection: true },
    )
    return { ...both, punches, asked: () => asked }
  }

  /** Long enough for the other side to have ended its attempt. */
  async function attempt({ sought, seeker, address }: Pair): Promise<void> {
    const channel = await seeker.host.dialer.openChannel(sought.id, [address], signal())
    await new Promise((resolve) => setTimeout(resolve, 800))
    channel.abort()
  }

  test.each<[string, (messages: HolePunch[], send: (bytes: Uint8Array) => void) => void]>([
    ['noise', (_messages, send) => send(Uint8Array.from({ length: 200 }, (_, i) => (i * 37) & 0xff))],
    ['silence', () => {}],
    ['SYNC', (_messages, send) => send(frameHolePunch({ type: 'sync', addresses: [] }))],
    [
      'thousands of addresses',
      (_messages, send) => send(frameHolePunch({ type: 'connect', addresses: Array.from({ length: 2000 }, () => new Uint8Array(30)) })),
    ],
    [
      'addresses of others',
      (_messages, send) =>
        send(
          frameHolePunch({
            type: 'connect',
            addresses: [
              encodeEndpoint(directEndpoint('/ip4/127.98.0.1/tcp/4460/tls')[0]!),
              encodeEndpoint(directEndpoint('/ip4/127.0.0.1/tcp/22/tls')[0]!),
            ],
          }),
        ),
    ],
  ])('get no SYN for %s', async (_what, how) => {
    const both = await answering(how)
    await attempt(both)
    expect(both.punches).toEqual([])
    expect(both.asked()).toBe(1)
  })

  test('a pair that could not meet is not tried again before its time, whatever connections come', async () => {
    const both = await answering((messages, send) => {
      const place = both.seeker.host.addresses().flatMap(directEndpoint)
      if (messages[0]?.type === 'connect') send(frameHolePunch({ type: 'connect', addresses: place.map(encodeEndpoint) }))
    })
    await attempt(both)
    expect(both.punches).toHaveLength(1)
    for (const connection of both.seeker.host.libp2p.getConnections()) {
      if (connection.remoteAddr.toString().includes('p2p-circuit')) connection.abort(new Error('again'))
    }
    await attempt(both)
    expect(both.punches).toHaveLength(1)
    both.sought.puncher.networkChanged()
    await attempt(both)
    expect(both.punches).toHaveLength(2)
  })

  test('who asks without having been dialled through a relay is refused', async () => {
    const { seeker, sought } = await pair({ config: hasty }, { config: hasty })
    const connection = await seeker.host.libp2p.dial(
      multiaddr(`${sought.host.addresses().find((text) => !text.endsWith('/tls'))}/p2p/${sought.id}`),
    )
    for (const protocol of [PUNCH_PROTOCOL, SIGNALLING_PROTOCOL]) {
      const stream = await connection.newStream(protocol, { negotiateFully: true }).catch(() => null)
      if (stream === null) continue
      await until('the reset', () => stream.status !== 'open', 2000)
    }
    expect(sought.upgrades.filter(({ how }) => how.startsWith('punched'))).toEqual([])
  })
})

describe('a machine without the libraries', () => {
  test('says what it lost and stays on the relay', async () => {
    const without: HiddenOptions = {
      ...noTcp,
      config: { ...hasty, webrtc: false },
    }
    const both = await pair(without, without)
    expect(both.seeker.puncher.lost.join()).toMatch(/no hole punching over TCP .*relay/)
    expect(both.seeker.puncher.ways).toEqual({ tcp: false, udp: false })
    expect((await reach(both)).how).toBe('relayed')
  })

  test('an id that nobody has is unreachable, with a reason', async () => {
    const { seeker, relay } = await pair()
    const nobody = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw' as NodeId
    const facts = await seeker.puncher.reach(nobody, [relayedAddress(relay, nobody)], signal())
    expect(facts).toMatchObject({ how: 'unreachable', reachedMs: null, upgradedMs: null })
    expect(facts.steps).toHaveLength(1)
  })
})
