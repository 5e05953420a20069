import { describe, expect, test } from 'vitest'
import { MalformedError, type NodeId, nodeKey, SeededRandom } from '../../../src/base/index.ts'
import { decodeEnvelope, envelopePurpose, sealEnvelope } from '../../../src/directory/envelope.ts'
import {
  DESCRIPTOR_BYTES_MAX,
  decodeDescriptor,
  formatRelayAddress,
  openDescriptor,
  parseBootstrapAddress,
  parseRelayAddress,
  signDescriptor,
} from '../../../src/directory/index.ts'
import { quickRules, START, suite, testDescriptor, testFields, testRelay } from './support.ts'

const random = new SeededRandom(20)
const relay = testRelay(random)
const ids = Array.from({ length: 32 }, () => testRelay(random).id)

const purpose = envelopePurpose('shallot-relay-descriptor', '/shallot/relay-descriptor')

const behind = (punchable: boolean) => ({ kind: 'relayed' as const, via: [ids[0]!], punchable })

describe('a descriptor', () => {
  test('comes back as it was signed', () => {
    const fields = testFields(relay, quickRules, START, {
      sequence: 77,
      addresses: ['/ip4/127.3.0.1/tcp/443', '/ip4/127.3.0.1/tcp/443/tls', '/ip6/2001:db8::1/tcp/9001'],
      roles: ['guard', 'exit', 'bootstrap'],
      exitPolicy: {
        ipv4: [
          { from: 1, to: 24 },
          { from: 26, to: 65_535 },
        ],
        ipv6: [],
      },
      family: [...ids].sort((a, b) => Buffer.compare(nodeKey(a), nodeKey(b))),
      protocols: { circuit: [1, 3], link: [1], packet: [1, 2] },
    })
    const signed = signDescriptor(suite, relay.seed, fields)
    expect(signed.descriptor).toEqual({ ...fields, id: relay.id })
    const opened = openDescriptor(suite, signed.bytes)
    expect(opened.descriptor).toEqual(signed.descriptor)
    expect(opened.digest).toEqual(suite.sha256(signed.bytes))
  })

  test.each([
    [true, 1],
    [false, 2],
  ])('behind NAT says whether it is punchable (%s), and by which relays it is reached', (punchable, code) => {
    const via = [ids[0]!, ids[1]!].sort((a, b) => Buffer.compare(nodeKey(a), nodeKey(b)))
    const reach = { kind: 'relayed' as const, via, punchable }
    const signed = testDescriptor(relay, quickRules, START, { reach, roles: ['middle'] })
    expect(openDescriptor(suite, signed.bytes).descriptor.reach).toEqual(reach)
    const inBytes = Buffer.concat([Uint8Array.of(code, 2), ...via.map(nodeKey)])
    expect(Buffer.from(signed.bytes).includes(inBytes)).toBe(true)
  })

  test('says in an extension that it is leaving, and no more than that', () => {
    const staying = testFields(relay, quickRules, START, { roles: ['middle'], software: 'x' })
    const signed = signDescriptor(suite, relay.seed, { ...staying, leaving: true })
    expect(openDescriptor(suite, signed.bytes).descriptor.leaving).toBe(true)
    expect(openDescriptor(suite, testDescriptor(relay, quickRules, START).bytes).descriptor.leaving).toBe(false)
    const { payload } = decodeEnvelope(purpose, signed.bytes)
    expect(payload.subarray(-4)).toEqual(Uint8Array.of(1, 2, 0, 0))
    const talking = Buffer.concat([payload.subarray(0, -2), Uint8Array.of(0, 1, 7)])
    expect(() => openDescriptor(suite, sealEnvelope(suite, relay.seed, purpose, talking))).toThrow(/leaving/)
  })

  test('says in an extension that it is leaving after the versions of raw packets', () => {
    const fields = testFields(relay, quickRules, START, {
      roles: ['exit'],
      exitPolicy: { ipv4: [], ipv6: [] },
      protocols: { circuit: [1], link: [1], packet: [1] },
      leaving: true,
    })
    const opened = openDescriptor(suite, signDescriptor(suite, relay.seed, fields).bytes)
    expect(opened.descriptor).toMatchObject({ leaving: true, protocols: { packet: [1] } })
  })

  test('says in an extension which versions of raw packets it serves, and is without it where it serves none', () => {
    const exit = { roles: ['exit' as const], exitPolicy: { ipv4: [], ipv6: [] }, software: 'x' }
    const serving = (packet: readonly number[]) =>
      testDescriptor(relay, quickRules, START, { ...exit, protocols: { circuit: [1], link: [1], packet } })
    const inBytes = (signed: { bytes: Uint8Array }) => Buffer.from(signed.bytes).subarray(0, -66)
    const tail = [1, 'x'.charCodeAt(0)]
    expect([...inBytes(serving([2, 1])).subarray(-8)]).toEqual([...tail, 1, 1, 0, 2, 1, 2])
    expect([...inBytes(serving([])).subarray(-3)]).toEqual([...tail, 0])
    expect(openDescriptor(suite, serving([2, 1]).bytes).descriptor.protocols.packet).toEqual([1, 2])
    expect(openDescriptor(suite, serving([]).bytes).descriptor.protocols.packet).toEqual([])
  })

  test.each([
    ['by a relay that is no exit', ['middle'], [1, 1, 0, 1, 1], 'is no exit'],
    ['in no version', ['exit'], [1, 1, 0, 0], '0 packet versions'],
    ['in versions out of order', ['exit'], [1, 1, 0, 2, 2, 1], 'ascending'],
    ['twice', ['exit'], [2, 1, 0, 1, 1, 1, 0, 1, 1], 'ascending'],
  ] as const)('with packets served %s is refused', (_, roles, extensions, problem) => {
    const fields = { roles, exitPolicy: roles[0] === 'exit' ? { ipv4: [], ipv6: [] } : null }
    const plain = testDescriptor(relay, quickRules, START, fields).bytes
    const payload = decodeEnvelope(purpose, plain).payload
    const changed = Buffer.concat([payload.subarray(0, -1), Uint8Array.from(extensions)])
    expect(() => decodeDescriptor(sealEnvelope(suite, relay.seed, purpose, changed))).toThrow(problem)
  })

  test('has one encoding, whatever order its relays are given in', () => {
    const [a, b] = [ids[0]!, ids[1]!]
    const signed = (via: readonly NodeId[]) =>
      testDescriptor(relay, quickRules, START, { reach: { kind: 'relayed', via, punchable: false }, roles: ['middle'] }).bytes
    expect(signed([a, b])).toEqual(signed([b, a]))
    expect(signed([a, b])).toEqual(signed([b, a, b]))
  })

  test('reached in another way than the three is refused', () => {
    const { bytes } = testDescriptor(relay, quickRules, START)
    // Behind the only address: IPv4 127.0.0.1, port 4001, libp2p.
    const at = Buffer.from(bytes).indexOf(Buffer.from([4, 127, 0, 0, 1, 4001 >> 8, 4001 & 255, 0])) + 8
    expect(bytes[at]).toBe(0)
    for (const code of [1, 2, 3, 255]) {
      const changed = bytes.slice()
      changed[at] = code
      expect(() => decodeDescriptor(changed), `code ${code}`).toThrow(MalformedError)
      if (code > 2) expect(() => decodeDescriptor(changed), `code ${code}`).toThrow('unknown way')
    }
  })

  test('of an exit behind NAT is valid when it is punchable', () => {
    const exitPolicy = { ipv4: [{ from: 443, to: 443 }], ipv6: [] }
    const signed = testDescriptor(relay, quickRules, START, { reach: behind(true), roles: ['middle', 'exit'], exitPolicy })
    expect(signed.descriptor.roles).toEqual(['middle', 'exit'])
  })

  test('fits into its largest size with every list full', () => {
    const ranges = Array.from({ length: 64 }, (_, i) => ({ from: i * 10 + 1, to: i * 10 + 5 }))
    const signed = testDescriptor(relay, quickRules, START, {
      addresses: [1, 2, 3, 4].flatMap((port) => [`/ip6/2001:db8::1/tcp/${port}`, `/ip6/2001:db8::1/tcp/${port}/tls`]),
      family: ids,
      reach: { kind: 'relayed', via: ids.slice(0, 4), punchable: true },
      roles: ['exit'],
      exitPolicy: { ipv4: ranges, ipv6: ranges },
      software: 'x'.repeat(32),
    })
    expect(signed.bytes.length).toBeLessThan(DESCRIPTOR_BYTES_MAX)
  })

  test('does not keep the buffer it was read from', () => {
    const buffer = new Uint8Array(10_000)
    const { bytes } = testDescriptor(relay, quickRules, START)
    buffer.set(bytes, 100)
    const opened = openDescriptor(suite, buffer.subarray(100, 100 + bytes.length))
    buffer.fill(0)
    expect(opened.bytes).toEqual(bytes)
    expect(opened.descriptor.onionKey.x25519).toEqual(new Uint8Array(32).fill(7))
  })

  test('is refused with any one bit changed, any byte left out or added', () => {
    const { bytes } = testDescriptor(relay, quickRules, START)
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const changed = bytes.slice()
      changed[bit >> 3]! ^= 1 << (bit & 7)
      expect(() => openDescriptor(suite, changed), `bit ${bit}`).toThrow(MalformedError)
    }
    for (let length = 0; length < bytes.length; length += 7)
      expect(() => openDescriptor(suite, bytes.subarray(0, length))).toThrow(MalformedError)
    expect(() => openDescriptor(suite, Buffer.concat([bytes, Uint8Array.of(0)]))).toThrow(MalformedError)
    expect(() => openDescriptor(suite, new Uint8Array(DESCRIPTOR_BYTES_MAX + 1))).toThrow(MalformedError)
  })

  test('names the identity that signed it, whoever sends it', () => {
    const other = testRelay(random)
    const { bytes } = testDescriptor(relay, quickRules, START)
    const forged = bytes.slice()
    forged.set(nodeKey(other.id), 6)
    expect(decodeDescriptor(forged).descriptor.id).toBe(other.id)
    expect(() => openDescriptor(suite, forged)).toThrow('signature is wrong')
  })

  test.each([
    ['two IPv4 addresses', { addresses: ['/ip4/127.3.0.1/tcp/1', '/ip4/127.3.0.2/tcp/1'] }, 'two IPv4 addresses'],
    ['an address twice', { addresses: ['/ip4/127.3.0.1/tcp/1', '/ip4/127.3.0.1/tcp/1'] }, 'twice'],
    ['no address', { addresses: [] }, 'no address'],
    [
      'touching port ranges',
      {
        roles: ['exit' as const],
        exitPolicy: {
          ipv4: [
            { from: 1, to: 2 },
            { from: 3, to: 4 },
          ],
          ipv6: [],
        },
      },
      'ordered',
    ],
    ['port 0', { roles: ['exit' as const], exitPolicy: { ipv4: [{ from: 0, to: 2 }], ipv6: [] } }, 'ordered'],
    ['no address behind NAT', { addresses: [], reach: behind(true), roles: ['middle' as const] }, 'no address'],
    ['no NAT relay', { reach: { kind: 'relayed' as const, via: [], punchable: true }, roles: ['middle' as const] }, '0 NAT relays'],
    [
      'five NAT relays',
      { reach: { kind: 'relayed' as const, via: ids.slice(0, 5), punchable: true }, roles: ['middle' as const] },
      '5 NAT relays',
    ],
    [
      'itself as its NAT relay',
      { reach: { kind: 'relayed' as const, via: [relay.id], punchable: true }, roles: ['middle' as const] },
      'names itself',
    ],
    ['a guard behind NAT', { reach: behind(true), roles: ['guard' as const, 'middle' as const] }, 'role guard'],
    ['a bootstrap node behind NAT', { reach: behind(true), roles: ['bootstrap' as const] }, 'role bootstrap'],
    ['a NAT relay behind NAT', { reach: behind(true), roles: ['middle' as const, 'relay' as const] }, 'role relay'],
    ['an exit that is not punchable', { reach: behind(false), roles: ['exit' as const], exitPolicy: { ipv4: [], ipv6: [] } }, 'role exit'],
    ['no role', { roles: [] }, 'no role'],
    ['an expiry before publication', { expiresAt: START }, 'expires'],
    ['strange software', { software: 'shallot\n' }, 'software'],
  ])('with %s is refused', (_, changes, problem) => {
    expect(() => testDescriptor(relay, quickRules, START, changes)).toThrow(problem)
  })
})

