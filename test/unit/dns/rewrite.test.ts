import { describe, expect, it } from 'vitest'
import { concatBytes, parseIp, toHex, Writer } from '../../../src/base/index.ts'
import {
  answerAs,
  decodeMessage,
  encodeAnswer,
  encodeName,
  encodeQuestion,
  encodeUnread,
  Flag,
  fitDatagram,
  nameText,
  readLabels,
  recordName,
  withoutAddresses,
  withoutEdns,
  withoutRecords,
} from '../../../src/dns/index.ts'
import { pointer, rawMessage, soa } from './support.ts'

const opt = { name: '.', type: 41, class: 1232, data: Uint8Array.of(0, 8, 0, 4, 0, 1, 24, 0) }
const four = (last: number) => ({ type: 1, data: Uint8Array.of(192, 0, 2, last) })

describe('taking records out', () => {
  it('cuts off what stands last, byte for byte', () => {
    const bytes = rawMessage({ answers: [four(1)], additionals: [opt] })
    const without = withoutEdns(decodeMessage(bytes))
    expect(without.edns).toBeNull()
    expect(toHex(without.bytes.slice(12))).toBe(toHex(rawMessage({ answers: [four(1)] }).slice(12)))
    expect(withoutEdns(without)).toBe(without)
  })

  it('writes names out where pointers would lead astray, and leaves unknown types as they are', () => {
    // The MX record's name points into the removed record, and the second owner's into the MX record's data.
    const hidden = { name: 'gone.example', type: 1, data: Uint8Array.of(10, 0, 0, 1) }
    const goneAt = rawMessage({}).length
    const mx = {
      name: pointer(goneAt),
      type: 15,
      data: concatBytes(Uint8Array.of(0, 7, 4), new TextEncoder().encode('mail'), pointer(goneAt + 5)),
    }
    const mxDataAt = rawMessage({ answers: [hidden, mx] }).length - mx.data.length
    const odd = { name: pointer(mxDataAt + 2), type: 65280, data: concatBytes(pointer(goneAt), Uint8Array.of(1, 2, 3)) }
    const kept = withoutAddresses(
      decodeMessage(rawMessage({ answers: [hidden, mx, odd], additionals: [opt] })),
      ({ bytes }) => bytes[0] !== 10,
    )
    expect(kept.counts).toEqual([2, 0, 1])
    expect(kept.records.map((record) => recordName(kept, record))).toEqual(['gone.example', 'mail.example', '.'])
    expect(nameText(readLabels(kept.bytes, kept.records[0]!.dataAt + 2).labels)).toBe('mail.example')
    expect(toHex(kept.bytes.slice(kept.records[1]!.dataAt, kept.records[1]!.end))).toBe(toHex(odd.data))
    expect(kept.edns?.options).toHaveLength(8)
  })

  it.each([
    ['NS', 2, concatBytes(pointer(12)), 'a.example'],
    ['SRV', 33, concatBytes(Uint8Array.of(0, 1, 0, 2, 0, 3), pointer(12)), 'a.example'],
    ['NAPTR', 35, concatBytes(Uint8Array.of(0, 1, 0, 2, 1, 0x75, 0, 2, 0x41, 0x42), pointer(14)), 'example'],
  ])('knows where the name of %s is', (_, type, data, name) => {
    const kept = withoutAddresses(
      decodeMessage(
        rawMessage({
          answers: [
            { type: 1, data: new Uint8Array(4) },
            { type, data },
          ],
        }),
      ),
      () => false,
    )
    expect(kept.bytes.length).toBe(kept.records[0]!.end)
    expect(toHex(kept.bytes).endsWith(toHex(encodeName(name)))).toBe(true)
  })

  it('writes both names of SOA, and what follows', () => {
    const data = concatBytes(pointer(12), pointer(14), new Uint8Array(20).fill(7))
    const kept = withoutAddresses(decodeMessage(rawMessage({ answers: [four(1), { type: 6, data }] })), () => false)
    const plain = concatBytes(encodeName('a.example'), encodeName('example'), new Uint8Array(20).fill(7))
    expect(toHex(kept.bytes.slice(kept.records[0]!.dataAt))).toBe(toHex(plain))
  })

  it('refuses what would grow beyond a message, and an address of a wrong length', () => {
    const long = `${'x'.repeat(63)}.${'y'.repeat(63)}.${'z'.repeat(60)}`
    const many = Array.from({ length: 1000 }, () => ({ type: 2, data: pointer(12) }))
    const message = decodeMessage(rawMessage({ name: long, answers: [four(1), ...many] }))
    expect(() => withoutRecords(message, ({ type }) => type === 1)).toThrow(/too long/)
    expect(() => withoutAddresses(decodeMessage(rawMessage({ answers: [{ type: 1, data: new Uint8Array(5) }] })), () => true)).toThrow(
      /wrong length/,
    )
  })

  it('never gives the memory it was given', () => {
    const message = decodeMessage(rawMessage({ answers: [four(1)], additionals: [opt] }))
    const without = withoutRecords(message, ({ type }) => type === 41)
    without[0] = 0xff
    expect(message.bytes[0]).not.toBe(0xff)
  })
})

