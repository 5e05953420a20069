import { formatIp, formatNetwork, type IpAddress, type IpNetwork, parseNetwork } from '../../base/index.ts'
import { globalUnicast, type PolicyRule, parsePolicy, refusedNetworks } from '../policy.ts'
import { type EmbeddedForm, embeddedForms, embeddedNetwork } from './embedded-form.ts'

/** What the policy of the rules is made of: that of `ExitPolicy`, but for relays' addresses, which change too often for a kernel's table. */
export interface PolicyChainFacts {
  /** `exit.policy`. */
  readonly lines: readonly string[]
  /** Private networks that may be reached all the same. */
  readonly privateDestinations: readonly string[]
  /** Addresses that this machine is known by. */
  readonly ownAddresses: readonly IpAddress[]
}

/** Protocols whose destination port lies in the third and fourth byte: TCP, UDP, DCCP, SCTP, UDP-Lite. */
export const protocolsWithPorts: readonly number[] = [6, 17, 33, 132, 136]

const WITH_PORTS = `{ ${protocolsWithPorts.join(', ')} }`
const REFUSED = 'goto refused'

/**
 * The exit policy as sets and chains of nftables. `jump policy4` and `jump policy6` return where `ExitPolicy.check` (with a port) and `checkAnyPort`
 * (without) allow, and go to the chain `refused` where they do not. A test holds one against the other in a kernel.
 */
export function policyChains(facts: PolicyChainFacts): readonly string[] {
  const rules = parsePolicy(facts.lines)
  const privates = facts.privateDestinations.map(parseNetwork)
  const own = (family: 4 | 6) => facts.ownAddresses.filter((address) => address.family === family)
  const of = (family: 4 | 6, networks: readonly IpNetwork[]) => networks.filter(({ address }) => address.family === family)
  const whole = (address: IpAddress): IpNetwork => ({ address, bits: address.bytes.length * 8 })
  return [
    ...set('own4', 4, own(4).map(whole)),
    ...set('own6', 6, own(6).map(whole)),
    ...set('private4', 4, of(4, privates)),
    ...set('private6', 6, of(6, privates)),
    ...set('special4', 4, of(4, refusedNetworks)),
    ...set('special6', 6, of(6, refusedNetworks)),
    ...chain('policy4', [`ip daddr @own4 ${REFUSED}`, 'jump address4', `meta l4proto ${WITH_PORTS} goto lines4`, 'goto any4']),
    ...chain('address4', ['ip daddr @private4 return', `ip daddr @special4 ${REFUSED}`]),
    ...chain(
      'lines4',
      lineRules(rules, 4, (network) => `ip daddr ${formatNetwork(network)} `),
    ),
    ...chain(
      'any4',
      anyRules(rules, 4, (network) => `ip daddr ${formatNetwork(network)} `),
    ),

    ...chain('policy6', [
      `ip6 daddr @own6 ${REFUSED}`,
      'jump own_within',
      'jump address6',
      `meta l4proto ${WITH_PORTS} jump lines6`,
      `meta l4proto != ${WITH_PORTS} jump any6`,
      `meta l4proto ${WITH_PORTS} jump lines_within`,
      `meta l4proto != ${WITH_PORTS} jump any_within`,
    ]),
    ...chain('address6', [
      'ip6 daddr @private6 return',
      'jump address_within',
      `ip6 daddr != { ${formatNetwork(globalUnicast)}, 64:ff9b::/96 } ${REFUSED}`,
      `ip6 daddr @special6 ${REFUSED}`,
    ]),
    ...chain(
      'lines6',
      lineRules(rules, 6, (network) => `ip6 daddr ${formatNetwork(network)} `),
    ),
    ...chain(
      'any6',
      anyRules(rules, 6, (network) => `ip6 daddr ${formatNetwork(network)} `),
    ),

    // What an IPv6 address that only wraps an IPv4 one stands for comes under the same as that one.
    ...within('own', (form) => own(4).map((address) => `${matchWithin(form, whole(address))}${REFUSED}`)),
    ...within('address', (form) => [
      ...of(4, privates).map((network) => `${matchWithin(form, network)}return`),
      ...of(4, refusedNetworks).map((network) => `${matchWithin(form, network)}${REFUSED}`),
    ]),
    ...within('lines', (form) => lineRules(rules, 4, (network) => matchWithin(form, network))),
    ...within('any', (form) => anyRules(rules, 4, (network) => matchWithin(form, network))),
  ]
}

