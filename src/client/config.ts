import { z } from 'zod'

/** How this node treats the requests of its own applications. Which relays it uses for them is the section `path`. */
export const clientConfig = z.strictObject({
  circuitWaitMs: z
    .int()
    .min(100)
    .max(600_000)
    .default(30_000)
    .describe('How long a request waits for a circuit before the application is told that there is none. Milliseconds.'),
  buildAttempts: z.int().min(1).max(32).default(6).describe('Paths that are tried in a row for a waiting request before it fails.'),
  connectAttempts: z
    .int()
    .min(1)
    .max(16)
    .default(4)
    .describe('Circuits that are tried for one request before the application sees the failure. A server that refuses is not asked again.'),
  probeAfterMs: z
    .int()
    .min(100)
    .max(60_000)
    .default(3_000)
    .describe(
      'When nothing has come for this long on a circuit with open streams, it is probed: soon after something was sent, less and less often while it only answers probes. Milliseconds.',
    ),
  probeTimeoutMs: z
    .int()
    .min(100)
    .max(60_000)
    .default(3_000)
    .describe(
      'A circuit that does not answer a probe in this time (or in four of its round trips) is closed, its streams are reset, and others through the silent relay are probed. Milliseconds.',
    ),
})

export type ClientConfig = z.output<typeof clientConfig>
