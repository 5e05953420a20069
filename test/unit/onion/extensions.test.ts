import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AssertionError, MalformedError } from '../../../src/base/index.ts'
import { acceptsExtensions, answerExtensions, decodeExtensions, encodeExtensions } from '../../../src/onion/index.ts'

const none: ReadonlySet<number> = new Set()

test('extensions come back as they were given', () => {
  const list = fc.uniqueArray(fc.tuple(fc.nat({ max: 255 }), fc.uint8Array({ maxLength: 20 })), {
    selector: ([type]) => type,
    maxLength: 8,
  })
  fc.assert(
    fc.property(list, (given) => {
      const extensions = given.sort(([a], [b]) => a - b).map(([type, value]) => ({ type, value }))
      const back = decodeExtensions(encodeExtensions(extensions), new Set(extensions.map(({ type }) => type)))
      expect(back).toEqual(extensions)
    }),
  )
})

test('the bytes are type, length, value', () => {
  expect([
    ...encodeExtensions([
      { type: 1, value: Uint8Array.of(7, 8) },
      { type: 0x80, value: new Uint8Array() },
    ]),
  ]).toEqual([1, 2, 7, 8, 0x80, 0])
})

test.each([
  ['a cut value', [1, 3, 7]],
  ['a cut header', [1]],
  ['a type twice', [1, 0, 1, 0]],
  ['types that descend', [2, 0, 1, 0]],
  ['an unknown critical one', [1, 0, 0x80, 0]],
])('%s is refused', (_, bytes) => {
  expect(() => decodeExtensions(Uint8Array.from(bytes), none)).toThrow(MalformedError)
  expect(answerExtensions(Uint8Array.from(bytes))).toBeNull()
})

test('an unknown extension that is not critical is skipped, a known critical one is taken', () => {
  expect(answerExtensions(Uint8Array.of(5, 1, 9))).toEqual(new Uint8Array())
  expect(acceptsExtensions(new Uint8Array())).toBe(true)
  expect(decodeExtensions(Uint8Array.of(0x81, 1, 9), new Set([0x81]))).toEqual([{ type: 0x81, value: Uint8Array.of(9) }])
})

test('any bytes give extensions or a MalformedError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 192 }), (bytes) => {
      try {
        expect(encodeExtensions(decodeExtensions(bytes, none))).toEqual(bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedError)
      }
    }),
  )
})

test('what is too long to send, or out of order, is our own mistake', () => {
  const long = new Uint8Array(100)
  expect(() => encodeExtensions([1, 2].map((type) => ({ type, value: long })))).toThrow(AssertionError)
  expect(() => encodeExtensions([2, 1].map((type) => ({ type, value: new Uint8Array() })))).toThrow(AssertionError)
})
