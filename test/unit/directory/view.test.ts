import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type NodeId, SeededRandom, shuffle, toHex } from '../../../src/base/index.ts'
import {
  type DescriptorFields,
  type NetworkRulesInput,
  parseRules,
  type SignedDescriptor,
  testnetRules,
  View,
} from '../../../src/directory/index.ts'
import { quickRules, START, suite, type TestRelay, testDescriptor, testRelay } from './support.ts'

const DAY = 86_400_000
const random = new SeededRandom(7)
const relays = Array.from({ length: 40 }, () => testRelay(random))

function rulesWith(changes: NetworkRulesInput) {
  return parseRules({ ...testnetRules, work: { bits: 2 }, ...changes })
}

function descriptor(relay: TestRelay, changes: Partial<DescriptorFields> = {}, rules = quickRules): SignedDescriptor {
  return testDescriptor(relay, rules, START, changes)
}

/** Relay i, alone at an address of its own. */
function apart(i: number, changes: Partial<DescriptorFields> = {}): SignedDescriptor {
  return descriptor(relays[i]!, { addresses: [`/ip4/127.${i}.0.1/tcp/4001`], ...changes })
}

function picture(view: View) {
  return {
    root: toHex(view.buckets.root()),
    known: view
      .relays()
      .map(({ id, signed }) => `${id} ${toHex(signed.digest)}`)
      .sort(),
  }
}

