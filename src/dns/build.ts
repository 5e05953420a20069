import { assert, type IpAddress, Writer } from '../base/index.ts'
import { type DnsHead, type DnsMessage, type DnsQuestion, decodeMessage } from './message.ts'
import { encodeName } from './name.ts'
import { CLASS_IN, DATAGRAM_BYTES, DNS_HEADER_BYTES, DnsType, Flag, PLAIN_DATAGRAM_BYTES, Rcode } from './numbers.ts'
import type { SpecialAnswer } from './special-names.ts'

/** How long what is said here of special names holds: they do not change, but where they are answered may. RFC 6303 §3 has 10800. */
const LOCAL_TTL_SECONDS = 3600

/** A question to be sent. */
export interface QuestionFields {
  readonly id: number
  readonly question: Pick<DnsQuestion, 'wire' | 'type' | 'class'>
  readonly checkingDisabled?: boolean
  /** Null: without EDNS. */
  readonly edns: { readonly udpBytes: number; readonly dnssecOk: boolean } | null
}

/**
 * A question with nothing in it but what is asked: recursion wanted, and no EDNS options. So the client's subnet (RFC 7871), cookies and whatever else
 * a program puts there stays behind.
 */
export function encodeQuestion({ id, question, checkingDisabled = false, edns }: QuestionFields): Uint8Array {
  const writer = new Writer(64)
    .u16(id)
    .u16(Flag.recursionDesired | (checkingDisabled ? Flag.checkingDisabled : 0))
    .u16(1)
    .u16(0)
    .u16(0)
    .u16(edns === null ? 0 : 1)
  writeQuestion(writer, question)
  if (edns !== null) writeOpt(writer, edns.udpBytes, 0, edns.dnssecOk)
  return writer.finish()
}

/** A record to be written. */
export interface NewRecord {
  /** As text; the name of the question when not given. */
  readonly name?: string
  readonly type: number
  readonly ttl: number
  readonly data: Uint8Array
}

/** What an answer of our own says. */
export interface AnswerFields {
  readonly rcode: number
  readonly answers?: readonly NewRecord[]
  readonly authorities?: readonly NewRecord[]
}

/** An answer of our own to a question that was read: its id, its question, its flags, and EDNS when it had that. */
export function encodeAnswer(
  asked: DnsHead & Pick<DnsMessage, 'edns'>,
  { rcode, answers = [], authorities = [] }: AnswerFields,
): Uint8Array {
  assert(asked.edns !== null || rcode <= 15, 'response codes above 15 need EDNS')
  const writer = new Writer(128)
    .u16(asked.id)
    .u16(answerFlags(asked.flags) | (rcode & 15))
    .u16(asked.question === null ? 0 : 1)
    .u16(answers.length)
    .u16(authorities.length)
    .u16(asked.edns === null ? 0 : 1)
  if (asked.question !== null) writeQuestion(writer, asked.question)
  for (const record of [...answers, ...authorities]) {
    if (record.name !== undefined || asked.question === null) writer.bytes(encodeName(record.name ?? '.'))
    else writer.u16(0xc000 | DNS_HEADER_BYTES)
    writer.u16(record.type).u16(CLASS_IN).u32(record.ttl).u16(record.data.length).bytes(record.data)
  }
  if (asked.edns !== null) writeOpt(writer, DATAGRAM_BYTES, rcode >> 4, asked.edns.dnssecOk)
  return writer.finish()
}

/** An error for what could not be read as a message: as much of its head is echoed as there is. */
export function encodeUnread(bytes: Uint8Array, rcode: number): Uint8Array {
  const id = bytes.length >= 2 ? (bytes[0]! << 8) | bytes[1]! : 0
  const flags = bytes.length >= 4 ? (bytes[2]! << 8) | bytes[3]! : 0
  return new Writer(DNS_HEADER_BYTES)
    .u16(id)
    .u16(answerFlags(flags) | rcode)
    .u32(0)
    .u32(0)
    .finish()
}

/**
 * Someone else's answer (without an OPT record) as the answer to a question: its id, its capitals, the flags that belong to it, and EDNS when it had that.
 * @param answer of the same question; taken over, and used again where it can be
 */
