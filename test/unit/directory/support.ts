import { nodeIdFromKey, type SeededRandom } from '../../../src/base/index.ts'
import { nativeSuite } from '../../../src/crypto/index.ts'
import {
  type DescriptorFields,
  type NetworkRules,
  networkId,
  parseRules,
  type SignedDescriptor,
  signDescriptor,
  solveWork,
  testnetRules,
  workPeriod,
} from '../../../src/directory/index.ts'

export const suite = nativeSuite()

/** A moment to live in: whole periods since 1970, so that proofs hold for a while. */
export const START = 1_700_000_000_000

/** Rules of a testnet with next to no work, so that a test makes relays by the hundred. */
export const quickRules: NetworkRules = parseRules({ ...testnetRules, work: { bits: 2 } })

export interface TestRelay {
  readonly seed: Uint8Array
  readonly id: ReturnType<typeof nodeIdFromKey>
}

export function testRelay(random: SeededRandom): TestRelay {
  const seed = random.bytes(32)
  return { seed, id: nodeIdFromKey(suite.ed25519.keyPair(seed).publicKey) }
}

export function testFields(relay: TestRelay, rules: NetworkRules, now: number, changes: Partial<DescriptorFields> = {}): DescriptorFields {
  const publishedAt = changes.publishedAt ?? now
  const period = workPeriod(publishedAt, rules.work.periodMs)
  return {
    sequence: 1,
    publishedAt,
    expiresAt: publishedAt + rules.descriptors.lifetimeMs,
    onionKey: { x25519: new Uint8Array(32).fill(7) },
    addresses: ['/ip4/127.0.0.1/tcp/4001'],
    reach: { kind: 'direct' },
    roles: ['guard', 'middle'],
    exitPolicy: null,
    bandwidth: 1_000_000,
    family: [],
    protocols: { circuit: [1], link: [1], packet: [] },
    leaving: false,
    software: 'shallot 0.1.0',
    work: { period, nonce: solveWork(suite, { networkId: networkId(suite, rules), id: relay.id, period }, rules.work.bits) },
    ...changes,
  }
}

export function testDescriptor(
  relay: TestRelay,
  rules: NetworkRules,
  now: number,
  changes: Partial<DescriptorFields> = {},
): SignedDescriptor {
  return signDescriptor(suite, relay.seed, testFields(relay, rules, now, changes))
}
