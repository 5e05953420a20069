import { z } from 'zod'
import { isPublisherKey } from '../directory/index.ts'
import { bootstrapProblem } from './bootstrap-file.ts'
import { parseIpPort, parseNodeAddress } from './multiaddr.ts'

/** The sections of the configuration that are the node's own; every other section stands beside its subsystem. */

/** Every role a node can have. */
export const ROLES = ['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap'] as const
/** Addresses a node listens on or announces. */
const MAX_ADDRESSES = 8
/** Further bootstrap nodes of one list, and lists. */
export const MAX_BOOTSTRAP = 64
const MAX_BOOTSTRAP_FILES = 8
/** Members of a family that one node names. */
const MAX_FAMILY = 64

const publicAddress = z.string().refine((text) => parseNodeAddress(text)?.id === null && parseNodeAddress(text)?.port !== 0, {
  error: 'not an address others can connect to: /ip4/A.B.C.D/tcp/PORT or /ip6/X::Y/tcp/PORT',
})
const bootstrapText = z.string().refine((text) => bootstrapProblem(text) === null, {
  error: 'not the address of a bootstrap node: /ip4/A.B.C.D/tcp/PORT/p2p/12D3KooW…',
})
const nodeIdText = z.string().refine((text) => parseNodeAddress(`/ip4/0.0.0.0/tcp/1/p2p/${text}`) !== null, {
  error: 'not a node id: it looks like 12D3KooW… (52 characters)',
})

export const nodeSection = z
  .strictObject({
    roles: z
      .array(z.enum(ROLES))
      .min(1)
      .refine((roles) => new Set(roles).size === roles.length, { error: 'a role is named twice' })
      .default(['client'])
      .describe(
        'What this node does, freely combined. client: carries your own traffic. guard, middle, exit: positions in the circuits of others. relay: lets nodes behind NAT be reached. bootstrap: the first address of newcomers.',
      ),
    network: z.string().min(1).default('network.toml').describe('The file with what the whole network shares, relative to this one.'),
    networkPublisher: z
      .string()
      .refine((text) => text === '' || isPublisherKey(text), { error: 'not the key of a publisher: 64 digits 0-9 and a-f' })
      .default('')
      .describe(
        "The publisher's key that must have signed the network file: a file that is not signed by it is refused at every start. Empty: any file.",
      ),
    bootstrap: z
      .array(bootstrapText)
      .max(MAX_BOOTSTRAP)
      .default([])
      .describe(
        'Further nodes that may show the way into the network, /ip4/A.B.C.D/tcp/PORT/p2p/ID: asked when none of the network file answers.',
      ),
    bootstrapFiles: z
      .array(z.string().min(1))
      .max(MAX_BOOTSTRAP_FILES)
      .default([])
      .describe(
        'Files of such addresses, one a line, relative to this file; # begins a comment. Asked after those of `bootstrap`, in turn.',
      ),
    dataDir: z.string().min(1).default('.').describe('Where keys and state are kept, relative to this file. One node at a time uses it.'),
    advertise: z
      .array(publicAddress)
      .max(MAX_ADDRESSES)
      .default([])
      .describe(
        'Addresses the others are told, /ip4/A.B.C.D/tcp/PORT, when they are not those of link.listen: needed when that is 0.0.0.0 or ::, or behind a port mapping.',
      ),
    family: z
      .array(nodeIdText)
      .max(MAX_FAMILY)
      .default([])
      .describe('Node ids of relays run by the same people. When they name this one too, no path holds two of them.'),
    bandwidthBytesPerSecond: z
      .int()
      .min(1_000)
      .max(10_000_000_000)
      .default(12_500_000)
      .describe('The capacity this relay claims. Others choose it in proportion, as far as they have measured it.'),
    crypto: z
      .enum(['auto', 'native', 'portable'])
      .default('auto')
      .describe('The implementation of the primitives. auto: native where its library loads, else portable, which is many times slower.'),
  })
  .describe('What this node is.')

export const controlSection = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Serve the control API, which `shallot status` and the other commands talk to.'),
    listen: z
      .string()
      .refine((text) => (text.startsWith('unix:') && text.length > 5) || parseIpPort(text) !== null, {
        error: 'neither unix:PATH nor ADDRESS:PORT',
      })
      .default('unix:control.sock')
      .describe(
        'Where: unix:PATH, relative to data_dir, or ADDRESS:PORT of the loopback (port 0: any free one). Both ask for the token in control-token.',
      ),
  })
  .describe('How commands and programs on this machine talk to the node.')

export const dashboardSection = z
  .strictObject({
    enabled: z
      .union([z.literal('auto'), z.boolean()])
      .default('auto')
      .describe('Serve the dashboard, which `shallot ui` opens in a browser. "auto": where the node has the role client.'),
    listen: z
      .string()
      .refine((text) => parseIpPort(text) !== null, { error: 'not ADDRESS:PORT' })
      .default('127.0.0.1:9290')
      .describe(
        'ADDRESS:PORT of the loopback (port 0: any free one). Unless enabled is true, another port is taken when this one is in use.',
      ),
  })
  .describe('The page that shows the node in a browser on this machine.')

/** Listeners of metrics. */
const MAX_METRICS_LISTENERS = 4

export const metricsSection = z
  .strictObject({
    listen: z
      .array(z.string().refine((text) => parseIpPort(text) !== null, { error: 'not ADDRESS:PORT, such as 127.0.0.1:9297' }))
      .max(MAX_METRICS_LISTENERS)
      .default([])
      .describe(
        'ADDRESS:PORT where http://ADDRESS:PORT/metrics is served for Prometheus; empty: nowhere. `shallot init` writes 127.0.0.1:9297 for a node that serves others. What is about your own traffic is told to the loopback only; the rest is coarse enough for everybody.',
      ),
  })
  .describe('Numbers of this node for those who watch over it.')

const levels = ['error', 'warn', 'info', 'debug', 'trace'] as const

export const logSection = z
  .strictObject({
    level: z
      .enum(levels)
      .default('info')
      .describe('The least important lines that are written. Addresses, names and targets only ever show at debug and trace.'),
    format: z
      .enum(['text', 'json'])
      .default('text')
      .describe('How lines look: text for people, json for programs, one object a line. Always to standard error.'),
    subsystems: z
      .record(z.string(), z.enum(levels))
      .default({})
      .describe('Levels for single parts, by name: { link = "debug" }. What begins with that name is meant too.'),
  })
  .describe('What the node says of itself.')

export type NodeSection = z.output<typeof nodeSection>
export type ControlSection = z.output<typeof controlSection>
export type DashboardSection = z.output<typeof dashboardSection>
export type MetricsSection = z.output<typeof metricsSection>
export type LogSection = z.output<typeof logSection>
