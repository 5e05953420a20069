import { fromHex } from '../../../src/base/index.ts'
import {
  answerAs,
  cacheKey,
  DnsCache,
  decodeHead,
  decodeMessage,
  encodeAnswer,
  encodeName,
  encodeQuestion,
  encodeSpecial,
  encodeUnread,
  FrameReader,
  fitDatagram,
  frameMessage,
  recordName,
  reverseNetwork,
  screenQuestion,
  specialAnswer,
  withoutAddresses,
  withoutEdns,
} from '../../../src/dns/index.ts'
import { parseResolvConf } from '../../../src/egress/dns/servers.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const question = encodeQuestion({
  id: 7,
  question: { wire: encodeName('Host.example'), type: 1, class: 1 },
  edns: { udpBytes: 1232, dnssecOk: true },
})
const asked = decodeMessage(question)
const address = { type: 1, ttl: 60, data: Uint8Array.of(10, 0, 0, 1) }
/** Two addresses, an alias and an MX record whose names are pointers, an SOA, and EDNS. */
const answers = [
  encodeAnswer(asked, {
    rcode: 0,
    answers: [address, { type: 5, ttl: 9, data: fromHex('0161c00c') }, { type: 15, ttl: 9, data: fromHex('0007046d61696cc00c') }, address],
    authorities: [{ type: 6, ttl: 60, data: fromHex(`c00cc00c${'00000001'.repeat(5)}`) }],
  }),
  encodeAnswer(asked, { rcode: 3, authorities: [{ type: 35, ttl: 60, data: fromHex('000100020175000141c00c') }] }),
]
const messages = (): readonly Uint8Array[] => [question, ...answers, encodeUnread(question, 1)]
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

/** What programs ask, and what exits and DNS servers answer. */
export const dnsTargets: readonly FuzzTarget[] = [
  { name: 'dns/head', decode: decodeHead, seeds: messages },
  {
    name: 'dns/message',
    decode: (bytes) => {
      const message = decodeMessage(bytes)
      return message.records.map((record) => recordName(message, record))
    },
    seeds: messages,
  },
  {
    // What becomes of an answer: its addresses and EDNS taken out, remembered, and given to another.
    name: 'dns/answer',
    decode: (bytes) => {
      const kept = withoutAddresses(withoutEdns(decodeMessage(bytes)), ({ bytes: [first] }) => first !== 10)
      decodeMessage(kept.bytes)
      if (kept.question === null) return null
      const cache = new DnsCache({
        maxEntries: 2,
        maxBytes: 1 << 20,
        minTtlSeconds: 0,
        maxTtlSeconds: 600,
        maxNegativeTtlSeconds: 60,
        failureTtlSeconds: 5,
      })
      const key = cacheKey('', kept.question, { dnssecOk: false, checkingDisabled: false })
      cache.put(key, kept, 0)
      const known = cache.get(key, 1000)
      if (known !== null) decodeMessage(known)
      return decodeMessage(answerAs({ ...kept, edns: asked.edns }, known ?? kept.bytes.slice()))
    },
    seeds: messages,
  },
  {
    // What a question gets that nobody else is asked.
    name: 'dns/question',
    decode: (bytes) => {
      const one = decodeMessage(bytes)
      const refused = screenQuestion(one)
      const special = one.question && specialAnswer(one.question.name, one.question.type)
      const answer = refused === null && special ? encodeSpecial(one, special) : encodeAnswer(one, { rcode: refused ?? 2 })
      return decodeMessage(fitDatagram(bytes, answer))
    },
    seeds: () => [
      ...messages(),
      encodeQuestion({ id: 1, question: { wire: encodeName('1.0.0.127.in-addr.arpa'), type: 12, class: 1 }, edns: null }),
    ],
  },
  {
    // In two pieces, cut at a place that the input itself names.
    name: 'dns/stream',
    decode: (bytes) => {
      const reader = new FrameReader(4096)
      const cut = Math.min(bytes.length, bytes.at(-1) ?? 0)
      return [...reader.push(bytes.subarray(0, cut)), ...reader.push(bytes.subarray(cut))]
    },
    seeds: () => messages().map(frameMessage),
  },
  {
    name: 'dns/name',
    decode: (bytes) => encodeName(latin1(bytes)),
    seeds: () => [Buffer.from('a\\.b.c\\000'), Buffer.from('example.com.')],
  },
  {
    name: 'dns/reverse-name',
    decode: (bytes) => reverseNetwork(latin1(bytes)),
    seeds: () => [Buffer.from('4.3.2.1.in-addr.arpa'), Buffer.from('8.b.d.0.1.0.0.2.ip6.arpa')],
  },
  {
    name: 'egress/resolv-conf',
    decode: (bytes) => parseResolvConf(latin1(bytes)),
    seeds: () => [Buffer.from('nameserver 9.9.9.9\noptions edns0\n')],
  },
]
