import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { NodeId } from '../../../src/base/index.ts'
import { Admission, type Claim } from '../../../src/directory/admission.ts'

const limits = { maxRelays: 6, maxReserve: 100, reservePerGroup: 100 }

/** A claim with rank `rank` in an address of a network. */
function claim(id: number, rank: number, address: number, network: number, other = -1): Claim {
  const groups = [
    { key: `a${network}.${address}`, cap: 1 },
    { key: `n${network}`, cap: 2 },
  ]
  if (other >= 0) groups.push({ key: `o${other}`, cap: 1 })
  return { id: `r${id}` as NodeId, rank: rank.toString(16).padStart(4, '0'), groups }
}

/** What is known, from scratch: the definition, as plainly as it can be said. */
function expected(claims: readonly Claim[]): string[] {
  const counts = new Map<string, number>()
  const known: string[] = []
  for (const one of [...claims].sort((a, b) => (a.rank + a.id < b.rank + b.id ? -1 : 1))) {
    if (one.groups.some(({ key, cap }) => (counts.get(key) ?? 0) >= cap)) continue
    for (const { key } of one.groups) counts.set(key, (counts.get(key) ?? 0) + 1)
    known.push(one.id)
  }
  return known.slice(0, limits.maxRelays).sort()
}

function knownOf(admission: Admission, ids: Iterable<string>): string[] {
  return [...ids].filter((id) => admission.tier(id as NodeId) === 'known').sort()
}

describe('admission', () => {
  test('prefers more work in a group over its cap, and lets the runner-up in when there is room', () => {
    const admission = new Admission(limits)
    admission.insert(claim(1, 50, 1, 1))
    expect(admission.insert(claim(2, 10, 1, 1))).toEqual(
      new Map([
        ['r1', 'reserve'],
        ['r2', 'known'],
      ]),
    )
    expect(admission.remove('r2' as NodeId)).toEqual(new Map([['r1', 'known']]))
  })

  test('holds as many as the view may, those with the most work', () => {
    const admission = new Admission(limits)
    for (let i = 0; i < 9; i++) admission.insert(claim(i, 100 - i, i, i))
    expect(knownOf(admission, ['r0', 'r1', 'r2', 'r3', 'r8'])).toEqual(['r3', 'r8'])
  })

  test('drops the last of a reserve that is full', () => {
    const admission = new Admission({ maxRelays: 6, maxReserve: 100, reservePerGroup: 1 })
    admission.insert(claim(1, 1, 1, 1))
    admission.insert(claim(2, 2, 1, 1))
    expect(admission.insert(claim(3, 3, 1, 1)).get('r3' as NodeId)).toBeNull()
    expect(admission.insert(claim(4, 0, 1, 1))).toEqual(
      new Map([
        ['r1', 'reserve'],
        ['r2', null],
        ['r4', 'known'],
      ]),
    )
    expect(admission.size).toBe(2)
  })

  test('gives what its definition says, whatever is added, moved and removed in whatever order', () => {
    const step = fc.record({
      id: fc.integer({ min: 0, max: 14 }),
      rank: fc.integer({ min: 0, max: 6 }),
      address: fc.integer({ min: 0, max: 2 }),
      network: fc.integer({ min: 0, max: 3 }),
      other: fc.integer({ min: -1, max: 3 }),
      remove: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const admission = new Admission(limits)
        const claims = new Map<string, Claim>()
        const tiers = new Map<string, string | null>()
        for (const { id, rank, address, network, other, remove } of steps) {
          const one = claim(id, rank, address, network, other)
          const changes = remove ? admission.remove(one.id) : admission.insert(one)
          if (remove) {
            claims.delete(one.id)
            tiers.delete(one.id)
          } else {
            claims.set(one.id, one)
          }
          for (const [changed, tier] of changes) tiers.set(changed, tier)
          const known = knownOf(admission, claims.keys())
          expect(known).toEqual(expected([...claims.values()]))
          // The changes told so far add up to the same.
          expect(
            [...tiers]
              .filter(([, tier]) => tier === 'known')
              .map(([name]) => name)
              .sort(),
          ).toEqual(known)
        }
      }),
      { numRuns: 300 },
    )
  })
})
