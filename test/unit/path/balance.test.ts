import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { balanceRoles, POSITION_BIT, POSITIONS, type Position, ROLE_SETS } from '../../../src/path/index.ts'

const { guard: G, middle: M, exit: E } = POSITION_BIT

function capacities(by: Readonly<Record<number, number>>): number[] {
  return Array.from({ length: ROLE_SETS }, (_, roles) => by[roles] ?? 0)
}

function supply(capacity: readonly number[], position: Position): number {
  const share = balanceRoles(capacity)
  return capacity.reduce((sum, bytes, roles) => sum + bytes * share(roles, position), 0)
}

describe('balanceRoles', () => {
  it('gives every position the same where one kind of relay serves all', () => {
    const capacity = capacities({ [G | M | E]: 300 })
    for (const position of POSITIONS) expect(supply(capacity, position)).toBeCloseTo(100, 6)
  })

  it('keeps scarce exits for exits', () => {
    const share = balanceRoles(capacities({ [G | M]: 1000, [G | M | E]: 100 }))
    expect(share(G | M | E, 'exit')).toBeCloseTo(1, 9)
    expect(share(G | M | E, 'guard')).toBeCloseTo(0, 9)
    expect(share(G | M, 'guard')).toBeCloseTo(0.5, 9)
  })

  it('lets plentiful exits help out', () => {
    const capacity = capacities({ [G | M]: 100, [M | E]: 500 })
    for (const position of POSITIONS) expect(supply(capacity, position)).toBeGreaterThanOrEqual(100 - 1e-6)
    expect(supply(capacity, 'guard')).toBeCloseTo(100, 6)
    expect(supply(capacity, 'middle')).toBeCloseTo(250, 6)
  })

  it('spends all of every relay, and makes the scarcest position as well off as can be, over random capacities', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = new SeededRandom(seed)
      const capacity = Array.from({ length: ROLE_SETS }, (_, roles) => (roles === 0 || random.unit() < 0.4 ? 0 : random.int(1000)))
      const share = balanceRoles(capacity)
      for (let roles = 1; roles < ROLE_SETS; roles++) {
        for (const position of POSITIONS) {
          if ((roles & POSITION_BIT[position]) === 0) expect(share(roles, position), `seed ${seed}`).toBe(0)
        }
        const spent = POSITIONS.reduce((sum, position) => sum + share(roles, position), 0)
        expect(spent, `seed ${seed}`).toBeCloseTo(capacity[roles]! > 0 ? 1 : 0, 9)
      }
      // Hall: no set of positions can have more each than all that serve any of it hold together.
      let bound = Number.POSITIVE_INFINITY
      for (let set = 1; set < ROLE_SETS; set++) {
        const held = capacity.reduce((sum, bytes, roles) => sum + ((roles & set) !== 0 ? bytes : 0), 0)
        bound = Math.min(bound, held / POSITIONS.filter((position) => (set & POSITION_BIT[position]) !== 0).length)
      }
      const least = Math.min(...POSITIONS.map((position) => supply(capacity, position)))
      expect(least, `seed ${seed}`).toBeGreaterThanOrEqual(bound * 0.99)
    }
  })
})
