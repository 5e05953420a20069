import { formatIp, MalformedError, parseHost, parseIp } from '../../base/index.ts'
import { type ClientService, StreamError, type StreamOptions } from '../../client/index.ts'
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

/** An answer by way of `ClientService.resolve`, for exits that only do that: A, AAAA and PTR, the rest is NOTIMP. @throws StreamError */
export async function resolvedAnswer(asked: DnsMessage, client: ClientService, options: StreamOptions): Promise<Uint8Array> {
  const { name, type } = asked.question!
  const target = targetOf(name, type)
  if (target === null)
    return encodeAnswer(asked, {
      rcode: type === DnsType.A || type === DnsType.AAAA || type === DnsType.PTR ? Rcode.nxDomain : Rcode.notImp,
    })
  try {
    const found = await client.resolve(target, options)
    const records = found.map<NewRecord>(({ type: kind, value, ttlSeconds }) =>
      kind === 'name' ? { type: DnsType.PTR, ttl: ttlSeconds, data: encodeName(value) } : addressRecord(parseIp(value), ttlSeconds),
    )
    return encodeAnswer(asked, { rcode: Rcode.noError, answers: records.filter((record) => record.type === type) })
  } catch (error) {
    // That it has no address does not say that there is no such name.
    if (error instanceof StreamError && error.reason === 'resolve-failed') return encodeAnswer(asked, { rcode: Rcode.noError })
    throw error
  }
}

/** What to resolve: a host name, or an address in text; null when the question is neither's. */
function targetOf(name: string, type: number): string | null {
  if (type === DnsType.PTR) {
    const network = reverseNetwork(name)
    return network !== null && network.bits === 8 * network.address.bytes.length ? formatIp(network.address) : null
  }
  if (type !== DnsType.A && type !== DnsType.AAAA) return null
  try {
    const host = parseHost(name)
    return host.type === 'name' ? host.text : null
  } catch (error) {
    if (error instanceof MalformedError) return null
    throw error
  }
}
