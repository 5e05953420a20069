import { z } from 'zod'
import { reachability } from './facts.ts'
import { count, named, nodeId, time } from './schema.ts'

/** How a node is reached, and the VPN. */

const behaviour = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const

const family = named(
  'FamilyFacts',
  'What is known of an address family.',
  z.object({
    local: z.array(z.string()),
    public: z.string().nullable().describe('ADDRESS:PORT as STUN servers see it.'),
    kind: z.string().describe('The NAT in plain words.'),
    mapping: z.enum(['none', ...behaviour]).nullable(),
    filtering: z.enum(behaviour).nullable(),
    portPreserved: z.boolean().nullable(),
    hairpin: z.boolean().nullable(),
    bindingLifetimeMs: z.number().nullable(),
    dialBack: z.boolean().nullable().describe('Whether dial-backs from outside came in; null when none was tried.'),
  }),
)

export const nat = named(
  'NatFacts',
  'How others reach the node.',
  z.object({
    state: reachability,
    reasons: z.array(z.string()).describe('Why, one plain sentence each, the deciding one first.'),
    since: time,
    ipv4: family.nullable(),
    ipv6: family.nullable(),
    listening: z.array(z.string()),
    announced: z.array(z.string()),
    mapping: z.object({ protocol: z.enum(['upnp', 'nat-pmp', 'pcp']), external: z.string(), expiresAt: time }).nullable(),
    relays: z.array(z.object({ relay: nodeId, since: time, expiresAt: time })),
    stun: z.array(z.object({ server: z.string(), verdict: z.enum(['believed', 'silent', 'lying', 'alone']), said: z.string().nullable() })),
    serves: z.array(z.object({ role: z.enum(['guard', 'middle', 'exit', 'relay']), possible: z.boolean(), why: z.string() })),
    advice: z.array(z.string()).describe('What a person could do to be reached better.'),
    lost: z.array(z.string()).describe('What is missing on this machine and what that costs.'),
  }),
)

export const reach = named(
  'ReachFacts',
  'How a peer was reached.',
  z.object({
    peer: nodeId,
    how: z.enum(['direct', 'reversed', 'punched-tcp', 'punched-udp', 'relayed', 'unreachable']),
    reachedMs: z.number().nullable(),
    upgradedMs: z.number().nullable(),
    steps: z.array(z.string()),
  }),
)

export const vpn = named(
  'VpnFacts',
  'The whole machine through the mesh.',
  z.object({
    state: z.enum(['down', 'starting', 'up', 'blocked', 'stopping']),
    since: time,
    device: z.object({ name: z.string(), mtu: count, addresses: z.array(z.string()) }).nullable(),
    allowed: z
      .array(
        z.object({
          ip: z.string(),
          protocol: z.enum(['tcp', 'udp']),
          port: count.nullable(),
          why: z.enum(['guard', 'bootstrap', 'peer', 'stun', 'router']),
        }),
      )
      .describe('What may leave by another way than the tunnel.'),
    serving: z.array(z.object({ protocol: z.enum(['tcp', 'udp']), port: count })),
    bypass: z.array(z.string()),
    localNetwork: z.boolean(),
    dns: z.object({ how: z.enum(['resolv.conf', 'resolved', 'none']), servers: z.array(z.string()) }).nullable(),
    counts: z
      .object({
        packetsIn: count,
        packetsOut: count,
        bytesIn: count,
        bytesOut: count,
        tcpFlows: count,
        udpFlows: count,
        blocked: count.describe('Packets that the kill switch dropped.'),
      })
      .nullable(),
    problems: z.array(z.string()),
  }),
)
