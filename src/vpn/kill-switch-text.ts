import { formatIp, formatNetwork, parseNetwork } from '../base/index.ts'
import type { AllowedEntry, AllowListChange } from './allow-list.ts'
import type { ServingPort } from './facts.ts'
import { BYPASS_MARK, NFT_TABLE } from './limits.ts'
import { localNetworks } from './local-networks.ts'

/** All that the kill switch depends on. */
export interface KillSwitchPlan {
  /** Who set it: 16 hex digits, kept in the state file. */
  readonly id: string
  /** The device whose packets go, whether it is there or not. */
  readonly device: string
  /** Its addresses in text, without lengths. */
  readonly addresses: readonly string[]
  /** The user that the node runs as: nobody else may send to the allowed places. Null: everybody. */
  readonly uid: number | null
  readonly allowed: readonly AllowedEntry[]
  readonly serving: readonly ServingPort[]
  /** ADDRESS/BITS. */
  readonly bypass: readonly string[]
  readonly localNetwork: boolean
}

/** Names go nowhere but into the tunnel: DNS (RFC 1035), DNS over TLS and over QUIC (RFC 7858, 9250). */
export const NAME_PORTS = '{ 53, 853 }'

const TABLE = `inet ${NFT_TABLE}`

/**
 * The whole kill switch as `nft -f` takes it: in place of one that stands, in one transaction, so that there is no moment without.
 * Two hooks drop whatever no line lets through: what this machine sends, and what it forwards for others.
 */
export function killSwitchText(plan: KillSwitchPlan): string {
  const { device, uid, localNetwork } = plan
  const bypass = byFamily(plan.bypass)
  const who = uid === null ? '' : ` meta skuid ${uid}`
  const mark = `meta mark set 0x${BYPASS_MARK.toString(16)}`
  const around = (chain: 'output' | 'forward'): string[] =>
    ([4, 6] as const).flatMap((family) => {
      const ip = family === 4 ? 'ip' : 'ip6'
      const back = (set: string): string[] => (chain === 'forward' ? [`${ip} saddr @${set} ct state established,related accept`] : [])
      return [
        ...(bypass[family].length > 0 ? [`${ip} daddr @bypass${family} accept`, ...back(`bypass${family}`)] : []),
        ...(localNetwork ? [`${ip} daddr @local${family} accept`, ...back(`local${family}`)] : []),
      ]
    })
  return lines([
    // The first line makes the second one right when there is no table yet.
    `table ${TABLE}`,
    `delete table ${TABLE}`,
    `table ${TABLE} {`,
    [
      `comment "shallot ${plan.id}"`,
      ...allowedSets(plan.allowed),
      ...set('serving', 'inet_proto . inet_service', plan.serving.map(servingElement)),
      ...networkSets('bypass', bypass),
      ...(localNetwork ? networkSets('local', localNetworks) : []),
      'counter blocked { }',
      'counter blocked_forwarded { }',
      '# What a link needs to be one; none of it is passed on by a router.',
      'chain link_control {',
      [
        '# DHCP (RFC 2131), DHCPv6 (RFC 8415 §7.1)',
        'udp sport 68 udp dport 67 accept',
        'ip6 saddr fe80::/10 ip6 daddr { ff02::1:2, fe80::/10 } udp sport 546 udp dport 547 accept',
        '# Neighbour discovery (RFC 4861 §4)',
        'icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept',
        '# Switches that listen to MLD (RFC 4541) pass neighbour discovery only to those who said where they listen: reports of solicited-node groups',
        '# (RFC 4291 §2.7.1) and of nothing else, since another group (mDNS) tells the link which programs run.',
        ...solicitedNodeReports,
      ],
      '}',
      'chain output {',
      [
        'type filter hook output priority 10; policy drop;',
        'oifname "lo" accept',
        `oifname "${device}" accept`,
        'jump link_control',
        '# What was begun by the node may be ended by the kernel.',
        ...([4, 6] as const).flatMap((family) => {
          const ip = family === 4 ? 'ip' : 'ip6'
          return [
            ...(who === '' ? [] : [`${ip} daddr . meta l4proto . th dport @allowed${family}${who} accept`]),
            `${ip} daddr . meta l4proto . th dport @allowed${family}${who === '' ? '' : ' ct state established'} accept`,
            `${ip} daddr . meta l4proto @hosts${family}${who} accept`,
          ]
        }),
        'meta l4proto . th sport @serving ct direction reply accept',
        `meta l4proto udp meta l4proto . th sport @serving${who} accept`,
        ...namesNowhere,
        '# Programs that the administrator runs outside.',
        `meta mark 0x${BYPASS_MARK.toString(16)} accept`,
        ...around('output'),
        'counter name blocked reject with icmpx admin-prohibited',
      ],
      '}',
      'chain forward {',
      [
        'type filter hook forward priority 10; policy drop;',
        `oifname "${device}" accept`,
        `iifname "${device}" ct state established,related accept`,
        ...namesNowhere.map((line) => line.replace(/blocked\b/, 'blocked_forwarded')),
        ...around('forward'),
        'counter name blocked_forwarded drop',
      ],
      '}',
      '# Nobody opens anything to this machine through the tunnel, whatever the node hands to the device. UDP has no beginning: a server may',
      '# answer from another port (TFTP, WebRTC), and only ports that sent are answered.',
      'chain input {',
      [
        'type filter hook input priority 10; policy accept;',
        `iifname "${device}" tcp flags & (fin | syn | rst | ack) == syn drop`,
        `iifname "${device}" meta l4proto != { tcp, udp } ct state new drop`,
      ],
      '}',
      '# What answers around the tunnel came by its way: firewalls that ask for the route back (fib saddr . mark . iif) find it by this mark.',
      'chain prerouting_allowed {',
      [
        ...([4, 6] as const).flatMap((family) => {
          const ip = family === 4 ? 'ip' : 'ip6'
          return [
            `${ip} saddr . meta l4proto . th sport @allowed${family} ${mark} accept`,
            `${ip} saddr . meta l4proto @hosts${family} ${mark} accept`,
          ]
        }),
        `meta l4proto . th dport @serving ${mark} accept`,
      ],
      '}',
      '# Nobody on a link learns by its answers which address the device has (CVE-2019-14899).',
      'chain prerouting {',
      [
        'type filter hook prerouting priority raw; policy accept;',
        ...(['ip', 'ip6'] as const).flatMap((ip) => {
          const own = plan.addresses.filter((address) => address.includes(':') === (ip === 'ip6'))
          return own.length === 0 ? [] : [`iifname != { "lo", "${device}" } ${ip} daddr { ${own.join(', ')} } drop`]
        }),
        `iifname != { "lo", "${device}" } meta mark 0 jump prerouting_allowed`,
      ],
      '}',
    ],
    '}',
  ])
}

