import { z } from 'zod'
import { circuit, guard, relayBrief, stream, warning } from './facts.ts'
import { nat, vpn } from './nat.ts'
import { logLine, settingsChanged, traffic } from './operation.ts'
import { count, named, nodeId, time } from './schema.ts'

/** What `GET /v1/events` tells: one schema for each type. */

const event = <T extends string, S extends z.ZodRawShape>(type: T, description: string, shape: S) =>
  z.object({ type: z.literal(type), at: time, ...shape }).describe(description)

export const events = named(
  'Event',
  'What happens in the node.',
  z.discriminatedUnion('type', [
    event('ready', 'The node does what its roles say.', {}),
    event('circuit-open', 'A circuit was built.', { circuit }),
    event('circuit-retired', 'A circuit takes nothing new, and ends with what is on it.', { circuit }),
    event('circuit-closed', 'A circuit ended.', { circuit }),
    event('stream-open', 'A stream began. Not every one is told when there are many: see `streams`.', { stream }),
    event('stream-closed', 'A stream ended.', { stream }),
    event('streams', 'Once a second in which streams changed: how many are open, and how many changes were not told one by one.', {
      open: count,
      untold: count,
    }),
    event('guard', 'A guard is in another state.', { guard }),
    event('view', 'The view has changed; at most once a second.', { known: count, eligible: count }),
    event('relays', 'Which relays came, changed or went; only for who asks for this type. `more`: too many to tell, ask for the list.', {
      changed: z.array(relayBrief),
      gone: z.array(nodeId),
      more: z.boolean(),
    }),
    event('reachability', 'Others reach the node in another way.', { nat }),
    event('vpn', 'The VPN is in another state.', { vpn }),
    event('traffic', 'Once a second.', { traffic }),
    event('log', 'A line of the log; only for who asks for this type.', { line: logLine }),
    event('settings', 'Settings were changed, by whomever.', { settings: settingsChanged }),
    event('draining', 'The node is leaving: no new circuits.', { until: time }),
    event('warning', 'Something a person should know.', { warning }),
    event('warning-over', 'It is over.', { code: z.string() }),
    event('stopping', 'The node ends.', {}),
  ]),
)
