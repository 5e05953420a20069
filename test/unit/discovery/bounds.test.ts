import type { PeerInfo } from '@libp2p/interface'
import type { KadDHTComponents } from '@libp2p/kad-dht'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, test } from 'vitest'
import { nodeIdFromKey, SeededRandom } from '../../../src/base/index.ts'
import { parseRules, testnetRules, View } from '../../../src/directory/index.ts'
import { BAN_MS, BANS_MAX, Bans, PAUSE_MS } from '../../../src/discovery/bans.ts'
import { BoundedDatastore } from '../../../src/discovery/bounded-datastore.ts'
import { diversityFilter } from '../../../src/discovery/dht.ts'
import { quickRules, START, suite, testDescriptor, testRelay } from '../directory/support.ts'

const random = new SeededRandom(1)
const id = () => nodeIdFromKey(random.bytes(32))

type Key = Parameters<KadDHTComponents['datastore']['get']>[0]
const key = (name: string): Key => ({ toString: () => name }) as Key

describe('bans', () => {
  test('last an hour for a broken protocol, and some seconds for a peer that is not there', () => {
    const bans = new Bans()
    const [liar, absent] = [id(), id()]
    bans.ban(liar, 0)
    bans.pause(absent, 0)
    bans.pause(liar, 0)
    expect([bans.has(absent, PAUSE_MS - 1), bans.has(absent, PAUSE_MS)]).toEqual([true, false])
    expect([bans.isBanned(liar, BAN_MS - 1), bans.isBanned(liar, BAN_MS)]).toEqual([true, false])
  })

  test('are bounded', () => {
    const bans = new Bans()
    for (let i = 0; i < BANS_MAX + 10; i++) bans.ban(id(), 0)
    expect(bans.banned(1)).toHaveLength(BANS_MAX)
  })
})

describe('the store of the DHT', () => {
  test('forgets what was written longest ago', async () => {
    const store = new BoundedDatastore(3)
    for (let i = 0; i < 5; i++) store.put(key(`/a/${i}`), Uint8Array.of(i))
    expect(store.size).toBe(3)
    expect(store.has(key('/a/1'))).toBe(false)
    expect(() => store.get(key('/a/1'))).toThrow(expect.objectContaining({ name: 'NotFoundError' }))
    expect(store.get(key('/a/4'))).toEqual(Uint8Array.of(4))
    store.put(key('/b/1'), Uint8Array.of(9))
    expect([...store.query({ prefix: '/a' })].map(({ value }) => value[0])).toEqual([3, 4])
    expect([...store.queryKeys({ prefix: '/b' })].map(String)).toEqual(['/b/1'])
    const batch = store.batch()
    batch.delete(key('/b/1'))
    expect(store.size).toBe(3)
    await batch.commit()
    expect(store.size).toBe(2)
  })
})

describe('the routing table takes', () => {
  const peerAt = (...addresses: string[]): PeerInfo =>
    ({ id: { toString: () => id() }, multiaddrs: addresses.map((address) => multiaddr(address)) }) as unknown as PeerInfo

  test('no more peers of one network than the view would', () => {
    const rules = parseRules({ admission: { perNet24: 3 } })
    const filter = diversityFilter(rules, new View({ suite, rules }))
    const taken = Array.from({ length: 6 }, (_, i) => filter(peerAt(`/ip4/11.0.0.${i + 1}/tcp/1`)).multiaddrs.length)
    expect(taken).toEqual([1, 1, 1, 0, 0, 0])
    expect(filter(peerAt('/ip4/11.0.1.1/tcp/1')).multiaddrs).toHaveLength(1)
  })

  test('nobody behind NAT, whatever addresses it offers', () => {
    const rules = quickRules
    const view = new View({ suite, rules })
    const [home, relay] = [testRelay(random), testRelay(random)]
    const reach = { kind: 'relayed' as const, via: [relay.id], punchable: true }
    view.add(testDescriptor(home, rules, START, { reach, roles: ['middle'] }).bytes, START)
    view.add(testDescriptor(relay, rules, START, { addresses: ['/ip4/127.2.0.1/tcp/1'] }).bytes, START)
    const filter = diversityFilter(rules, view)
    const peer = (who: string): PeerInfo => ({ ...peerAt('/ip4/127.0.0.1/tcp/1'), id: { toString: () => who } }) as unknown as PeerInfo
    expect([home, relay].map((who) => filter(peer(who.id)).multiaddrs.length)).toEqual([0, 1])
  })

  test('only addresses that a relay may have', () => {
    const rules = parseRules({})
    const real = diversityFilter(rules, new View({ suite, rules }))
    expect(real(peerAt('/ip4/127.0.0.1/tcp/1', '/dns4/a.example/tcp/1', '/ip4/11.0.0.1/tcp/1')).multiaddrs.map(String)).toEqual([
      '/ip4/11.0.0.1/tcp/1',
    ])
    const testnet = parseRules(testnetRules)
    expect(diversityFilter(testnet, new View({ suite, rules: testnet }))(peerAt('/ip4/127.0.0.1/tcp/1')).multiaddrs).toHaveLength(1)
  })
})
