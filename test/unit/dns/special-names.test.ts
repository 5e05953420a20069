import { describe, expect, it } from 'vitest'
import { formatIp, formatNetwork, parseIp } from '../../../src/base/index.ts'
import {
  decodeMessage,
  encodeName,
  encodeQuestion,
  encodeSpecial,
  isInternalAddress,
  isUnder,
  recordAddress,
  recordName,
  reverseNetwork,
  soaMinimum,
  specialAnswer,
} from '../../../src/dns/index.ts'

const nibbles = (text: string): string => [...Buffer.from(parseIp(text).bytes).toString('hex')].reverse().join('.')

describe('special-use names', () => {
  it.each(['x.local', 'a.b.onion', 'x.invalid', 'x.alt', 'x.home.arpa', 'x.internal'])('%s does not exist', (name) => {
    expect(specialAnswer(name, 1)).toMatchObject({ type: 'nothing' })
  })

  it.each(['local', 'home.arpa', 'resolver.arpa', '_dns.resolver.arpa'])('%s exists and has nothing', (name) => {
    expect(specialAnswer(name, 1)).toMatchObject({ type: 'empty' })
  })

  it.each(['example.com', 'locals', 'mylocal', 'local.example', 'onion.example', 'test', 'x.example', 'arpa', '.', 'notlocalhost'])(
    '%s is not special',
    (name) => {
      expect(specialAnswer(name, 1)).toBeNull()
    },
  )

  it('localhost and all below it is this machine', () => {
    for (const name of ['localhost', 'a.localhost']) {
      const addresses = [1, 28]
        .map((type) => specialAnswer(name, type))
        .map((found) => (found?.type === 'address' ? found.addresses.map(formatIp) : found))
      expect(addresses).toEqual([['127.0.0.1'], ['::1']])
      expect(specialAnswer(name, 15)).toMatchObject({ type: 'empty' })
    }
  })

  it.each([
    '1.0.0.10.in-addr.arpa',
    '9.9.16.172.in-addr.arpa',
    '1.1.168.192.in-addr.arpa',
    '4.3.2.127.in-addr.arpa',
    `${nibbles('fd00::1')}.ip6.arpa`,
    `${nibbles('fe80::9')}.ip6.arpa`,
  ])('nobody is asked for the name of %s', (name) => {
    expect(specialAnswer(name, 12)).toMatchObject({ type: 'nothing' })
  })

  it.each(['10.in-addr.arpa', '168.192.in-addr.arpa', 'c.f.ip6.arpa', '8.e.f.ip6.arpa'])('nor for what lies between: %s', (name) => {
    expect(specialAnswer(name, 2)).toMatchObject({ type: 'empty' })
  })

  it.each([
    '1.1.1.1.in-addr.arpa',
    '172.in-addr.arpa',
    '192.in-addr.arpa',
    'in-addr.arpa',
    'f.ip6.arpa',
    'e.f.ip6.arpa',
    `${nibbles('2001:db8::1')}.ip6.arpa`,
  ])('but for %s', (name) => {
    expect(specialAnswer(name, 12)).toBeNull()
  })

  it('loopback has a name', () => {
    for (const name of ['1.0.0.127.in-addr.arpa', `${nibbles('::1')}.ip6.arpa`]) {
      expect(specialAnswer(name, 12)).toEqual({ type: 'pointer', name: 'localhost' })
      expect(specialAnswer(name, 1)).toMatchObject({ type: 'empty' })
    }
  })

  it('are answered with what lets others remember that there is nothing', () => {
    const asked = decodeMessage(encodeQuestion({ id: 1, question: { wire: encodeName('x.local'), type: 1, class: 1 }, edns: null }))
    const nothing = decodeMessage(encodeSpecial(asked, specialAnswer('x.local', 1)!))
    expect(nothing).toMatchObject({ rcode: 3, counts: [0, 1, 0] })
    expect(recordName(nothing, nothing.records[0]!)).toBe('local')
    expect(soaMinimum(nothing, nothing.records[0]!)).toBe(3600)
    const loop = decodeMessage(encodeSpecial(asked, specialAnswer('localhost', 28)!))
    expect(formatIp(recordAddress(loop, loop.records[0]!)!)).toBe('::1')
  })
})

describe('reverse names', () => {
  it.each([
    ['4.3.2.1.in-addr.arpa', '1.2.3.4/32'],
    ['2.1.in-addr.arpa', '1.2.0.0/16'],
    ['in-addr.arpa', '0.0.0.0/0'],
    [`${nibbles('2001:db8::12')}.ip6.arpa`, '2001:db8::12/128'],
    ['8.b.d.0.1.0.0.2.ip6.arpa', '2001:db8::/32'],
  ])('%s is %s', (name, network) => {
    expect(formatNetwork(reverseNetwork(name)!)).toBe(network)
  })

  it('a mapped address is the IPv4 one', () => {
    const mapped = `${[...'00000000000000000000ffff0a000001'].reverse().join('.')}.ip6.arpa`
    expect(formatNetwork(reverseNetwork(mapped)!)).toBe('10.0.0.1/32')
    expect(specialAnswer(mapped, 12)).toMatchObject({ type: 'nothing' })
  })

  it.each([
    '256.in-addr.arpa',
    '01.in-addr.arpa',
    '5.4.3.2.1.in-addr.arpa',
    'x.in-addr.arpa',
    'g.ip6.arpa',
    '10.ip6.arpa',
    'example',
    'arpa',
  ])('%s is none', (name) => {
    expect(reverseNetwork(name)).toBeNull()
  })
})

it('internal addresses are those of networks of one’s own', () => {
  const internal = [
    '10.0.0.1',
    '127.0.0.1',
    '192.168.1.1',
    '172.31.0.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '::',
    '::1',
    'fd00::1',
    'fe80::1',
  ]
  expect(internal.map(parseIp).filter((ip) => !isInternalAddress(ip))).toEqual([])
  expect(['1.1.1.1', '192.0.2.1', '172.32.0.1', '2001:db8::1'].map(parseIp).filter(isInternalAddress)).toEqual([])
})

it('a domain holds itself and what ends with it behind a dot', () => {
  expect([isUnder('a.b', 'b'), isUnder('b', 'b'), isUnder('ab', 'b'), isUnder('b.a', 'b')]).toEqual([true, true, false, false])
})
