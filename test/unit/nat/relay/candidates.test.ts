import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../../src/base/index.ts'
import { type DescriptorFields, parseRules, type ServingRole, testnetRules, View } from '../../../../src/directory/index.ts'
import { relayCandidates } from '../../../../src/nat/relay/index.ts'
import { START, suite, type TestRelay, testDescriptor, testRelay } from '../../directory/support.ts'

const random = new SeededRandom(11)

/** A network in which a relay must have been known for a minute. */
const rules = parseRules({
  ...testnetRules,
  work: { bits: 2 },
  eligibility: { ...testnetRules.eligibility, minAgeMs: 60_000 },
})

function add(view: View, now: number, changes: Partial<DescriptorFields>): TestRelay {
  const relay = testRelay(random)
  const result = view.add(testDescriptor(relay, rules, now, changes).bytes, now)
  expect(result.type).toBe('added')
  return relay
}

const roles: readonly ServingRole[] = ['middle', 'relay']
let networks = 1
const place = (): string[] => [`/ip4/127.${networks}.0.1/tcp/4001`, `/ip4/127.${networks++}.0.1/tcp/4001/tls`]

describe('the relays of a view', () => {
  it('are those of the role that are reached directly, at their libp2p addresses, without this node itself', () => {
    const view = new View({ suite, rules })
    const good = add(view, START, { roles, addresses: place(), family: [] })
    const self = add(view, START, { roles, addresses: place() })
    add(view, START, { roles: ['middle'], addresses: place() })
    add(view, START, { roles: ['middle'], addresses: place(), reach: { kind: 'relayed', via: [good.id], punchable: true } })
    add(view, START, { roles, addresses: [place()[1]!] })
    const found = relayCandidates(view, START, self.id)
    expect(found.map(({ id }) => id)).toEqual([good.id])
    expect(found[0]).toMatchObject({ addresses: ['/ip4/127.1.0.1/tcp/4001'], family: [], weight: 1_000_000 })
    expect(found[0]!.ips[0]!.bytes).toEqual(Uint8Array.of(127, 1, 0, 1))
  })

  it('are the ones good enough for own paths; before there is any, all known ones', () => {
    const view = new View({ suite, rules })
    const self = testRelay(random).id
    const old = add(view, START, { roles, addresses: place() })
    const later = START + 100_000
    const fresh = add(view, later, { roles, addresses: place() })
    expect(relayCandidates(view, later, self).map(({ id }) => id)).toEqual([old.id])
    const empty = new View({ suite, rules })
    add(empty, START, { roles: ['guard'], addresses: place() })
    const only = add(empty, later, { roles, addresses: place() })
    expect(relayCandidates(empty, later, self).map(({ id }) => id)).toEqual([only.id])
    expect(fresh.id).not.toBe(old.id)
  })
})
