import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { reasonAgainstLab } from './lab/index.ts'
import { type Attempt, attemptAll, ReachMatrix } from './matrix/matrix.ts'
import { allPairs, demandOf } from './matrix/places.ts'
import { matrixTable, resultsOf } from './matrix/report.ts'

const reason = await reasonAgainstLab()
/** More take each other's processor, and an attempt waits for time-outs most of its time. */
const atOnce = 3

describe.skipIf(reason !== null)('nodes behind every kind of NAT', () => {
  let matrix: ReachMatrix
  let attempts: readonly Attempt[]

  beforeAll(async () => {
    matrix = await ReachMatrix.start()
    attempts = await attemptAll(matrix, allPairs, (_, index) => index % 2 === 1, atOnce)
  }, 400_000)
  afterAll(() => matrix?.stop())

  test('reach each other, directly where that can be, and say truly how', () => {
    const results = resultsOf(allPairs, attempts)
    expect(
      results.flatMap(({ faults }) => faults),
      matrixTable(results),
    ).toEqual([])
  })

  test('IPv6 is preferred where it saves a NAT', () => {
    const attempt = attempts.find(({ pair: { a, b } }) => a === 'ipv6-firewalled' && b === 'ipv6-firewalled')
    expect(attempt).toMatchObject({ family: 6 })
  })
})

describe.skipIf(reason !== null)('without hole punching', () => {
  const pairs = allPairs.filter((pair) => demandOf(pair) === 'punched')
  let matrix: ReachMatrix

  beforeAll(async () => {
    matrix = await ReachMatrix.start({ punching: false, kinds: ['port-restricted', 'port-changing'] })
  })
  afterAll(() => matrix?.stop())

  test('the same pairs stay on their relay', async () => {
    const present = pairs.filter(({ a, b }) => matrix.has(a) && matrix.has(b))
    const attempts = await attemptAll(matrix, present, () => false, atOnce)
    expect(present.length).toBe(3)
    expect(attempts.map(({ said, seen }) => [said, seen])).toEqual(present.map(() => ['relayed', 'relayed']))
    expect(resultsOf(present, attempts).every(({ faults }) => faults.length > 0)).toBe(true)
  })
})
