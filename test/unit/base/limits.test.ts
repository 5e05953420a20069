import { expect, test } from 'vitest'
import { SeededRandom, sensitive, shuffle, TokenBucket } from '../../../src/base/index.ts'

test('a bucket gives its burst at once and its rate after that', () => {
  const bucket = new TokenBucket(10, 5, 0)
  expect([1, 1, 1, 1, 1, 1].map((n) => bucket.take(n, 0))).toEqual([true, true, true, true, true, false])
  expect(bucket.take(1, 99)).toBe(false)
  expect(bucket.take(1, 100)).toBe(true)
  expect(bucket.take(6, 1e9)).toBe(false)
  expect(bucket.take(5, 1e9)).toBe(true)
})

test('a debt says how long to wait', () => {
  const bucket = new TokenBucket(1000, 100, 0)
  expect(bucket.spend(100, 0)).toBe(0)
  expect(bucket.spend(250, 0)).toBe(250)
  expect(bucket.spend(0, 250)).toBe(0)
})

test('a clock that goes back gives nothing', () => {
  const bucket = new TokenBucket(10, 1, 1000)
  expect(bucket.take(1, 1000)).toBe(true)
  expect(bucket.take(1, 0)).toBe(false)
})

test('seeded randomness repeats, spreads and stays in range', () => {
  const draw = (seed: number): number[] => {
    const random = new SeededRandom(seed)
    return Array.from({ length: 3000 }, () => random.int(3))
  }
  expect(draw(1)).toEqual(draw(1))
  expect(draw(1)).not.toEqual(draw(2))
  for (const side of [0, 1, 2]) {
    const share = draw(7).filter((value) => value === side).length / 3000
    expect(share).toBeGreaterThan(0.3)
    expect(share).toBeLessThan(0.37)
  }
  const shuffled = shuffle([1, 2, 3, 4, 5, 6, 7, 8], new SeededRandom(3))
  expect([...shuffled].sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(shuffled).not.toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(new SeededRandom(5).bytes(7)).toEqual(new SeededRandom(5).bytes(7))
})

test('what is sensitive is never printed', () => {
  expect(`${sensitive('203.0.113.7')} ${JSON.stringify({ a: sensitive('203.0.113.7') })}`).toBe('[scrubbed] {"a":"[scrubbed]"}')
})
