import { describe, expect, it } from 'vitest'
import type { Descriptor } from '../../../src/directory/index.ts'
import { addressOf, beliefOf, factsOf, pathConfig } from '../../../src/path/index.ts'
import { idOf } from './relays.ts'

const descriptor: Descriptor = {
  id: idOf(1),
  sequence: 1,
  publishedAt: 0,
  expiresAt: 1,
  onionKey: { x25519: new Uint8Array(32) },
  addresses: ['/ip4/192.0.2.7/tcp/1', '/ip4/192.0.2.7/tcp/2/tls', '/ip6/2001:db8:1::7/tcp/1', '/dns4/example.net/tcp/1'],
  reach: { kind: 'direct' },
  roles: ['middle', 'exit', 'bootstrap'],
  exitPolicy: { ipv4: [], ipv6: [] },
  bandwidth: 5,
  family: [idOf(2)],
  protocols: { circuit: [1, 2], link: [1], packet: [1, 9] },
  leaving: false,
  software: 'shallot 0.1.0',
  work: { period: 0, nonce: new Uint8Array(8) },
}

describe('factsOf', () => {
  it('keeps the positions, and the networks that diversity rules compare', () => {
    const facts = factsOf(descriptor, { weight: 3, eligible: true, eligibleAsGuard: false })
    expect(facts.positions).toEqual(['middle', 'exit'])
    expect(facts.networks).toEqual(['192.0.0.0/16', '2001:db8::/32'])
    expect(facts).toMatchObject({ weight: 3, eligible: true, eligibleAsGuard: false, via: [], family: [idOf(2)], circuitVersions: [1, 2] })
    expect(facts.servesPackets).toBe(true)
    const foreign = { ...descriptor, protocols: { ...descriptor.protocols, packet: [9] } }
    expect(factsOf(foreign, { weight: 3, eligible: true }).servesPackets).toBe(false)
  })

  it('names the NAT relays in front', () => {
    const relayed: Descriptor = { ...descriptor, reach: { kind: 'relayed', via: [idOf(3)], punchable: true } }
    const facts = factsOf(relayed, { weight: 1, eligible: true })
    expect(facts).toMatchObject({ reach: 'punchable', via: [idOf(3)], networks: ['192.0.0.0/16', '2001:db8::/32'] })
    const notPunchable: Descriptor = { ...descriptor, reach: { kind: 'relayed', via: [idOf(3)], punchable: false } }
    expect(factsOf(notPunchable, { weight: 1, eligible: true }).reach).toBe('relayed')
  })

  it('tells who carries others in: the role relay, at an address of its own', () => {
    expect(factsOf(descriptor, { weight: 1, eligible: true }).canRelay).toBe(false)
    const relay: Descriptor = { ...descriptor, roles: ['middle', 'relay'] }
    expect(factsOf(relay, { weight: 1, eligible: true }).canRelay).toBe(true)
  })

  it('reads no address from what is not one', () => {
    for (const text of ['', '/', '/ip4', '/ip4/', '/ip4/1.2.3', '/ip6/x', 'ip4/1.2.3.4', '/ip6/fe80::1%eth0', '/dns/a'])
      expect(addressOf(text), text).toBeNull()
  })
})

describe('beliefOf', () => {
  it('is the lower of claim and cap until measured, then of claim and measurement', () => {
    expect(beliefOf(1000, 10, null)).toBe(10)
    expect(beliefOf(5, 10, null)).toBe(5)
    expect(beliefOf(1000, 10, 400)).toBe(400)
    expect(beliefOf(300, 10, 400)).toBe(300)
    expect(beliefOf(-1, 10, null)).toBe(0)
  })
})

describe('pathConfig', () => {
  it('has defaults for everything and refuses what no path could obey', () => {
    expect(pathConfig.parse({})).toMatchObject({ guardsInUse: 1, circuitLifetimeMs: 600_000, excludeNodes: [] })
    expect(pathConfig.safeParse({ excludeNodes: ['someone'] }).success).toBe(false)
    expect(pathConfig.safeParse({ excludeNetworks: ['10.0.0.0/33'] }).success).toBe(false)
    expect(pathConfig.safeParse({ exitNodes: [idOf(1)], excludeNetworks: ['2001:db8::/32', '192.0.2.1'] }).success).toBe(true)
    expect(pathConfig.safeParse({ unknown: 1 }).success).toBe(false)
  })
})
