import { z } from 'zod'

/** How a node looks for others. Sizes in bytes, times in milliseconds. What all nodes share is in the network's rules. */
export const discoveryConfig = z.strictObject({
  dht: z.boolean().default(true).describe('whether a serving node takes part in the DHT; clients never do'),
  dialTimeoutMs: z.int().min(100).default(10_000).describe('how long connecting to a peer may take'),
  joinPeers: z.int().min(1).max(16).default(3).describe('peers that are asked for the view at the same time while joining'),
  syncPeers: z.int().min(1).max(16).default(2).describe('peers that are asked for the view in each later round'),
  saveMs: z.int().min(1_000).default(60_000).describe('how often a view that has changed is written to disk'),
  workShare: z
    .number()
    .min(0.01)
    .max(1)
    .default(0.5)
    .describe('part of one core that may be spent on the proof of work while there is none'),
  dhtTimeoutMs: z.int().min(100).default(30_000).describe('how long a put or a get of the DHT may take'),
  dhtRecords: z.int().min(16).default(1_024).describe('records of other relays that are stored for the DHT'),
})

export type DiscoveryConfig = z.output<typeof discoveryConfig>
