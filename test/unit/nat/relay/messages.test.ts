import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it } from 'vitest'
import { fromHex, MalformedError, type NodeId, nodeIdFromKey, SeededRandom, toHex } from '../../../../src/base/index.ts'
import { decodeHop, decodeStop, encodeHop, encodeStop, MESSAGE_BYTES_MAX, STATUS, statusName } from '../../../../src/nat/relay/messages.ts'
import { decodeFields, varint } from '../../../../src/nat/relay/protobuf.ts'
import { formatRelayedAddress, parseRelayedAddress } from '../../../../src/nat/relay/relayed-address.ts'
import { fuzz } from '../../../fuzz/fuzzer.ts'

const peer = nodeIdFromKey(new Uint8Array(32).fill(7))
const peerHex = `002408011220${'07'.repeat(32)}`
const nothing = { peer: null, reservation: null, limit: null, status: null }

describe('HOP and STOP messages', () => {
  // By hand after the .proto of libp2p/specs relay/circuit-v2.md and the protobuf encoding.
  it.each([
    ['a request to reserve', encodeHop({ type: 'reserve' }), '0800'],
    ['a request to connect', encodeHop({ type: 'connect', peer }), `08011228 0a26${peerHex}`],
    ['a refusal', encodeHop({ type: 'status', status: STATUS.noReservation }), '080228cc01'],
    [
      'a reservation',
      encodeHop({
        type: 'status',
        status: STATUS.ok,
        limit: { seconds: 300, bytes: 1 << 20 },
        reservation: { expiresAt: 0x7fff_ffff, addresses: [multiaddr('/ip4/1.2.3.4/tcp/5').bytes], voucher: Uint8Array.of(9) },
      }),
      '0802 1a13 08ffffffff07 1208 0401020304060005 1a0109 2207 08ac02 10808040 2864',
    ],
    ['a call', encodeStop({ type: 'connect', peer, limit: { seconds: 1, bytes: null } }), `08001228 0a26${peerHex} 1a02 0801`],
    ['its answer', encodeStop({ type: 'status', status: STATUS.ok }), '08012064'],
  ])('%s has the bytes of the specification', (_, bytes, hex) => {
    expect(toHex(bytes)).toBe(hex.replaceAll(' ', ''))
  })

  it('are read back as they were written', () => {
    const reservation = { expiresAt: 1_800_000_000, addresses: [Uint8Array.of(1), Uint8Array.of(2, 3)], voucher: null }
    const limit = { seconds: 5, bytes: Number.MAX_SAFE_INTEGER }
    expect(decodeHop(encodeHop({ type: 'status', status: 100, reservation, limit }))).toEqual({
      ...nothing,
      type: 'status',
      status: 100,
      reservation,
      limit,
    })
    expect(decodeHop(encodeHop({ type: 'connect', peer }))).toEqual({ ...nothing, type: 'connect', peer })
    expect(decodeStop(encodeStop({ type: 'connect', peer, limit }))).toEqual({ type: 'connect', peer, limit, status: null })
  })

  it('may hold what is not known here, and hold nothing for long', () => {
    // Field 15 as a number, field 16 as 8 bytes, field 17 as 4, field 18 as text.
    const strange = fromHex('7801 81010102030405060708 8d0101020304 92010161'.replaceAll(' ', ''))
    expect(decodeHop(Uint8Array.of(8, 1, ...strange)).type).toBe('connect')
    expect(decodeHop(Uint8Array.of(8, 0, 8, 2)).type).toBe('status')
    expect(decodeHop(encodeHop({ type: 'status', status: 100, limit: { seconds: 0, bytes: 0 } })).limit).toEqual({
      seconds: null,
      bytes: null,
    })
  })

  it.each([
    ['no type', ''],
    ['a type that is text', '0a0100'],
    ['a field that is cut short', '08001228'],
    ['a group', '08000b'],
    ['field number 0', '080000'],
    ['a varint of 11 bytes', `08${'ff'.repeat(10)}01`],
    ['a varint above 64 bits', `08${'ff'.repeat(9)}02`],
    ['a peer of another kind of key', '080112080a06122400112233'],
    ['a peer without an id', '08011200'],
    ['a peer that is a number', '08011001'],
  ])('with %s are refused', (_, hex) => {
    expect(() => decodeHop(fromHex(hex))).toThrow(MalformedError)
  })

  it('of more than the longest are refused', () => {
    const long = new Uint8Array(MESSAGE_BYTES_MAX - 4).fill(1)
    const filled = (length: number): Uint8Array => Uint8Array.of(8, 0, 0x7a, ...varint(length), ...long.subarray(0, length))
    expect(decodeHop(filled(MESSAGE_BYTES_MAX - 5)).type).toBe('reserve')
    expect(() => decodeHop(filled(MESSAGE_BYTES_MAX - 4))).toThrow(MalformedError)
  })

  it('take 100000 random and mutated inputs, and throw nothing but their refusal', { timeout: 60_000 }, () => {
    const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)
    const seeds = (): Uint8Array[] => [
      encodeHop({ type: 'connect', peer }),
      encodeHop({
        type: 'status',
        status: 100,
        limit: { seconds: 1, bytes: 2 },
        reservation: { expiresAt: 3, addresses: [new Uint8Array(8)], voucher: new Uint8Array(90) },
      }),
    ]
    for (const [name, decode] of [
      ['HOP', decodeHop],
      ['STOP', decodeStop],
      ['fields', (bytes: Uint8Array) => decodeFields('x', bytes)],
    ] as const) {
      const { failure } = fuzz({ name, decode, seeds }, 34_000, seed)
      expect(failure, `${name}, SHALLOT_FUZZ_SEED=${seed}`).toBeFalsy()
    }
  })

  it('have names for people', () => {
    expect(statusName(204)).toBe('no reservation')
    expect(statusName(999)).toBe('no known status')
    expect(statusName(null)).toBe('no known status')
  })
})

