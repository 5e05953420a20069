import { describe, expect, test } from 'vitest'
import { fromHex, MalformedError, SeededRandom, toHex } from '../../../../src/base/index.ts'
import {
  ADDRESSES_MAX,
  type DialMessage,
  decodeDialBack,
  decodeDialMessage,
  encodeDialBack,
  encodeDialBackResponse,
  encodeDialMessage,
  isDialBackOk,
} from '../../../../src/nat/dial-back/messages.ts'

const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)

const messages: readonly [DialMessage, string][] = [
  [{ type: 'request', addresses: [fromHex('0401020304061f90')], nonce: 0x0102030405060708n }, '0a130a080401020304061f90110807060504030201'],
  [{ type: 'response', status: 200, index: 1, dialStatus: 101 }, '120708c801100118' + '65'],
  [{ type: 'data-request', index: 0, bytes: 30_000 }, '1a06080010b0ea01'],
  [{ type: 'data', data: fromHex('00ff') }, '22040a0200ff'],
]

describe('messages of AutoNAT v2', () => {
  // Written out by hand from the specification's .proto.
  test.each(messages.map(([message, hex]) => [message.type, message, hex] as const))('are written as specified: %s', (_, message, hex) => {
    expect(toHex(encodeDialMessage(message))).toBe(hex)
    expect(decodeDialMessage(fromHex(hex))).toEqual(message)
  })

  test('a nonce has eight bytes, the low ones first', () => {
    expect(toHex(encodeDialBack(0x0102030405060708n))).toBe('090807060504030201')
    expect(decodeDialBack(fromHex('090807060504030201'))).toBe(0x0102030405060708n)
    expect(decodeDialBack(new Uint8Array(0))).toBe(0n)
  })

  test('an answer to a nonce is OK when it says nothing else', () => {
    expect(isDialBackOk(encodeDialBackResponse())).toBe(true)
    expect(isDialBackOk(new Uint8Array(0))).toBe(true)
    expect(isDialBackOk(fromHex('0801'))).toBe(false)
  })

  test('fields that are left out have the value 0, and unknown ones are skipped', () => {
    expect(decodeDialMessage(fromHex('1200'))).toEqual({ type: 'response', status: 0, index: 0, dialStatus: 0 })
    expect(decodeDialMessage(fromHex('2a00' + '1a00'))).toEqual({ type: 'data-request', index: 0, bytes: 0 })
  })

  test('no more addresses are taken than are looked at', () => {
    const addresses = Array.from({ length: 100 }, () => fromHex('04'))
    const message = decodeDialMessage(encodeDialMessage({ type: 'request', addresses, nonce: 1n }))
    expect(message).toMatchObject({ addresses: addresses.slice(0, ADDRESSES_MAX) })
  })

  test.each(['', '2a00', '0801', '0aff', '120108', '1a0a10ffffffffffffffffff01'])('%j is malformed', (hex) => {
    expect(() => decodeDialMessage(fromHex(hex))).toThrow(MalformedError)
  })

  test(`noise is malformed or a message, never anything else (seed ${seed})`, () => {
    const random = new SeededRandom(seed)
    for (let i = 0; i < 5_000; i++) {
      const [, hex] = messages[random.int(messages.length)]!
      const bytes = fromHex(hex)
      for (let flips = random.int(4); flips >= 0; flips--) bytes[random.int(bytes.length)]! ^= 1 << random.int(8)
      for (const decode of [decodeDialMessage, decodeDialBack, isDialBackOk]) {
        try {
          decode(bytes.subarray(0, random.int(bytes.length + 1)))
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedError)
        }
      }
    }
  })
})
