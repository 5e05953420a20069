import { z } from 'zod'

/** Asking the router to forward a port. Times in milliseconds. */
export const mappingConfig = z.strictObject({
  enabled: z
    .boolean()
    .default(true)
    .describe('whether the router is asked to forward the listening port, by PCP, NAT-PMP or UPnP, while the node is behind NAT'),
  leaseMs: z
    .int()
    .min(120_000)
    .max(86_400_000)
    .default(3_600_000)
    .describe('for how long the router is asked to keep it; renewed at half of that'),
  checkMs: z
    .int()
    .min(1_000)
    .default(15_000)
    .describe('how often it is looked at whether the router still has it, and still the same public address'),
  retryMs: z.int().min(1_000).default(300_000).describe('pause before a router that forwarded nothing is asked again'),
  answerTimeoutMs: z.int().min(100).default(3_000).describe('how long a router may take for one answer'),
})
export type MappingConfig = z.output<typeof mappingConfig>
