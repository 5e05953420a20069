import { type IpNetwork, ipFromBytes, parseIp } from '../../base/index.ts'

/**
 * A form in which an IPv6 address stands for an IPv4 one, as a match on bits: `embeddedIpv4` (src/egress/policy.ts) in the words of a packet filter.
 * In this order; the first that fits is the one.
 */
export interface EmbeddedForm {
  readonly name: string
  /** The address is of the form when `address & mask` is `value`. */
  readonly mask: Uint8Array
  readonly value: Uint8Array
  /** Where the IPv4 address lies. */
  readonly at: number
  /** Whether its bits are turned. */
  readonly turned: boolean
}

const form = (name: string, mask: string, value: string, at: number, turned = false): EmbeddedForm => ({
  name,
  mask: parseIp(mask).bytes,
  value: parseIp(value).bytes,
  at,
  turned,
})

/** NAT64 (RFC 6052 §2.1), 6to4 (RFC 3056), Teredo (RFC 4380 §4), ISATAP (RFC 5214 §6.1). */
export const embeddedForms: readonly EmbeddedForm[] = [
  form('nat64', 'ffff:ffff:ffff:ffff:ffff:ffff::', '64:ff9b::', 12),
  form('sixtofour', 'ffff::', '2002::', 2),
  form('teredo', 'ffff:ffff::', '2001::', 12, true),
  form('isatap', '::fdff:ffff:0:0', '::5efe:0:0', 12),
]

/** Mask and value that the bits of an IPv6 address of this form have when the IPv4 address within lies in the network. */
export function embeddedNetwork(
  form: EmbeddedForm,
  { address, bits }: IpNetwork,
): { readonly mask: Uint8Array; readonly value: Uint8Array } {
  const mask = new Uint8Array(16)
  const value = new Uint8Array(16)
  for (let i = 0; i < 4; i++) {
    const keep = Math.min(8, Math.max(0, bits - i * 8))
    mask[form.at + i] = (0xff00 >> keep) & 0xff
    value[form.at + i] = address.bytes[i]! ^ (form.turned ? mask[form.at + i]! : 0)
  }
  return { mask, value }
}

/** The IPv6 address of a form for an IPv4 one, all other bits zero: for tests and documents. */
export function embedIpv4(form: EmbeddedForm, ipv4: Uint8Array) {
  const bytes = form.value.slice()
  for (let i = 0; i < 4; i++) bytes[form.at + i] = form.turned ? ipv4[i]! ^ 0xff : ipv4[i]!
  return ipFromBytes(bytes)
}
