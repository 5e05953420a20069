/**
 * The NATs of the lab. Filtering in the words of RFC 4787; all but `symmetric` map endpoint-independently, all treat TCP as they treat UDP.
 *
 * | kind | public port | who may answer |
 * | --- | --- | --- |
 * | full-cone | the inner one | anybody |
 * | address-restricted | the inner one | addresses that were sent to |
 * | port-restricted | the inner one | addresses and ports that were sent to |
 * | port-changing | another one, the same for all destinations | addresses and ports that were sent to |
 * | symmetric | another one for each destination | addresses and ports that were sent to |
 */
export const natKinds = ['full-cone', 'address-restricted', 'port-restricted', 'port-changing', 'symmetric'] as const
export type NatKind = (typeof natKinds)[number]

/** Public ports that a port-changing NAT gives out: none of them is a port that the programs of the lab listen on. */
export const changedPorts = { first: 20_000, last: 29_999 } as const

/** How long a TCP mapping of a full cone or an address-restricted NAT outlives its last packet, seconds (RFC 5382 REQ-5: at least 4 minutes). */
const tcpMappingTimeoutS = 240

/** The most destinations and mappings one router remembers. */
const maxMappings = 65_535

/** How a home's IPv6 is: not there, behind a firewall that lets nothing unasked in, or open. */
export type HomeIpv6 = 'none' | 'firewalled' | 'open'

export interface RouterRules {
  /** Null: no IPv4 NAT (a router without IPv4). */
  readonly nat: NatKind | null
  readonly ipv6: HomeIpv6
  /** How long a silent UDP mapping lives, seconds. */
  readonly mappingTimeoutS: number
}

/** The nft rules of a router with the interfaces `wan` and `lan`. */
export function routerRules({ nat, ipv6, mappingTimeoutS }: RouterRules): string {
  return `${filter(ipv6)}\n${nat === null ? '' : translation(nat, mappingTimeoutS)}`
}

/** A router answers no stranger, else a packet that comes early would take the mapping that an inner socket is about to use. */
function filter(ipv6: HomeIpv6): string {
  return `
table inet filter {
  chain input {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    meta l4proto { icmp, icmpv6 } accept
    iifname "wan" drop
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname "lan" accept
    iifname "wan" ct status dnat accept
    ${ipv6 === 'open' ? 'iifname "wan" meta nfproto ipv6 accept' : ''}
  }
}`
}

function translation(kind: NatKind, mappingTimeoutS: number): string {
  const cone = kind === 'full-cone' || kind === 'address-restricted'
  return `
table ip nat {
  ${cone ? memory(mappingTimeoutS) : ''}
  chain learn {
    type filter hook forward priority filter + 10; policy accept;
    ${cone ? learn : ''}
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ${kind === 'full-cone' ? 'iifname "wan" dnat ip to meta l4proto . th dport map @mappings' : ''}
    ${kind === 'address-restricted' ? 'iifname "wan" meta l4proto . th dport . ip saddr @asked dnat ip to meta l4proto . th dport map @mappings' : ''}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${masquerade(kind)}
  }
}`
}

function memory(timeoutS: number): string {
  const flags = `flags dynamic,timeout; timeout ${timeoutS}s; size ${maxMappings};`
  return `map mappings { type inet_proto . inet_service : ipv4_addr . inet_service; ${flags} }
  set asked { type inet_proto . inet_service . ipv4_addr; ${flags} }`
}

/** What leaves keeps its port (masquerade changes it only when two machines want the same), so the inner port is the public one. */
const learn = ['udp', 'tcp']
  .map((protocol) => {
    const timeout = protocol === 'tcp' ? ` timeout ${tcpMappingTimeoutS}s` : ''
    const packets = `iifname "lan" oifname "wan" meta l4proto ${protocol}`
    return `${packets} update @mappings { meta l4proto . th sport${timeout} : ip saddr . th sport }
    ${packets} update @asked { meta l4proto . th sport . ip daddr${timeout} }`
  })
  .join('\n    ')

function masquerade(kind: NatKind): string {
  const portful = 'oifname "wan" meta l4proto { tcp, udp }'
  if (kind === 'port-changing') return `${portful} masquerade to :${changedPorts.first}-${changedPorts.last}\n    oifname "wan" masquerade`
  if (kind === 'symmetric') return `${portful} masquerade random,fully-random\n    oifname "wan" masquerade`
  return 'oifname "wan" masquerade'
}
