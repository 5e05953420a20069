import { formatIp, ShallotError } from '../base/index.ts'
import { addressScope } from '../directory/index.ts'
import { addressOf } from '../path/index.ts'

/**
 * The addresses a descriptor names: one of IPv4 and one of IPv6 (a descriptor holds no more), public before private, and private ones only where
 * the network's rules allow them; each for libp2p and, with `/tls`, for direct links.
 * @param listening multiaddrs with the ports that are really listened on
 * @throws ShallotError 'no-announced-address' when none is left
 */
export function announcedAddresses(listening: readonly string[], advertise: readonly string[], privateAllowed: boolean): string[] {
  const candidates = (advertise.length > 0 ? advertise : listening).filter((address) => !address.endsWith('/tls'))
  const chosen = ([4, 6] as const).flatMap((family) => {
    const ofFamily = candidates.filter((address) => addressOf(address)?.family === family)
    const scoped = (scope: string): string | undefined => ofFamily.find((address) => addressScope(addressOf(address)!) === scope)
    return scoped('public') ?? (privateAllowed ? scoped('private') : undefined) ?? []
  })
  if (chosen.length === 0) {
    const seen = [...new Set(candidates.flatMap((address) => (addressOf(address) ? [formatIp(addressOf(address)!)] : [])))].join(', ')
    throw new ShallotError(
      'no-announced-address',
      `this node has no address that others could connect to (it listens on ${seen || 'nothing'}); set node.advertise to its public address, such as ["/ip4/203.0.113.5/tcp/4460"]`,
      { kind: 'config', retry: 'never' },
    )
  }
  return chosen.flatMap((address) => [address, `${address}/tls`])
}