describe('the known tier', () => {
  test('is the same for any order and repetition of the same descriptors', () => {
    // Several editions of a relay, equal numbers with other bytes, crowded addresses and networks.
    const rules = rulesWith({ admission: { privateAddresses: true, maxRelays: 12, perAddress: 1, perNet24: 2, perVia: 2 } })
    const choice = new SeededRandom(99)
    const set: Uint8Array[] = []
    for (let i = 0; i < 24; i++) {
      for (let edition = 0; edition < 3; edition++) {
        const address = `/ip4/127.0.${choice.int(5)}.${1 + choice.int(4)}/tcp/${1 + choice.int(2)}`
        const via =
          choice.int(4) === 0
            ? { reach: { kind: 'relayed' as const, via: [relays[30 + choice.int(2)]!.id], punchable: false }, roles: ['middle' as const] }
            : {}
        set.push(testDescriptor(relays[i]!, rules, START, { addresses: [address], sequence: 1 + choice.int(3), ...via }).bytes)
      }
    }
    const reference = new View({ suite, rules })
    for (const bytes of set) reference.add(bytes, START)
    expect(reference.size).toBeGreaterThan(5)
    expect(reference.reserveSize).toBeGreaterThan(5)
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const order = shuffle([...set, ...set.slice(0, 20)], new SeededRandom(seed))
        const view = new View({ suite, rules })
        for (const bytes of order) view.add(bytes, START)
        expect(picture(view)).toEqual(picture(reference))
      }),
      { numRuns: 40 },
    )
  })

  test('keeps the newer edition, and of two with one number the one with the lower digest, and notes who signed both', () => {
    const first = apart(0, { sequence: 5 })
    const twin = apart(0, { sequence: 5, bandwidth: 2 })
    const [low, high] = Buffer.compare(first.digest, twin.digest) < 0 ? [first, twin] : [twin, first]
    for (const order of [
      [low, high],
      [high, low],
    ]) {
      const view = new View({ suite, rules: quickRules })
      for (const { bytes } of order) view.add(bytes, START)
      expect(view.get(relays[0]!.id)?.signed.digest).toEqual(low.digest)
      expect([...view.equivocations]).toEqual([relays[0]!.id])
      expect(view.add(apart(0, { sequence: 4 }).bytes, START)).toEqual({ type: 'older', equivocation: false })
      expect(view.add(apart(0, { sequence: 6 }).bytes, START).type).toBe('replaced')
    }
  })

  test('counts nodes behind one NAT at its address, and behind one NAT relay, whether that is known or not', () => {
    const nat = (i: number, address: string, via: number): boolean => {
      const reach = { kind: 'relayed' as const, via: [relays[via]!.id], punchable: true }
      const { bytes } = testDescriptor(relays[i]!, rules, START, { reach, roles: ['middle'], addresses: [`/ip4/${address}/tcp/1`] })
      view.add(bytes, START)
      return view.isKnown(relays[i]!.id)
    }
    const rules = rulesWith({ admission: { privateAddresses: true, perAddress: 2, perNet24: 8, perVia: 3 } })
    let view = new View({ suite, rules })
    for (let i = 0; i < 5; i++) nat(i, '127.1.0.1', 20 + i)
    expect([view.size, view.reserveSize]).toEqual([2, 3])
    view = new View({ suite, rules })
    for (let i = 0; i < 6; i++) nat(i, `127.${i + 1}.0.1`, 20)
    expect([view.size, view.reserveSize]).toEqual([3, 3])
  })

  test('knows what it has', () => {
    const view = new View({ suite, rules: quickRules })
    const { bytes } = apart(1)
    expect(view.add(bytes, START).type).toBe('added')
    expect(view.add(bytes.slice(), START).type).toBe('duplicate')
    expect(view.isKnown(relays[1]!.id)).toBe(true)
    expect(view.isKnown(relays[2]!.id)).toBe(false)
  })

  const outside = { addresses: ['/ip4/11.0.0.1/tcp/1'] }
  test.each<[string, Partial<DescriptorFields>, NetworkRulesInput, string]>([
    ['dated in the future', { publishedAt: START + 11 * 60_000 }, {}, 'future'],
    ['expired', { publishedAt: START - 100_000, expiresAt: START }, {}, 'expired'],
    ['valid for too long', { expiresAt: START + 8 * 3_600_000 }, {}, 'lifetime'],
    ['of other versions', { protocols: { circuit: [2], link: [1], packet: [] } }, {}, 'protocol'],
    ['at a private address in the real network', { addresses: ['/ip4/10.0.0.1/tcp/1'] }, { admission: {} }, 'address'],
    ['at a loopback address in the real network', { addresses: ['/ip6/::1/tcp/1'] }, { admission: {} }, 'address'],
    ['at a multicast address even in a testnet', { addresses: ['/ip4/224.0.0.1/tcp/1'] }, {}, 'address'],
    ['with work of another period', { work: { period: 3, nonce: new Uint8Array(8) } }, {}, 'work'],
  ])('refuses what is %s', (_, changes, ruleChanges, reason) => {
    const rules = rulesWith(ruleChanges)
    const view = new View({ suite, rules })
    const { bytes } = testDescriptor(relays[0]!, rules, START, { ...outside, ...changes })
    expect(view.add(bytes, START)).toMatchObject({ type: 'refused', reason })
    expect(view.inspect(bytes, START, relays[0]!.id)).toBe(reason)
    expect(view.size).toBe(0)
  })

  test('tells how many descriptors were lately refused for their times alone', () => {
    const rules = rulesWith({})
    const view = new View({ suite, rules })
    const add = (i: number, changes: Partial<DescriptorFields>): unknown =>
      view.add(testDescriptor(relays[i]!, rules, START, { addresses: [`/ip4/11.0.0.${i}/tcp/1`], ...changes }).bytes, START)
    for (const i of [1, 2]) add(i, { publishedAt: START + 11 * 60_000 })
    add(3, { publishedAt: START - 100_000, expiresAt: START })
    add(4, { protocols: { circuit: [2], link: [1], packet: [] } })
    expect(view.refusedForTime(START)).toEqual({ future: 2, expired: 1 })
    expect(view.refusedForTime(START + 10 * 60_000)).toEqual({ future: 0, expired: 0 })
  })

  test('refuses too little work, and work done for another network', () => {
    const strict = rulesWith({ work: { bits: 12 } })
    const view = new View({ suite, rules: strict })
    expect(view.add(apart(0).bytes, START)).toMatchObject({ type: 'refused', reason: 'work' })
    const elsewhere = { ...strict, name: 'elsewhere' }
    const { bytes } = testDescriptor(relays[0]!, elsewhere, START)
    expect(new View({ suite, rules: elsewhere }).add(bytes, START).type).toBe('added')
    expect(view.add(bytes, START)).toMatchObject({ type: 'refused', reason: 'work' })
  })

  test('refuses a wrong signature, and remembers that without looking at it again', () => {
    let verified = 0
    const counting = {
      ...suite,
      ed25519: {
        ...suite.ed25519,
        verify: (...args: Parameters<typeof suite.ed25519.verify>) => {
          verified++
          return suite.ed25519.verify(...args)
        },
      },
    }
    const view = new View({ suite: counting, rules: quickRules })
    const bytes = apart(0).bytes.slice()
    bytes[bytes.length - 1]! ^= 1
    for (let i = 0; i < 3; i++) expect(view.add(bytes, START)).toMatchObject({ type: 'refused', reason: 'malformed' })
    expect(verified).toBe(1)
  })

  test('forgets the expired, keeps it as a place to ask, and lets the runner-up in', () => {
    const rules = rulesWith({ admission: { privateAddresses: true, perAddress: 1 } })
    const view = new View({ suite, rules })
    const here = { addresses: ['/ip4/127.0.0.1/tcp/1'] }
    const two = [relays[0]!, relays[1]!]
    const now = START + 1_000
    view.add(testDescriptor(two[0]!, rules, START, here).bytes, now)
    view.add(testDescriptor(two[1]!, rules, START, here).bytes, now)
    const first = view.relays()[0]!
    expect([view.size, view.reserveSize]).toEqual([1, 1])
    const other = two.find(({ id }) => id !== first.id)!
    // The runner-up publishes anew, the other does not.
    view.add(testDescriptor(other, rules, START, { ...here, sequence: 2, publishedAt: START + 5 * 60_000 }).bytes, START + 5 * 60_000)
    const { version } = view
    expect(view.expire(first.descriptor.expiresAt)).toBe(1)
    expect(view.relays().map(({ id }) => id)).toEqual([other.id])
    expect(view.stale().map(({ descriptor: { id } }) => id)).toEqual([first.id])
    expect(view.changesSince(version)).toMatchObject([
      { id: first.id, kind: 'removed' },
      { id: other.id, kind: 'added' },
    ])
  })

  test('tells its changes since a version', () => {
    const view = new View({ suite, rules: quickRules })
    view.add(apart(0).bytes, START)
    const { version } = view
    expect(view.changesSince(version)).toEqual([])
    view.add(apart(1).bytes, START)
    view.add(apart(0, { sequence: 2 }).bytes, START)
    expect(view.changesSince(version)?.map(({ id, kind }) => [id, kind])).toEqual([
      [relays[1]!.id, 'added'],
      [relays[0]!.id, 'replaced'],
    ])
    expect(view.changesSince(0)).toHaveLength(3)
  })
})

