import { describe, expect, test } from 'vitest'
import {
  concatBytes,
  equalSecret,
  fromHex,
  MalformedError,
  nodeIdFromKey,
  nodeKey,
  parseNodeId,
  Reader,
  toHex,
  utf8Bytes,
  Writer,
} from '../../../src/base/index.ts'

describe('Reader and Writer', () => {
  test('give back what was written, in order', () => {
    const bytes = new Writer(1)
      .u8(7)
      .u16(0x1234)
      .u32(0xdeadbeef)
      .u64(2n ** 60n)
      .u64(5)
      .bytes(utf8Bytes('hé'))
      .finish()
    const reader = new Reader('thing', bytes)
    expect([reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.u53(), reader.text(3)]).toEqual([
      7,
      0x1234,
      0xdeadbeef,
      2n ** 60n,
      5,
      'hé',
    ])
    expect(() => reader.end()).not.toThrow()
  })

  test('short input is refused by name', () => {
    expect(() => new Reader('thing', new Uint8Array(3)).u32()).toThrow(new MalformedError('thing', 'needs 4 more bytes, has 3'))
  })

  test('a window of a buffer is not left', () => {
    const reader = new Reader('thing', Uint8Array.of(1, 2, 3, 4), 1, 3)
    expect(reader.u16()).toBe(0x0203)
    expect(() => reader.u8()).toThrow(MalformedError)
  })

  test('what is left over, bad UTF-8 and numbers above 2^53 - 1 are refused', () => {
    expect(() => new Reader('thing', new Uint8Array(2)).end()).toThrow('2 bytes too many')
    expect(() => new Reader('thing', Uint8Array.of(0xff)).text(1)).toThrow('not UTF-8')
    expect(() => new Reader('thing', new Uint8Array(8).fill(0xff)).u53()).toThrow('2^53')
  })
})

test('hex goes both ways and refuses what it is not', () => {
  expect(toHex(fromHex('00ffA0'))).toBe('00ffa0')
  expect(() => fromHex('0')).toThrow(MalformedError)
  expect(() => fromHex('zz')).toThrow(MalformedError)
})

test('secrets are compared whole', () => {
  expect(equalSecret(Uint8Array.of(1, 2), Uint8Array.of(1, 2))).toBe(true)
  expect(equalSecret(Uint8Array.of(1, 2), Uint8Array.of(1, 3))).toBe(false)
  expect(equalSecret(Uint8Array.of(1), Uint8Array.of(1, 2))).toBe(false)
})

test('parts are joined in order', () => {
  expect(concatBytes(Uint8Array.of(1), new Uint8Array(0), Uint8Array.of(2, 3))).toEqual(Uint8Array.of(1, 2, 3))
})

test('a node id holds its key', () => {
  const key = new Uint8Array(32).map((_, i) => i)
  const id = nodeIdFromKey(key)
  expect(id).toMatch(/^12D3KooW/)
  expect(nodeKey(id)).toEqual(key)
  expect(parseNodeId(id)).toBe(id)
  for (const bad of ['', '0OIl', id.slice(1), `${id}1`, 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N'])
    expect(() => parseNodeId(bad)).toThrow(MalformedError)
})
