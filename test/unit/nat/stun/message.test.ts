import { createRequire } from 'node:module'
import { describe, expect, test } from 'vitest'
import { fromHex, MalformedError, parseIp, SeededRandom, toHex } from '../../../../src/base/index.ts'
import { decodeStun, encodeStun, formatEndpoint, parseEndpoint, type StunAttribute } from '../../../../src/nat/stun/index.ts'
import { addressOf, attributeBytes, attributeOf, BINDING } from '../../../../src/nat/stun/message.ts'

/** RFC 5769 §2.2 and §2.3, with the white space left out. */
const response4 =
  '0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643' +
  '000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96'
const response6 =
  '010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9' +
  '00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c'

const id = fromHex('000102030405060708090a0b')
const classicId = fromHex('000102030405060708090a0b0c0d0e0f')
const request = { class: 'request', method: BINDING, transactionId: id } as const
const v4 = parseEndpoint('192.0.2.1:32853')
const v6 = parseEndpoint('[2001:db8:1234:5678:11:2233:4455:6677]:32853')

const every: StunAttribute[] = [
  { type: 'mapped-address', endpoint: v4 },
  { type: 'xor-mapped-address', endpoint: v6 },
  { type: 'source-address', endpoint: v4 },
  { type: 'changed-address', endpoint: v4 },
  { type: 'response-address', endpoint: v4 },
  { type: 'response-origin', endpoint: v6 },
  { type: 'other-address', endpoint: v6 },
  { type: 'change-request', ip: true, port: false },
  { type: 'error-code', code: 420, reason: 'Unknown Attribute' },
  { type: 'unknown-attributes', types: [2, 0x7f01, 3] },
  { type: 'response-port', port: 4660 },
  { type: 'padding', length: 17 },
  { type: 'fingerprint' },
]

describe('STUN messages', () => {
  test("decode as in RFC 5769's samples, fingerprint checked", () => {
    const decoded = [response4, response6].map((hex) => decodeStun(fromHex(hex)))
    expect(decoded.map((message) => formatEndpoint(addressOf(message, 'xor-mapped-address')!))).toEqual([
      formatEndpoint(v4),
      formatEndpoint(v6),
    ])
    for (const message of decoded) {
      expect(message).toMatchObject({ class: 'success', method: BINDING, classic: false, unknown: [] })
      expect(attributeOf(message, 'fingerprint')).not.toBeNull()
    }
  })

  test.each([
    ['with the magic cookie', id],
    ['of RFC 3489', classicId],
  ])('%s come back as they went, every attribute', (_, transactionId) => {
    const encoded = encodeStun({ class: 'error', method: BINDING, transactionId }, every)
    expect(encoded.length).toBe(20 + every.reduce((sum, one) => sum + attributeBytes(one), 0))
    const message = decodeStun(encoded)
    expect(message).toMatchObject({ class: 'error', method: BINDING, classic: transactionId === classicId, unknown: [] })
    expect(toHex(message.transactionId)).toBe(toHex(transactionId))
    // RFC 3489 repeats the last of an odd number.
    const types = transactionId === classicId ? [2, 0x7f01, 3, 3] : [2, 0x7f01, 3]
    expect(message.attributes).toEqual(every.map((one) => (one.type === 'unknown-attributes' ? { ...one, types } : one)))
  })

  test('hold class and method in the bits of RFC 8489 §5', () => {
    const types = (['request', 'indication', 'success', 'error'] as const).map((kind) =>
      toHex(encodeStun({ ...request, class: kind }, []).subarray(0, 2)),
    )
    expect(types).toEqual(['0001', '0011', '0101', '0111'])
    for (const method of [0, 1, 0x80, 0xfff])
      expect(decodeStun(encodeStun({ ...request, method }, []))).toMatchObject({ method, class: 'request' })
  })

  test('name the unknown attributes that must be understood, and skip others, the filler among them', () => {
    const bytes = encodeStun(request, [
      { type: 'filler', length: 5 },
      { type: 'change-request', ip: false, port: true },
    ])
    expect(decodeStun(bytes)).toMatchObject({ attributes: [{ type: 'change-request', ip: false, port: true }], unknown: [] })
    expect(decodeStun(fromHex('000100082112a442000102030405060708090a0b7fff000400000000')).unknown).toEqual([0x7fff])
    expect(decodeStun(fromHex('000100082112a442000102030405060708090a0bc001000400000000')).unknown).toEqual([])
    // USERNAME and the rest of authentication: known, without effect.
    expect(decodeStun(fromHex('000100082112a442000102030405060708090a0b0006000161000000'))).toMatchObject({ attributes: [], unknown: [] })
  })

  test('count the first of several attributes of one type', () => {
    const twice = encodeStun(request, [
      { type: 'mapped-address', endpoint: v4 },
      { type: 'mapped-address', endpoint: parseEndpoint('192.0.2.2:1') },
    ])
    expect(decodeStun(twice).attributes).toEqual([{ type: 'mapped-address', endpoint: v4 }])
  })

  test('of IPv4-mapped IPv6 addresses are IPv4', () => {
    const bytes = encodeStun(request, [{ type: 'xor-mapped-address', endpoint: v6 }])
    expect(addressOf(decodeStun(bytes), 'xor-mapped-address')!.ip.family).toBe(6)
    expect(parseIp('::ffff:192.0.2.1').family).toBe(4)
  })

  test.each([
    ['nothing', ''],
    ['a header cut short', '000100002112a44200010203'],
    ['two first bits that are not zero', '400100002112a442000102030405060708090a0b'],
    ['a length that is no multiple of 4', '000100022112a442000102030405060708090a0b0000'],
    ['less than its length', '000100082112a442000102030405060708090a0b00030004'],
    ['more than its length', '000100002112a442000102030405060708090a0b00030004'],
    ['an attribute longer than the rest', '000100082112a442000102030405060708090a0b000300ff00000006'],
    ['a change request of three bytes', '000100082112a442000102030405060708090a0b0003000300000600'],
    ['an address of no family', '010100082112a442000102030405060708090a0b0020000400030000'],
    ['an IPv4 address of three bytes', '0101000c2112a442000102030405060708090a0b0020000700010000c0000200'],
    ['an IPv6 address of four bytes', '0101000c2112a442000102030405060708090a0b0020000800020000c0000201'],
    ['an error code of 700', '011100082112a442000102030405060708090a0b0009000400000700'],
    ['a reason that is not UTF-8', '0111000c2112a442000102030405060708090a0b0009000800000400ffffffff'],
    ['a wrong fingerprint', response4.replace(/.$/, '7')],
    ['a fingerprint before the end', '000100102112a442000102030405060708090a0b80280004000000000003000400000006'],
  ])('with %s are malformed', (_, hex) => {
    expect(() => decodeStun(fromHex(hex))).toThrow(MalformedError)
  })
})

