import { afterEach, expect, test, vi } from 'vitest'
import { placeOfThisMachine, watchNetwork } from '../../../src/node/network-watch.ts'

afterEach(() => vi.useRealTimers())

test('a change of addresses is told once, one at a time, and no place at all is waited out', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  let place = '203.0.113.5'
  const told: string[] = []
  let done: () => void = () => {}
  const stop = watchNetwork(
    (why) => {
      told.push(`${why} ${place}`)
      return new Promise((resolve) => {
        done = resolve
      })
    },
    () => place,
  )
  await vi.advanceTimersByTimeAsync(10_000)
  expect(told).toEqual([])
  place = ''
  await vi.advanceTimersByTimeAsync(10_000)
  expect(told).toEqual([])
  place = '198.51.100.7'
  await vi.advanceTimersByTimeAsync(10_000)
  expect(told).toEqual(['addresses 198.51.100.7'])
  place = '192.0.2.1'
  await vi.advanceTimersByTimeAsync(10_000)
  expect(told).toHaveLength(1)
  done()
  await vi.advanceTimersByTimeAsync(4_000)
  expect(told).toEqual(['addresses 198.51.100.7', 'addresses 192.0.2.1'])
  stop()
  place = 'elsewhere'
  await vi.advanceTimersByTimeAsync(10_000)
  expect(told).toHaveLength(2)
})

test('the place holds no loopback address', () => {
  expect(placeOfThisMachine()).not.toMatch(/127\.|::1/)
})
