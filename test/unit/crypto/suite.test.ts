import { hash } from 'node:crypto'
import { ed25519 } from '@noble/curves/ed25519.js'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex, utf8Bytes } from '../../../src/base/index.ts'
import { type CryptoSuite, nativeSuite, portableSuite } from '../../../src/crypto/index.ts'

const native = nativeSuite()
const portable = portableSuite()
const hexOf = (value: Uint8Array | null): string | null => value && toHex(value)

describe.each([native, portable])('primitives, $name', (suite: CryptoSuite) => {
  test('X25519 gives the vectors of RFC 7748 §5.2 and §6.1', () => {
    const once = (k: string, u: string): string | null => hexOf(suite.x25519.shared(fromHex(k), fromHex(u)))
    expect(
      once(
        'a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4',
        'e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c',
      ),
    ).toBe('c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552')
    expect(
      once(
        '4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d',
        'e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493',
      ),
    ).toBe('95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957')
    const a = suite.x25519.keyPair(fromHex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a'))
    const b = suite.x25519.keyPair(fromHex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'))
    expect(toHex(a.publicKey)).toBe('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a')
    expect(toHex(b.publicKey)).toBe('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f')
    const k = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742'
    expect([hexOf(suite.x25519.shared(a.secret, b.publicKey)), hexOf(suite.x25519.shared(b.secret, a.publicKey))]).toEqual([k, k])
  })

  test('X25519 iterated gives the vectors of RFC 7748 §5.2', () => {
    let k: Uint8Array = new Uint8Array(32)
    k[0] = 9
    let u = k
    const iterations = suite.name === 'native' ? 1000 : 50
    for (let i = 1; i <= iterations; i++) {
      const next = suite.x25519.shared(k, u)!
      u = k
      k = next
      if (i === 1) expect(toHex(k)).toBe('422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079')
    }
    if (iterations === 1000) expect(toHex(k)).toBe('684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51')
  })

  test('X25519 with a point of small order gives null, never a secret', () => {
    const p = 2n ** 255n - 19n
    const u = (value: bigint): Uint8Array => Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n))
    const order8 = [
      fromHex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
      fromHex('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'),
    ]
    const secret = suite.random(32)
    for (const point of [u(0n), u(1n), u(p - 1n), u(p), u(p + 1n), ...order8]) expect(suite.x25519.shared(secret, point)).toBeNull()
  })

  test('Ed25519 gives the vectors of RFC 8032 §7.1', () => {
    const vectors = [
      [
        '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
        'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
        '',
        'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
      ],
      [
        '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
        '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
        '72',
        '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
      ],
      [
        'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
        'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
        'af82',
        '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
      ],
    ] as const
    for (const [seed, publicKey, message, signature] of vectors) {
      expect(toHex(suite.ed25519.keyPair(fromHex(seed)).publicKey)).toBe(publicKey)
      expect(toHex(suite.ed25519.sign(fromHex(seed), fromHex(message)))).toBe(signature)
      expect(suite.ed25519.verify(fromHex(publicKey), fromHex(message), fromHex(signature))).toBe(true)
    }
  })

  test('Ed25519 refuses wrong lengths, a changed bit, S + L, and keys of small order', () => {
    const { secret, publicKey } = suite.ed25519.keyPair()
    const message = utf8Bytes('message')
    const signature = suite.ed25519.sign(secret, message)
    const flipped = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))
    expect(suite.ed25519.verify(publicKey, message, signature)).toBe(true)
    expect(suite.ed25519.verify(publicKey, message, signature.subarray(1))).toBe(false)
    expect(suite.ed25519.verify(publicKey.subarray(1), message, signature)).toBe(false)
    expect(suite.ed25519.verify(publicKey, flipped(message, 0), signature)).toBe(false)
    for (let i = 0; i < 64; i++) expect(suite.ed25519.verify(publicKey, message, flipped(signature, i))).toBe(false)
    const s = signature.slice(32).reduceRight((value, byte) => value * 256n + BigInt(byte), 0n) + ed25519.Point.Fn.ORDER
    const malleated = signature.slice()
    for (let i = 0; i < 32; i++) malleated[32 + i] = Number((s >> BigInt(8 * i)) & 255n)
    expect(suite.ed25519.verify(publicKey, message, malleated)).toBe(false)
    // The neutral element as key and R, S = 0: valid by the bare equation for any message.
    const neutral = new Uint8Array(32)
    neutral[0] = 1
    const universal = new Uint8Array(64)
    universal.set(neutral)
    expect(suite.ed25519.verify(neutral, message, universal)).toBe(false)
  })

  test('hashes give their published values, over parts as over the whole', () => {
    expect(toHex(suite.sha256(utf8Bytes('a'), utf8Bytes('bc')))).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
    expect(toHex(suite.sha3_256())).toBe('a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a')
    expect(toHex(suite.sha3_256(utf8Bytes('ab'), utf8Bytes('c')))).toBe('3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532')
    expect(toHex(suite.shake256(32))).toBe('46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f')
    expect(suite.shake256(200, utf8Bytes('x')).length).toBe(200)
  })

  test('ML-KEM-768 agrees with itself, and rejects implicitly', () => {
    const { secret, publicKey } = suite.mlkem768.keyPair()
    expect([secret.length, publicKey.length]).toEqual([64, 1184])
    const { ciphertext, shared } = suite.mlkem768.encapsulate(publicKey)!
    expect([ciphertext.length, shared.length]).toEqual([1088, 32])
    expect(toHex(suite.mlkem768.decapsulate(secret, ciphertext))).toBe(toHex(shared))
    ciphertext[100]! ^= 1
    const rejected = suite.mlkem768.decapsulate(secret, ciphertext)
    expect(rejected.length).toBe(32)
    expect(toHex(rejected)).not.toBe(toHex(shared))
  })

  test('ML-KEM-768 refuses a public key with a coefficient of q or more', () => {
    const { publicKey } = suite.mlkem768.keyPair(new Uint8Array(64).fill(3))
    for (const at of [0, 1, 2, 300, 766, 767]) {
      for (const [coefficient, valid] of [
        [3328, true],
        [3329, false],
        [4095, false],
      ] as const) {
        expect(suite.mlkem768.encapsulate(withCoefficient(publicKey, at, coefficient)) !== null).toBe(valid)
      }
    }
  })

  test('random bytes have the wanted length and are not all the same', () => {
    expect(suite.random(0).length).toBe(0)
    expect(toHex(suite.random(32))).not.toBe(toHex(suite.random(32)))
  })
})