describe("the npm package 'stun'", () => {
  // Only its codec: the whole package has no types.
  const stun = createRequire(import.meta.url)('stun') as {
    decode(bytes: Buffer): { type: number; transactionId: Buffer; getAttribute(type: number): { value: unknown } | undefined }
    encode(message: unknown): Buffer
    createMessage(type: number, id: Buffer): { addAttribute(type: number, ...values: unknown[]): void; addFingerprint(): void }
    validateFingerprint(message: unknown): boolean
  }

  test('reads what we write', () => {
    const attributes: StunAttribute[] = [
      { type: 'xor-mapped-address', endpoint: v6 },
      { type: 'mapped-address', endpoint: v4 },
      { type: 'other-address', endpoint: v4 },
      { type: 'fingerprint' },
    ]
    const read = stun.decode(Buffer.from(encodeStun({ ...request, class: 'success' }, attributes)))
    expect(read.type).toBe(0x0101)
    expect(read.getAttribute(0x0020)!.value).toMatchObject({ address: '2001:db8:1234:5678:11:2233:4455:6677', port: 32853 })
    expect(read.getAttribute(0x0001)!.value).toMatchObject({ address: '192.0.2.1', port: 32853 })
    expect(read.getAttribute(0x802c)!.value).toMatchObject({ address: '192.0.2.1', port: 32853 })
    expect(stun.validateFingerprint(read)).toBe(true)
  })

  test('writes what we read', () => {
    const random = new SeededRandom(7)
    for (let i = 0; i < 50; i++) {
      const message = stun.createMessage(0x0001, Buffer.from(random.bytes(12)))
      message.addAttribute(0x0003, 6)
      message.addAttribute(0x0020, '198.51.100.9', 1 + random.int(65_535))
      message.addFingerprint()
      const read = decodeStun(new Uint8Array(stun.encode(message)))
      expect(attributeOf(read, 'change-request')).toEqual({ type: 'change-request', ip: true, port: true })
      expect(addressOf(read, 'xor-mapped-address')!.ip).toEqual(parseIp('198.51.100.9'))
      expect(attributeOf(read, 'fingerprint')).not.toBeNull()
    }
  })
})
