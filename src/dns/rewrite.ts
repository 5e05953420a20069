import { type IpAddress, MalformedError, Writer } from '../base/index.ts'
import { type DnsMessage, type DnsRecord, decodeMessage, recordAddress } from './message.ts'
import { encodeLabels, readLabels } from './name.ts'
import { DNS_HEADER_BYTES, DNS_MESSAGE_BYTES, DnsType } from './numbers.ts'

/**
 * Where names stand in the data of a type, of which only these may be compressed (RFC 3597 §4, and older types that RFC 1035's readers met):
 * bytes before the first name, then how many names follow each other. What comes behind is plain.
 */
const namesIn: ReadonlyMap<number, readonly [skip: number, names: number]> = new Map([
  [DnsType.NS, [0, 1]],
  [3, [0, 1]], // MD
  [4, [0, 1]], // MF
  [DnsType.CNAME, [0, 1]],
  [DnsType.SOA, [0, 2]],
  [7, [0, 1]], // MB
  [8, [0, 1]], // MG
  [9, [0, 1]], // MR
  [DnsType.PTR, [0, 1]],
  [14, [0, 2]], // MINFO
  [DnsType.MX, [2, 1]],
  [17, [0, 2]], // RP
  [18, [2, 1]], // AFSDB
  [21, [2, 1]], // RT
  [24, [18, 1]], // SIG
  [26, [2, 2]], // PX
  [30, [0, 1]], // NXT
  [DnsType.SRV, [6, 1]],
  [36, [2, 1]], // KX
  [DnsType.DNAME, [0, 1]],
])
const NAPTR = 35

/**
 * The message without some of its records. Where these are not the last ones the rest is written anew, with names uncompressed, as pointers lead to
 * places that move; data of unknown types goes byte for byte. Never the same memory as the message's.
 * @throws MalformedError when a name in a record's data is unsound, or the message grows too long
 */
export function withoutRecords(message: DnsMessage, drop: (record: DnsRecord) => boolean): Uint8Array {
  const kept = message.records.filter((record) => !drop(record))
  const counts = (['answer', 'authority', 'additional'] as const).map((name) => kept.filter(({ section }) => section === name).length)
  const cutAt = kept.at(-1)?.end ?? message.end
  const first = message.records.slice(0, kept.length)
  const bytes = first.every((record, i) => record === kept[i]) ? message.bytes.slice(0, cutAt) : rebuilt(message, kept)
  if (bytes.length > DNS_MESSAGE_BYTES) throw new MalformedError('DNS message', 'is too long when its names are written out')
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  for (const [i, count] of counts.entries()) view.setUint16(6 + 2 * i, count)
  return bytes
}

/** The message without its OPT record, and read again when it had one. */
export function withoutEdns(message: DnsMessage): DnsMessage {
  if (message.edns === null) return message
  return decodeMessage(withoutRecords(message, ({ type }) => type === DnsType.OPT))
}

/** The message without the A and AAAA records whose addresses may not be told, in whatever section. @throws MalformedError when one has no address's length */
export function withoutAddresses(message: DnsMessage, mayTell: (address: IpAddress) => boolean): DnsMessage {
  const hidden = new Set(
    message.records.filter((record) => {
      const address = recordAddress(message, record)
      return address !== null && !mayTell(address)
    }),
  )
  return hidden.size === 0 ? message : decodeMessage(withoutRecords(message, (record) => hidden.has(record)))
}

function rebuilt({ bytes, end }: DnsMessage, kept: readonly DnsRecord[]): Uint8Array {
  const writer = new Writer(bytes.length).bytes(bytes.subarray(0, Math.max(end, DNS_HEADER_BYTES)))
  for (const record of kept) {
    writer.bytes(encodeLabels(readLabels(bytes, record.at).labels))
    const data = plainData(bytes, record)
    writer
      .bytes(bytes.subarray(record.ttlAt - 4, record.dataAt - 2))
      .u16(data.length)
      .bytes(data)
  }
  return writer.finish()
}

/** The data of a record with its names uncompressed. */
function plainData(bytes: Uint8Array, record: DnsRecord): Uint8Array {
  const data = bytes.subarray(record.dataAt, record.end)
  const [skip, names] = record.type === NAPTR ? [naptrSkip(data), 1] : (namesIn.get(record.type) ?? [0, 0])
  if (names === 0 || data.length === 0) return data
  if (skip > data.length) throw new MalformedError('DNS record', 'is too short for its type')
  const writer = new Writer(data.length + 64).bytes(data.subarray(0, skip))
  let at = record.dataAt + skip
  for (let left = names; left > 0; left--) {
    const { labels, end } = readLabels(bytes, at, record.end)
    writer.bytes(encodeLabels(labels))
    at = end
  }
  const plain = writer.bytes(bytes.subarray(at, record.end)).finish()
  if (plain.length > 0xffff) throw new MalformedError('DNS record', 'is too long when its names are written out')
  return plain
}

/** Order, preference and three texts stand before the name. RFC 3403 §4.1 */
function naptrSkip(data: Uint8Array): number {
  let at = 4
  for (let text = 0; text < 3; text++) at += 1 + (data[at] ?? 0)
  return at
}
