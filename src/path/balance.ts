import type { Position } from './relay-facts.ts'

/** Relays by the positions they serve, as bits: what the balance is made of. */
export const POSITION_BIT: Readonly<Record<Position, number>> = { guard: 1, middle: 2, exit: 4 }
const BITS = [1, 2, 4] as const
const ALL = 7
export const ROLE_SETS = 8

/** Rounds of proportional fitting. Each shrinks the error by a factor; after a thousand less than 1 % is left even where sets are almost equally scarce. */
const FITTING_ROUNDS = 1000
/** Two sets of positions whose supply differs by less are equally scarce. */
const TIE = 1e-9

/** `share(roles, position)`: which part of the capacity of relays with this set of roles is spent on the position. 0 to 1. */
export type Balance = (roles: number, position: Position) => number

/**
 * How relays that serve several positions divide their capacity, so that load follows capacity in every position. Every circuit
 * loads each position alike, so the scarcest set of positions S (least capacity of all relays that can serve any of S, per position)
 * takes all that can serve it, evenly used; the rest is divided the same way among the other positions. With scarce exits this
 * spends no exit's capacity on middles: the idea of Tor's bandwidth-weights (dir-spec §3.8.3), for any set of roles.
 * @param capacity bytes a second by role set (index: POSITION_BITs), length ROLE_SETS
 */
export function balanceRoles(capacity: readonly number[]): Balance {
  const shares = new Float64Array(ROLE_SETS * 3)
  let positions = ALL
  const classes = new Set<number>()
  for (let roles = 1; roles < ROLE_SETS; roles++) if ((capacity[roles] ?? 0) > 0) classes.add(roles)

  while (positions !== 0) {
    const scarcest = scarcestSet(capacity, classes, positions)
    const block = [...classes].filter((roles) => (roles & scarcest) !== 0)
    divide(capacity, block, scarcest, shares)
    for (const roles of block) classes.delete(roles)
    positions &= ~scarcest
  }
  return (roles, position) => shares[roles * 3 + bitIndex(POSITION_BIT[position])]!
}

/** The set of positions with the least supply per position; the smallest of equals, so that no part of it is tight by itself. */
function scarcestSet(capacity: readonly number[], classes: ReadonlySet<number>, positions: number): number {
  let best = 0
  let bestSupply = Number.POSITIVE_INFINITY
  for (let set = 1; set <= ALL; set++) {
    if ((set & positions) !== set) continue
    let supply = 0
    for (const roles of classes) if ((roles & set) !== 0) supply += capacity[roles]!
    supply /= bitCount(set)
    const better = supply < bestSupply * (1 - TIE)
    if (better || (supply <= bestSupply * (1 + TIE) && bitCount(set) < bitCount(best))) {
      best = set
      bestSupply = better ? supply : bestSupply
    }
  }
  return best
}

/** Iterative proportional fitting: every class spends all it has, every position of the set gets the same. */
function divide(capacity: readonly number[], block: readonly number[], set: number, shares: Float64Array): void {
  const indexes = BITS.flatMap((bit, index) => ((set & bit) !== 0 ? [index] : []))
  for (const roles of block) for (const index of indexes) shares[roles * 3 + index] = (roles & BITS[index]!) !== 0 ? 1 : 0
  const normalizeClasses = (): void => {
    for (const roles of block) {
      let sum = 0
      for (const index of indexes) sum += shares[roles * 3 + index]!
      for (const index of indexes) shares[roles * 3 + index]! /= sum
    }
  }
  const wanted = block.reduce((sum, roles) => sum + capacity[roles]!, 0) / indexes.length
  normalizeClasses()
  for (let round = 0; round < FITTING_ROUNDS; round++) {
    for (const index of indexes) {
      let got = 0
      for (const roles of block) got += shares[roles * 3 + index]! * capacity[roles]!
      if (got > 0) for (const roles of block) shares[roles * 3 + index]! *= wanted / got
    }
    normalizeClasses()
  }
}

function bitIndex(bit: number): number {
  return bit === 4 ? 2 : bit - 1
}

function bitCount(set: number): number {
  return (set & 1) + ((set >> 1) & 1) + ((set >> 2) & 1)
}
