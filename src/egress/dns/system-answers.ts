import { type IpAddress, MalformedError, parseHost } from '../../base/index.ts'
import {
  addressRecord,
  type DnsMessage,
  DnsType,
  encodeAnswer,
  encodeName,
  type NewRecord,
  Rcode,
  reverseNetwork,
} from '../../dns/index.ts'
import { NotFound } from '../lookup-cache.ts'
import type { Resolver } from '../resolver.ts'

/** Records of one answer. */
const MAX_RECORDS = 64

/**
 * An answer by the system's resolver, for a machine without a DNS server that could be asked (names from files, NIS, or none at all): addresses and names
 * of addresses only; anything else is NOTIMP.
 */
export async function answerBySystem(
  asked: DnsMessage,
  resolver: Resolver,
  allowAddress: (address: IpAddress) => boolean,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { name, type } = asked.question!
  try {
    if (type === DnsType.A || type === DnsType.AAAA) {
      const host = parseHost(name)
      if (host.type === 'ip') return encodeAnswer(asked, { rcode: Rcode.nxDomain })
      const { value, ttlSeconds } = await resolver.addresses(host.text, signal)
      const records = value.filter(allowAddress).map((address) => addressRecord(address, ttlSeconds))
      return found(asked, records)
    }
    if (type !== DnsType.PTR) return encodeAnswer(asked, { rcode: Rcode.notImp })
    const network = reverseNetwork(name)
    if (network === null || network.bits !== 8 * network.address.bytes.length) return encodeAnswer(asked, { rcode: Rcode.nxDomain })
    const { value, ttlSeconds } = await resolver.names(network.address, signal)
    return found(
      asked,
      value.map((one) => ({ type: DnsType.PTR, ttl: ttlSeconds, data: encodeName(one) })),
    )
  } catch (error) {
    // That it has no address does not say that there is no such name.
    if (error instanceof NotFound) return encodeAnswer(asked, { rcode: Rcode.noError })
    if (error instanceof MalformedError) return encodeAnswer(asked, { rcode: Rcode.nxDomain })
    return encodeAnswer(asked, { rcode: Rcode.servFail })
  }
}

function found(asked: DnsMessage, records: readonly NewRecord[]): Uint8Array {
  const answers = records.filter(({ type }) => type === asked.question!.type).slice(0, MAX_RECORDS)
  return encodeAnswer(asked, { rcode: Rcode.noError, answers })
}
