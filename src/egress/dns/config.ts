import { z } from 'zod'

/** `[exit.dns]`: the exit's resolver for questions of any type, which clients reach by a stream of DNS messages. */
export const exitDnsConfig = z.strictObject({
  maxStreams: z.int().min(0).max(65_535).default(512).describe('Streams to the resolver at once; 0 serves none.'),
  maxStreamsPerCircuit: z.int().min(1).max(64).default(2).describe('Streams to the resolver at once on one circuit.'),
  maxQuestions: z
    .int()
    .min(1)
    .max(16_384)
    .default(512)
    .describe('Questions that servers are asked at once (each has a socket); further ones fail.'),
  maxQuestionsPerStream: z.int().min(1).max(1024).default(32).describe('Questions of one stream at once; further ones wait.'),
  questionsPerSecondPerCircuit: z
    .int()
    .min(0)
    .default(100)
    .describe('Questions a second on one circuit, lasting; further ones wait. 0 is no limit.'),
  questionBurst: z.int().min(1).default(400).describe('Questions at once on one circuit before `questions_per_second_per_circuit` counts.'),
  attemptTimeoutMs: z.int().min(50).default(2000).describe('How long a server may take before the next one is asked beside it.'),
  idleTimeoutMs: z.int().min(100).default(120_000).describe('How long a stream may stand without a question.'),
  cacheBytes: z.int().min(0).default(8_388_608).describe('Memory for answers; `dns_cache_entries` bounds their number.'),
  failureTtlSeconds: z
    .int()
    .min(1)
    .max(300)
    .default(5)
    .describe('How long a failure of every server is remembered (RFC 9520: 1 to 300 s).'),
  maxUnreadBytes: z
    .int()
    .min(65_536)
    .default(16_777_216)
    .describe('Answers that clients have not taken yet, of all streams; beyond that, streams that do not read are reset.'),
})
export type ExitDnsConfig = z.output<typeof exitDnsConfig>
