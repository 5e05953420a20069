import { formatNetwork, type IpNetwork } from '../../base/index.ts'
import { tableName } from './config.ts'
import { chain, type PolicyChainFacts, policyChains } from './policy-chains.ts'

/** What the kernel's rules for one exit are made of. */
export interface RulesetFacts extends PolicyChainFacts {
  /** Name of the TUN device. */
  readonly device: string
  readonly mtu: number
  /** Lease networks of the families that are served; null: the family goes nowhere. */
  readonly network4: IpNetwork | null
  readonly network6: IpNetwork | null
  /** Null: any but the device. */
  readonly outboundInterface: string | null
  /** Source address of what leaves; null: that of the interface it leaves by (masquerade). */
  readonly outbound4: string | null
  readonly outbound6: string | null
  /** IANA numbers beside TCP, UDP and ICMP. */
  readonly protocols: readonly number[]
  /** Of one lease. */
  readonly maxFlows: number
  readonly newFlowsPerSecond: number
  readonly newFlowBurst: number
  /** How long a flow is remembered; null: as the system has it (some kernels are built without). */
  readonly timeouts: { readonly connectMs: number; readonly streamMs: number; readonly datagramMs: number } | null
}

/** Entries of the sets that count flows by lease. */
const SET_SIZE = 65_536
/** A datagram that nobody has answered (RFC 4787 allows no less than 2 minutes for a mapping that is in use; this one is not yet). */
const UNANSWERED_SECONDS = 30
const IPV6_MORE_BYTES = 20
const IPV4_AND_TCP_BYTES = 40

/** Removes an exit's table, present or not. */
export function removalText(device: string): string {
  const table = `table inet ${tableName(device)}`
  return `${table} {}\ndelete ${table}\n`
}

/**
 * An exit's whole table for `nft -f`: in one transaction whatever stood under its name is replaced. The second of two walls: what it says was
 * said in userspace before (`LeaseFilter`), and holds also when that is wrong.
 *
 *     from a lease:  only to the way out, from a lease's address, what the policy allows, so many flows; never to this machine or another lease
 *     to a lease:    only what belongs to a flow that it began
 *     on the way out: the source is this machine's, or the packet is dropped
 */
export function rulesetText(facts: RulesetFacts): string {
  return [
    removalText(facts.device),
    `table inet ${tableName(facts.device)} {`,
    ...[...objects(facts), ...policyChains(facts), ...forwardChains(facts), ...hostChains(facts), ...natChains(facts)].map(
      (line) => `  ${line}`,
    ),
    '}',
    '',
  ].join('\n')
}

const counters = [
  'policy_refused',
  'to_this_host',
  'between_leases',
  'other_interface',
  'wrong_source',
  'invalid',
  'protocol',
  'flow_limit',
  'flow_rate',
  'unasked',
  'unchanged_source',
]

function objects({ timeouts }: RulesetFacts): readonly string[] {
  return [
    ...counters.map((name) => `counter ${name} {}`),
    ...families.flatMap((family) => [
      `set flows${family} {`,
      `  type ipv${family}_addr`,
      '  flags dynamic',
      `  size ${SET_SIZE}`,
      '}',
      `set rate${family} {`,
      `  type ipv${family}_addr`,
      '  flags dynamic,timeout',
      '  timeout 1m',
      `  size ${SET_SIZE}`,
      '}',
    ]),
    ...(timeouts === null ? [] : families.flatMap((family) => timeoutObjects(family, timeouts))),
  ]
}

const families = [4, 6] as const

function timeoutObjects(family: 4 | 6, { connectMs, streamMs, datagramMs }: NonNullable<RulesetFacts['timeouts']>): readonly string[] {
  const seconds = (ms: number) => Math.max(1, Math.ceil(ms / 1000))
  const object = (protocol: string, policy: string) => [
    `ct timeout ${protocol}${family} {`,
    `  protocol ${protocol}`,
    `  l3proto ${family === 4 ? 'ip' : 'ip6'}`,
    `  policy = { ${policy} }`,
    '}',
  ]
  return [
    ...object('tcp', `syn_sent : ${seconds(connectMs)}, syn_recv : ${seconds(connectMs)}, established : ${seconds(streamMs)}`),
    ...object('udp', `unreplied : ${Math.min(UNANSWERED_SECONDS, seconds(datagramMs))}, replied : ${seconds(datagramMs)}`),
  ]
}

