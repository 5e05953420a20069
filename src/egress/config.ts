import { z } from 'zod'
import { isIpText, messageOf, parseHostPort, parseIp, parseNetwork } from '../base/index.ts'
import { exitDnsConfig } from './dns/config.ts'
import { parsePolicy } from './policy.ts'
import { exitTunConfig } from './tun-nat/config.ts'

const policyLines = z.array(z.string()).superRefine((lines, context) => {
  try {
    parsePolicy(lines)
  } catch (error) {
    context.addIssue({ code: 'custom', message: messageOf(error) })
  }
})

const serverText = z.string().superRefine((text, context) => {
  try {
    if (!isIpText(text) && parseHostPort(text, 53).host.type !== 'ip') throw new Error('is a name')
  } catch (error) {
    context.addIssue({
      code: 'custom',
      message: `${messageOf(error)} (wanted: an IP address, or ADDRESS:PORT, such as 9.9.9.9 or [2620:fe::fe]:53)`,
    })
  }
})

const outbound = (family: 4 | 6) =>
  z.string().superRefine((text, context) => {
    if (text === '' || (isIpText(text) && parseIp(text).family === family)) return
    context.addIssue({ code: 'custom', message: `must be an IPv${family} address of this machine, or "" to let the system choose` })
  })

/** Longest prefixes of a lease network: room for 250 leases and more. */
const LEASE_NETWORK_BITS = { 4: 24, 6: 112 } as const

const leaseNetwork = (family: 4 | 6) =>
  z.string().superRefine((text, context) => {
    const most = LEASE_NETWORK_BITS[family]
    try {
      const { address, bits } = parseNetwork(text)
      if (address.family === family && bits >= 8 && bits <= most) return
    } catch {
      // Said below.
    }
    context.addIssue({ code: 'custom', message: `must be an IPv${family} network of /8 to /${most}` })
  })

const count = z.int().min(0)
const timeMs = z.int().min(1)

/** `[exit]` */
export const exitConfig = z.strictObject({
  policy: policyLines
    .default(['reject *:25', 'accept *:*'])
    .describe(
      'What is let out, in order; the first line that fits decides, the rest is refused: "accept|reject[4|6] ADDRESSES:PORTS". ' +
        "Private, local, metadata and multicast networks, this machine's and other relays' addresses are refused whatever stands here.",
    ),
  families: z
    .enum(['auto', 'ipv4', 'ipv6', 'both'])
    .default('auto')
    .describe('Which internet is served. "auto": IPv4, and IPv6 when this machine has a global IPv6 address.'),
  resolvers: z.array(serverText).max(16).default([]).describe('DNS servers for names; an empty list asks the system.'),
  outboundIpv4: outbound(4).default('').describe('Source address of IPv4 connections; "" lets the system choose.'),
  outboundIpv6: outbound(6).default('').describe('Source address of IPv6 connections; "" lets the system choose.'),

  maxStreams: z.int().min(1).default(16_384).describe('Streams open at once.'),
  maxStreamsPerCircuit: z.int().min(1).default(512).describe('Streams open at once on one circuit.'),
  maxAssociations: count.default(8192).describe('UDP associations open at once.'),
  maxAssociationsPerCircuit: count.default(128).describe('UDP associations open at once on one circuit.'),
  connectsPerSecond: count.default(1000).describe('New streams a second on one circuit, lasting; 0 is no limit.'),
  connectBurst: z.int().min(1).default(5000).describe('New streams at once on one circuit before `connects_per_second` counts.'),
  rateBytesPerSecond: count.default(0).describe('Bytes a second of all circuits, each way counted; 0 is no limit.'),
  rateBytesPerSecondPerCircuit: count.default(0).describe('Bytes a second of one circuit, each way counted; 0 is no limit.'),

  connectTimeoutMs: timeMs.default(20_000).describe('How long opening a stream may take in all, the name included.'),
  attemptTimeoutMs: timeMs.default(10_000).describe('How long connecting to one address may take.'),
  attemptDelayMs: timeMs.default(250).describe('After how long the next address is tried beside (RFC 8305).'),
  maxAddresses: z.int().min(1).max(64).default(6).describe('Addresses of one name that are tried.'),
  streamIdleTimeoutMs: timeMs.default(7_440_000).describe('How long a stream may stand still (RFC 5382: not under 2 h 4 min).'),
  udpIdleTimeoutMs: timeMs.default(300_000).describe('How long a UDP peer and an idle UDP socket are kept (RFC 4787: 5 min).'),
  maxUdpPeers: z.int().min(1).default(256).describe('Peers of one UDP association that may answer; the oldest is forgotten.'),

  packets: z
    .enum(['netstack', 'tun', 'off'])
    .default('netstack')
    .describe(
      'How raw IP packets of clients leave (ping, traceroute, other protocols). "netstack": ended here in userspace and turned into sockets, ' +
        'without privileges. "tun": a TUN device with NAT, which needs CAP_NET_ADMIN. "off": not served.',
    ),
  packetNetworkIpv4: leaseNetwork(4)
    .default('100.89.0.0/16')
    .describe(
      'Addresses that raw packets of clients have on this machine; never seen beyond it. Its first address is the gateway that a traceroute shows. ' +
        'With "tun" no other network of this machine may overlap it.',
    ),
  packetNetworkIpv6: leaseNetwork(6).default('fd73:6861:6c6c:6578::/64').describe('The same for IPv6.'),
  maxPacketLeases: count.default(1024).describe('Circuits with raw packets at once.'),
  maxPacketLeasesPerCircuit: count.default(2).describe('Leases of addresses for raw packets on one circuit.'),
  packetIdleTimeoutMs: timeMs.default(600_000).describe('How long a lease may be silent that has no connection and no UDP socket.'),
  packetBufferBytes: z
    .int()
    .min(8 << 20)
    .default(256 << 20)
    .describe('Memory of the TCP connections that "netstack" ends, in all; beyond it the leases that hold most lose theirs.'),

  resolveTimeoutMs: timeMs.default(10_000).describe('How long one name may take.'),
  maxResolvesPerCircuit: z.int().min(1).default(64).describe('Names asked for at once on one circuit.'),
  maxLookups: z.int().min(1).default(64).describe('Names asked for at once; the system resolver is asked for fewer at a time.'),
  maxQueuedLookups: count.default(1024).describe('Names that may wait for their turn.'),
  dnsCacheEntries: count.default(10_000).describe('Names kept in memory.'),
  dnsMinTtlSeconds: count.default(60).describe('A name is kept at least this long.'),
  dnsMaxTtlSeconds: z.int().min(1).default(3600).describe('A name is kept at most this long.'),
  dnsSystemTtlSeconds: z.int().min(1).default(60).describe('How long a name from the system resolver is kept, which tells no time.'),
  dnsNegativeTtlSeconds: count.default(30).describe('How long it is remembered that a name does not exist.'),
  tun: exitTunConfig.prefault({}).describe('What `packets = "tun"` needs beside.'),
  dns: exitDnsConfig.prefault({}).describe('Questions of any type, for the machine of a client.'),
})
export type ExitConfig = z.output<typeof exitConfig>
