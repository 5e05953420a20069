import { describe, expect, it } from 'vitest'
import { concatBytes, MalformedError, SeededRandom, toHex } from '../../../src/base/index.ts'
import {
  decodeHead,
  decodeMessage,
  encodeName,
  encodeQuestion,
  lowerName,
  nameText,
  readLabels,
  recordAddress,
  recordName,
  sameQuestion,
  soaMinimum,
} from '../../../src/dns/index.ts'
import { pointer, rawMessage, soa } from './support.ts'

const text = (message: Uint8Array, at: number): string => nameText(readLabels(message, at).labels)
const header = new Uint8Array(12)
const behindHeader = (...parts: Uint8Array[]): Uint8Array => concatBytes(header, ...parts)

describe('names', () => {
  it.each([['example.com'], ['.'], ['_x._tcp.EXAMPLE'], ['a\\.b.c'], ['\\000\\255\\\\.x'], [`${'a'.repeat(63)}.b`]])(
    '%s is written and read',
    (name) => {
      expect(text(behindHeader(encodeName(name)), 12)).toBe(name)
    },
  )

  it('is the same with a last dot', () => {
    expect(encodeName('a.b.')).toEqual(encodeName('a.b'))
    expect(nameText(readLabels(behindHeader(encodeName('a\\..')), 12).labels)).toBe('a\\.')
  })

  it.each([['a..b'], ['.a'], ['a'.repeat(64)], [Array(64).fill('abc').join('.')], ['a\\'], ['\\256']])('refuses to write %s', (name) => {
    expect(() => encodeName(name)).toThrow(MalformedError)
  })

  it('follows pointers, and says where the name itself ends', () => {
    const message = behindHeader(
      encodeName('c.d'),
      Uint8Array.of(1, 0x62),
      pointer(12),
      Uint8Array.of(1, 0x61),
      pointer(17),
      Uint8Array.of(9),
    )
    expect(text(message, 21)).toBe('a.b.c.d')
    expect(readLabels(message, 21).end).toBe(25)
  })

  it.each([
    ['itself', behindHeader(pointer(12))],
    ['further on', behindHeader(pointer(14), Uint8Array.of(0))],
    ['the middle of its own labels', behindHeader(Uint8Array.of(1, 0x61, 1, 0x62), pointer(14))],
    ['the header', behindHeader(pointer(0))],
  ])('refuses a pointer to %s', (_, message) => {
    expect(() => readLabels(message, 12)).toThrow(/does not lead back/)
  })

  it('refuses chains of pointers without end, names beyond 255 bytes, other labels and cut ones', () => {
    const chain: Uint8Array[] = [Uint8Array.of(0)]
    for (let at = 12; at < 12 + 2 * 200; at += 2) chain.push(pointer(at === 12 ? 12 : at - 1))
    const message = behindHeader(...chain)
    expect(() => readLabels(message, message.length - 2)).toThrow(/too many pointers/)
    expect(() =>
      readLabels(behindHeader(...Array<Uint8Array>(5).fill(concatBytes(Uint8Array.of(60), new Uint8Array(60))), Uint8Array.of(0)), 12),
    ).toThrow(/longer than 255/)
    expect(() => readLabels(behindHeader(Uint8Array.of(0x41, 0, 0)), 12)).toThrow(/unknown kind/)
    expect(() => readLabels(behindHeader(Uint8Array.of(5, 0x61)), 12)).toThrow(/beyond/)
    expect(() => readLabels(behindHeader(Uint8Array.of(0xc0)), 12)).toThrow(/beyond/)
  })

  it('are lowered by ASCII alone', () => {
    expect(lowerName('ÄBC.Z')).toBe('Äbc.z')
  })
})

