import { z } from 'zod'
import { logLevel } from './bodies.ts'
import { count, named, time } from './schema.ts'

/** Settings, logs, traffic: what a node is run by. */

export const logLine = named(
  'LogLine',
  'A line of the log.',
  z.object({
    seq: count.describe('Rises by one with each line of this process.'),
    at: time,
    level: logLevel,
    sub: z.string().describe('The subsystem; empty for the node itself.'),
    message: z.string(),
    fields: z.record(z.string(), z.unknown()),
  }),
)

export const logPage = named(
  'LogPage',
  'Lines that are still remembered, oldest first.',
  z.object({
    lines: z.array(logLine),
    next: count.describe('Ask for `since` this to get what follows.'),
    missed: z.boolean().describe('Whether lines after `since` are forgotten already.'),
    subsystems: z.array(z.string()).describe('Those that have written something.'),
  }),
)

export const traffic = named(
  'TrafficSample',
  'One second.',
  z.object({
    at: time,
    sent: count.describe('Bytes of this machine’s applications, in this second.'),
    received: count,
    rttMs: z.number().nullable().describe('The round trip of the circuit that the last stream took; null without one.'),
    circuitsBuilt: count,
    circuitsFailed: count,
    streamsOpen: count,
    cells: count.describe('Cells carried for others.'),
    circuitsServed: count.describe("Others' circuits open here."),
    exitBytesIn: count.describe('As an exit, from servers.'),
    exitBytesOut: count,
    queuedBytes: count,
    rssBytes: count,
  }),
)

type Value = string | number | boolean | readonly Value[] | { readonly [name: string]: Value }
const settingValue: z.ZodType<Value> = named(
  'SettingValue',
  'A value as TOML has it.',
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.array(z.lazy(() => settingValue)),
    z.record(
      z.string(),
      z.lazy(() => settingValue),
    ),
  ]),
)

const setting = named(
  'Setting',
  'A key of shallot.toml.',
  z.object({
    key: z.string().describe('As the file spells it: path.guards_in_use.'),
    help: z.string(),
    type: z.string().describe('What it may be, in words.'),
    schema: z.record(z.string(), z.unknown()).describe('The same as a JSON schema.'),
    default: settingValue.optional().describe('Absent where there is none.'),
    value: settingValue.optional().describe('What is in force. Absent where it is not shown, or there is none.'),
    set: z.boolean().describe('Whether the file says something about it.'),
    live: z.boolean().describe('Whether a change is in force at once. Every other key needs a restart.'),
    secret: z.boolean().describe('Its value is not shown.'),
    change: z
      .enum(['session', 'token'])
      .describe(
        "Who may change it. token: whoever has the node's own token, and no session of a browser, because it decides over files, trust or who may use the node.",
      ),
    pending: z.boolean().describe('Whether the file says something else than what is in force: it counts from the next start.'),
  }),
)

export const settings = named(
  'Settings',
  'The configuration of the node, section by section.',
  z.object({
    file: z.string(),
    writable: z
      .boolean()
      .describe('Whether the node may write it. Where it may not, it is changed by hand, and read again with POST /v1/reload.'),
    sections: z.array(z.object({ name: z.string(), help: z.string(), keys: z.array(setting) })),
  }),
)

export const settingProblem = named(
  'SettingProblem',
  'What is wrong with a value.',
  z.object({ key: z.string().describe('Empty when it is the whole file.'), message: z.string() }),
)

export const settingsChanged = named(
  'SettingsChanged',
  'What a change of settings did.',
  z.object({
    changed: z.array(z.string()).describe('Keys whose value in the file is another now.'),
    applied: z.array(z.string()).describe('Keys in force at once.'),
    restart: z.array(z.string()).describe('Keys that count from the next start, those of earlier changes included.'),
  }),
)

export const problem = named(
  'Problem',
  'The body of every answer that is not 2xx.',
  z.object({
    error: z.object({
      code: z.string().describe('Stable and kebab-case.'),
      message: z.string(),
      problems: z.array(settingProblem).optional().describe("With code 'config-invalid': one for each key."),
    }),
  }),
)

export const dashboardLink = named(
  'DashboardLink',
  'Where the dashboard is.',
  z.object({ url: z.string().describe('With a code in its fragment, which a browser tells no server.'), expiresAt: time }),
)

export const session = named(
  'Session',
  "A browser's leave to use the API.",
  z.object({ token: z.string(), expiresAt: time.describe('It is put off by use.') }),
)
