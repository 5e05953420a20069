import { networkKey, toHex } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { type AddResult, refused } from './add-result.ts'
import type { Claim, Group } from './admission.ts'
import type { Descriptor } from './descriptor.ts'
import { addressScope, parseRelayAddress } from './relay-address.ts'
import type { NetworkRules } from './rules.ts'
import { descriptorWorkHash, leadingZeroBits, workPeriod } from './work.ts'

/**
 * The rules of the known tier that concern one descriptor alone (docs/spec/directory.md §3), its signature aside: why it is refused, or
 * what it claims of the room there is.
 */
export function judgeDescriptor(
  suite: CryptoSuite,
  rules: NetworkRules,
  networkId: Uint8Array,
  descriptor: Descriptor,
  now: number,
): Claim | (AddResult & { type: 'refused' }) {
  const { descriptors, protocols, admission, work } = rules
  if (descriptor.publishedAt > now + descriptors.clockToleranceMs) return refused('future', 'dated in the future')
  if (descriptor.expiresAt <= now) return refused('expired', 'has expired')
  if (descriptor.expiresAt - descriptor.publishedAt > descriptors.lifetimeMs) return refused('lifetime', 'is valid for too long')
  if (!overlaps(descriptor.protocols.circuit, protocols.circuit) || !overlaps(descriptor.protocols.link, protocols.link)) {
    return refused('protocol', "speaks none of the network's versions")
  }
  const groups: Group[] = []
  const grouped = new Set<string>()
  const group = (key: string, cap: number): void => {
    if (grouped.has(key)) return
    grouped.add(key)
    groups.push({ key, cap })
  }
  for (const text of descriptor.addresses) {
    const { ip } = parseRelayAddress(text)
    const scope = addressScope(ip)
    if (scope === 'unusable' || (scope === 'private' && !admission.privateAddresses)) return refused('address', `at a ${scope} address`)
    group(networkKey(ip, ip.bytes.length * 8), admission.perAddress)
    if (ip.family === 4) group(networkKey(ip, 24), admission.perNet24)
    else group(networkKey(ip, 48), admission.perNet48)
  }
  if (descriptor.reach.kind === 'relayed') for (const via of descriptor.reach.via) group(`via ${via}`, admission.perVia)
  if (descriptor.work.period !== workPeriod(descriptor.publishedAt, work.periodMs))
    return refused('work', 'proof of work is for another period')
  const hash = descriptorWorkHash(suite, networkId, descriptor)
  if (leadingZeroBits(hash) < work.bits) return refused('work', `proof of work has fewer than ${work.bits} bits`)
  return { id: descriptor.id, rank: toHex(hash), groups }
}

function overlaps(a: readonly number[], b: readonly number[]): boolean {
  return a.some((version) => b.includes(version))
}
