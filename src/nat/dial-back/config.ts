import { z } from 'zod'

/** Having one's addresses dialled from outside, and doing that for others. Times in milliseconds. */
export const dialBackConfig = z.strictObject({
  serve: z.boolean().default(true).describe('whether this node, while it is reached directly, dials back peers that ask it to'),
  witnesses: z.int().min(1).max(8).default(3).describe('peers of different networks that are asked in one check of an address'),
  timeoutMs: z.int().min(100).default(20_000).describe('how long one peer may take to dial back'),
  connectTimeoutMs: z.int().min(100).default(5_000).describe('how long a connection that was asked for may take to come about'),
  maxAtOnce: z.int().min(1).default(8).describe('requests served at the same time; beyond it they are refused'),
  perMinute: z.int().min(1).default(120).describe('requests served in a minute, in all'),
  perAskerPerMinute: z.int().min(1).default(12).describe('requests served in a minute for one address that asks (IPv6: one /64)'),
  perTargetPerMinute: z.int().min(1).default(12).describe('connections in a minute to one address (IPv6: one /64), whoever asks'),
})
export type DialBackConfig = z.output<typeof dialBackConfig>
