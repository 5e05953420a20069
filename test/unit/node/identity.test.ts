import { describe, expect, test } from 'vitest'
import { MalformedError } from '../../../src/base/index.ts'
import { chooseSuite } from '../../../src/crypto/index.ts'
import { createIdentity, decodeIdentity, encodeIdentity } from '../../../src/node/index.ts'

const { suite } = chooseSuite('portable')

describe('the identity file', () => {
  const identity = createIdentity(suite, new Uint8Array(32).fill(7))
  const good = Buffer.from(encodeIdentity(identity)).toString()

  test('gives back what was written', () => {
    expect(decodeIdentity(suite, Buffer.from(good))).toEqual(identity)
  })

  test.each([
    ['empty', ''],
    ['cut', good.slice(0, -10)],
    ['another version', good.replace('identity 1', 'identity 2')],
    ['something after it', `${good}x`],
    ["another relay's key", good.replace(/\n[^\n]+=\n$/, `\n${Buffer.alloc(32, 8).toString('base64')}\n`)],
    ['one character changed', good.replace('BwcH', 'BwcI')],
    ['zeros', '\0'.repeat(good.length)],
  ])('is refused when it is damaged: %s', (_, text) => {
    expect(() => decodeIdentity(suite, Buffer.from(text))).toThrow(MalformedError)
  })
})
