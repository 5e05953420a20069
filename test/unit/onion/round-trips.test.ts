import { describe, expect, test } from 'vitest'
import { RoundTrips } from '../../../src/onion/round-trips.ts'

function measure(trips: RoundTrips, hop: number, ms: number): void {
  const cookie = new Uint8Array([hop, ms & 255])
  trips.begin(hop, cookie, 0)
  trips.sent(cookie, 1000)
  expect(trips.finish(hop, cookie, 1000 + ms)).toBe(ms)
}

describe('round trips to the hops of a circuit', () => {
  test('of the last few measurements the least counts: one that waited somewhere puts no near hop behind a far one', () => {
    const trips = new RoundTrips(4)
    expect(trips.recentMs(0)).toBeNull()
    for (const [near, far] of [
      [95, 60],
      [47, 61],
      [90, 150],
    ] as const) {
      measure(trips, 0, near)
      measure(trips, 1, far)
    }
    expect([trips.recentMs(0), trips.recentMs(1)]).toEqual([47, 60])
    expect(trips.smoothedMs(0)).toBeGreaterThan(trips.smoothedMs(1)!)
  })

  test('what was measured long ago is forgotten: a way may become longer', () => {
    const trips = new RoundTrips(4)
    for (const ms of [10, 200, 210, 220, 205, 230]) measure(trips, 0, ms)
    expect(trips.recentMs(0)).toBe(200)
    expect(trips.minMs(0)).toBe(10)
  })
})
