import { expect, test } from 'vitest'
import type { Outage } from '../../../src/client/index.ts'
import type { NodeEvent } from '../../../src/node/node-control.ts'
import { OutageWatch } from '../../../src/node/outage-watch.ts'
import { Warnings } from '../../../src/node/warnings.ts'

function world() {
  const state = { now: 0, outage: null as Outage | null, hasNetwork: true, refreshed: [] as number[] }
  const events: NodeEvent[] = []
  const warnings = new Warnings(
    () => 1_000_000 + state.now,
    (event) => events.push(event),
  )
  const watch = new OutageWatch({
    clocks: { now: () => state.now, wall: () => 1_000_000 + state.now },
    warnings,
    outage: () => state.outage,
    hasNetwork: () => state.hasNetwork,
    refresh: () => state.refreshed.push(state.now),
  })
  const at = (now: number, outage: Outage['at'] | null): void => {
    state.now = now
    state.outage = outage === null ? null : { at: outage, since: 500, failures: 3 }
    watch.look()
  }
  return { state, events, warnings, watch, at }
}

test('an outage is one warning and one fact, said once, and gone when it is over', () => {
  const { events, warnings, watch, at } = world()
  at(1_000, 'exit')
  at(2_000, 'exit')
  expect(watch.facts).toMatchObject({ code: 'exits-unreachable', since: 1_000_500 })
  expect(warnings.list()).toMatchObject([{ code: 'exits-unreachable', message: `${watch.facts!.message}; ${watch.facts!.advice}` }])
  at(3_000, null)
  expect(watch.facts).toBeNull()
  expect(warnings.list()).toEqual([])
  expect(events.map(({ type }) => type)).toEqual(['warning', 'warning-over'])
})

test('another that is missing takes the place of the first, whose warning is over', () => {
  const { events, warnings, at } = world()
  at(1_000, 'exit')
  at(2_000, 'no-exit')
  expect(warnings.list().map(({ code }) => code)).toEqual(['no-exit-known'])
  expect(events).toMatchObject([
    { type: 'warning', warning: { code: 'exits-unreachable' } },
    { type: 'warning-over', code: 'exits-unreachable' },
    { type: 'warning', warning: { code: 'no-exit-known' } },
  ])
})

test('guards that do not answer are the network’s fault where this machine has none', () => {
  const { state, watch, at } = world()
  at(1_000, 'guard')
  expect(watch.facts?.code).toBe('guards-unreachable')
  state.hasNetwork = false
  at(2_000, 'guard')
  expect(watch.facts?.code).toBe('no-network')
  at(3_000, 'exit')
  expect(watch.facts?.code).toBe('exits-unreachable')
})

test('news of relays are asked for while none behind the guard answers, less and less often', () => {
  const { state, at } = world()
  for (let second = 1; second <= 100; second++) at(second * 1_000, 'exit')
  expect(state.refreshed).toEqual([1_000, 6_000, 16_000, 36_000, 66_000, 96_000])
  at(101_000, null)
  at(102_000, 'no-exit')
  at(200_000, 'guard')
  expect(state.refreshed.slice(6)).toEqual([102_000])
})

test('choices that leave no path are named by their keys, with what would allow more', () => {
  const { state, watch, warnings } = world()
  state.outage = {
    at: 'wishes',
    since: 0,
    failures: 3,
    without: { position: 'guard', counts: { 'excluded-country': 12, 'excluded-node': 1 } },
  }
  watch.look()
  expect(watch.facts).toMatchObject({
    code: 'nothing-allowed',
    message: 'nothing can be reached: the choices in path.exclude_countries and path.exclude_nodes leave no guard',
    advice:
      'take countries out of path.exclude_countries, or take nodes out of path.exclude_nodes: in the dashboard, or with `shallot set`',
  })
  state.outage = { at: 'wishes', since: 0, failures: 3, without: { position: 'exit', counts: { 'not-in-exit-countries': 4 } } }
  watch.look()
  expect(warnings.list()).toMatchObject([
    {
      code: 'nothing-allowed',
      message:
        'nothing can be reached: the choices in path.exit_countries leave no exit; add countries to path.exit_countries, or empty it (any country): in the dashboard, or with `shallot set`',
    },
  ])
})
