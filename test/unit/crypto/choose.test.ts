import { describe, expect, test } from 'vitest'
import { AssertionError } from '../../../src/base/index.ts'
import { type CryptoSuite, chooseSuite, nativeSuite, portableSuite, selfTest, systemRandom } from '../../../src/crypto/index.ts'

describe('choosing a suite', () => {
  test('takes the native one here, and says from what it is made', () => {
    const { suite, reason } = chooseSuite('auto')
    expect(suite.name).toBe('native')
    expect(suite.description).toMatch(/^sodium-native \d+\.\d+\.\d+, OpenSSL \d+\.\d+\.\d+, AES in WebAssembly$/)
    expect(reason).toContain('self-test')
  })

  test('takes what is asked for by name', () => {
    expect(chooseSuite('portable').suite.name).toBe('portable')
    expect(chooseSuite('native').suite.name).toBe('native')
  })

  test('falls back to the portable one with the reason, unless native was asked for by name', () => {
    const broken = (): CryptoSuite => {
      throw new Error('no binary for this platform')
    }
    const { suite, reason } = chooseSuite('auto', broken)
    expect(suite.name).toBe('portable')
    expect(reason).toContain('no binary for this platform')
    expect(() => chooseSuite('native', broken)).toThrow('no binary')
    const lying = (): CryptoSuite => ({ ...nativeSuite(), sha3_256: () => new Uint8Array(32) })
    expect(chooseSuite('auto', lying).reason).toContain('self-test of ML-KEM-768 or SHA-3 failed')
  })

  test('the self-test passes on both and fails on a wrong answer', () => {
    for (const suite of [nativeSuite(), portableSuite()]) {
      selfTest(suite)
      expect(() => selfTest({ ...suite, x25519: { ...suite.x25519, shared: () => null } })).toThrow('self-test of X25519 failed')
      expect(() => selfTest({ ...suite, wideBlock: () => suite.wideBlock(new Uint8Array(32)) })).toThrow('self-test of HPolyC failed')
      const forgetful = { ...suite.mlkem768, decapsulate: () => new Uint8Array(32) }
      expect(() => selfTest({ ...suite, mlkem768: forgetful })).toThrow('self-test of ML-KEM-768 failed')
    }
  })
})

describe('system randomness', () => {
  const random = systemRandom(nativeSuite())

  test('integers fall into their range and reach all of it', () => {
    const seen = new Set<number>()
    for (let i = 0; i < 2000; i++) seen.add(random.int(7))
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4, 5, 6])
    expect(random.int(1)).toBe(0)
    for (let i = 0; i < 100; i++) expect(random.int(Number.MAX_SAFE_INTEGER)).toBeLessThan(Number.MAX_SAFE_INTEGER)
    expect(() => random.int(0)).toThrow(AssertionError)
    expect(() => random.int(1.5)).toThrow(AssertionError)
  })

  test('numbers lie in [0, 1) with a mean near a half', () => {
    let sum = 0
    for (let i = 0; i < 4000; i++) {
      const unit = random.unit()
      expect(unit).toBeGreaterThanOrEqual(0)
      expect(unit).toBeLessThan(1)
      sum += unit
    }
    expect(sum / 4000).toBeGreaterThan(0.45)
    expect(sum / 4000).toBeLessThan(0.55)
  })
})