describe('the eligible tier', () => {
  const aged = rulesWith({
    eligibility: { minAgeMs: DAY, guardMinAgeMs: 8 * DAY, burstFloor: 3, burstFraction: 0.5, burstWindowMs: DAY, burstAgeMs: 14 * DAY },
    descriptors: { lifetimeMs: 100 * DAY },
  })

  function at(i: number, since: number, view: View): NodeId {
    const relay = relays[i]!
    const { bytes } = testDescriptor(relay, aged, since, {
      addresses: [`/ip4/127.${i}.0.1/tcp/1`],
      roles: i % 2 ? ['middle'] : ['guard', 'middle'],
    })
    expect(view.add(bytes, since).type).toBe('added')
    return relay.id
  }

  test('asks for age, more of a guard, and says why not and until when', () => {
    const view = new View({ suite, rules: aged })
    at(0, START, view)
    const now = START + 60 * DAY
    const young = at(2, now - 2 * DAY, view)
    const newest = at(3, now - DAY / 2, view)
    expect(view.eligibility(young, now)).toEqual({ eligible: true })
    expect(view.eligibility(young, now, 'guard')).toEqual({ eligible: false, reason: 'too-new', until: now + 6 * DAY })
    expect(view.eligibility(newest, now, 'middle')).toEqual({ eligible: false, reason: 'too-new', until: now + DAY / 2 })
    expect(view.eligibility(newest, now, 'guard')).toMatchObject({ reason: 'role' })
    expect(view.eligibility(relays[9]!.id, now)).toMatchObject({ reason: 'unknown' })
    expect(view.eligible(now, 'guard').map(({ id }) => id)).toEqual([relays[0]!.id])
    expect(view.eligible(now, 'middle')).toHaveLength(2)
    // Half a day later the third has its age; the same version, another time.
    expect(view.eligible(now + DAY / 2, 'middle')).toHaveLength(3)
  })

  test('is without a relay that says that it is leaving, which stays known, until it says otherwise', () => {
    const view = new View({ suite, rules: quickRules })
    const say = (sequence: number, leaving: boolean) =>
      view.add(testDescriptor(relays[0]!, quickRules, START, { sequence, leaving }).bytes, START)
    say(1, false)
    expect(view.eligible(START)).toHaveLength(1)
    say(2, true)
    expect(view.eligible(START)).toEqual([])
    expect(view.eligibility(relays[0]!.id, START)).toEqual({ eligible: false, reason: 'leaving', until: null })
    expect(view.isKnown(relays[0]!.id)).toBe(true)
    say(3, false)
    expect(view.eligible(START)).toHaveLength(1)
  })

  test('of a network that is younger than the ages asked for is its older half', () => {
    const view = new View({ suite, rules: aged })
    at(0, START, view)
    at(1, START + 1_000, view)
    at(2, START + 50_000, view)
    expect(view.eligible(START + 60_000).map(({ id }) => id)).toEqual([relays[0]!.id, relays[1]!.id])
    expect(view.eligible(START + 110_000)).toHaveLength(3)
  })

  test('holds back relays that came with too many others, until they are old', () => {
    const view = new View({ suite, rules: aged })
    for (let i = 0; i < 4; i++) at(i, START + i * DAY, view)
    const day = Math.ceil((START + 30 * DAY) / DAY) * DAY
    for (let i = 10; i < 20; i++) at(i, day + i * 1_000, view)
    expect(view.eligibility(relays[10]!.id, day + 5 * DAY)).toMatchObject({ reason: 'burst' })
    expect(view.eligible(day + 5 * DAY)).toHaveLength(4)
    expect(view.eligible(day + 15 * DAY)).toHaveLength(14)
  })

  test('is shared until something changes', () => {
    const view = new View({ suite, rules: quickRules })
    for (let i = 0; i < 5; i++) view.add(apart(i).bytes, START)
    const set = view.eligible(START)
    expect(view.eligible(START + 10)).toBe(set)
    view.add(apart(6).bytes, START)
    expect(view.eligible(START + 20)).not.toBe(set)
  })

  test('weighs a relay by its claim, but little before it was measured', () => {
    const rules = rulesWith({ weights: { unmeasuredCap: 1_000, measuredFactor: 2, cap: 50_000 } })
    const view = new View({ suite, rules })
    const { id } = relays[0]!
    view.add(testDescriptor(relays[0]!, rules, START, { bandwidth: 20_000 }).bytes, START)
    expect(view.weight(id)).toBe(1_000)
    const { version } = view
    view.noteMeasured(id, 4_000)
    expect(view.weight(id)).toBe(8_000)
    expect(view.version).toBeGreaterThan(version)
    view.noteMeasured(id, 1_000_000)
    expect(view.weight(id)).toBe(20_000)
    expect(view.weight(relays[1]!.id)).toBe(0)
  })
})

