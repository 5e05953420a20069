import { z } from 'zod'

/** Limits of the relay engine. Rationale beside each; the key's unit ends its name. */
export const relayingConfig = z.strictObject({
  maxCircuits: z.int().min(1).default(10_000).describe('Circuits served at once, in all. Each idle one costs some tens of kilobytes.'),
  maxCircuitsPerRelay: z
    .int()
    .min(1)
    .default(4_000)
    .describe('Circuits that one other relay may have open here: it carries those of many clients.'),
  maxCircuitsPerClient: z
    .int()
    .min(1)
    .default(256)
    .describe('Circuits that one client (a peer that is not a known relay) may have open here. A usual client holds about ten.'),
  maxCircuitsPerAddress: z
    .int()
    .min(1)
    .default(1_024)
    .describe(
      'Circuits of clients that one network address may have open here, whatever identities it uses. Relays, also those behind a NAT relay, are not counted by address.',
    ),
  createsPerSecond: z.int().min(1).default(1_000).describe('Handshakes (CREATE) answered a second, in all; the burst is twice that.'),
  createsPerSecondPerPeer: z.int().min(1).default(200).describe('Handshakes answered a second for one peer; the burst is five times that.'),
  queueBudgetBytes: z
    .int()
    .min(1 << 20)
    .default(128 << 20)
    .describe('Bytes queued in this node over all circuits. Beyond it the circuits with the oldest queued data are closed first.'),
  stallTimeoutMs: z.int().min(100).default(60_000).describe('A circuit whose queued data has not moved for so long is closed.'),
  pressedStallTimeoutMs: z.int().min(100).default(10_000).describe('The same while more than half of queue_budget_bytes is in use.'),
  extendTimeoutMs: z.int().min(100).default(10_000).describe('Time to open the channel to the next relay of a circuit.'),
  drainOnStopMs: z
    .int()
    .min(0)
    .max(3_600_000)
    .default(20_000)
    .describe(
      'How long a node that is told to stop (SIGTERM) waits for the circuits it serves, taking no new ones; a second signal ends that. 0: it stops at once. The service manager must wait longer (TimeoutStopSec). `shallot drain` waits longer.',
    ),
})

export type RelayingConfig = z.output<typeof relayingConfig>