describe('varints', () => {
  it('are the shortest, and read back', () => {
    const random = new SeededRandom(1)
    for (let bits = 0; bits <= 63; bits++) {
      const value = (1n << BigInt(bits)) + BigInt(random.int(1 << 16))
      const bytes = varint(value)
      expect(bytes.length).toBeLessThanOrEqual(10)
      expect(decodeFields('x', Uint8Array.of(8, ...bytes))).toEqual([{ number: 1, value }])
    }
    expect(varint(127).length).toBe(1)
    expect(varint(128).length).toBe(2)
  })
})

describe('an address through a relay', () => {
  const relay = nodeIdFromKey(new Uint8Array(32).fill(8))

  it('names the relay and the node', () => {
    const text = formatRelayedAddress('/ip4/1.2.3.4/tcp/5', relay, peer)
    expect(text).toBe(`/ip4/1.2.3.4/tcp/5/p2p/${relay}/p2p-circuit/p2p/${peer}`)
    expect(formatRelayedAddress(`/ip4/1.2.3.4/tcp/5/p2p/${relay}`, relay, peer)).toBe(text)
    expect(parseRelayedAddress(text)).toEqual({ relayAddress: `/ip4/1.2.3.4/tcp/5/p2p/${relay}`, relay, target: peer })
    expect(multiaddr(text).toString()).toBe(text)
  })

  it.each([
    '/ip4/1.2.3.4/tcp/5',
    `/ip4/1.2.3.4/tcp/5/p2p/${relay}/p2p-circuit`,
    `/ip4/1.2.3.4/tcp/5/p2p-circuit/p2p/${peer}`,
    `/ip4/1.2.3.4/tcp/5/p2p/${relay}/p2p-circuit/p2p/QmNope`,
    `/ip4/1.2.3.4/tcp/5/p2p/${relay}/p2p-circuit/p2p/${relay}/p2p-circuit/p2p/${peer}`,
    '',
  ])('is nothing else: %s', (text) => {
    expect(parseRelayedAddress(text as NodeId)).toBeNull()
  })
})
