import { z } from 'zod'
import { MalformedError, utf8Bytes } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { parseBootstrapAddress } from './relay-address.ts'

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

const duration = z.int().min(0)
const versions = z.array(z.int().min(0).max(255)).min(1).max(16)

const bootstrapAddress = z.string().superRefine((text, context) => {
  try {
    parseBootstrapAddress(text)
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    context.addIssue({ code: 'custom', message: `${error.message}; it should be like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…` })
  }
})

/** What a whole network shares: `network.toml`. All nodes of one network hold the same values, or their views differ. */
export const networkRules = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,31}$/, 'a network name is 1 to 32 of a-z, 0-9 and dash')
    .default('shallot')
    .describe('Name of the network. Nodes of networks with different names do not exchange anything'),
  bootstrap: z
    .array(bootstrapAddress)
    .max(64)
    .default([])
    .describe('Nodes that help others in: multiaddrs that end in /p2p/ and the identity. Only IP addresses: no name is resolved'),
  privateDestinations: z
    .boolean()
    .default(false)
    .describe('Whether exits may be asked to connect to private and loopback addresses. For networks on one machine only'),
  protocols: z
    .strictObject({
      circuit: versions.default([1]).describe('Circuit protocol versions in use. A relay must speak one of them to be known'),
      link: versions.default([1]).describe('Link protocol versions in use. A relay must speak one of them to be known'),
    })
    .prefault({})
    .describe('Versions that the network speaks'),
  work: z
    .strictObject({
      bits: z.int().min(0).max(40).default(24).describe('Leading zero bits that the proof of work of a descriptor needs'),
      periodMs: z
        .int()
        .min(minuteMs)
        .default(7 * dayMs)
        .describe('How long a proof of work holds: each period needs a new one'),
    })
    .prefault({})
    .describe('Proof of work that a relay puts into its descriptor'),
  descriptors: z
    .strictObject({
      lifetimeMs: z
        .int()
        .min(1_000)
        .default(6 * hourMs)
        .describe('Longest time from publication to expiry of a descriptor'),
      republishMs: z
        .int()
        .min(500)
        .default(hourMs)
        .describe('How often a relay publishes a new edition of its descriptor when nothing changes'),
      clockToleranceMs: duration.default(10 * minuteMs).describe('How far in the future a descriptor may be dated'),
    })
    .prefault({})
    .describe('Times of descriptors'),
  admission: z
    .strictObject({
      maxRelays: z.int().min(8).max(100_000).default(10_000).describe('Most relays in the view'),
      perAddress: z.int().min(1).default(2).describe('Most relays in the view at one IP address'),
      perNet24: z.int().min(1).default(8).describe('Most relays in the view in one IPv4 /24'),
      perNet48: z.int().min(1).default(8).describe('Most relays in the view in one IPv6 /48'),
      perVia: z.int().min(1).default(32).describe('Most relays in the view behind one NAT relay'),
      privateAddresses: z
        .boolean()
        .default(false)
        .describe('Whether relays may be at private and loopback addresses. For networks on one machine only'),
    })
    .prefault({})
    .describe('Which relays are known: the same for everybody'),
  eligibility: z
    .strictObject({
      minAgeMs: duration.default(dayMs).describe('How long a relay must have been known before paths use it'),
      guardMinAgeMs: duration.default(8 * dayMs).describe('How long a relay must have been known before it is taken as a guard'),
      burstWindowMs: z.int().min(1_000).default(dayMs).describe('Relays first seen in one window of this length are one cohort'),
      burstFloor: z.int().min(0).default(30).describe('A cohort of at most this many relays is never held back'),
      burstFraction: z
        .number()
        .min(0)
        .default(0.2)
        .describe('A cohort of at most this part of the relays that were there before is not held back'),
      burstAgeMs: duration.default(14 * dayMs).describe('How long the relays of a cohort that is too large must have been known'),
    })
    .prefault({})
    .describe('Which known relays a node uses for its own paths'),
  weights: z
    .strictObject({
      unmeasuredCap: z
        .int()
        .min(1)
        .default(512 * 1024)
        .describe('Weight (bytes a second) of a relay counts at most this much until the node has measured it'),
      measuredFactor: z.number().min(1).default(2).describe('A measured relay counts at most this many times what was measured'),
      cap: z.int().min(1).default(125_000_000).describe('Weight (bytes a second) that no relay exceeds'),
    })
    .prefault({})
    .describe('How much a relay counts when a path is drawn: the lower of its claim and these caps'),
  spread: z
    .strictObject({
      joinSyncMs: z.int().min(50).default(2_000).describe('Pause between pulls of the view while a node is joining'),
      syncMs: z
        .int()
        .min(100)
        .default(5 * minuteMs)
        .describe('Pause between pulls of the view from random peers afterwards'),
      gossipPeers: z.int().min(1).max(32).default(6).describe('Relays that a serving node hands fresh descriptors to'),
      gossipRotateMs: z
        .int()
        .min(1_000)
        .default(10 * minuteMs)
        .describe('How often one of these relays is exchanged for another'),
    })
    .prefault({})
    .describe('How descriptors spread'),
})

export type NetworkRules = z.output<typeof networkRules>
export type NetworkRulesInput = z.input<typeof networkRules>

/** What a mesh on one machine changes, and nothing else: ages of zero, little work, private addresses, quick intervals. */
export const testnetRules = {
  name: 'testnet',
  privateDestinations: true,
  work: { bits: 10 },
  descriptors: { lifetimeMs: 10 * minuteMs, republishMs: 2 * minuteMs },
  admission: { privateAddresses: true },
  eligibility: { minAgeMs: 0, guardMinAgeMs: 0, burstFloor: 1_000, burstAgeMs: 0 },
  weights: { unmeasuredCap: 16 * 1024 * 1024 },
  spread: { joinSyncMs: 200, syncMs: 5_000, gossipRotateMs: minuteMs },
} as const satisfies NetworkRulesInput

/** Rules from what a file says. The result is frozen by nobody: treat it as read-only. @throws ZodError */
export function parseRules(input: NetworkRulesInput): NetworkRules {
  return networkRules.parse(input)
}

/** One value in which a network differs from the real network's defaults. */
export interface RuleDifference {
  /** `work.bits` */
  readonly key: string
  readonly value: unknown
  readonly normal: unknown
}

/** What differs from the defaults, in the schema's order; the name and the bootstrap nodes are every network's own and left out. */
export function ruleDifferences(rules: NetworkRules): RuleDifference[] {
  const differences: RuleDifference[] = []
  const walk = (path: string, value: unknown, normal: unknown): void => {
    if (isGroup(value) && isGroup(normal)) {
      for (const key of Object.keys(normal)) walk(path === '' ? key : `${path}.${key}`, value[key], normal[key])
    } else if (JSON.stringify(value) !== JSON.stringify(normal)) {
      differences.push({ key: path, value, normal })
    }
  }
  const { name: _name, bootstrap: _bootstrap, ...normal } = networkRules.parse({})
  walk('', rules, normal)
  return differences
}

/** Eight bytes that stand for the network in proofs, records and on the wire: the start of SHA-256("shallot-network" || name). */
export function networkId(suite: CryptoSuite, rules: Pick<NetworkRules, 'name'>): Uint8Array {
  return suite.sha256(utf8Bytes('shallot-network'), utf8Bytes(rules.name)).slice(0, 8)
}

function isGroup(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