describe('a message', () => {
  it('is read: question, records with their places, EDNS', () => {
    const bytes = rawMessage({
      id: 77,
      name: 'A.Example',
      answers: [{ type: 1, ttl: 5, data: Uint8Array.of(192, 0, 2, 1) }],
      authorities: [soa(9, 60)],
      additionals: [
        { name: 'x.example', type: 28, data: new Uint8Array(16).fill(1) },
        { name: '.', type: 41, class: 4096, ttl: 0x01008000, data: Uint8Array.of(0, 8, 0, 0) },
      ],
    })
    const message = decodeMessage(bytes)
    expect(message).toMatchObject({ id: 77, rcode: 16, question: { name: 'a.example', type: 1, class: 1 }, counts: [1, 1, 2] })
    expect(nameText(readLabels(behindHeader(message.question!.wire), 12).labels)).toBe('A.Example')
    expect(message.records.map(({ section, type, ttl }) => [section, type, ttl])).toEqual([
      ['answer', 1, 5],
      ['authority', 6, 9],
      ['additional', 28, 300],
      ['additional', 41, 0x01008000],
    ])
    expect(message.records.map((record) => recordName(message, record))).toEqual(['a.example', 'example', 'x.example', '.'])
    expect([...recordAddress(message, message.records[0]!)!.bytes]).toEqual([192, 0, 2, 1])
    expect(recordAddress(message, message.records[1]!)).toBeNull()
    expect(soaMinimum(message, message.records[1]!)).toBe(60)
    expect(message.edns).toMatchObject({ udpBytes: 4096, version: 0, dnssecOk: true, upperRcode: 1 })
    expect(toHex(message.edns!.options)).toBe('00080000')
    for (const { ttlAt, ttl } of message.records) expect(new DataView(bytes.buffer).getUint32(ttlAt)).toBe(ttl)
  })

  it('takes a time to live with the top bit as 0 (RFC 2181 §8), and a size below 512 as 512', () => {
    const message = decodeMessage(
      rawMessage({
        answers: [{ type: 1, ttl: 0x8000_0000, data: new Uint8Array(4) }],
        additionals: [{ name: '.', type: 41, class: 100, data: new Uint8Array(0) }],
      }),
    )
    expect(message.records[0]!.ttl).toBe(0)
    expect(message.edns!.udpBytes).toBe(512)
  })

  it('is read without what stands behind it', () => {
    const bytes = rawMessage({})
    expect(decodeMessage(concatBytes(bytes, new Uint8Array(9))).bytes).toEqual(bytes)
  })

  it('may have no question, but not two', () => {
    expect(decodeHead(header)).toMatchObject({ question: null, end: 12 })
    expect(() => decodeHead(Uint8Array.of(0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1))).toThrow(
      /more than one question/,
    )
  })

  it('is refused with two OPT records, or one in a wrong place', () => {
    const opt = { name: '.', type: 41, class: 512, data: new Uint8Array(0) }
    expect(() => decodeMessage(rawMessage({ additionals: [opt, opt] }))).toThrow(/two OPT/)
    expect(() => decodeMessage(rawMessage({ answers: [opt] }))).toThrow(/wrong place/)
    expect(() => decodeMessage(rawMessage({ additionals: [{ ...opt, name: 'a' }] }))).toThrow(/wrong place/)
  })

  it('is refused when it is cut, anywhere', () => {
    const bytes = rawMessage({ answers: [{ type: 1, data: new Uint8Array(4) }], authorities: [soa(1, 1)] })
    for (let length = 0; length < bytes.length; length++) expect(() => decodeMessage(bytes.slice(0, length))).toThrow(MalformedError)
  })

  it('costs little when every record has the longest chain of pointers', () => {
    const chain: Uint8Array[] = [Uint8Array.of(0)]
    for (let i = 0; i < 127; i++) chain.push(pointer(i === 0 ? 19 : 18 + 2 * i))
    // A question of the root, an opaque record that holds the chain, and as many records as fit that begin at its end.
    const first = rawMessage({ name: '.', answers: [{ name: '.', type: 65280, data: concatBytes(...chain) }] })
    const head = first.slice()
    const count = Math.floor((65_535 - first.length) / 12)
    new DataView(head.buffer).setUint16(6, 1 + count)
    const chainEnd = first.length - 2
    const record = concatBytes(pointer(chainEnd), Uint8Array.of(0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    const started = performance.now()
    try {
      decodeMessage(concatBytes(head, ...Array<Uint8Array>(count).fill(record)))
    } catch (error) {
      expect(error).toBeInstanceOf(MalformedError)
    }
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

describe('a question', () => {
  it('says what is asked and nothing else', () => {
    const asked = { wire: encodeName('A.b'), type: 65280, class: 1 }
    const message = decodeMessage(
      encodeQuestion({ id: 9, question: asked, checkingDisabled: true, edns: { udpBytes: 1232, dnssecOk: true } }),
    )
    expect(message).toMatchObject({ id: 9, flags: 0x0110, counts: [0, 0, 1], edns: { udpBytes: 1232, dnssecOk: true, version: 0 } })
    expect(message.edns!.options).toHaveLength(0)
    expect(decodeMessage(encodeQuestion({ id: 9, question: asked, edns: null }))).toMatchObject({
      flags: 0x0100,
      counts: [0, 0, 0],
      edns: null,
    })
    expect(sameQuestion(message.question, { name: 'a.b', wire: new Uint8Array(), type: 65280, class: 1 })).toBe(true)
    expect(sameQuestion(message.question, { name: 'a.b', wire: new Uint8Array(), type: 1, class: 1 })).toBe(false)
    expect(sameQuestion(null, null)).toBe(false)
  })
})

it('random bytes are refused or read, and nothing else', () => {
  const seed = Date.now() % 1_000_000
  const random = new SeededRandom(seed)
  for (let i = 0; i < 5000; i++) {
    try {
      decodeMessage(random.bytes(random.int(80)))
    } catch (error) {
      expect(error, `seed ${seed}`).toBeInstanceOf(MalformedError)
    }
  }
})
