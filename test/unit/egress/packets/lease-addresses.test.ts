import { describe, expect, it } from 'vitest'
import { formatIp, parseIp } from '../../../../src/base/index.ts'
import { exitConfig, LeaseAddresses } from '../../../../src/egress/index.ts'

const defaults = exitConfig.parse({})
const texts = (lease: ReturnType<LeaseAddresses['take']>) => [
  lease?.address4 ? formatIp(lease.address4) : null,
  lease?.address6 ? formatIp(lease.address6) : null,
]

describe('lease addresses', () => {
  it('are of the networks, behind the gateway', () => {
    const addresses = new LeaseAddresses(defaults, [4, 6])
    expect([formatIp(addresses.gateway4), formatIp(addresses.gateway6)]).toEqual(['100.89.0.1', 'fd73:6861:6c6c:6578::1'])
    expect(texts(addresses.take())).toEqual(['100.89.0.2', 'fd73:6861:6c6c:6578::2'])
    expect(texts(addresses.take())).toEqual(['100.89.0.3', 'fd73:6861:6c6c:6578::3'])
    expect(['100.89.77.1', '100.90.0.1', 'fd73:6861:6c6c:6578::9', 'fd73::1'].map((text) => addresses.contains(parseIp(text)))).toEqual([
      true,
      false,
      true,
      false,
    ])
  })

  it('are of the served families only', () => {
    expect(texts(new LeaseAddresses(defaults, [4]).take())).toEqual(['100.89.0.2', null])
    const only6 = new LeaseAddresses(defaults, [6])
    const lease = only6.take()!
    expect(texts(lease)).toEqual([null, 'fd73:6861:6c6c:6578::2'])
    only6.give(lease)
    expect(only6.taken).toBe(0)
  })

  it('are given again as late as can be, until all are taken', () => {
    const addresses = new LeaseAddresses({ packetNetworkIpv4: '10.5.0.0/24', packetNetworkIpv6: 'fd01::/64' }, [4, 6])
    const first = addresses.take()!
    addresses.give(first)
    const rest = Array.from({ length: 252 }, () => texts(addresses.take())[0])
    expect(rest).toEqual(Array.from({ length: 252 }, (_, i) => `10.5.0.${i + 3}`))
    expect(texts(addresses.take())).toEqual(texts(first))
    // Neither the network's own address, the gateway nor the broadcast address is anybody's.
    expect(addresses.take()).toBeNull()
    expect(addresses.taken).toBe(253)
    addresses.give({ address4: parseIp('10.5.0.200'), address6: null })
    expect(texts(addresses.take())[0]).toBe('10.5.0.200')
  })

  it('keep a wide network within bounds, and their bytes right over its borders', () => {
    const addresses = new LeaseAddresses({ packetNetworkIpv4: '10.0.0.0/8', packetNetworkIpv6: 'fd01::/16' }, [4, 6])
    let last = addresses.take()
    for (let i = 1; i < 300; i++) last = addresses.take()
    expect(texts(last)).toEqual(['10.0.1.45', 'fd01::12d'])
    for (let i = 300; i < 65_000; i++) last = addresses.take()
    expect(texts(last)).toEqual(['10.0.253.233', 'fd01::fde9'])
    expect(addresses.take()).toBeNull()
  })
})
