import { z } from 'zod'
import { parseIp, parseNetwork } from '../../base/index.ts'

const deviceAddress = z.string().superRefine((text, context) => {
  try {
    const host = text.split('/')[0]!
    if (host === text) throw new Error('the prefix length is missing')
    parseIp(host)
    parseNetwork(text)
  } catch {
    context.addIssue({ code: 'custom', message: 'must be an address with its prefix length, such as 10.83.104.2/30 or fd00::2/64' })
  }
})

/** What keeps the streams, datagrams and questions of a TUN on different circuits. */
export const tunIsolateBy = z
  .array(z.enum(['client-address', 'destination-address', 'destination-port']))
  .default(['client-address'])
  .describe(
    'What keeps traffic on different circuits: any of "client-address" (the machine itself counts as one address; what it forwards for others does not), "destination-address", "destination-port". Other listeners never share with it.',
  )

/**
 * The keys of `[ingress.tun]` that say how packets are carried. The addresses are the same on every machine: local programs (a browser's WebRTC)
 * may tell them to others, and they must not tell one machine from another.
 */
export const tunKeys = {
  name: z
    .string()
    .regex(/^[a-zA-Z0-9_][\w.-]*$/)
    .max(15)
    .default('shallot0')
    .describe('Name of the device.'),
  mtu: z
    .int()
    .min(1280)
    .max(9000)
    .default(1420)
    .describe('Largest packet of the device, bytes. A cell carries whole packets of 1420, so more helps only streams.'),
  addresses: z
    .array(deviceAddress)
    .min(1)
    .default(['10.83.104.2/30', 'fd73:6861:6c6c:6f74::2/64'])
    .describe('Addresses of the device with their prefix lengths. Nobody but this machine ever sees them.'),
  tcp: z
    .enum(['streams', 'packets'])
    .default('streams')
    .describe('How TCP is carried: ended here and sent as streams (fast), or as raw packets through an exit that serves them.'),
  udp: z
    .enum(['datagrams', 'packets'])
    .default('datagrams')
    .describe('How UDP is carried: as datagrams, or as raw packets through an exit that serves them.'),
  icmp: z
    .enum(['packets', 'off'])
    .default('packets')
    .describe('Ping and traceroute: as raw packets through an exit that serves them, or answered as prohibited.'),
  otherProtocols: z
    .enum(['packets', 'off'])
    .default('off')
    .describe('Protocols other than TCP, UDP and ICMP: as raw packets, or answered as prohibited.'),
  isolateBy: tunIsolateBy,
  interceptDns: z
    .boolean()
    .default(true)
    .describe(
      'Answer questions to port 53 of any address (UDP and TCP) through the exit; false carries them to that address like anything else.',
    ),
  rejectInternalAddresses: z
    .boolean()
    .default(true)
    .describe('Refuse private and link-local destinations here: no exit reaches them, and asking would tell it of the local network.'),
  maxTcpFlows: z.int().min(1).max(65_535).default(4096).describe('TCP connections open at once; further ones wait or time out.'),
  maxUdpFlows: z
    .int()
    .min(1)
    .max(65_535)
    .default(1024)
    .describe('Local UDP ports that may send at once; beyond, those that were never answered give way, then new ones are dropped.'),
  udpIdleTimeoutMs: z
    .int()
    .min(1000)
    .default(120_000)
    .describe('How long a UDP port is kept open at the exit without traffic (RFC 4787 asks for two minutes or more).'),
  connectTimeoutMs: z.int().min(100).default(120_000).describe('How long opening a stream may take, retries on other circuits included.'),
  packetsIdleTimeoutMs: z
    .int()
    .min(1000)
    .default(120_000)
    .describe('How long addresses leased at an exit for raw packets are kept without traffic.'),
  maxPacketLeases: z
    .int()
    .min(0)
    .max(256)
    .default(4)
    .describe('Leases for raw packets at once: one for this machine, one for each address it forwards for.'),
  pcap: z
    .string()
    .default('')
    .describe('File to record all packets of the device in (readable by Wireshark); it holds payload and addresses. Empty: none.'),
} as const

/** `[ingress.tun]` */
export const tunConfig = z.strictObject({ ...tunKeys })
export type TunConfig = z.output<typeof tunConfig>