/** A public key whose coefficient number `at` (12 bits each, FIPS 203 ByteEncode) is replaced. */
function withCoefficient(publicKey: Uint8Array, at: number, value: number): Uint8Array {
  const copy = publicKey.slice()
  const bit = at * 12
  const byte = bit >> 3
  if (bit % 8 === 0) {
    copy[byte] = value & 0xff
    copy[byte + 1] = (copy[byte + 1]! & 0xf0) | (value >> 8)
  } else {
    copy[byte] = (copy[byte]! & 0x0f) | ((value & 0x0f) << 4)
    copy[byte + 1] = value >> 4
  }
  return copy
}

describe('native and portable agree', () => {
  const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 })
  const data = fc.uint8Array({ maxLength: 300 })

  test('on X25519, for any secret and any point', () => {
    fc.assert(
      fc.property(bytes32, bytes32, (secret, point) => {
        expect(toHex(native.x25519.keyPair(secret).publicKey)).toBe(toHex(portable.x25519.keyPair(secret).publicKey))
        expect(hexOf(native.x25519.shared(secret, point))).toBe(hexOf(portable.x25519.shared(secret, point)))
      }),
      { numRuns: 25 },
    )
  })

  test('on Ed25519 keys and signatures', () => {
    fc.assert(
      fc.property(bytes32, data, (seed, message) => {
        const { publicKey } = native.ed25519.keyPair(seed)
        expect(toHex(publicKey)).toBe(toHex(portable.ed25519.keyPair(seed).publicKey))
        const signature = native.ed25519.sign(seed, message)
        expect(toHex(signature)).toBe(toHex(portable.ed25519.sign(seed, message)))
        expect(portable.ed25519.verify(publicKey, message, signature)).toBe(true)
      }),
      { numRuns: 15 },
    )
  })

  test('on which odd Ed25519 signatures they take: keys and R with a component of small order', () => {
    const { Point } = ed25519
    const torsion = Point.fromHex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05')
    const message = utf8Bytes('odd')
    const encode = (value: bigint): Uint8Array => Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n))
    const decode = (value: Uint8Array): bigint => value.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
    let taken = 0
    let refused = 0
    for (let i = 0n; i < 24n; i++) {
      const a = 1000n + i
      const r = 77n + i
      const A = Point.BASE.multiply(a).add(torsion.multiplyUnsafe(i % 8n))
      const R = Point.BASE.multiply(r).add(torsion.multiplyUnsafe((i / 8n) * 4n))
      const k = decode(sha512(R.toBytes(), A.toBytes(), message)) % Point.Fn.ORDER
      const signature = new Uint8Array(64)
      signature.set(R.toBytes())
      signature.set(encode((r + k * a) % Point.Fn.ORDER), 32)
      const verdict = native.ed25519.verify(A.toBytes(), message, signature)
      expect(portable.ed25519.verify(A.toBytes(), message, signature)).toBe(verdict)
      verdict ? taken++ : refused++
    }
    // The cases are worth something only when both verdicts occur.
    expect(taken).toBeGreaterThan(0)
    expect(refused).toBeGreaterThan(0)
  })

  test('on Ed25519 verdicts over arbitrary keys and signatures', () => {
    fc.assert(
      fc.property(bytes32, fc.uint8Array({ minLength: 64, maxLength: 64 }), data, (key, signature, message) => {
        expect(portable.ed25519.verify(key, message, signature)).toBe(native.ed25519.verify(key, message, signature))
      }),
      { numRuns: 40 },
    )
  })

  test('on ML-KEM-768: the same seed gives the same key, the same randomness the same ciphertext, and secrets cross both ways', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), bytes32, (seed, m) => {
        const key = native.mlkem768.keyPair(seed)
        expect(toHex(key.publicKey)).toBe(toHex(portable.mlkem768.keyPair(seed).publicKey))
        expect(toHex(key.secret)).toBe(toHex(seed))
        const fixed = portable.mlkem768.encapsulate(key.publicKey, m)!
        expect(native.mlkem768.encapsulate(key.publicKey, m)).toEqual(fixed)
        expect(toHex(native.mlkem768.decapsulate(key.secret, fixed.ciphertext))).toBe(toHex(fixed.shared))
        const free = native.mlkem768.encapsulate(key.publicKey)!
        expect(toHex(portable.mlkem768.decapsulate(key.secret, free.ciphertext))).toBe(toHex(free.shared))
        // Implicit rejection is deterministic, so it is part of the agreement.
        free.ciphertext[5]! ^= 4
        expect(toHex(portable.mlkem768.decapsulate(key.secret, free.ciphertext))).toBe(
          toHex(native.mlkem768.decapsulate(seed, free.ciphertext)),
        )
      }),
      { numRuns: 15 },
    )
  })

  test('on hashes and the stream cipher', () => {
    const nonce = fc.uint8Array({ minLength: 24, maxLength: 24 })
    fc.assert(
      fc.property(data, data, bytes32, nonce, fc.nat({ max: 300 }), (a, b, key, nonce, length) => {
        expect(toHex(native.sha256(a, b))).toBe(toHex(portable.sha256(a, b)))
        expect(toHex(native.sha3_256(a, b))).toBe(toHex(portable.sha3_256(a, b)))
        expect(toHex(native.shake256(length, a, b))).toBe(toHex(portable.shake256(length, a, b)))
        expect(toHex(native.xchacha20(key, nonce, a))).toBe(toHex(portable.xchacha20(key, nonce, a)))
      }),
      { numRuns: 60 },
    )
  })
})

function sha512(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(hash('sha512', Buffer.concat(parts), 'buffer'))
}
