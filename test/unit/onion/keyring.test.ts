import { describe, expect, test } from 'vitest'
import { MalformedError, toHex } from '../../../src/base/index.ts'
import { nativeSuite } from '../../../src/crypto/index.ts'
import { ONION_KEY_TIMES, OnionKeyring } from '../../../src/onion/index.ts'

const suite = nativeSuite()
const identity = suite.random(32)
const start = 1_800_000_000_000
const { lifetimeMs, graceMs } = ONION_KEY_TIMES
const hexKey = (keyring: OnionKeyring): string => toHex(keyring.current.x25519)

describe('rotation', () => {
  test('keeps a key for its lifetime, answers for the one before through its grace, then forgets it', () => {
    const keyring = OnionKeyring.create(suite, identity, start)
    const first = keyring.current.x25519
    expect(keyring.nextRotationAt).toBe(start + lifetimeMs)
    expect(keyring.rotate(suite, start + lifetimeMs - 1)).toBe(false)
    expect(keyring.find(first)).not.toBeNull()
    expect(keyring.rotate(suite, start + lifetimeMs)).toBe(true)
    const second = keyring.current.x25519
    expect(toHex(second)).not.toBe(toHex(first))
    expect(keyring.createdAt).toBe(start + lifetimeMs)
    expect(keyring.rotate(suite, start + lifetimeMs + graceMs - 1)).toBe(false)
    expect(toHex(keyring.find(first)!.publicKey)).toBe(toHex(first))
    keyring.rotate(suite, start + lifetimeMs + graceMs)
    expect(keyring.find(first)).toBeNull()
    expect(keyring.find(suite.random(32))).toBeNull()
  })

  test('with a grace that is shorter than the lifetime forgets without a new key', () => {
    const keyring = OnionKeyring.create(suite, identity, 0, { lifetimeMs: 1000, graceMs: 100 })
    const first = keyring.current.x25519
    keyring.rotate(suite, 1000)
    expect(keyring.nextRotationAt).toBe(1100)
    expect(keyring.rotate(suite, 1100)).toBe(false)
    expect(keyring.find(first)).toBeNull()
    expect(keyring.nextRotationAt).toBe(2000)
  })

  test('after a long rest the old key is not kept at all', () => {
    const keyring = OnionKeyring.create(suite, identity, start)
    const first = keyring.current.x25519
    expect(keyring.rotate(suite, start + lifetimeMs + graceMs)).toBe(true)
    expect(keyring.find(first)).toBeNull()
  })

  test('a little step back of the clock changes nothing; a key from the far future is replaced', () => {
    const keyring = OnionKeyring.create(suite, identity, start)
    expect(keyring.rotate(suite, start - 60_000)).toBe(false)
    expect(keyring.rotate(suite, start - 30 * 86_400_000)).toBe(true)
    expect(keyring.createdAt).toBe(start - 30 * 86_400_000)
  })
})

describe('on disk', () => {
  test('a keyring comes back with its keys and times', () => {
    const keyring = OnionKeyring.create(suite, identity, start)
    const alone = OnionKeyring.restore(suite, identity, keyring.serialise())
    expect([hexKey(alone), alone.createdAt, alone.nextRotationAt]).toEqual([hexKey(keyring), start, keyring.nextRotationAt])
    const first = keyring.current.x25519
    keyring.rotate(suite, start + lifetimeMs)
    const both = OnionKeyring.restore(suite, identity, keyring.serialise())
    expect(hexKey(both)).toBe(hexKey(keyring))
    expect(toHex(both.find(first)!.secret)).toBe(toHex(keyring.find(first)!.secret))
    expect(toHex(both.serialise())).toBe(toHex(keyring.serialise()))
  })

  test('what is cut, too long, of another form or of another identity is refused', () => {
    const keyring = OnionKeyring.create(suite, identity, start)
    keyring.rotate(suite, start + lifetimeMs)
    const bytes = keyring.serialise()
    for (let length = 0; length < bytes.length; length++) {
      expect(() => OnionKeyring.restore(suite, identity, bytes.subarray(0, length))).toThrow(MalformedError)
    }
    expect(() => OnionKeyring.restore(suite, identity, Uint8Array.of(...bytes, 0))).toThrow(MalformedError)
    expect(() => OnionKeyring.restore(suite, suite.random(32), bytes)).toThrow(MalformedError)
    expect(() => OnionKeyring.restore(suite, identity, bytes.with(0, 1))).toThrow(MalformedError)
  })
})
