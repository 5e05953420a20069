import {
  assert,
  formatIp,
  formatNetwork,
  type IpAddress,
  type IpNetwork,
  ipFromBytes,
  MalformedError,
  networkContains,
  parseIp,
  parseNetwork,
} from '../base/index.ts'
import type { PolicySummary, PortRange } from '../directory/index.ts'

/** One line of a policy, read. */
export interface PolicyRule {
  readonly accept: boolean
  /** Null: every address of the families. */
  readonly network: IpNetwork | null
  readonly families: readonly (4 | 6)[]
  readonly ports: readonly PortRange[]
  readonly text: string
}

/** The decision and what decided: a line of the policy, or a rule that always holds. */
export interface PolicyVerdict {
  readonly allowed: boolean
  readonly rule: string
}

export interface PolicyFacts {
  /** Lines of the policy, in order; the first that fits decides, and what none fits is refused. */
  readonly lines: readonly string[]
  /** Networks of this host's own world that may be reached all the same, by the network's rules (a test network's loopback). */
  readonly privateDestinations: readonly string[]
  /** Families that this exit serves at all. */
  readonly families: readonly (4 | 6)[]
  readonly isOwnAddress: (ip: IpAddress) => boolean
  readonly isRelayAddress: (ip: IpAddress) => boolean
}

/** Lines of one policy. */
export const MAX_POLICY_LINES = 1024

/**
 * Never reached from an exit unless the network's rules say so: addresses that are not the public internet's. IANA IPv4 Special-Purpose Address
 * Registry (RFC 6890 and successors), multicast, class E, and a cloud's metadata service that sits at a public address.
 */
export const refusedNetworks: readonly IpNetwork[] = [
  '0.0.0.0/8', // this network
  '10.0.0.0/8', // private, RFC 1918
  '100.64.0.0/10', // carrier-grade NAT, RFC 6598
  '127.0.0.0/8', // loopback
  '169.254.0.0/16', // link-local, RFC 3927; 169.254.169.254 is the metadata service of most clouds
  '172.16.0.0/12', // private
  '192.0.0.0/24', // IETF protocol assignments
  '192.0.2.0/24', // documentation, RFC 5737
  '192.88.99.0/24', // 6to4 relays, RFC 7526
  '192.168.0.0/16', // private
  '198.18.0.0/15', // benchmarks, RFC 2544
  '198.51.100.0/24', // documentation
  '203.0.113.0/24', // documentation
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, and 255.255.255.255
  '168.63.129.16/32', // Azure's platform service
  '2001::/23', // IETF protocol assignments: Teredo (looked into as well), benchmarks, ORCHID
  '2001:db8::/32', // documentation, RFC 3849
  '3fff::/20', // documentation, RFC 9637
].map(parseNetwork)

/** Only this is the public IPv6 internet (RFC 4291 §2.4): all that is private, local, multicast or reserved lies outside of it. */
export const globalUnicast = parseNetwork('2000::/3')
const nat64 = parseNetwork('64:ff9b::/96') // RFC 6052 §2.1
const sixToFour = parseNetwork('2002::/16') // RFC 3056
const teredo = parseNetwork('2001::/32') // RFC 4380

/** An exit's policy, compiled: what may be reached. Pure but for the two callbacks it asks. */
export class ExitPolicy {
  readonly #rules: readonly PolicyRule[]
  readonly #facts: PolicyFacts
  readonly #private: readonly IpNetwork[]
  readonly #summary: PolicySummary