describe('an address', () => {
  test.each(['/ip4/192.0.2.1/tcp/1', '/ip6/2001:db8::1/tcp/65535/tls'])('%s is read and written', (text) => {
    expect(formatRelayAddress(parseRelayAddress(text))).toBe(text)
  })

  test.each([
    '/dns4/example.org/tcp/1',
    '/ip4/192.0.2.1/tcp/0',
    '/ip4/192.0.2.1/tcp/01',
    '/ip4/192.0.2.1/tcp/65536',
    '/ip4/192.0.2.1/udp/1',
    '/ip4/192.0.2.1/tcp/1/ws',
    '/ip4/192.0.2.1/tcp/1/tls/',
    '/ip4/::1/tcp/1',
    '/ip6/::ffff:192.0.2.1/tcp/1',
    '/ip6/2001:0db8::1/tcp/1',
    '',
  ])('%s is refused', (text) => {
    expect(() => parseRelayAddress(text)).toThrow(MalformedError)
  })

  test('of a bootstrap node ends in its identity', () => {
    expect(parseBootstrapAddress(`/ip4/192.0.2.1/tcp/4001/p2p/${relay.id}`)).toEqual({ id: relay.id, address: '/ip4/192.0.2.1/tcp/4001' })
    for (const text of ['/ip4/192.0.2.1/tcp/4001', '/ip4/192.0.2.1/tcp/4001/p2p/Qm', `/dns4/a.example/tcp/4001/p2p/${relay.id}`]) {
      expect(() => parseBootstrapAddress(text)).toThrow(MalformedError)
    }
  })
})