/** ff02::1:ff00:0/104 */
const SOLICITED_NODES = '0xff0200000000000000000001ff'
/** Groups in one MLDv2 report that are looked at; an interface has one for each of its addresses. */
const REPORT_RECORDS = 4
/** Bits of an MLDv2 report before the first record, of a record without sources, and before its group (RFC 3810 §5.2). */
const MLD2 = { countAt: 48, firstRecord: 64, recordBits: 160, groupAt: 32 } as const

/** A report that names any other group is dropped whole: the next one of the kernel names the others again. */
const solicitedNodeReports = [
  ...Array.from({ length: REPORT_RECORDS }, (_, i) => {
    const groups = Array.from(
      { length: i + 1 },
      (_, record) => `@th,${MLD2.firstRecord + MLD2.recordBits * record + MLD2.groupAt},104 ${SOLICITED_NODES}`,
    )
    return `ip6 daddr ff02::16 ip6 hoplimit 1 icmpv6 type mld2-listener-report @th,${MLD2.countAt},16 ${i + 1} ${groups.join(' ')} accept`
  }),
  // MLDv1: RFC 2710 §3
  `ip6 daddr ff02::/16 ip6 hoplimit 1 icmpv6 type { mld-listener-report, mld-listener-reduction } @th,64,104 ${SOLICITED_NODES} accept`,
]

/** Names are asked in the tunnel or not at all, whatever else may be reached: LLMNR (RFC 4795) and NetBIOS tell the link what is typed. */
const namesNowhere = [
  `meta l4proto { tcp, udp } th dport ${NAME_PORTS} counter name blocked drop`,
  'meta l4proto { tcp, udp } th dport { 137, 5355 } counter name blocked drop',
]

/** A change of the allow-list, for `nft -f`: one transaction. */
export function allowListText({ added, removed }: AllowListChange): string {
  const change = (verb: 'add' | 'delete', entries: readonly AllowedEntry[]): string[] =>
    [...groupBySet(entries)].map(([name, elements]) => `${verb} element ${TABLE} ${name} { ${elements.join(', ')} }`)
  return lines([...change('delete', removed), ...change('add', added)])
}

/** Takes the kill switch away, whether it is there or not. */
export const killSwitchRemoval = lines([`table ${TABLE}`, `delete table ${TABLE}`])

function allowedSets(entries: readonly AllowedEntry[]): string[] {
  const bySet = groupBySet(entries)
  return ([4, 6] as const).flatMap((family) => [
    ...set(`allowed${family}`, `ipv${family}_addr . inet_proto . inet_service`, bySet.get(`allowed${family}`) ?? []),
    ...set(`hosts${family}`, `ipv${family}_addr . inet_proto`, bySet.get(`hosts${family}`) ?? []),
  ])
}

function groupBySet(entries: readonly AllowedEntry[]): Map<string, string[]> {
  const bySet = new Map<string, string[]>()
  for (const { peer, family } of entries) {
    const name = peer.port === null ? `hosts${family}` : `allowed${family}`
    const element = [peer.ip, peer.protocol, ...(peer.port === null ? [] : [peer.port])].join(' . ')
    bySet.set(name, [...(bySet.get(name) ?? []), element])
  }
  return bySet
}

function servingElement({ protocol, port }: ServingPort): string {
  return `${protocol} . ${port}`
}

function networkSets(name: string, networks: Readonly<Record<4 | 6, readonly string[]>>): string[] {
  return ([4, 6] as const).flatMap((family) =>
    networks[family].length === 0 ? [] : set(`${name}${family}`, `ipv${family}_addr`, networks[family], 'flags interval; auto-merge; '),
  )
}

function set(name: string, type: string, elements: readonly string[], flags = ''): string[] {
  const content = elements.length === 0 ? '' : `elements = { ${elements.join(', ')} } `
  return [`set ${name} { type ${type}; ${flags}${content}}`]
}

/** Canonical networks of each family. @throws MalformedError */
export function byFamily(networks: readonly string[]): Record<4 | 6, string[]> {
  const result: Record<4 | 6, string[]> = { 4: [], 6: [] }
  for (const text of networks) {
    const network = parseNetwork(text)
    const { family } = network.address
    result[family].push(network.bits === (family === 4 ? 32 : 128) ? formatIp(network.address) : formatNetwork(network))
  }
  return result
}

type Block = readonly (string | Block)[]

function lines(block: Block, indent = ''): string {
  return block.map((line) => (typeof line === 'string' ? `${indent}${line}\n` : lines(line, `${indent}  `))).join('')
}
