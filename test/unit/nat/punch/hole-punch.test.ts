import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, test } from 'vitest'
// The package lets only its service out: its codec is taken from where it lies.
import { HolePunch as Theirs } from '../../../../node_modules/@libp2p/dcutr/dist/src/pb/message.js'
import { MalformedError, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import {
  decodeEndpoint,
  decodeHolePunch,
  encodeEndpoint,
  encodeHolePunch,
  frameHolePunch,
  type HolePunch,
  HolePunchDecoder,
  MAX_MESSAGE_BYTES,
} from '../../../../src/nat/punch/hole-punch.ts'

const endpoint = (host: string, port: number) => ({ ip: parseIp(host), port })
const connect: HolePunch = {
  type: 'connect',
  addresses: [encodeEndpoint(endpoint('11.2.0.2', 4460)), encodeEndpoint(endpoint('2a0f:1::7', 443))],
}
const sync: HolePunch = { type: 'sync', addresses: [] }

describe('messages of the coordination', () => {
  test('are those of libp2p: what one encodes the other decodes', () => {
    for (const message of [connect, sync]) {
      const theirs = { type: message.type.toUpperCase() as never, observedAddresses: message.addresses as Uint8Array[] }
      expect(Buffer.from(encodeHolePunch(message))).toEqual(Buffer.from(Theirs.encode(theirs)))
      expect(Theirs.decode(encodeHolePunch(message))).toEqual(theirs)
      expect(decodeHolePunch(Theirs.encode(theirs))).toEqual(message)
    }
  })

  test('may hold fields of later versions', () => {
    const later = Uint8Array.of(0x18, 0x96, 0x01, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2a, 2, 9, 9, 0x35, 1, 2, 3, 4)
    const bytes = Buffer.concat([later, encodeHolePunch(connect), later])
    expect(decodeHolePunch(bytes)).toEqual(connect)
  })

  test.each([
    ['no type', Uint8Array.of()],
    ['an unknown type', Uint8Array.of(0x08, 0x01)],
    ['a type that is no number', Uint8Array.of(0x0a, 0x01, 0x64)],
    ['an address cut short', Uint8Array.of(0x08, 0x64, 0x12, 0x05, 0x04)],
    ['an address that is a number', Uint8Array.of(0x08, 0x64, 0x10, 0x05)],
    ['a group', Uint8Array.of(0x08, 0x64, 0x1b)],
    ['field 0', Uint8Array.of(0x08, 0x64, 0x00, 0x00)],
    ['a number of eleven bytes', Uint8Array.of(0x18, ...Array<number>(10).fill(0x80), 0x01)],
    ['an address of 513 bytes', encodeHolePunch({ type: 'connect', addresses: [new Uint8Array(513)] })],
    ['a thousand addresses', encodeHolePunch({ type: 'connect', addresses: Array.from({ length: 1000 }, () => new Uint8Array(1)) })],
    ['too many bytes', new Uint8Array(MAX_MESSAGE_BYTES + 1)],
  ])('are refused with %s', (_what, bytes) => {
    expect(() => decodeHolePunch(bytes)).toThrow(MalformedError)
  })

  test('are found in a stream however it is cut', () => {
    const seed = Date.now() & 0xffff
    const random = new SeededRandom(seed)
    const long: HolePunch = { type: 'connect', addresses: Array.from({ length: 40 }, (_, i) => encodeEndpoint(endpoint('11.0.0.1', i))) }
    const messages = [connect, sync, long]
    const bytes = Buffer.concat(messages.map(frameHolePunch))
    for (let i = 0; i < 50; i++) {
      const decoder = new HolePunchDecoder()
      const found: HolePunch[] = []
      for (let at = 0; at < bytes.length; ) {
        const length = 1 + random.int(i < 5 ? 3 : 300)
        found.push(...decoder.push(bytes.subarray(at, at + length)))
        at += length
      }
      expect(found, `seed ${seed}`).toEqual(messages)
    }
  })

  test('that are announced to be too long, or come in a flood, end the stream before they are held', () => {
    expect(() => new HolePunchDecoder().push(Uint8Array.of(0x81, 0x20))).toThrow(MalformedError)
    expect(() => new HolePunchDecoder().push(Uint8Array.of(0x80, 0x80, 0x01))).toThrow(MalformedError)
    expect(() => new HolePunchDecoder().push(Buffer.concat(Array<Uint8Array>(20).fill(frameHolePunch(sync))))).toThrow(MalformedError)
  })

  test('noise is refused as malformed and in no other way', () => {
    const seed = Date.now() & 0xffff
    const random = new SeededRandom(seed)
    const real = frameHolePunch(connect)
    for (let i = 0; i < 3000; i++) {
      const bytes = i % 2 === 0 ? random.bytes(random.int(60)) : real.slice()
      if (i % 2 === 1) for (let n = 0; n < 3; n++) bytes[random.int(bytes.length)] = random.int(256)
      try {
        for (const message of new HolePunchDecoder().push(bytes)) message.addresses.map(decodeEndpoint)
      } catch (error) {
        if (!(error instanceof MalformedError)) throw new Error(`seed ${seed}, round ${i}`, { cause: error })
      }
    }
  })
})

describe('addresses', () => {
  test.each([
    ['/ip4/11.2.0.2/tcp/4460/tls', '11.2.0.2', 4460],
    ['/ip6/2a0f:1::7/tcp/0/tls', '2a0f:1::7', 0],
  ])('are multiaddrs: %s', (text, host, port) => {
    expect(Buffer.from(encodeEndpoint(endpoint(host, port)))).toEqual(Buffer.from(multiaddr(text).bytes))
    expect(decodeEndpoint(multiaddr(text).bytes)).toEqual(endpoint(host, port))
  })

  test.each([
    '/ip4/11.2.0.2/tcp/4460',
    '/ip4/11.2.0.2/udp/4460/quic-v1',
    '/dns4/example.org/tcp/443/tls',
    '/ip4/11.2.0.2/tcp/4460/tls/http',
  ])('of other forms mean nothing here: %s', (text) => {
    expect(decodeEndpoint(multiaddr(text).bytes)).toBeNull()
  })

  test('an IPv4 address written as IPv6 is the IPv4 address', () => {
    expect(decodeEndpoint(multiaddr('/ip6/::ffff:11.2.0.2/tcp/5000/tls').bytes)).toEqual(endpoint('11.2.0.2', 5000))
  })
})
