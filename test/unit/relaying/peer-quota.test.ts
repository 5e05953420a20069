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
})
