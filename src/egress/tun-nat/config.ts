import { z } from 'zod'

/** IANA protocol numbers that the filter itself knows, and judges by rules of their own. */
const OWN_RULES: readonly number[] = [1, 6, 17, 58]
/** Extension headers, and protocols that carry IP in IP: what is inside would be under no policy. */
const NEVER: readonly number[] = [0, 4, 41, 43, 44, 59, 60, 135, 137]

const count = z.int().min(0)

const deviceName = z
  .string()
  .regex(/^[A-Za-z][\w.-]{0,14}$/, 'must be 1 to 15 letters, digits, ".", "_" and "-", a letter first')
  .refine((name) => !/^(lo|all|default)$/.test(name), 'must not be "lo", "all" or "default"')

/** `[exit.tun]`: what `packets = "tun"` needs beside the keys of `[exit]`. */
export const exitTunConfig = z.strictObject({
  name: deviceName
    .default('shallot-exit')
    .describe(
      'Name of the TUN device, which the exit makes and which goes with it. Its nftables table is called alike, with "_" for what is no letter or digit.',
    ),
  mtu: z.int().min(1280).max(9000).default(1420).describe('Largest packet of a client, bytes. A cell carries one of 1420.'),
  outboundInterface: z
    .string()
    .regex(/^[\w.@-]{0,15}$/, 'must be the name of an interface')
    .default('')
    .describe('The only interface that packets of clients may leave by; "" is any.'),
  setSysctls: z
    .boolean()
    .default(false)
    .describe(
      'Whether the exit may switch on forwarding itself (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding, and accept_ra=2 where the way out is learnt ' +
        'from a router). They stay on when it stops. Without it they must be on, by exit/90-shallot-exit.conf.',
    ),
  protocols: z
    .array(
      z
        .int()
        .min(2)
        .max(254)
        .refine((number) => !OWN_RULES.includes(number), 'is always let through, by rules of its own')
        .refine((number) => !NEVER.includes(number), 'carries what no policy sees, or is no protocol of its own'),
    )
    .max(16)
    .default([50, 132])
    .describe('Protocols let through beside TCP, UDP and ICMP, by their IANA numbers: 50 is ESP, 132 SCTP.'),
  maxFlows: z.int().min(1).max(65_535).default(1024).describe('Connections that one lease may have in the NAT at once (TCP, UDP, pings).'),
  newFlowsPerSecond: z.int().min(1).max(100_000).default(100).describe('New ones a second of one lease, lasting.'),
  newFlowBurst: z.int().min(1).max(65_535).default(500).describe('New ones of one lease at once before `new_flows_per_second` counts.'),
  icmpPerSecond: count.default(100).describe('ICMP packets a second that one lease may send; 0: none.'),
  fragmentsPerSecond: count.default(100).describe('Fragments of packets a second that one lease may send; 0: none.'),
  queuePackets: z.int().min(16).max(100_000).default(1000).describe('Packets from servers that may wait in the device.'),
})
export type ExitTunConfig = z.output<typeof exitTunConfig>

/** The nftables table (family inet) of a device. */
export function tableName(device: string): string {
  return device.replace(/[^A-Za-z0-9]/g, '_')
}
