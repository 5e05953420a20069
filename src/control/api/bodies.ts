import { z } from 'zod'
import { named, nodeId } from './schema.ts'

/** What requests carry. All that a running node needs of the schemas: the rest is for the document and the tests. */

/** Longest path of a unix socket (unix(7): 108 bytes with the zero at its end). */
const MAX_SOCKET_PATH_BYTES = 107
/** Subsystems with a level of their own. */
const MAX_SUBSYSTEMS = 64

export const logLevel = named('LogLevel', 'From the least talkative.', z.enum(['error', 'warn', 'info', 'debug', 'trace']))

export const logLevels = named(
  'LogLevels',
  'The least important lines that are written: of all, and of single subsystems by name ("link" is "link.dialer" too).',
  z.strictObject({
    level: logLevel,
    subsystems: z
      .record(z.string().max(100), logLevel)
      .refine((levels) => Object.keys(levels).length <= MAX_SUBSYSTEMS, { error: `at most ${MAX_SUBSYSTEMS} subsystems` }),
  }),
)

/** Values that the configuration's own schema judges. */
export const settingsChange = named(
  'SettingsChange',
  'Keys of shallot.toml with their new values. All of them are taken, or none.',
  z.strictObject({
    set: z
      .record(z.string().max(100), z.unknown())
      .describe('By key as the file spells it. null: the key leaves the file, and its default counts.'),
    check: z.boolean().optional().describe('Only say what is wrong; nothing is changed.'),
  }),
)

export const dashboardLinkRequest = named(
  'DashboardLinkRequest',
  'How long, and how often, the link may be used.',
  z.strictObject({
    forMs: z.int().min(1_000).max(86_400_000).optional().describe('Two minutes when left out.'),
    uses: z.int().min(1).max(100).optional().describe('Once when left out.'),
  }),
)

export const sessionRequest = named('SessionRequest', 'A code for a session.', z.strictObject({ code: z.string().min(1).max(200) }))

export const reachRequest = named('ReachRequest', 'Whom to reach.', z.strictObject({ id: nodeId }))

export const drainRequest = named(
  'DrainRequest',
  'How long the node may take to leave.',
  z.strictObject({ limitMs: z.int().min(0).max(604_800_000).optional().describe('Ten minutes when left out.') }),
)

export const vpnSessionRequest = named(
  'VpnSessionRequest',
  'A TUN device that waits to be taken.',
  z.strictObject({
    descriptor: z.string().min(1).max(MAX_SOCKET_PATH_BYTES).describe('Path of the unix socket on which its descriptor waits.'),
    mtu: z.int().min(1280).max(65_535),
    addresses: z.array(z.string()).min(1).max(8).describe('ADDRESS/BITS, in its own namespace.'),
    pcap: z.string().max(500).optional().describe('A file to record its packets in.'),
  }),
)

export const bodies = {
  LogLevels: logLevels,
  SettingsChange: settingsChange,
  DashboardLinkRequest: dashboardLinkRequest,
  SessionRequest: sessionRequest,
  ReachRequest: reachRequest,
  DrainRequest: drainRequest,
  VpnSessionRequest: vpnSessionRequest,
} as const
