import { describe, expect, test } from 'vitest'
import { Drain } from '../../../src/node/drain.ts'
import { lifeFrom } from '../../../src/node/facts.ts'
import { History } from '../../../src/node/history.ts'
import { fakeTraffic } from '../../support/fake-node.ts'

describe('a clock that is set', () => {
  const clocks = (time: { now: number; wall: number }) => ({ now: () => time.now, wall: () => time.wall })

  test('changes nothing about how long the node runs', () => {
    const time = { now: 100, wall: 1_000_000 }
    const life = lifeFrom(clocks(time))
    Object.assign(time, { now: 5100.4, wall: 10 })
    expect(life()).toEqual({ startedAt: 1_000_000, uptimeMs: 5000 })
  })

  test('changes nothing about how long a drain may take yet', () => {
    const time = { now: 100, wall: 1_000_000 }
    const drain = new Drain({ clocks: clocks(time), leave: () => {}, circuits: () => 1, done: () => {} }, 60_000)
    expect(drain.facts()).toEqual({ since: 1_000_000, until: 1_060_000, circuitsLeft: 1 })
    Object.assign(time, { now: 10_100, wall: 500_000 })
    expect(drain.facts()).toEqual({ since: 490_000, until: 550_000, circuitsLeft: 1 })
    drain.cancel()
  })

  test('leaves the times of the plots rising', () => {
    const history = new History()
    for (const at of [5_000_000, 5_001_000, 3_000_000, 3_001_000]) {
      history.sample(at, fakeTraffic)
      history.countView(at, () => ({ known: 1, eligible: 1 }))
    }
    expect(history.samples().map(({ at }) => at)).toEqual([2_998_999, 2_999_999, 3_000_000, 3_001_000])
    expect(history.counts().map(({ at }) => at)).toEqual([2_999_999, 3_000_000])
  })
})
