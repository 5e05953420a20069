import { z } from 'zod'
import { parseHostPort } from '../../base/index.ts'

/** Limits of the STUN server. Sizes in bytes, without the headers of UDP and IP. */
export const stunServerLimits = z.strictObject({
  answersPerSecond: z.int().min(1).default(2_000).describe('answers a second to all together, with as many at once'),
  answersPerSecondPerSource: z
    .int()
    .min(1)
    .default(20)
    .describe('answers a second to one IPv4 address or IPv6 /64, with three times as many at once'),
  sources: z
    .int()
    .min(16)
    .default(8_192)
    .describe('addresses of which rate and credit are remembered; beyond it the one heard of longest ago is forgotten'),
  maxRequestBytes: z.int().min(128).max(65_507).default(2_048).describe('longer requests are not answered'),
  creditBytes: z
    .int()
    .min(0)
    .default(1_024)
    .describe('the most that an address may have sent, unanswered, and still get answers longer than their requests for'),
  allowanceBytesPerMinute: z
    .int()
    .min(0)
    .default(512)
    .describe(
      'what one address may be sent a minute beyond what it sent: programs other than Shallot ask in 20 bytes for what takes 32. 0: never a byte more',
    ),
  allowanceBytesPerSecond: z.int().min(0).default(4_096).describe('the same for all addresses together, a second'),
})
export type StunServerLimits = z.output<typeof stunServerLimits>

/** The STUN server of a bootstrap node. */
export const stunServerConfig = z.strictObject({
  enabled: z.boolean().default(true).describe('whether a bootstrap node tells others, over UDP, how their NAT behaves'),
  listen: z
    .array(z.string())
    .default([])
    .describe(
      'where, as multiaddrs: /ip4/ADDRESS/udp/PORT or /ip6/ADDRESS/udp/PORT; when there are none, the addresses and port numbers of link.listen. Two addresses of one family and port make the server able to tell all kinds of NAT apart',
    ),
  alternateAddresses: z
    .array(z.union([z.ipv4(), z.ipv6()]))
    .default([])
    .describe('second addresses of this machine for STUN alone, at most one of each family, answering from the same ports'),
  alternatePort: z
    .int()
    .min(0)
    .max(65_535)
    .default(0)
    .describe('the second port. 0: the one after the first, which is where nodes look for it'),
  otherPortAnswers: z
    .boolean()
    .default(true)
    .describe(
      'whether an answer may go to another port of the asking address (RESPONSE-PORT), which finding the lifetime of a binding needs',
    ),
  limits: stunServerLimits.prefault({}).describe('limits of the STUN server'),
})
export type StunServerConfig = z.output<typeof stunServerConfig>

/** How long and how often is asked. Times in milliseconds. */
export const stunProbeTiming = z.strictObject({
  rtoMs: z.int().min(10).default(500).describe('wait before a request is repeated the first time; doubled each time after it (RFC 8489)'),
  minRtoMs: z.int().min(10).default(150).describe('the same once round trips have been measured: twice the longest, but at least this'),
  sends: z.int().min(1).max(7).default(4).describe('how often a request is sent before its silence counts'),
  paceMs: z.int().min(0).default(50).describe('time between the first sendings of two requests'),
  maxLifetimeMs: z.int().min(1_000).default(600_000).describe('how long finding the lifetime of a binding may take, when asked for'),
})
export type StunProbeTiming = z.output<typeof stunProbeTiming>

/** Asking STUN servers. */
export const stunProbeConfig = z.strictObject({
  servers: z
    .array(z.string().refine(isServer, { error: 'not a STUN server: HOST, HOST:PORT or [IPv6]:PORT' }))
    .default([])
    .describe("STUN servers to ask beside the network's bootstrap nodes: HOST:PORT or [IPv6]:PORT"),
  bootstrap: z.boolean().default(true).describe("whether the network's bootstrap nodes are asked"),
  timing: stunProbeTiming.prefault({}).describe('how long and how often is asked'),
})
export type StunProbeConfig = z.output<typeof stunProbeConfig>

/** All values at their defaults. */
export const defaultStunServerConfig: StunServerConfig = stunServerConfig.parse({})
export const defaultStunProbeTiming: StunProbeTiming = stunProbeTiming.parse({})

function isServer(text: string): boolean {
  try {
    parseHostPort(text, 3478)
    return true
  } catch {
    return false
  }
}
