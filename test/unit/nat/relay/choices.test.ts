import { describe, expect, it } from 'vitest'
import { type NodeId, nodeIdFromKey, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import { areNeighbours, chooseRelay, type RelayCandidate } from '../../../../src/nat/relay/choose-relays.ts'
import { relayServerConfig, reservationsConfig } from '../../../../src/nat/relay/config.ts'
import { ConnectionQuota } from '../../../../src/nat/relay/connection-quota.ts'
import { RelayMemory } from '../../../../src/nat/relay/relay-memory.ts'
import { RequestRates } from '../../../../src/nat/relay/request-rates.ts'
import { addressKeys, ReservationTable } from '../../../../src/nat/relay/reservation-table.ts'

const id = (n: number): NodeId => nodeIdFromKey(Uint8Array.from({ length: 32 }, (_, i) => (i < 4 ? n >> (8 * i) : 1)))

function relay(n: number, ip: string, more: Partial<RelayCandidate> = {}): RelayCandidate {
  const family = ip.includes(':') ? 'ip6' : 'ip4'
  return { id: id(n), addresses: [`/${family}/${ip}/tcp/1`], ips: [parseIp(ip)], family: [], weight: 1, ...more }
}

const all = (): boolean => true

describe('the choice of relays', () => {
  it('takes no two of one /16, /32 or family, as long as there are others', () => {
    const first = relay(1, '198.51.100.1', { family: [id(4)] })
    const candidates = [
      first,
      relay(2, '198.51.200.2'), // its /16
      relay(4, '203.0.113.4', { family: [id(1)] }), // its family
      relay(5, '203.1.113.4'),
    ]
    for (let seed = 0; seed < 50; seed++) {
      const chosen = chooseRelay({ candidates, taken: [first], preferred: [id(2)], isUsable: all }, new SeededRandom(seed))
      expect(chosen?.id).toBe(id(5))
    }
    const alike = chooseRelay({ candidates: candidates.slice(0, 2), taken: [first], preferred: [], isUsable: all }, new SeededRandom(1))
    expect(alike?.id).toBe(id(2))
    expect(chooseRelay({ candidates: [first], taken: [first], preferred: [], isUsable: all }, new SeededRandom(1))).toBeNull()
  })

  it('knows neighbours', () => {
    expect(areNeighbours(relay(1, '2001:db8:1::1'), relay(2, '2001:db8:2::1'))).toBe(true)
    expect(areNeighbours(relay(1, '2001:db8:1::1'), relay(2, '2001:db9:1::1'))).toBe(false)
    // A family that only one of them declares is a claim, not a fact.
    expect(areNeighbours(relay(1, '1.1.0.1', { family: [id(2)] }), relay(2, '2.2.0.1'))).toBe(false)
    expect(areNeighbours(relay(1, '1.1.0.1'), relay(2, '2.2.0.1', { ips: [parseIp('2.2.0.1'), parseIp('1.1.200.1')] }))).toBe(true)
  })

  it('follows the weights, comes back to what is preferred, and leaves out what is not to be tried', () => {
    const candidates = [relay(1, '1.1.0.1', { weight: 900 }), relay(2, '2.2.0.1', { weight: 100 }), relay(3, '3.3.0.1', { weight: 0 })]
    const random = new SeededRandom(7)
    const counts = new Map<NodeId, number>()
    for (let i = 0; i < 5000; i++) {
      const chosen = chooseRelay({ candidates, taken: [], preferred: [], isUsable: all }, random)!
      counts.set(chosen.id, (counts.get(chosen.id) ?? 0) + 1)
    }
    expect(counts.get(id(1))! / counts.get(id(2))!).toBeGreaterThan(7)
    expect(counts.get(id(1))! / counts.get(id(2))!).toBeLessThan(11)
    expect(counts.get(id(3))).toBeGreaterThan(0)
    expect(chooseRelay({ candidates, taken: [], preferred: [id(9), id(3), id(1)], isUsable: all }, random)?.id).toBe(id(3))
    expect(chooseRelay({ candidates, taken: [], preferred: [id(3)], isUsable: (one) => one === id(2) }, random)?.id).toBe(id(2))
  })
})

describe('the memory of failures', () => {
  const config = reservationsConfig.parse({ retryMs: 1000, maxRetryMs: 60_000, refusedRetryMs: 10_000 })

  it('waits twice as long after each failure, and longer after a refusal', () => {
    const memory = new RelayMemory(config, new SeededRandom(1))
    for (const [failures, waitMs] of [
      [1, 1000],
      [2, 2000],
      [3, 4000],
      [4, 8000],
    ] as const) {
      memory.fail(id(1), false, 0)
      expect(memory.isUsable(id(1), false, waitMs - 1), `${failures}`).toBe(false)
      expect(memory.isUsable(id(1), false, waitMs * 1.25), `${failures}`).toBe(true)
    }
    for (let i = 0; i < 40; i++) memory.fail(id(1), false, 0)
    expect(memory.isUsable(id(1), false, 59_999)).toBe(false)
    expect(memory.isUsable(id(1), false, 75_000)).toBe(true)
    memory.fail(id(2), true, 0)
    expect(memory.isUsable(id(2), false, 9_999)).toBe(false)
    memory.succeed(id(1))
    expect(memory.isUsable(id(1), false, 0)).toBe(true)
  })

  it('lets nobody wait for long while there is no relay at all: it may be the own network that fails', () => {
    const memory = new RelayMemory(config, new SeededRandom(1))
    for (let i = 0; i < 10; i++) memory.fail(id(1), false, 5000)
    expect(memory.isUsable(id(1), false, 6000)).toBe(false)
    expect(memory.isUsable(id(1), true, 5999)).toBe(false)
    expect(memory.isUsable(id(1), true, 6000)).toBe(true)
  })

  it('is bounded', () => {
    const memory = new RelayMemory(config, new SeededRandom(1))
    for (let n = 0; n < 3000; n++) memory.fail(id(n), false, 0)
    expect(memory.isUsable(id(0), false, 1)).toBe(true)
    expect(memory.isUsable(id(2999), false, 1)).toBe(false)
  })
})

describe('the table of reservations', () => {
  it('counts addresses by /32 and /24, or /64 and /48; what is none is all one', () => {
    expect(addressKeys(parseIp('198.51.100.7'))).toEqual({ address: '198.51.100.7/32', network: '198.51.100.0/24' })
    expect(addressKeys(parseIp('2001:db8:1:2:3::4'))).toEqual({ address: '2001:db8:1:2::/64', network: '2001:db8:1::/48' })
    expect(addressKeys(parseIp('::ffff:198.51.100.7'))).toEqual(addressKeys(parseIp('198.51.100.7')))
    expect(addressKeys(null)).toEqual({ address: 'none', network: 'none' })
  })

  it('keeps its counts through renewals, moves, changes of standing and ends', () => {
    const random = new SeededRandom(3)
    const config = relayServerConfig.parse({
      maxReservations: 12,
      maxStrangerReservations: 4,
      reservationsPerAddress: 3,
      reservationsPerNetwork: 5,
    })
    const table = new ReservationTable(config)
    const held = new Map<NodeId, { address: string; isKnown: boolean }>()
    for (let i = 0; i < 5000; i++) {
      const peer = id(random.int(40))
      if (random.unit() < 0.3) {
        expect(table.release(peer)).toBe(held.delete(peer))
        continue
      }
      const address = `10.0.${random.int(3)}.${random.int(3)}`
      const isKnown = random.unit() < 0.6
      const verdict = table.reserve(peer, parseIp(address), isKnown, i)
      if (verdict.type !== 'refused') held.set(peer, { address, isKnown })
      const others = [...held].filter(([other]) => other !== peer).map(([, other]) => other)
      const isFull =
        others.length >= 12 ||
        (!isKnown && others.filter((other) => !other.isKnown).length >= 4) ||
        others.filter((other) => other.address === address).length >= 3 ||
        others.filter((other) => other.address.slice(0, 6) === address.slice(0, 6)).length >= 5
      expect(verdict.type === 'refused').toBe(isFull)
      expect([table.size, table.strangers]).toEqual([held.size, [...held.values()].filter((one) => !one.isKnown).length])
    }
  })

  it('remembers a bounded number of strangers', () => {
    const table = new ReservationTable(relayServerConfig.parse({ strangerGraceMs: 10, reservationMs: 1000 }))
    const ask = (n: number, now: number): string => {
      const verdict = table.reserve(id(n), parseIp('10.0.0.1'), false, now)
      table.release(id(n))
      return verdict.type
    }
    expect([ask(0, 0), ask(0, 9), ask(0, 10)]).toEqual(['granted', 'granted', 'refused'])
    for (let n = 1; n <= 4096; n++) ask(n, 10)
    expect(ask(4096, 20)).toBe('refused')
    expect(ask(0, 20)).toBe('granted')
  })
})

describe('the other limits', () => {
  it('of connections are given back', () => {
    const quota = new ConnectionQuota(
      relayServerConfig.parse({ connectionsPerPair: 1, connectionsPerDialler: 2, connectionsPerReservation: 2, maxConnections: 3 }),
    )
    expect(quota.take(id(1), id(2))).toBeNull()
    expect(quota.take(id(1), id(2))).toBe('pair-full')
    expect(quota.take(id(1), id(3))).toBeNull()
    expect(quota.take(id(1), id(4))).toBe('dialler-full')
    expect(quota.take(id(5), id(2))).toBeNull()
    expect(quota.take(id(6), id(2))).toBe('reservation-full')
    expect(quota.take(id(6), id(7))).toBe('connections-full')
    quota.release(id(1), id(2))
    expect(quota.take(id(6), id(2))).toBeNull()
    expect(quota.total).toBe(3)
  })

  it('of requests are for each key, with a burst of four seconds', () => {
    const rates = new RequestRates(2)
    const taken = (key: string, now: number): number => Array.from({ length: 20 }, () => rates.take(key, now)).filter(Boolean).length
    expect([taken('a', 0), taken('b', 0), taken('a', 1000), taken('a', 60_000)]).toEqual([8, 8, 2, 8])
    rates.configure(3)
    expect([taken('a', 60_000), taken('a', 61_000)]).toEqual([12, 3])
  })
})

describe('the defaults', () => {
  it('of the role say what the guide says', () => {
    const config = relayServerConfig.parse({})
    expect(Object.keys(config).length).toBeGreaterThan(15)
    // No bound that another makes meaningless.
    expect(config.maxStrangerReservations).toBeLessThan(config.maxReservations)
    expect(config.reservationsPerAddress).toBeLessThan(config.reservationsPerNetwork)
    expect(config.connectionBytesPerSecond).toBeLessThan(config.bytesPerSecond)
    expect(config.idleMs).toBeGreaterThan(2 * 20_000 + 20_000)
  })
})