export function answerAs(asked: DnsMessage, answer: Uint8Array): Uint8Array {
  assert(asked.question !== null && answer.length >= asked.end, 'an answer has the question that it answers')
  const opt = asked.edns === null ? new Uint8Array(0) : encodeOpt(asked.edns.dnssecOk)
  const bytes = opt.length === 0 ? answer : new Uint8Array(answer.length + opt.length)
  if (bytes !== answer) bytes.set(answer)
  bytes.set(opt, answer.length)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  view.setUint16(0, asked.id)
  const kept = view.getUint16(2) & (Flag.authoritative | Flag.truncated | Flag.authenticData | 15)
  view.setUint16(2, answerFlags(asked.flags) | kept)
  bytes.set(asked.question.wire, DNS_HEADER_BYTES)
  if (opt.length > 0) view.setUint16(10, view.getUint16(10) + 1)
  return bytes
}

/**
 * An answer as a datagram: as it is when it fits what the asker takes, else with no record and the mark that there is more (RFC 2181 §9), upon
 * which the asker comes again by TCP.
 * @param question the bytes that were asked, @param most bytes that the way there takes whatever the asker says
 */
export function fitDatagram(question: Uint8Array, answer: Uint8Array, most: number = DATAGRAM_BYTES): Uint8Array {
  if (answer.length <= PLAIN_DATAGRAM_BYTES) return answer
  let asked: DnsMessage
  try {
    asked = decodeMessage(question)
  } catch {
    return encodeUnread(question, Rcode.formErr)
  }
  if (answer.length <= Math.min(most, asked.edns?.udpBytes ?? PLAIN_DATAGRAM_BYTES)) return answer
  const cut = encodeAnswer(asked, { rcode: answer[3]! & 15 })
  cut[2]! |= Flag.truncated >> 8
  return cut
}

/** What is said here of a special name, for `LOCAL_TTL_SECONDS`. */
export function encodeSpecial(asked: DnsHead & Pick<DnsMessage, 'edns'>, special: SpecialAnswer): Uint8Array {
  const ttl = LOCAL_TTL_SECONDS
  switch (special.type) {
    case 'nothing':
      return encodeAnswer(asked, { rcode: Rcode.nxDomain, authorities: [emptyZone(special.zone, ttl)] })
    case 'empty':
      return encodeAnswer(asked, { rcode: Rcode.noError, authorities: [emptyZone(special.zone, ttl)] })
    case 'address':
      return encodeAnswer(asked, { rcode: Rcode.noError, answers: special.addresses.map((address) => addressRecord(address, ttl)) })
    case 'pointer':
      return encodeAnswer(asked, { rcode: Rcode.noError, answers: [{ type: DnsType.PTR, ttl, data: encodeName(special.name) }] })
  }
}

/** The data of an A or AAAA record. */
export function addressRecord(address: IpAddress, ttl: number): NewRecord {
  return { type: address.family === 4 ? DnsType.A : DnsType.AAAA, ttl, data: address.bytes }
}

/** The start of authority of a zone that is answered here, for who remembers that there is nothing (RFC 6303 §3, RFC 2308 §3). */
export function emptyZone(zone: string, ttl: number): NewRecord {
  const data = new Writer(64)
    .bytes(encodeName(zone))
    .bytes(encodeName('nobody.invalid'))
    .u32(1)
    .u32(3600)
    .u32(1200)
    .u32(604_800)
    .u32(ttl)
    .finish()
  return { name: zone, type: DnsType.SOA, ttl, data }
}

/** What an answer takes over of its question's flags: opcode, RD and CD; and that it is an answer, of one who asks on. RFC 1035 §4.1.1, RFC 4035 §3.2.2 */
function answerFlags(asked: number): number {
  return Flag.response | Flag.recursionAvailable | (asked & (0x7800 | Flag.recursionDesired | Flag.checkingDisabled))
}

function writeQuestion(writer: Writer, { wire, type, class: class_ }: Pick<DnsQuestion, 'wire' | 'type' | 'class'>): void {
  writer.bytes(wire).u16(type).u16(class_)
}

function encodeOpt(dnssecOk: boolean): Uint8Array {
  const writer = new Writer(16)
  writeOpt(writer, DATAGRAM_BYTES, 0, dnssecOk)
  return writer.finish()
}

/** RFC 6891 §6.1.2 */
function writeOpt(writer: Writer, udpBytes: number, upperRcode: number, dnssecOk: boolean): void {
  writer
    .u8(0)
    .u16(DnsType.OPT)
    .u16(udpBytes)
    .u8(upperRcode)
    .u8(0)
    .u16(dnssecOk ? 0x8000 : 0)
    .u16(0)
}
