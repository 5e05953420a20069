import { z } from 'zod'
import { type ListenAddress, listenText, parseListen } from '../listen-address.ts'

/** `[ingress.dns]`: the listener, and what it shares with the TUN: questions through circuits, and what is remembered of them. */
export const dnsConfig = z
  .strictObject({
    listen: z
      .array(listenText)
      .default(['127.0.0.1:9253'])
      .describe(
        'Addresses and ports to listen on, by UDP and TCP; an empty list switches it off. Anything but loopback needs `allow_others`.',
      ),
    allowOthers: z
      .boolean()
      .default(false)
      .describe('Whether it may listen on addresses that other machines reach. Whoever reaches it can ask through this node.'),
    timeoutMs: z.int().min(100).default(20_000).describe('How long a question may take, building a circuit included.'),
    maxQuestions: z.int().min(1).max(65_535).default(1024).describe('Questions under way at once; further ones fail at once.'),
    maxQuestionsPerOrigin: z
      .int()
      .min(1)
      .max(16_384)
      .default(256)
      .describe('Questions under way at once of one origin (client address, program in the VPN); further ones fail at once.'),
    maxDatagramBytes: z
      .int()
      .min(512)
      .max(65_507)
      .default(1232)
      .describe('Longest answer by UDP, where the program that asks takes it; for a longer one it is told to come by TCP.'),
    maxConnections: z.int().min(1).max(65_535).default(128).describe('TCP connections open at once; further ones are closed.'),
    idleTimeoutMs: z.int().min(100).default(15_000).describe('How long a TCP connection may stand without a question.'),
    maxStreams: z
      .int()
      .min(1)
      .max(4096)
      .default(64)
      .describe('Streams to resolvers of exits at once: one for each origin that asked of late.'),
    streamIdleTimeoutMs: z.int().min(100).default(60_000).describe('How long such a stream is kept without a question.'),
    streamMaxAgeMs: z
      .int()
      .min(1000)
      .default(600_000)
      .describe('How old such a stream may grow before the next question goes on a new one, as circuits are retired.'),
    cacheEntries: z.int().min(0).default(4096).describe('Answers kept in memory, of all origins; 0 keeps none.'),
    cacheBytes: z.int().min(0).default(4_194_304).describe('Memory for them.'),
    cacheMaxTtlSeconds: z
      .int()
      .min(1)
      .default(600)
      .describe('An answer is kept at most this long: an exit that lied is not believed for longer than its circuit lasts.'),
  })
  .superRefine((config, context) => {
    if (config.allowOthers) return
    config.listen.forEach((text, i) => {
      let listen: ListenAddress
      try {
        listen = parseListen(text)
      } catch {
        return // said already
      }
      if (listen.loopback) return
      const message = `${text} is not a loopback address: set \`allow_others = true\` if other machines shall ask through this node, or listen on 127.0.0.1`
      context.addIssue({ code: 'custom', path: ['listen', i], message })
    })
  })
export type DnsConfig = z.output<typeof dnsConfig>
