import { afterEach, expect, test } from 'vitest'
import { RuntimeWatch } from '../../../src/metrics/runtime.ts'
import { delay } from '../../support/processes.ts'

let watch: RuntimeWatch | null = null

afterEach(() => watch?.close())

test('a watch tells what the process costs, and that its loop was held up', async () => {
  watch = new RuntimeWatch(1_000, 0)
  await delay(60)
  const until = performance.now() + 120
  while (performance.now() < until);
  await delay(60)
  const facts = await watch.facts(0)
  expect(facts.lag!.max).toBeGreaterThan(0.08)
  expect(facts.lag!.median).toBeLessThanOrEqual(facts.lag!.p99)
  expect(facts.lag!.p99).toBeLessThanOrEqual(facts.lag!.max)
  expect(facts.loopActiveSeconds).toBeGreaterThan(0.1)
  expect(facts.heapUsedBytes).toBeLessThan(facts.heapLimitBytes)
  if (process.platform === 'linux') expect(facts.openFiles).toBeLessThan(facts.maxFiles!)
})

test('pages of one minute see the same lag, and the next minute has its own', async () => {
  watch = new RuntimeWatch(60_000, 0)
  await delay(60)
  const until = performance.now() + 120
  while (performance.now() < until);
  await delay(60)
  const first = await watch.facts(1_000)
  await delay(60)
  expect((await watch.facts(60_999)).lag).toBe(first.lag)
  const next = await watch.facts(61_000)
  expect(next.lag).not.toBe(first.lag)
})

test('garbage that is collected is counted by kind', async () => {
  watch = new RuntimeWatch(1_000, 0)
  const kept: unknown[] = []
  for (let i = 0; i < 400_000; i++) kept[i % 100] = { text: `${i}`, more: [i, i] }
  await delay(50)
  const { gc } = await watch.facts(0)
  expect(gc.map(({ kind }) => kind).sort()).toEqual(['incremental', 'major', 'minor', 'weak-callbacks'])
  expect(gc.find(({ kind }) => kind === 'minor')!.runs).toBeGreaterThan(0)
})