/** A chain with its lines. */
export function chain(name: string, lines: readonly string[]): readonly string[] {
  return [`chain ${name} {`, ...lines.map((line) => `  ${line}`), '}']
}

/** A named set of networks. */
export function set(name: string, family: 4 | 6, networks: readonly IpNetwork[]): readonly string[] {
  const elements = networks.length === 0 ? [] : [`  elements = { ${networks.map(formatNetwork).join(', ')} }`]
  return [`set ${name} {`, `  type ipv${family}_addr`, '  flags interval', '  auto-merge', ...elements, '}']
}

type NetworkMatch = (network: IpNetwork) => string

/** `ExitPolicy.#firstRule`: the first line that fits address and port. */
function lineRules(rules: readonly PolicyRule[], family: 4 | 6, match: NetworkMatch): readonly string[] {
  const lines = rules
    .filter((rule) => rule.families.includes(family))
    .map((rule) => `${addressMatch(rule, match)}${portMatch(rule)}${rule.accept ? 'return' : REFUSED}`)
  return [...lines, REFUSED]
}

/** `ExitPolicy.#firstPort`: the first line that accepts the address on any port, or refuses it on all. */
function anyRules(rules: readonly PolicyRule[], family: 4 | 6, match: NetworkMatch): readonly string[] {
  const lines = rules
    .filter((rule) => rule.families.includes(family) && (rule.accept || isWhole(rule)))
    .map((rule) => `${addressMatch(rule, match)}${rule.accept ? 'return' : REFUSED}`)
  return [...lines, REFUSED]
}

function addressMatch({ network }: PolicyRule, match: NetworkMatch): string {
  // A prefix of no bits is every address: nothing to look at.
  return network === null || network.bits === 0 ? '' : match(network)
}

function isWhole(rule: PolicyRule): boolean {
  return rule.ports.some(({ from, to }) => from === 1 && to === 65_535)
}

/** Port 0 is in no line. Ranges may overlap, which a set of nftables may not. */
function portMatch(rule: PolicyRule): string {
  const merged: { from: number; to: number }[] = []
  for (const { from, to } of [...rule.ports].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1)
    if (last && from <= last.to + 1) last.to = Math.max(last.to, to)
    else merged.push({ from, to })
  }
  return `th dport { ${merged.map(({ from, to }) => (from === to ? String(from) : `${from}-${to}`)).join(', ')} } `
}

/** `NAME_within` leads on by form; each form's chain returns when it has nothing against the address. */
function within(name: string, lines: (form: EmbeddedForm) => readonly string[]): readonly string[] {
  return [
    ...embeddedForms.flatMap((form) => chain(`${name}_${form.name}`, lines(form))),
    ...chain(
      `${name}_within`,
      embeddedForms.map((form) => `${bitMatch(form.mask, form.value)}goto ${name}_${form.name}`),
    ),
  ]
}

function matchWithin(form: EmbeddedForm, network: IpNetwork): string {
  if (network.bits === 0) return ''
  const { mask, value } = embeddedNetwork(form, network)
  return bitMatch(mask, value)
}

function bitMatch(mask: Uint8Array, value: Uint8Array): string {
  return `ip6 daddr & ${formatIp({ family: 6, bytes: mask })} == ${formatIp({ family: 6, bytes: value })} `
}
