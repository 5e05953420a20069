import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

/** Fast tests of single rooms: many files at a time. */
const quick = ['unit', 'vectors', 'compliance', 'property', 'fuzz', 'architecture']
/** Whole nodes and browsers on the loopback: they wait more than they work, so two at a time. */
const whole = ['integration', 'interop', 'dashboard']
/** Namespaces, and what measures: one file at a time, so that they do not starve each other on a machine of two cores. */
const alone = ['netns', 'integration/memory', 'integration/never-reads', 'integration/relay-failure', 'dashboard/smoothness']

const filesOf = (places: readonly string[]): string[] =>
  places.map((place) => (place.includes('/') ? `test/${place}.test.ts` : `test/${place}/**/*.test.ts`))

export default defineConfig({
  test: {
    // vitest's own caches go to node_modules, which is not tracked.
    passWithNoTests: false,
    projects: [
      {
        test: {
          name: 'quick',
          include: filesOf(quick),
          pool: 'forks',
          // vitest would leave one core to itself: of two, half.
          maxWorkers: Math.max(2, availableParallelism() - 1),
          testTimeout: 20_000,
          hookTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'whole',
          include: filesOf(whole),
          exclude: filesOf(alone),
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'alone',
          include: filesOf(alone),
          pool: 'forks',
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
