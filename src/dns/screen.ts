import type { DnsHead, DnsMessage } from './message.ts'
import { CLASS_IN, DnsType, Opcode, Rcode } from './numbers.ts'

/** Types that ask for something else than the records of one type: transfers, ANY (RFC 8482), OPT, TSIG and whatever follows them (RFC 6895 §3.1). */
const FIRST_META_TYPE = 128
const LAST_META_TYPE = 255

/**
 * Whether a forwarder carries a question on; else the response code that it gets. Only plain questions of class IN are: no transfer, no update or
 * notify, no ANY, nothing of what a server says of itself (class CH).
 */
export function screenQuestion(asked: DnsHead & Pick<DnsMessage, 'edns'>): number | null {
  if (asked.opcode === Opcode.notify || asked.opcode === Opcode.update) return Rcode.refused
  if (asked.opcode !== Opcode.query) return Rcode.notImp
  if (asked.question === null) return Rcode.formErr
  if (asked.edns !== null && asked.edns.version !== 0) return Rcode.badVersion
  const { type, class: class_ } = asked.question
  if (class_ !== CLASS_IN) return Rcode.refused
  if (type === 0 || type === DnsType.OPT) return Rcode.formErr
  if (type >= FIRST_META_TYPE && type <= LAST_META_TYPE) return Rcode.refused
  return null
}