function forwardChains(facts: RulesetFacts): readonly string[] {
  const { device, mtu, network4, network6, outboundInterface } = facts
  const segment4 = mtu - IPV4_AND_TCP_BYTES
  const clamp = [
    `meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size set ${segment4}`,
    `meta nfproto ipv6 tcp flags & (syn | rst) == syn tcp option maxseg size set ${segment4 - IPV6_MORE_BYTES}`,
  ]
  const drop = (counter: string) => `counter name "${counter}" drop`
  return [
    ...chain('refused', ['counter name "policy_refused"', 'reject with icmpx admin-prohibited']),
    ...chain('forward', [
      'type filter hook forward priority filter; policy accept;',
      `iifname "${device}" goto from_lease`,
      `oifname "${device}" goto to_lease`,
    ]),
    ...chain('from_lease', [
      `oifname "${device}" ${drop('between_leases')}`,
      ...(outboundInterface === null ? [] : [`oifname != "${outboundInterface}" ${drop('other_interface')}`]),
      // Unknown to the connection tracking means: neither translated nor judged.
      `ct state { invalid, untracked } ${drop('invalid')}`,
      network4 ? `ip saddr != ${formatNetwork(network4)} ${drop('wrong_source')}` : `meta nfproto ipv4 ${drop('wrong_source')}`,
      network6 ? `ip6 saddr != ${formatNetwork(network6)} ${drop('wrong_source')}` : `meta nfproto ipv6 ${drop('wrong_source')}`,
      // To nobody, to all or to a group: whatever networks may be reached.
      `ip daddr { 0.0.0.0/8, 224.0.0.0/3 } ${drop('protocol')}`,
      `ip6 daddr { ::, ff00::/8 } ${drop('protocol')}`,
      // Reassembly comes before this: what is still a part is none that can be judged.
      `ip frag-off & 0x3fff != 0 ${drop('protocol')}`,
      ...['hbh', 'rt', 'dst', 'mh'].map((header) => `exthdr ${header} exists ${drop('protocol')}`),
      `meta l4proto != { ${[1, 6, 17, 58, ...facts.protocols].join(', ')} } ${drop('protocol')}`,
      `meta nfproto ipv4 meta l4proto 58 ${drop('protocol')}`,
      `meta nfproto ipv6 meta l4proto 1 ${drop('protocol')}`,
      `icmp type != { echo-request, destination-unreachable, time-exceeded } ${drop('protocol')}`,
      `icmpv6 type != { echo-request, destination-unreachable, packet-too-big, time-exceeded } ${drop('protocol')}`,
      ...clamp,
      'ct state established accept',
      // Errors about a packet that came in. No helper of the connection tracking opens a way.
      'ct state related meta l4proto { 1, 58 } accept',
      `ct state related ${drop('protocol')}`,
      // No connection is taken up in its middle: one that was forgotten is over, and the client is told.
      'tcp flags & (fin | syn | rst | ack) != syn counter name "invalid" reject with tcp reset',
      'meta nfproto ipv4 jump policy4',
      'meta nfproto ipv6 jump policy6',
      ...families.flatMap((family) => {
        const source = family === 4 ? 'ip saddr' : 'ip6 saddr'
        const rate = `limit rate over ${facts.newFlowsPerSecond}/second burst ${facts.newFlowBurst} packets`
        return [
          `add @rate${family} { ${source} ${rate} } ${drop('flow_rate')}`,
          `add @flows${family} { ${source} ct count over ${facts.maxFlows} } ${drop('flow_limit')}`,
        ]
      }),
      'accept',
    ]),
    ...chain('to_lease', [
      `ct state { invalid, untracked } ${drop('invalid')}`,
      `icmp type != { echo-reply, destination-unreachable, time-exceeded } ${drop('unasked')}`,
      `icmpv6 type != { echo-reply, destination-unreachable, packet-too-big, time-exceeded } ${drop('unasked')}`,
      ...clamp,
      'ct state established accept',
      'ct state related meta l4proto { 1, 58 } accept',
      drop('unasked'),
    ]),
  ]
}

/** This machine and the leases have nothing to say to each other, but for the errors that a router sends. */
function hostChains({ device, network4, network6, timeouts }: RulesetFacts): readonly string[] {
  const toLeases = (match: string, network: IpNetwork | null) =>
    network === null ? [] : [`iifname != { "${device}", "lo" } ${match} ${formatNetwork(network)} counter name "to_this_host" drop`]
  const timeoutRules = families.flatMap((family) =>
    ['tcp', 'udp'].map(
      (protocol) =>
        `iifname "${device}" ct state new meta nfproto ipv${family} meta l4proto ${protocol} ct timeout set "${protocol}${family}"`,
    ),
  )
  return [
    ...chain('input', [
      'type filter hook input priority filter; policy accept;',
      `iifname "${device}" counter name "to_this_host" drop`,
      // Its address on the device is no address for the machines around.
      ...toLeases('ip daddr', network4),
      ...toLeases('ip6 daddr', network6),
    ]),
    ...chain('output', [
      'type filter hook output priority filter; policy accept;',
      `oifname != "${device}" accept`,
      'icmp type { destination-unreachable, time-exceeded } accept',
      'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } accept',
      // Of the rule above that tells a client that its connection is over.
      'tcp flags & (syn | rst) == rst accept',
      'drop',
    ]),
    ...(timeouts === null ? [] : chain('prerouting', ['type filter hook prerouting priority mangle; policy accept;', ...timeoutRules])),
  ]
}

function natChains({ device, network4, network6, outbound4, outbound6 }: RulesetFacts): readonly string[] {
  const leaving = (family: 'ip' | 'ip6', network: IpNetwork) => `oifname != "${device}" ${family} saddr ${formatNetwork(network)}`
  // Source ports are kept where they are free: one mapping for all peers (RFC 4787 REQ-1), as far as a kernel has it.
  const translate = (family: 'ip' | 'ip6', network: IpNetwork | null, address: string | null) =>
    network === null ? [] : [`${leaving(family, network)} ${address === null ? 'masquerade' : `snat ${family} to ${address}`}`]
  const stop = (family: 'ip' | 'ip6', network: IpNetwork | null) =>
    network === null ? [] : [`${leaving(family, network)} counter name "unchanged_source" drop`]
  return [
    ...chain('nat', [
      'type nat hook postrouting priority srcnat; policy accept;',
      ...translate('ip', network4, outbound4),
      ...translate('ip6', network6, outbound6),
    ]),
    ...chain('leaving', ['type filter hook postrouting priority 300; policy accept;', ...stop('ip', network4), ...stop('ip6', network6)]),
  ]
}
