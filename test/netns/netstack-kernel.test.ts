import { describe, expect, test } from 'vitest'
import { Namespace } from '../support/namespace.ts'
import { projectRoot, run } from '../support/processes.ts'
import type { PhaseResult } from './soak/soak.ts'

const reason = await Namespace.reasonAgainst()
const seed = String(process.env.SHALLOT_SEED ?? Date.now() % 100_000)

interface Outcome {
  readonly faults: readonly string[]
  readonly results: readonly PhaseResult[]
  readonly megabytes: number
  readonly growth: number
  readonly rss: number
}

/** The soak, in a process and a network of its own. */
async function soak(...options: string[]): Promise<Outcome> {
  const script = `${projectRoot}/test/netns/soak/main.ts`
  const { stdout, log } = await run(process.execPath, [script, '--json', '--seed', seed, ...options], { timeoutMs: 110_000 })
  const outcome = JSON.parse(stdout || '{}') as Outcome
  expect(outcome.faults, log).toEqual([])
  return outcome
}

describe.skipIf(reason !== null)(
  `netstack and the kernel's TCP over a TUN (SHALLOT_SEED=${seed})${reason === null ? '' : ` (${reason})`}`,
  () => {
    test('200 MB through paths from clean to 5 % loss, reordered, doubled and late: all arrive as they were sent', async () => {
      const { megabytes, results, rss } = await soak('--gb', '0.2', '--connections', '0')
      expect(megabytes).toBeGreaterThan(199)
      expect(results.map(({ lost }) => lost > 0)).toEqual([false, false, true, true, true, true, true, true])
      // Two clean paths of two do not need to send again what was not lost.
      expect(results[0]!.retransmissions + results[1]!.retransmissions).toBeLessThan(200)
      expect(rss).toBeLessThan(500)
    })

    test('10,000 short connections, dialed and accepted, leave neither connections nor memory behind', async () => {
      const { results, growth } = await soak('--gb', '0', '--connections', '10000')
      expect(results.map(({ flows }) => flows)).toEqual([5000, 5000])
      expect(growth).toBeLessThan(12)
    })
  },
)
