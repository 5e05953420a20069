import { describe, expect, test } from 'vitest'
import { formatIp, type NodeId, parseIp } from '../../../../src/base/index.ts'
import type { NatBehaviour } from '../../../../src/nat/behaviour.ts'
import { type OwnFacts, ownEndpoints } from '../../../../src/nat/punch/own-endpoints.ts'

const listening = ['/ip4/192.168.1.10/tcp/4460', '/ip4/192.168.1.10/tcp/4460/tls']
const behaviour = (more: Partial<NatBehaviour> = {}): NatBehaviour => ({
  family: 4,
  publicEndpoint: { ip: parseIp('11.1.0.2'), port: 51000 },
  mapping: 'endpoint-independent',
  filtering: 'address-and-port-dependent',
  portPreserved: true,
  hairpin: false,
  bindingLifetimeMs: null,
  ...more,
})
const seen = (observer: string, host: string, port: number, localPort = 4460) => ({
  observer: observer as NodeId,
  host,
  port,
  localPort,
  at: 0,
})
const found = (facts: Partial<OwnFacts>) => {
  const own = ownEndpoints({ listening, behaviours: [], observed: [], privateAllowed: false, ...facts })
  const text = ({ ip, port }: (typeof own.public)[number]): string => `${formatIp(ip)} ${port}`
  return { ...own, public: own.public.map(text), local: own.local.map(text) }
}

describe('own endpoints', () => {
  test('behind a NAT that keeps ports, with nobody to ask: the public address with the port listened on', () => {
    expect(found({ behaviours: [behaviour()] })).toEqual({
      public: ['11.1.0.2 4460'],
      isPortUnpredictable: false,
      isStrict: true,
      local: ['192.168.1.10 4460'],
    })
  })

  test('what peers see of the listening port is the port of the NAT', () => {
    const changing = behaviour({ portPreserved: false })
    expect(found({ behaviours: [changing], observed: [seen('a', '11.1.0.2', 20123)] }).public).toEqual(['11.1.0.2 20123'])
    expect(found({ observed: [seen('a', '11.1.0.2', 20123)] }).public).toEqual(['11.1.0.2 20123'])
  })

  test('a NAT that changes ports is not guessed at', () => {
    expect(found({ behaviours: [behaviour({ portPreserved: false })] })).toMatchObject({ public: [], isPortUnpredictable: false })
  })

  test('peers that see different ports tell of a NAT that gives each destination another one', () => {
    const observed = [seen('a', '11.1.0.2', 20123), seen('b', '11.1.0.2', 31456)]
    expect(found({ behaviours: [behaviour()], observed })).toMatchObject({
      public: ['11.1.0.2 20123', '11.1.0.2 31456'],
      isPortUnpredictable: true,
    })
  })

  test('one who lies is outvoted by two', () => {
    const observed = [seen('a', '203.0.114.9', 80), seen('b', '11.1.0.2', 4460), seen('c', '11.1.0.2', 4460)]
    expect(found({ behaviours: [behaviour()], observed })).toMatchObject({ public: ['11.1.0.2 4460'], isPortUnpredictable: false })
  })

  test('what STUN says of the NAT outweighs one witness, not two', () => {
    const behaviours = [behaviour({ mapping: 'address-and-port-dependent', portPreserved: false })]
    const one = [seen('a', '11.1.0.2', 20123)]
    expect(found({ behaviours, observed: one })).toMatchObject({ public: ['11.1.0.2 20123'], isPortUnpredictable: true })
    expect(found({ behaviours, observed: [...one, seen('b', '11.1.0.2', 20123)] })).toMatchObject({ isPortUnpredictable: false })
    expect(found({ behaviours })).toMatchObject({ public: ['11.1.0.2 4460'], isPortUnpredictable: true })
  })

  test('what was seen of another port, or is no public address, says nothing', () => {
    const observed = [seen('a', '11.1.0.2', 20123, 9999), seen('b', '10.0.0.3', 4460), seen('c', '127.0.0.1', 4460)]
    expect(found({ observed }).public).toEqual([])
  })

  test('IPv6 is what is listened on; a public IPv4 address too', () => {
    const own = found({
      listening: ['/ip4/11.5.0.2/tcp/4460/tls', '/ip6/2a0f:1::7/tcp/4460/tls', '/ip6/fe80::1/tcp/4460/tls'],
      behaviours: [behaviour()],
    })
    expect(own.public).toEqual(['2a0f:1::7 4460', '11.5.0.2 4460'])
  })

  test('on a network on one machine loopback addresses are where nodes are', () => {
    const loopback = ['/ip4/127.4.0.1/tcp/4460/tls']
    expect(found({ listening: loopback })).toMatchObject({ public: [], local: [] })
    expect(found({ listening: loopback, privateAllowed: true })).toMatchObject({ public: ['127.4.0.1 4460'] })
  })
})
