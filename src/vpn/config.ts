import { z } from 'zod'
import { messageOf, parseNetwork } from '../base/index.ts'

const network = z.string().superRefine((text, context) => {
  try {
    if (parseNetwork(text).bits === 0) throw new Error('it is everything: to send nothing through the mesh, leave the VPN down')
  } catch (error) {
    context.addIssue({ code: 'custom', message: `${messageOf(error)} (wanted: ADDRESS/BITS, such as 192.0.2.0/24)` })
  }
})

/** The keys of `[ingress.tun]` that say what of this machine goes through the device. A shape: the data path's keys stand beside it. */
export const vpnKeys = {
  up: z
    .boolean()
    .default(false)
    .describe(
      'Bring the VPN up whenever the node runs. Without it `shallot vpn up` does so; either way it stays until `shallot vpn down`, restarts included.',
    ),
  bypass: z
    .array(network)
    .max(256)
    .default([])
    .describe(
      'Networks that this machine reaches without the mesh, ADDRESS/BITS: who watches the line sees that traffic. DNS (ports 53 and 853) never goes around, not even there.',
    ),
  localNetwork: z
    .boolean()
    .default(false)
    .describe(
      'Let the local network be reached: private and link-local addresses that a route names, multicast on the link. Otherwise only what keeps the link itself working (DHCP, ARP, neighbour discovery).',
    ),
  dns: z
    .enum(['auto', 'resolv.conf', 'resolved', 'none'])
    .default('auto')
    .describe(
      "How programs are told to ask the tunnel's resolver. auto: systemd-resolved where programs use it, else resolv.conf, and what can't be changed is left. none: nothing is changed; questions to any server that is not on this machine are answered through the mesh all the same.",
    ),
  whenStopped: z
    .enum(['block', 'restore'])
    .default('block')
    .describe(
      'What becomes of a VPN that is up when the node is stopped in order. block: nothing leaves until the node runs again or `shallot vpn down`. restore: as if it had never been up. After a crash the block stands in either case.',
    ),
  routingTable: z
    .int()
    .min(256)
    .max(2_147_483_647)
    .default(5158)
    .describe('Number of the routing table of its own that the VPN uses: one that nothing else on this machine uses.'),
  rulePriority: z
    .int()
    .min(1)
    .max(32_000)
    .default(610)
    .describe('Priority of its first routing rule; it uses seven in a row. Rules of other programs with lower numbers come before it.'),
} as const

const vpnSection = z.strictObject(vpnKeys)
/** The VPN's part of `[ingress.tun]`. */
export type VpnConfig = z.output<typeof vpnSection>
/** All keys at their defaults. */
export const defaultVpnConfig: VpnConfig = vpnSection.parse({})
