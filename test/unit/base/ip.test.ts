import { describe, expect, test } from 'vitest'
import {
  formatIp,
  formatNetwork,
  ipFromBytes,
  MalformedError,
  networkContains,
  networkKey,
  parseIp,
  parseNetwork,
} from '../../../src/base/index.ts'

describe('IP addresses', () => {
  // RFC 5952 §4 and its examples
  test.each([
    ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['fe80::A', 'fe80::a'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
  ])('%s is written %s', (text, canonical) => {
    expect(formatIp(parseIp(text))).toBe(canonical)
    expect(formatIp(ipFromBytes(parseIp(text).bytes))).toBe(canonical)
  })

  test.each(['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '1:2', ':::', 'fe80::1%eth0', 'host', '[::1]', '01.2.3.4'])(
    '"%s" is refused',
    (text) => {
      expect(() => parseIp(text)).toThrow(MalformedError)
    },
  )

  test('bytes that are not 4 or 16 are refused', () => {
    expect(() => ipFromBytes(new Uint8Array(5))).toThrow(MalformedError)
  })
})

describe('networks', () => {
  test.each([
    ['10.0.0.0/8', '10.255.1.2', true],
    ['10.0.0.0/8', '11.0.0.0', false],
    ['192.0.2.128/25', '192.0.2.127', false],
    ['192.0.2.128/25', '192.0.2.255', true],
    ['0.0.0.0/0', '203.0.113.9', true],
    ['0.0.0.0/0', '::1', false],
    ['::/0', '2001:db8::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
    ['2001:db8::1', '2001:db8::1', true],
  ])('%s and %s: %s', (network, address, inside) => {
    expect(networkContains(parseNetwork(network), parseIp(address))).toBe(inside)
  })

  test('a key clears the host bits', () => {
    expect(networkKey(parseIp('192.0.2.200'), 24)).toBe('192.0.2.0/24')
    expect(networkKey(parseIp('2001:db8:ffff:1::1'), 48)).toBe('2001:db8:ffff::/48')
    expect(formatNetwork(parseNetwork('1.2.3.4'))).toBe('1.2.3.4/32')
  })

  test.each(['1.2.3.4/33', '1.2.3.4/', '1.2.3.4/a', '::/129', '1.2.3.4/8/8', '/8'])('"%s" is refused', (text) => {
    expect(() => parseNetwork(text)).toThrow(MalformedError)
  })
})
