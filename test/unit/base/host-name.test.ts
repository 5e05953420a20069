import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatHostPort, MalformedError, parseHost, parseHostPort } from '../../../src/base/index.ts'

describe('a host', () => {
  it.each([
    ['example.com', 'name', 'example.com'],
    ['Example.COM.', 'name', 'example.com'],
    ['localhost', 'name', 'localhost'],
    ['_dmarc.example.com', 'name', '_dmarc.example.com'],
    ['xn--bcher-kva.example', 'name', 'xn--bcher-kva.example'],
    ['bücher.example', 'name', 'xn--bcher-kva.example'],
    ['1.2.3.com', 'name', '1.2.3.com'],
    [`${'a'.repeat(63)}.example`, 'name', `${'a'.repeat(63)}.example`],
    [`${'a.'.repeat(125)}com`, 'name', `${'a.'.repeat(125)}com`],
    ['192.0.2.1', 'ip', '192.0.2.1'],
    ['2001:DB8:0::1', 'ip', '2001:db8::1'],
    ['[2001:db8::1]', 'ip', '2001:db8::1'],
    ['::ffff:192.0.2.1', 'ip', '192.0.2.1'],
  ])('%s is a %s: %s', (given, type, text) => {
    expect(parseHost(given)).toMatchObject({ type, text })
  })

  it.each([
    '',
    '.',
    '..',
    'a..b',
    '.example.com',
    'example.com..',
    '-a.example',
    'a-.example',
    'a b.example',
    'a/b',
    'a\0b',
    'a\r\nb',
    'a:80',
    'a@b',
    'a%41',
    '*.example',
    '[192.0.2.1]',
    '[example.com]',
    'fe80::1%eth0',
    '127.1',
    '0127.0.0.1',
    '2130706433',
    '0x7f000001',
    '1.2.3.0x4',
    '1.2.3.4.5',
    '256.1.1.1',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(126)}com`,
    'ü'.repeat(3000),
    '\ud800.example',
  ])('is not %j', (given) => {
    expect(() => parseHost(given)).toThrow(MalformedError)
  })

  it('is canonical: what it gives is what it takes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.string()), (given) => {
        let text: string
        try {
          text = parseHost(given).text
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedError)
          return
        }
        expect(parseHost(text).text).toBe(text)
        expect(text.length).toBeLessThanOrEqual(253)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('a host and port', () => {
  it('are read and written', () => {
    expect(parseHostPort('example.com:80')).toMatchObject({ host: { text: 'example.com' }, port: 80 })
    expect(parseHostPort('[::1]:80')).toMatchObject({ host: { text: '::1' }, port: 80 })
    expect(parseHostPort('example.com', 443).port).toBe(443)
    expect(formatHostPort('::1', 80)).toBe('[::1]:80')
    expect(formatHostPort('a.example', 80)).toBe('a.example:80')
  })
  it.each(['example.com', 'example.com:', '::1:80', '[::1]', 'a:65536', 'a:-1', 'a:1:2', '', ':80'])('are not %j', (given) => {
    expect(() => parseHostPort(given)).toThrow(MalformedError)
  })
})
