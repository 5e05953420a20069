import { type IpAddress, ipFromBytes, MalformedError, Reader } from '../base/index.ts'
import { encodeLabels, lowerName, nameText, readLabels, skipName } from './name.ts'
import { DNS_HEADER_BYTES, DNS_MESSAGE_BYTES, DnsType, Flag, PLAIN_DATAGRAM_BYTES } from './numbers.ts'

/**
 * A DNS message, RFC 1035 §4.1:
 *
 *     0    2       4         6         8           10            12
 *     | id | flags | QDCOUNT | ANCOUNT | NSCOUNT   | ARCOUNT     | question | answer | authority | additional records
 *
 * a question: name, type u16, class u16; a record: name, type u16, class u16, TTL u32, length u16, data.
 */
export interface DnsHead {
  readonly id: number
  /** The flags word as it came: see `Flag`. */
  readonly flags: number
  readonly opcode: number
  /** Null when there is none. There is never more than one (RFC 9619). */
  readonly question: DnsQuestion | null
  /** Records of the three sections, as the header claims. */
  readonly counts: readonly [number, number, number]
  /** Where the records begin. */
  readonly end: number
}

export interface DnsQuestion {
  /** Lower case, without a last dot: for comparing and looking up. */
  readonly name: string
  /** The name's bytes with the capitals as they were asked for, uncompressed. A copy. */
  readonly wire: Uint8Array
  readonly type: number
  readonly class: number
}

export type DnsSection = 'answer' | 'authority' | 'additional'

/** One record, by where it stands in the message. */
export interface DnsRecord {
  readonly section: DnsSection
  /** Where it begins, which is where its name does. */
  readonly at: number
  readonly type: number
  readonly class: number
  /** Offset of the four bytes of its time to live. */
  readonly ttlAt: number
  /** Seconds; what is beyond 2^31 - 1 is 0 (RFC 2181 §8). */
  readonly ttl: number
  readonly dataAt: number
  /** Where it ends. */
  readonly end: number
}

/** What the OPT record says. RFC 6891 §6.1 */
export interface Edns {
  /** The datagram that fits the sender, at least 512. */
  readonly udpBytes: number
  readonly version: number
  readonly dnssecOk: boolean
  /** The upper eight bits of the response code. */
  readonly upperRcode: number
  /** The options, one after the other, unread: a view. */
  readonly options: Uint8Array
}

export interface DnsMessage extends DnsHead {
  /** The message without what stood behind its last record. Borrowed. */
  readonly bytes: Uint8Array
  /** In their order, the OPT record included. */
  readonly records: readonly DnsRecord[]
  readonly edns: Edns | null
  /** With the upper bits that the OPT record has. */
  readonly rcode: number
}

/** Reads header and question, and leaves the records alone. @throws MalformedError */
export function decodeHead(bytes: Uint8Array): DnsHead {
  if (bytes.length > DNS_MESSAGE_BYTES) throw malformed(`is longer than ${DNS_MESSAGE_BYTES} bytes`)
  const reader = new Reader('DNS message', bytes)
  const id = reader.u16()
  const flags = reader.u16()
  const questions = reader.u16()
  const counts = [reader.u16(), reader.u16(), reader.u16()] as const
  const base = { id, flags, opcode: (flags >> 11) & 15, counts }
  if (questions === 0) return { ...base, question: null, end: DNS_HEADER_BYTES }
  if (questions > 1) throw malformed('has more than one question')
  const { labels, end } = readLabels(bytes, DNS_HEADER_BYTES)
  const fields = new Reader('DNS question', bytes, end)
  const question = { name: lowerName(nameText(labels)), wire: encodeLabels(labels), type: fields.u16(), class: fields.u16() }
  return { ...base, question, end: fields.at }
}

/** Reads a whole message. Names are checked, data of records is not. @throws MalformedError */
export function decodeMessage(bytes: Uint8Array): DnsMessage {
  const head = decodeHead(bytes)
  const records: DnsRecord[] = []
  let at = head.end
  let edns: Edns | null = null
  for (const [i, section] of sections.entries()) {
    for (let left = head.counts[i]!; left > 0; left--) {
      const record = readRecord(bytes, at, section)
      records.push(record)
      at = record.end
      if (record.type !== DnsType.OPT) continue
      // RFC 6891 §6.1.1
      if (edns !== null) throw malformed('has two OPT records')
      if (section !== 'additional' || bytes[record.at] !== 0) throw malformed('has an OPT record in a wrong place')
      edns = readEdns(bytes, record)
    }
  }
  const rcode = (head.flags & 15) | ((edns?.upperRcode ?? 0) << 4)
  return { ...head, bytes: at === bytes.length ? bytes : bytes.subarray(0, at), records, edns, rcode }
}

/** The name of a record, lower case. @throws MalformedError never, for records of `decodeMessage` */
export function recordName(message: DnsMessage, record: DnsRecord): string {
  return lowerName(nameText(readLabels(message.bytes, record.at).labels))
}

/** The address of an A or AAAA record; null for other types. A view. @throws MalformedError when the data has another length */
export function recordAddress(message: DnsMessage, record: DnsRecord): IpAddress | null {
  if (record.type !== DnsType.A && record.type !== DnsType.AAAA) return null
  const data = message.bytes.subarray(record.dataAt, record.end)
  if (data.length !== (record.type === DnsType.A ? 4 : 16)) throw malformed('has an address of a wrong length')
  return ipFromBytes(data)
}

/** The last field of an SOA record: how long a negative answer holds, seconds (RFC 2308 §4). @throws MalformedError */
export function soaMinimum(message: DnsMessage, record: DnsRecord): number {
  const primary = skipName(message.bytes, record.dataAt, record.end)
  const mailbox = skipName(message.bytes, primary, record.end)
  const fields = new Reader('SOA record', message.bytes, mailbox, record.end)
  fields.bytes(16)
  const minimum = fields.u32()
  fields.end()
  return minimum
}

/** Whether two questions ask the same. */
export function sameQuestion(a: DnsQuestion | null, b: DnsQuestion | null): boolean {
  return a !== null && b !== null && a.name === b.name && a.type === b.type && a.class === b.class
}

const sections: readonly DnsSection[] = ['answer', 'authority', 'additional']

function readRecord(bytes: Uint8Array, at: number, section: DnsSection): DnsRecord {
  const reader = new Reader('DNS record', bytes, skipName(bytes, at))
  const type = reader.u16()
  const class_ = reader.u16()
  const ttlAt = reader.at
  const ttl = reader.u32()
  const length = reader.u16()
  const dataAt = reader.at
  reader.bytes(length)
  return { section, at, type, class: class_, ttlAt, ttl: ttl > 0x7fff_ffff ? 0 : ttl, dataAt, end: reader.at }
}

function readEdns(bytes: Uint8Array, record: DnsRecord): Edns {
  const reader = new Reader('OPT record', bytes, record.ttlAt, record.dataAt)
  const upperRcode = reader.u8()
  const version = reader.u8()
  const dnssecOk = (reader.u16() & 0x8000) !== 0
  const options = bytes.subarray(record.dataAt, record.end)
  // RFC 6891 §6.2.3: a smaller size means 512.
  return { udpBytes: Math.max(PLAIN_DATAGRAM_BYTES, record.class), version, dnssecOk, upperRcode, options }
}

/** Whether a message is an answer. */
export function isResponse(head: Pick<DnsHead, 'flags'>): boolean {
  return (head.flags & Flag.response) !== 0
}

function malformed(problem: string): MalformedError {
  return new MalformedError('DNS message', problem)
}
