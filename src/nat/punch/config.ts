import { z } from 'zod'

/** Hole punching. Times in milliseconds. */
export const punchingConfig = z.strictObject({
  enabled: z
    .boolean()
    .default(true)
    .describe('whether links through a relay are upgraded to direct ones; without it two nodes behind NAT stay on their relay'),
  webrtc: z.boolean().default(true).describe('whether UDP (WebRTC) is tried where TCP cannot work or has failed'),
  rounds: z.int().min(1).max(10).default(3).describe('attempts to open TCP connections from both sides at the same time'),
  reverseTimeoutMs: z.int().min(100).default(4_000).describe('how long a peer with a public address may take to be connected to'),
  answerTimeoutMs: z.int().min(100).default(5_000).describe('how long the peer may take to answer a message of the coordination'),
  roundTimeoutMs: z.int().min(100).default(4_000).describe('how long one attempt over TCP goes on'),
  udpTimeoutMs: z.int().min(1_000).default(12_000).describe('how long one attempt over UDP goes on'),
  udpTries: z.int().min(1).max(5).default(2).describe('attempts over UDP'),
  retryAfterMs: z
    .int()
    .min(1_000)
    .default(60_000)
    .describe('a pair of nodes that could not meet tries again after this time at the earliest, doubled each time'),
  retryAfterMaxMs: z.int().min(1_000).default(1_800_000).describe('the longest such wait'),
  maxConcurrent: z.int().min(1).default(8).describe('peers that are being met at the same time'),
  maxWaiting: z.int().min(1).default(64).describe('peers that wait for their turn; more stay on their relay until they connect again'),
})
export type PunchingConfig = z.output<typeof punchingConfig>

/** The defaults. */
export const defaultPunchingConfig: PunchingConfig = punchingConfig.parse({})
