import { describe, expect, test } from 'vitest'
import { relayingConfig } from '../../../src/relaying/index.ts'
import { PeerQuota } from '../../../src/relaying/peer-quota.ts'

const config = relayingConfig.parse({ maxCircuitsPerAddress: 3, maxCircuitsPerClient: 2, maxCircuitsPerRelay: 5, createsPerSecond: 1_000 })
const RELAY_ADDRESS = '192.0.2.1'

describe('the quota', () => {
  test('counts nodes behind one NAT relay each by its identity, not by the address they share', () => {
    const quota = new PeerQuota(config, 0)
    for (let node = 0; node < 20; node++) {
      for (let circuit = 0; circuit < 5; circuit++) expect(quota.admit(`home ${node}`, true, RELAY_ADDRESS, 0)).toBeNull()
      expect(quota.admit(`home ${node}`, true, RELAY_ADDRESS, 0)).toBe('circuits-of-peer')
    }
    // Nor do they take the room of clients at that address.
    expect(quota.admit('client', false, RELAY_ADDRESS, 0)).toBeNull()
  })

  test('counts whoever is not known by the address as well, however many identities it has', () => {
    const quota = new PeerQuota(config, 0)
    for (let i = 0; i < 3; i++) expect(quota.admit(`nobody ${i}`, false, RELAY_ADDRESS, 0)).toBeNull()
    expect(quota.admit('nobody 3', false, RELAY_ADDRESS, 0)).toBe('circuits-of-address')
    expect(quota.admit('elsewhere', false, '192.0.2.2', 0)).toBeNull()
    quota.release('nobody 0', false, RELAY_ADDRESS, 0)
    expect(quota.admit('nobody 3', false, RELAY_ADDRESS, 0)).toBeNull()
    expect(quota.circuits).toBe(4)
  })

  test('keeps to other rates as soon as it is told of them, those it knows already included', () => {
    const live = { ...config, maxCircuitsPerClient: 200, maxCircuitsPerAddress: 200, createsPerSecond: 4, createsPerSecondPerPeer: 100 }
    const quota = new PeerQuota(live, 0)
    const admitted = (peer: string, now: number): number => {
      let count = 0
      while (count < 60 && quota.admit(peer, false, null, now) === null) count++
      return count
    }
    expect(admitted('a', 0)).toBe(8)
    live.createsPerSecond = 20
    quota.reconfigure(0)
    // What was used up comes back, at the new rate.
    expect([admitted('a', 0), admitted('a', 1_000)]).toEqual([0, 20])
    live.createsPerSecondPerPeer = 1
    quota.reconfigure(1_000)
    expect([admitted('a', 11_000), admitted('b', 11_000)]).toEqual([5, 5])
  })
})
