import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AssertionError, fromHex, toHex } from '../../../src/base/index.ts'
import { type CryptoSuite, nativeSuite, portableSuite, WIDE_BLOCK_SCRATCH } from '../../../src/crypto/index.ts'
import { hpolycEncrypt } from '../../support/onion-twin.ts'

interface Vector {
  readonly key: string
  readonly tweak: string
  readonly plaintext: string
  readonly ciphertext: string
}
const vectors = (
  JSON.parse(readFileSync(new URL('../../vectors/hpolyc/hpolyc-xchacha20-aes256.json', import.meta.url), 'utf8')) as { vectors: Vector[] }
).vectors
// The native one with AES in WebAssembly and with that of node:crypto.
const suites: CryptoSuite[] = [nativeSuite(), nativeSuite(null), portableSuite()]

/** Puts a block into a buffer of known bytes, at `start`, and gives the whole buffer. */
function framed(block: Uint8Array, start: number): Uint8Array {
  const buffer = new Uint8Array(start + block.length + 9).fill(0xa5)
  buffer.set(block, start)
  return buffer
}

describe.each(suites)('HPolyC, $description', (suite) => {
  test('gives all 49 vectors both ways, and leaves every other byte of the buffer as it was', () => {
    expect(vectors.length).toBe(49)
    for (const [i, vector] of vectors.entries()) {
      const cipher = suite.wideBlock(fromHex(vector.key))
      const plaintext = fromHex(vector.plaintext)
      // Every alignment of a block in its buffer.
      const start = WIDE_BLOCK_SCRATCH + (i % 5)
      const buffer = framed(plaintext, start)
      cipher.encrypt(fromHex(vector.tweak), buffer, start, plaintext.length)
      expect(toHex(buffer)).toBe(toHex(framed(fromHex(vector.ciphertext), start)))
      cipher.decrypt(fromHex(vector.tweak), buffer, start, plaintext.length)
      expect(toHex(buffer)).toBe(toHex(framed(plaintext, start)))
    }
  })

  test('a changed bit of the tweak, or anywhere in the block, changes about half of all bits', () => {
    const cipher = suite.wideBlock(suite.random(32))
    const plain = suite.random(WIDE_BLOCK_SCRATCH + 1536)
    const reference = plain.slice()
    const tweak = suite.random(28)
    cipher.decrypt(tweak, reference, WIDE_BLOCK_SCRATCH, 1536)
    for (const change of [null, 0, 777, 1519, 1520, 1535]) {
      const buffer = plain.slice()
      const changed = tweak.slice()
      if (change === null) changed[27]! ^= 1
      else buffer[WIDE_BLOCK_SCRATCH + change]! ^= 0x80
      cipher.decrypt(changed, buffer, WIDE_BLOCK_SCRATCH, 1536)
      let bits = 0
      for (let i = WIDE_BLOCK_SCRATCH; i < buffer.length; i++) bits += (buffer[i]! ^ reference[i]!).toString(2).replaceAll('0', '').length
      expect(bits).toBeGreaterThan(5500)
      expect(bits).toBeLessThan(6800)
    }
  })

  test('our own mistakes are assertions: no room for the scratch, a block beyond the buffer, a destroyed cipher, a short key', () => {
    const cipher = suite.wideBlock(suite.random(32))
    const tweak = new Uint8Array(28)
    expect(() => cipher.encrypt(tweak, new Uint8Array(100), WIDE_BLOCK_SCRATCH - 1, 32)).toThrow(AssertionError)
    expect(() => cipher.decrypt(tweak, new Uint8Array(100), WIDE_BLOCK_SCRATCH, 69)).toThrow(AssertionError)
    expect(() => cipher.encrypt(tweak, new Uint8Array(100), WIDE_BLOCK_SCRATCH, 15)).toThrow(AssertionError)
    cipher.destroy()
    expect(() => cipher.encrypt(tweak, new Uint8Array(100), WIDE_BLOCK_SCRATCH, 32)).toThrow(AssertionError)
    expect(() => suite.wideBlock(new Uint8Array(31))).toThrow(AssertionError)
  })
})

test('all suites and the simple twin agree on any key, tweak and block', () => {
  const key = fc.uint8Array({ minLength: 32, maxLength: 32 })
  const tweak = fc.uint8Array({ maxLength: 40 })
  const block = fc.uint8Array({ minLength: 16, maxLength: 1600 })
  const shift = fc.nat({ max: 17 })
  fc.assert(
    fc.property(key, tweak, block, shift, (key, tweak, block, shift) => {
      const start = WIDE_BLOCK_SCRATCH + shift
      const expected = framed(hpolycEncrypt(key, tweak, block), start)
      for (const suite of suites) {
        const buffer = framed(block, start)
        const cipher = suite.wideBlock(key)
        cipher.encrypt(tweak, buffer, start, block.length)
        expect(toHex(buffer)).toBe(toHex(expected))
        cipher.decrypt(tweak, buffer, start, block.length)
        expect(toHex(buffer)).toBe(toHex(framed(block, start)))
      }
    }),
    { numRuns: 150 },
  )
})
