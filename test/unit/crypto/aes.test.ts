import { createCipheriv, createHash } from 'node:crypto'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { AssertionError, fromHex, toHex } from '../../../src/base/index.ts'
import { WIDE_BLOCK_SCRATCH } from '../../../src/crypto/index.ts'
import { nodeAes } from '../../../src/crypto/node-aes.ts'
import { vectorAes } from '../../../src/crypto/vector-aes.ts'

const vector = vectorAes()!

/** FIPS 197, appendix C.3, and SP 800-38A, F.1.5, the last block. */
const known = [
  {
    key: '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    plain: '00112233445566778899aabbccddeeff',
    cipher: '8ea2b7ca516745bfeafc49904b496089',
  },
  {
    key: '603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4',
    plain: 'f69f2445df4f9b17ad2b417be66c3710',
    cipher: '23304b7a39f9f3ff067d8d8f9e24ecc7',
  },
]

describe.each([
  ['in WebAssembly', vector],
  ['of node:crypto', nodeAes()],
])('AES-256 %s', (_, unit) => {
  test('gives the published vectors both ways and leaves its input alone', () => {
    for (const { key, plain, cipher } of known) {
      const kept = unit.key(fromHex(key))
      unit.input.set(fromHex(plain))
      kept.encrypt()
      expect([toHex(unit.input), toHex(unit.output)]).toEqual([plain, cipher])
      unit.input.set(fromHex(cipher))
      kept.decrypt()
      expect([toHex(unit.input), toHex(unit.output)]).toEqual([cipher, plain])
      kept.destroy()
    }
  })

  test('keys take turns and directions without harm to each other', () => {
    const keys = known.map(({ key }) => unit.key(fromHex(key)))
    for (let i = 0; i < 12; i++) {
      const { plain, cipher } = known[i % 2]!
      const back = i % 3 === 0
      unit.input.set(fromHex(back ? cipher : plain))
      if (back) keys[i % 2]!.decrypt()
      else keys[i % 2]!.encrypt()
      expect(toHex(unit.output)).toBe(back ? plain : cipher)
      // Another's end is not this one's.
      unit.key(new Uint8Array(32).fill(i)).destroy()
    }
  })
})

describe('AES-256 in WebAssembly', () => {
  const memory = new Uint8Array(vector.input.buffer)

  afterEach(() => {
    vi.unstubAllGlobals()
    vi.resetModules()
  })

  test('agrees with OpenSSL for 12000 keys and blocks, both ways', () => {
    const seed = createHash('sha256').update(String(Date.now())).digest()
    const random = createCipheriv('aes-256-ctr', seed, new Uint8Array(16)).update(Buffer.alloc(12_000 * 48))
    let wrong = 0
    for (let at = 0; at < random.length; at += 48) {
      const key = random.subarray(at, at + 32)
      const plain = random.subarray(at + 32, at + 48)
      const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(plain)
      const kept = vector.key(key)
      vector.input.set(plain)
      kept.encrypt()
      if (!cipher.equals(vector.output)) wrong++
      vector.input.set(cipher)
      kept.decrypt()
      if (!plain.equals(vector.output)) wrong++
      kept.destroy()
    }
    expect(wrong, `seed ${seed.toString('hex')}`).toBe(0)
  })

  test('a key that ends leaves nothing of itself in the memory of WebAssembly', () => {
    const before = memory.slice()
    const kept = vector.key(fromHex(known[0]!.key))
    kept.encrypt()
    expect(memory).not.toEqual(before)
    kept.decrypt()
    kept.destroy()
    const rest = memory.slice()
    const blocks = vector.input.byteOffset
    rest.fill(0, blocks, blocks + 32)
    before.fill(0, blocks, blocks + 32)
    expect(Buffer.compare(rest, before)).toBe(0)
  })

  test('a key has 32 bytes', () => {
    expect(() => vector.key(new Uint8Array(16))).toThrow(AssertionError)
  })

  test('where WebAssembly, its instructions or its memory are missing, the native suite takes the AES of OpenSSL', async () => {
    class Refusing {
      constructor() {
        throw new RangeError('out of memory')
      }
    }
    const worlds = [undefined, { validate: () => false }, { validate: () => true, Module: Object, Instance: Refusing }]
    for (const world of worlds) {
      vi.resetModules()
      vi.stubGlobal('WebAssembly', world)
      const { nativeSuite, selfTest } = await import('../../../src/crypto/index.ts')
      const suite = nativeSuite()
      expect(suite.description).toMatch(/AES of OpenSSL$/)
      selfTest(suite)
      const cipher = suite.wideBlock(new Uint8Array(32))
      cipher.encrypt(new Uint8Array(28), new Uint8Array(100), WIDE_BLOCK_SCRATCH, 32)
    }
  })
})
