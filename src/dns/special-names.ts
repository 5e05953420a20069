import { equalBytes, type IpAddress, type IpNetwork, ipFromBytes, networkContains, parseNetwork } from '../base/index.ts'
import { isUnder } from './name.ts'
import { DnsType } from './numbers.ts'

/** What is known of a name without asking anybody. */
export type SpecialAnswer =
  /** There is no such name; `zone` is the domain that this holds for. */
  | { readonly type: 'nothing'; readonly zone: string }
  /** The name is there, and has nothing of the type. */
  | { readonly type: 'empty'; readonly zone: string }
  | { readonly type: 'address'; readonly addresses: readonly IpAddress[] }
  | { readonly type: 'pointer'; readonly name: string }

/**
 * Domains that are nobody's business beyond this machine or link, and that do not exist anywhere else: RFC 6762 §22.1, RFC 7686 §2, RFC 6761 §6.4,
 * RFC 9476, RFC 8375 §4, and `internal`, which ICANN keeps for private use. (`test` and `example`, RFC 6761 §§6.2 and 6.5, tell nothing of anybody:
 * whoever is asked says what they are.)
 */
export const LOCAL_DOMAINS: readonly string[] = ['local', 'onion', 'invalid', 'alt', 'home.arpa', 'internal']

const loopback = [parseNetwork('127.0.0.1').address, parseNetwork('::1').address]
/** RFC 7050 §8, RFC 8880 §7: what the name has where no NAT64 is. */
const ipv4Only = ['192.0.0.170', '192.0.0.171'].map((text) => parseNetwork(text).address)

/** Networks whose names only their own machines know: RFC 6303 §4, RFC 7793, RFC 8375 §4; all but the ones for documentation. */
const privateReverse: readonly IpNetwork[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '255.255.255.255/32',
  '::/127', // the unspecified address and loopback
  'fc00::/7',
  'fe80::/10',
].map(parseNetwork)

/** Addresses that an answer from outside has no business to give: a page could reach into this machine's own network by them (DNS rebinding). */
export function isInternalAddress(address: IpAddress): boolean {
  return privateReverse.some((network) => networkContains(network, address))
}

/** The answer that special-use names (lower case) have by their RFCs, null for any other name. */
export function specialAnswer(name: string, type: number): SpecialAnswer | null {
  // RFC 6761 §6.3
  if (isUnder(name, 'localhost')) return addressesOf(loopback, 'localhost', type)
  if (name === 'ipv4only.arpa') return addressesOf(ipv4Only, name, type)
  // RFC 9462: asked of the next resolver only, never further. Who does not take part says that there is nothing.
  if (isUnder(name, 'resolver.arpa')) return { type: 'empty', zone: 'resolver.arpa' }
  const domain = LOCAL_DOMAINS.find((one) => isUnder(name, one))
  if (domain !== undefined) return name === domain ? { type: 'empty', zone: domain } : { type: 'nothing', zone: domain }
  const reverse = reverseNetwork(name)
  if (reverse === null || !privateReverse.some((network) => network.bits <= reverse.bits && networkContains(network, reverse.address)))
    return null
  const whole = reverse.bits === reverse.address.bytes.length * 8
  if (whole && loopback.some(({ bytes }) => equalBytes(bytes, reverse.address.bytes)))
    return type === DnsType.PTR ? { type: 'pointer', name: 'localhost' } : { type: 'empty', zone: name }
  return whole ? { type: 'nothing', zone: name } : { type: 'empty', zone: name }
}

/** What a name under in-addr.arpa or ip6.arpa (lower case) stands for: an address, or the network that its labels begin (RFC 1035 §3.5, RFC 3596 §2.5). */
export function reverseNetwork(name: string): IpNetwork | null {
  const labels = name.split('.').reverse()
  const [top, tree, ...parts] = labels
  if (top !== 'arpa') return null
  if (tree === 'in-addr') {
    if (parts.length > 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return null
    const bytes = new Uint8Array(4)
    for (const [i, part] of parts.entries()) bytes[i] = Number(part)
    return { address: { family: 4, bytes }, bits: 8 * parts.length }
  }
  if (tree !== 'ip6' || parts.length > 32 || !parts.every((part) => /^[0-9a-f]$/.test(part))) return null
  const bytes = new Uint8Array(16)
  for (const [i, part] of parts.entries()) bytes[i >> 1]! |= Number.parseInt(part, 16) << (i % 2 === 0 ? 4 : 0)
  // A mapped IPv4 address is held as that one (only ever a whole one: its prefix is no network of its own).
  const address = parts.length === 32 ? ipFromBytes(bytes) : { family: 6 as const, bytes }
  return { address, bits: address.family === 4 ? 32 : 4 * parts.length }
}

function addressesOf(all: readonly IpAddress[], zone: string, type: number): SpecialAnswer {
  const addresses = all.filter(({ family }) => type === (family === 4 ? DnsType.A : DnsType.AAAA))
  return addresses.length > 0 ? { type: 'address', addresses } : { type: 'empty', zone }
}
