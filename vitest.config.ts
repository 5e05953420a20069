import { defineConfig } from 'vitest/config'

/** Fast tests of single rooms: many files at a time. */
const quick = ['unit', 'vectors', 'compliance', 'property', 'fuzz', 'architecture']
/** Whole nodes, processes and namespaces: one file at a time, so that they do not starve each other on a machine of two cores. */
const whole = ['integration', 'interop', 'netns', 'dashboard']

export default defineConfig({
  test: {
    // vitest's own caches go to node_modules, which is not tracked.
    passWithNoTests: false,
    projects: [
      {
        test: {
          name: 'quick',
          include: quick.map((folder) => `test/${folder}/**/*.test.ts`),
          pool: 'forks',
          testTimeout: 20_000,
          hookTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'whole',
          include: whole.map((folder) => `test/${folder}/**/*.test.ts`),
          pool: 'forks',
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