const ask = (name: string, edns: { udpBytes: number; dnssecOk: boolean } | null, flags = 0): Uint8Array => {
  const bytes = encodeQuestion({ id: 4711, question: { wire: encodeName(name), type: 1, class: 1 }, edns })
  bytes[3]! |= flags
  return bytes
}

describe('an answer', () => {
  it("of another becomes the asker's: id, capitals, flags, EDNS", () => {
    const stored = rawMessage({
      id: 0,
      flags: 0x8480 | Flag.authenticData | Flag.recursionDesired,
      name: 'host.example',
      answers: [four(1)],
    })
    const asked = decodeMessage(ask('HOST.example', { udpBytes: 900, dnssecOk: true }, Flag.checkingDisabled))
    const answer = decodeMessage(answerAs(asked, stored.slice()))
    expect(answer).toMatchObject({ id: 4711, edns: { udpBytes: 1232, dnssecOk: true }, counts: [1, 0, 1] })
    expect(answer.flags).toBe(
      Flag.response | Flag.recursionDesired | Flag.recursionAvailable | Flag.checkingDisabled | Flag.authoritative | Flag.authenticData,
    )
    expect(nameText(readLabels(answer.bytes, 12).labels)).toBe('HOST.example')
    const plain = answerAs(decodeMessage(ask('host.EXAMPLE', null)), stored)
    expect(plain).toBe(stored)
    expect(decodeMessage(plain)).toMatchObject({ edns: null, counts: [1, 0, 0] })
  })

  it('of our own has what was asked, and a code above 15 by EDNS', () => {
    const asked = decodeMessage(ask('Host.example', { udpBytes: 900, dnssecOk: false }))
    expect(decodeMessage(encodeAnswer(asked, { rcode: 16 }))).toMatchObject({ id: 4711, rcode: 16, question: { name: 'host.example' } })
  })

  it('to what is no message has its id, if it has one', () => {
    expect(toHex(encodeUnread(Uint8Array.of(1, 2, 0x29, 0x10, 9), 1))).toBe(`0102${'a991'}${'00'.repeat(8)}`)
    expect(toHex(encodeUnread(Uint8Array.of(7), 1))).toBe(`0000${'8081'}${'00'.repeat(8)}`)
  })

  it('as a datagram is whole where it fits, and else says that there is more', () => {
    const big = (count: number, edns: boolean): Uint8Array =>
      encodeAnswer(decodeMessage(ask('host.example', edns ? { udpBytes: 1232, dnssecOk: false } : null)), {
        rcode: 0,
        answers: Array.from({ length: count }, (_, i) => ({ type: 1, ttl: 1, data: parseIp(`192.0.2.${i % 250}`).bytes })),
      })
    const fits = (answer: Uint8Array, question: Uint8Array, most?: number): boolean => {
      const fitted = fitDatagram(question, answer, most)
      if (fitted === answer) return true
      expect(decodeMessage(fitted)).toMatchObject({
        id: 4711,
        question: { name: 'host.example' },
        counts: [0, 0, decodeMessage(question).edns ? 1 : 0],
      })
      expect(decodeMessage(fitted).flags & Flag.truncated).not.toBe(0)
      expect(fitted.length).toBeLessThanOrEqual(512)
      return false
    }
    const plain = ask('host.example', null)
    expect(fits(big(25, false), plain)).toBe(true)
    expect(fits(big(40, false), plain)).toBe(false)
    expect(fits(big(40, true), ask('host.example', { udpBytes: 700, dnssecOk: false }))).toBe(true)
    expect(fits(big(60, true), ask('host.example', { udpBytes: 700, dnssecOk: false }))).toBe(false)
    expect(fits(big(100, true), ask('host.example', { udpBytes: 4096, dnssecOk: false }))).toBe(false)
    expect(fits(big(100, true), ask('host.example', { udpBytes: 4096, dnssecOk: false }), 4096)).toBe(true)
    expect(decodeMessage(fitDatagram(Uint8Array.of(0, 1, 2), big(60, false))).rcode).toBe(1)
  })
})

it('the support of these tests writes what it says', () => {
  const message = decodeMessage(rawMessage({ authorities: [soa(1, 2)] }))
  expect(message.records[0]!.type).toBe(6)
  expect(new Writer().u8(1).finish()).toHaveLength(1)
})
