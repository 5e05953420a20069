import { describe, expect, test } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { type DescriptorFields, dialAddresses, View } from '../../../src/directory/index.ts'
import { quickRules, START, suite, type TestRelay, testDescriptor, testRelay } from './support.ts'

const random = new SeededRandom(31)
const [home, relay, other, behind] = [testRelay(random), testRelay(random), testRelay(random), testRelay(random)]
const both = ['/ip4/127.1.0.1/tcp/1', '/ip4/127.1.0.1/tcp/1/tls', '/ip6/2001:db8::1/tcp/2', '/ip6/2001:db8::1/tcp/2/tls']

type Member = readonly [TestRelay, Partial<DescriptorFields>]

function viewOf(...members: readonly Member[]): View {
  const view = new View({ suite, rules: quickRules })
  for (const [who, fields] of members) {
    const { type } = view.add(testDescriptor(who, quickRules, START, fields).bytes, START)
    expect(type).toBe('added')
  }
  return view
}

function relayed(...via: readonly TestRelay[]): Partial<DescriptorFields> {
  const reach = { kind: 'relayed' as const, via: via.map(({ id }) => id), punchable: true }
  return { reach, roles: ['middle'], addresses: ['/ip4/127.9.0.1/tcp/9', '/ip4/127.9.0.1/tcp/9/tls'] }
}

const asRelay: Partial<DescriptorFields> = { roles: ['middle', 'relay'], addresses: both }

describe('where a node is dialled', () => {
  test('is at its own addresses when it is direct', () => {
    const view = viewOf([relay, asRelay])
    expect(dialAddresses(view, view.get(relay.id)!.descriptor)).toEqual(both)
  })

  test('is at the libp2p addresses of its NAT relays, of both families, when it is behind NAT', () => {
    const elsewhere = { ...asRelay, addresses: ['/ip4/127.2.0.1/tcp/5', '/ip4/127.2.0.1/tcp/5/tls'] }
    const view = viewOf([relay, asRelay], [other, elsewhere], [home, relayed(relay, other)])
    expect([...dialAddresses(view, view.get(home.id)!.descriptor)].sort()).toEqual(
      [
        `/ip4/127.1.0.1/tcp/1/p2p/${relay.id}/p2p-circuit`,
        `/ip6/2001:db8::1/tcp/2/p2p/${relay.id}/p2p-circuit`,
        `/ip4/127.2.0.1/tcp/5/p2p/${other.id}/p2p-circuit`,
      ].sort(),
    )
  })

  test('is nowhere for whoever does not dial through NAT relays, such as a client', () => {
    const view = viewOf([relay, asRelay], [home, relayed(relay)])
    expect(dialAddresses(view, view.get(home.id)!.descriptor, false)).toEqual([])
    expect(dialAddresses(view, view.get(relay.id)!.descriptor, false)).toEqual(both)
  })

  test.each<[string, readonly Member[]]>([
    ['is not in the view', []],
    ['has not the role', [[relay, { roles: ['guard', 'middle'] }]]],
    ['is itself behind NAT', [[relay, { ...relayed(behind), addresses: ['/ip4/127.8.0.1/tcp/1'] }]]],
  ])('is not behind a NAT relay that %s', (_, members) => {
    const view = viewOf(...members, [home, relayed(relay)])
    expect(dialAddresses(view, view.get(home.id)!.descriptor)).toEqual([])
  })

  test('is not behind a NAT relay that is known only as a runner-up', () => {
    const rules = { ...quickRules, admission: { ...quickRules.admission, perAddress: 1 } }
    const view = new View({ suite, rules })
    for (const [who, fields] of [
      [relay, asRelay],
      [other, asRelay],
      [home, relayed(relay, other)],
    ] as const)
      view.add(testDescriptor(who, rules, START, fields).bytes, START)
    const known = [relay, other].filter(({ id }) => view.isKnown(id))
    expect(known).toHaveLength(1)
    const dialled = dialAddresses(view, view.get(home.id)!.descriptor)
    expect(dialled).toHaveLength(2)
    expect(dialled.every((address) => address.includes(known[0]!.id))).toBe(true)
  })
})
