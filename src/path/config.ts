import { z } from 'zod'
import { countryProblem, parseNetwork, parseNodeId } from '../base/index.ts'

/** Most entries of a list a user writes. */
const MAX_LIST = 1000

function parses(parse: (text: string) => unknown): (text: string) => boolean {
  return (text) => {
    try {
      parse(text)
      return true
    } catch {
      return false
    }
  }
}

const nodeIdText = z.string().refine(parses(parseNodeId), { error: 'not a node id: it looks like 12D3KooW… (52 characters)' })
const networkText = z
  .string()
  .refine(parses(parseNetwork), { error: 'not a network: ADDRESS/BITS (192.0.2.0/24, 2001:db8::/32) or one address' })

const countryText = z.string().superRefine((text, context) => {
  const problem = countryProblem(text)
  if (problem !== null) context.addIssue({ code: 'custom', message: problem })
})

/** Options of path choice, guards and the circuit pool. */
export const pathConfig = z.strictObject({
  guardsInUse: z
    .int()
    .min(1)
    .max(3)
    .default(1)
    .describe('How many guards carry circuits at a time. One tells the fewest relays that this node exists; more spread the load.'),
  guardsPrimary: z
    .int()
    .min(1)
    .max(8)
    .default(3)
    .describe('The first this many guards of the sample that can be used are retried quickly and always tried before any other.'),
  guardSampleSize: z
    .int()
    .min(3)
    .max(40)
    .default(20)
    .describe('How many usable guards the sample aims at (never more than a fifth of all guards, but at least the primary ones).'),
  guardLifetimeDays: z
    .int()
    .min(1)
    .max(3650)
    .default(120)
    .describe(
      'A guard leaves the sample this many days after it was drawn; one that carries circuits stays at least half as many days from its first.',
    ),
  excludeNodes: z.array(nodeIdText).max(MAX_LIST).default([]).describe('Node ids that no path of this node may hold, in any position.'),
  excludeNetworks: z
    .array(networkText)
    .max(MAX_LIST)
    .default([])
    .describe('Networks (ADDRESS/BITS) whose relays no path of this node may hold, in any position.'),
  exitNodes: z
    .array(nodeIdText)
    .max(MAX_LIST)
    .default([])
    .describe('Strict list of the exits to use. Empty: any. If none of them can serve a target, the request fails.'),
  exitCountries: z
    .array(countryText)
    .max(MAX_LIST)
    .default([])
    .describe(
      'Countries to come out in, as two letters (ISO 3166-1): only exits all of whose known addresses are there. Empty: any. It makes you stand out: few people choose what you choose.',
    ),
  excludeCountries: z
    .array(countryText)
    .max(MAX_LIST)
    .default([])
    .describe('Countries whose relays no path of this node may hold, in any position; nor relays whose country is not known.'),
  circuitLifetimeMs: z
    .int()
    .min(10_000)
    .max(86_400_000)
    .default(600_000)
    .describe('A circuit takes no new streams this long after its first use (a little sooner, by a random part of a tenth). Milliseconds.'),
  cleanLifetimeMs: z
    .int()
    .min(10_000)
    .max(86_400_000)
    .default(1_800_000)
    .describe('A circuit built ahead of need and never used is replaced after this long. Milliseconds.'),
  cleanCircuits: z
    .int()
    .min(0)
    .max(32)
    .default(3)
    .describe(
      'Unused circuits kept ready for every port that was asked for lately (80 and 443 to begin with). 0: none are built ahead of need.',
    ),
  portMemoryMs: z
    .int()
    .min(1000)
    .max(86_400_000)
    .default(3_600_000)
    .describe('A port counts as asked for lately this long after its last use. Milliseconds.'),
  maxCircuits: z.int().min(1).max(4096).default(64).describe('Circuits at once, those being built included.'),
  maxBuilding: z.int().min(1).max(256).default(8).describe('Circuits being built at once.'),
  streamsPerCircuit: z.int().min(1).max(4096).default(128).describe('Open streams on one circuit; beyond it the next circuit is used.'),
  buildTimeoutMs: z
    .int()
    .min(500)
    .max(120_000)
    .default(10_000)
    .describe('A circuit that is not built in this time is given up and another path is tried. Milliseconds.'),
  buildPatienceMs: z
    .int()
    .min(100)
    .max(120_000)
    .default(3_000)
    .describe('When a circuit that a request waits for is not built in this time, another is begun beside it. Milliseconds.'),
})

export type PathConfig = z.output<typeof pathConfig>