  /** @throws MalformedError that names the line */
  constructor(facts: PolicyFacts) {
    this.#facts = facts
    this.#rules = parsePolicy(facts.lines)
    this.#private = facts.privateDestinations.map(parseNetwork)
    this.#summary = {
      ipv4: facts.families.includes(4) ? summarise(this.#rules, 4) : [],
      ipv6: facts.families.includes(6) ? summarise(this.#rules, 6) : [],
    }
  }

  /** What the descriptor says: the ports that most public addresses of a family are allowed on. */
  summary(): PolicySummary {
    return this.#summary
  }

  /** Before a name is resolved: whether any address could be allowed on the port. */
  checkPort(port: number): PolicyVerdict {
    for (const rule of this.#rules) {
      if (!inPorts(rule.ports, port) || !rule.families.some((family) => this.#facts.families.includes(family))) continue
      if (rule.accept) return { allowed: true, rule: rule.text }
      if (rule.network === null && this.#facts.families.every((family) => rule.families.includes(family)))
        return { allowed: false, rule: rule.text }
    }
    return { allowed: false, rule: 'no line accepts the port' }
  }

  /** The whole decision for one address and port. To be asked again for every address that a name gave. */
  check(ip: IpAddress, port: number): PolicyVerdict {
    if (!this.#facts.families.includes(ip.family)) return { allowed: false, rule: `IPv${ip.family} is not served` }
    const place = this.checkAddress(ip)
    if (!place.allowed) return place
    const verdict = this.#firstRule(ip, port)
    if (!verdict.allowed) return verdict
    // An address that only wraps an IPv4 one is that one to every rule.
    const inner = embeddedIpv4(ip)
    return inner ? this.#firstRule(inner, port) : verdict
  }

  /** For what has no port, such as an echo: whether an address may be reached at all. Allowed where some line lets some port of it out. */
  checkAnyPort(ip: IpAddress): PolicyVerdict {
    if (!this.#facts.families.includes(ip.family)) return { allowed: false, rule: `IPv${ip.family} is not served` }
    const place = this.checkAddress(ip)
    if (!place.allowed) return place
    const inner = embeddedIpv4(ip)
    return [ip, ...(inner ? [inner] : [])].map((address) => this.#firstPort(address)).find((verdict) => !verdict.allowed) ?? place
  }

  /** The rules that no line can lift: whether the address is of the public internet (or allowed by the network's rules), not ours, not a relay's. */
  checkAddress(ip: IpAddress): PolicyVerdict {
    const inner = embeddedIpv4(ip)
    for (const address of inner ? [ip, inner] : [ip]) {
      if (this.#facts.isOwnAddress(address)) return { allowed: false, rule: "the exit's own address" }
      if (this.#facts.isRelayAddress(address)) return { allowed: false, rule: "a relay's address" }
    }
    if (this.#private.some((network) => networkContains(network, ip)))
      return { allowed: true, rule: 'a private destination of this network' }
    if (inner) {
      const verdict = this.checkAddress(inner)
      if (!verdict.allowed) return verdict
    }
    if (ip.family === 6 && !networkContains(globalUnicast, ip) && !networkContains(nat64, ip)) {
      return { allowed: false, rule: 'not a global unicast address (2000::/3)' }
    }
    const refused = refusedNetworks.find((network) => networkContains(network, ip))
    if (refused) return { allowed: false, rule: `special-purpose network ${formatNetwork(refused)}` }
    return { allowed: true, rule: 'a public address' }
  }

  #firstPort(ip: IpAddress): PolicyVerdict {
    for (const rule of this.#rules) {
      if (!rule.families.includes(ip.family) || (rule.network !== null && !networkContains(rule.network, ip))) continue
      const isWhole = rule.ports.some((range) => range.from === 1 && range.to === 65_535)
      if (rule.accept || isWhole) return { allowed: rule.accept, rule: rule.text }
    }
    return { allowed: false, rule: 'no line accepts it' }
  }

  #firstRule(ip: IpAddress, port: number): PolicyVerdict {
    for (const rule of this.#rules) {
      if (!inPorts(rule.ports, port) || !rule.families.includes(ip.family)) continue
      if (rule.network === null || networkContains(rule.network, ip)) return { allowed: rule.accept, rule: rule.text }
    }
    return { allowed: false, rule: 'no line accepts it' }
  }
}

/**
 * Lines of the form `accept|reject[4|6] ADDRESSES:PORTS`. ADDRESSES: `*`, an address or a network (IPv6 in brackets, the prefix length within or behind).
 * PORTS: `*`, a port, a range, or several with commas. `accept4` and `reject6` hold for one family only. Text behind `#` is a comment.
 * @throws MalformedError with the number of the line
 */
export function parsePolicy(lines: readonly string[]): readonly PolicyRule[] {
  if (lines.length > MAX_POLICY_LINES) throw new MalformedError('exit policy', `has more than ${MAX_POLICY_LINES} lines`)
  const rules: PolicyRule[] = []
  lines.forEach((line, i) => {
    const text = line.replace(/#.*$/s, '').trim().replace(/\s+/g, ' ')
    if (text === '') return
    try {
      rules.push(parseRule(text))
    } catch (error) {
      assert(error instanceof MalformedError, 'rules are refused by MalformedError only')
      throw new MalformedError(`exit policy line ${i + 1}`, `${error.message}; wanted: "accept *:443" or "reject [2001:db8::]/32:80-90"`)
    }
  })
  return rules
}

/** The IPv4 address that an IPv6 address stands for, by the forms in which one can be reached through another: 6to4, Teredo, NAT64, ISATAP. */
export function embeddedIpv4(ip: IpAddress): IpAddress | null {
  if (ip.family === 4) return null
  const at = (offset: number): IpAddress => ipFromBytes(ip.bytes.slice(offset, offset + 4))
  if (networkContains(nat64, ip)) return at(12)
  if (networkContains(sixToFour, ip)) return at(2)
  // RFC 4380 §4: the client's address, every bit turned
  if (networkContains(teredo, ip)) return ipFromBytes(ip.bytes.slice(12).map((byte) => byte ^ 0xff))
  // RFC 5214 §6.1
  const [u, g, five, e] = ip.bytes.subarray(8, 12)
  if ((u === 0x00 || u === 0x02) && g === 0x00 && five === 0x5e && e === 0xfe) return at(12)
  return null
}

function parseRule(text: string): PolicyRule {
  const parts = /^(accept|reject)([46]?) (.+):([^:\]]+)$/i.exec(text)
  if (!parts) throw new MalformedError('rule', 'not of the form "accept|reject ADDRESSES:PORTS"')
  const [, verb, only, addresses, ports] = parts as unknown as [string, string, string, string, string]
  const network = addresses === '*' ? null : parseRuleNetwork(addresses)
  const families: (4 | 6)[] = only === '' ? [4, 6] : [only === '4' ? 4 : 6]
  if (network && only !== '' && network.address.family !== Number(only))
    throw new MalformedError('rule', `an IPv${network.address.family} network in ${verb}${only}`)
  return {
    accept: verb.toLowerCase() === 'accept',
    network,
    families: network ? [network.address.family] : families,
    ports: parsePorts(ports),
    text,
  }
}

function parseRuleNetwork(text: string): IpNetwork {
  const bracketed = /^\[([^\]/]+)(\/\d+)?\](\/\d+)?$/.exec(text)
  if (!bracketed) {
    if (text.includes(':')) throw new MalformedError('rule', 'an IPv6 address without brackets')
    return parseNetwork(text)
  }
  if (bracketed[2] && bracketed[3]) throw new MalformedError('rule', 'two prefix lengths')
  if (!bracketed[1]!.includes(':')) throw new MalformedError('rule', 'brackets about what is no IPv6 address')
  if (parseIp(bracketed[1]!).family === 4) throw new MalformedError('rule', 'an IPv4-mapped address: write it as IPv4')
  return parseNetwork(`${bracketed[1]}${bracketed[2] ?? bracketed[3] ?? ''}`)
}

function parsePorts(text: string): readonly PortRange[] {
  if (text === '*') return [{ from: 1, to: 65_535 }]
  return text.split(',').map((part) => {
    const range = /^ ?(\d{1,5})(?:-(\d{1,5}))? ?$/.exec(part)
    const from = Number(range?.[1])
    const to = Number(range?.[2] ?? range?.[1])
    if (!range || from < 1 || to > 65_535 || from > to) throw new MalformedError('rule', 'ports are "*", 1 to 65535, or ranges of them')
    return { from, to }
  })
}

function inPorts(ports: readonly PortRange[], port: number): boolean {
  return ports.some((range) => range.from <= port && port <= range.to)
}

/**
 * A port is in the summary when at most this share of a family's addresses is refused on it. A client picks exits by the summary, and a
 * wrong hit costs it one more try: rules that take out a few networks must not hide the port, a policy for a few networks only must not show it.
 */
const REFUSED_SHARE = 1 / 64

function summarise(rules: readonly PolicyRule[], family: 4 | 6): readonly PortRange[] {
  const mine = rules.filter((rule) => rule.families.includes(family))
  // Between two neighbouring edges every port is treated alike.
  const edges = [...new Set([1, 65_536, ...mine.flatMap((rule) => rule.ports.flatMap((range) => [range.from, range.to + 1]))])].sort(
    (a, b) => a - b,
  )
  const ranges: { from: number; to: number }[] = []
  for (let i = 0; i + 1 < edges.length; i++) {
    const from = edges[i]!
    const to = edges[i + 1]! - 1
    if (refusedShare(mine, from) > REFUSED_SHARE) continue
    const last = ranges.at(-1)
    if (last && last.to + 1 === from) last.to = to
    else ranges.push({ from, to })
  }
  return ranges
}

/** The share of a family's address space that the rules do not accept on a port. Networks are nested or disjoint, so sizes add up exactly. */
function refusedShare(rules: readonly PolicyRule[], port: number): number {
  const decided: IpNetwork[] = []
  let accepted = 0
  for (const rule of rules) {
    if (!inPorts(rule.ports, port)) continue
    const size = (network: IpNetwork): number => 2 ** -network.bits
    if (rule.network === null) {
      const left = 1 - outermost(decided).reduce((sum, network) => sum + size(network), 0)
      return 1 - accepted - (rule.accept ? left : 0)
    }
    const network = rule.network
    if (decided.some((earlier) => earlier.bits <= network.bits && networkContains(earlier, network.address))) continue
    const within = outermost(decided.filter((earlier) => networkContains(network, earlier.address)))
    if (rule.accept) accepted += size(network) - within.reduce((sum, inner) => sum + size(inner), 0)
    decided.push(network)
  }
  return 1 - accepted
}

function outermost(networks: readonly IpNetwork[]): readonly IpNetwork[] {
  return networks.filter((one) => !networks.some((other) => other !== one && other.bits < one.bits && networkContains(other, one.address)))
}

/** An address for debug logs. */
export function describeAddress(ip: IpAddress, port: number): string {
  return ip.family === 6 ? `[${formatIp(ip)}]:${port}` : `${formatIp(ip)}:${port}`
}