describe('ages by hearsay', () => {
  const source = (i: number): NodeId => relays[30 + i]!.id

  test('are the lower median of what several nodes say, and no minority makes a relay old', () => {
    const view = new View({ suite, rules: quickRules })
    const honest = view.add(apart(0).bytes, START)
    const sybil = view.add(apart(1).bytes, START)
    if (honest.type !== 'added' || sybil.type !== 'added') throw new Error('not added')
    const truth = new Map([[honest.entry.tag, 10 * DAY]])
    const lie = new Map([
      [honest.entry.tag, 0],
      [sybil.entry.tag, 90 * DAY],
    ])
    view.hearAges(source(0), truth, START)
    view.hearAges(source(1), lie, START)
    view.hearAges(source(2), truth, START)
    expect(view.ageMs(honest.entry.id, START)).toBe(10 * DAY)
    expect(view.ageMs(sybil.entry.id, START)).toBe(0)
    // Relays that are found later are judged by what was heard, too.
    view.hearAges(source(3), lie, START)
    expect(view.ageMs(honest.entry.id, START)).toBe(0)
  })

  test('are heard once a source, from five at most, and no more when it is closed', () => {
    const view = new View({ suite, rules: quickRules })
    expect(view.hearAges(source(0), new Map(), START)).toBe(true)
    expect(view.hearAges(source(0), new Map(), START)).toBe(false)
    for (let i = 1; i < 5; i++) expect(view.hearAges(source(i), new Map(), START)).toBe(true)
    expect(view.ages.wantsHearsay).toBe(false)
    const other = new View({ suite, rules: quickRules })
    other.ages.closeHearsay()
    expect(other.hearAges(source(0), new Map(), START)).toBe(false)
  })
})
