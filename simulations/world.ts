import { type Random, SeededRandom } from '../src/base/index.ts'
import type { CryptoSuite } from '../src/crypto/index.ts'
import { type NetworkRules, networkId, parseRules, type UnverifiedDescriptor } from '../src/directory/index.ts'
import { EventQueue } from './event-queue.ts'
import { VirtualNetwork } from './network.ts'
import { Observations } from './observations.ts'
import { seededSuite } from './seeded-suite.ts'
import { verifiedOnce } from './verified-once.ts'

/** Wall-clock time at the start of every run, ms: the result must not depend on today. */
export const EPOCH = 1_800_000_000_000
/** The network's own rules but for the proof of work: a thousand real ones would take hours, and its cost is no question here. */
const WORK_BITS = 2

/** What everything in a run shares. */
export interface World {
  readonly queue: EventQueue
  readonly network: VirtualNetwork
  readonly suite: CryptoSuite
  readonly rules: NetworkRules
  readonly networkId: Uint8Array
  readonly decode: (bytes: Uint8Array) => UnverifiedDescriptor
  readonly observations: Observations
  /** A stream of randomness of its own for a part of the run, so that one part's draws do not move another's. */
  readonly random: (part: string) => Random
  /** Wall-clock ms now. */
  readonly wall: () => number
}

/** @param believesClaims whether relays count for what they claim, as if everybody had measured all of them */
export function createWorld(seed: number, suite: CryptoSuite, believesClaims = false): World {
  const random = (part: string): Random => new SeededRandom(mix(seed, part))
  const queue = new EventQueue()
  const seeded = seededSuite(suite, random('crypto'))
  const weights = believesClaims ? { unmeasuredCap: 125_000_000 } : {}
  const rules = parseRules({ name: 'simulation', work: { bits: WORK_BITS }, weights })
  return {
    queue,
    network: new VirtualNetwork(queue, random('network')),
    suite: seeded,
    rules,
    networkId: networkId(seeded, rules),
    decode: verifiedOnce(seeded),
    observations: new Observations(),
    random,
    wall: () => EPOCH + queue.now,
  }
}

/** FNV-1a over the seed and a name. */
function mix(seed: number, part: string): number {
  let hash = 0x811c9dc5 ^ seed
  for (let i = 0; i < part.length; i++) hash = Math.imul(hash ^ part.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
