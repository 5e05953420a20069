import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MalformedError } from '../../../src/base/index.ts'
import { StreamError } from '../../../src/client/index.ts'
import {
  parseAbsoluteForm,
  parseAuthorityForm,
  parseBasic,
  problemOf,
  problemPage,
  rawProblem,
  requestFraming,
  withoutHopByHop,
} from '../../../src/ingress/http-codec.ts'

describe('an absolute-form target', () => {
  it.each([
    ['http://example.com/a?b=c', 'GET', 'example.com', 80, 'example.com', '/a?b=c'],
    ['HTTP://Example.COM', 'GET', 'example.com', 80, 'example.com', '/'],
    ['http://example.com?q', 'GET', 'example.com', 80, 'example.com', '/?q'],
    ['http://example.com:8080/x#frag', 'GET', 'example.com', 8080, 'example.com:8080', '/x'],
    ['http://example.com:80/', 'GET', 'example.com', 80, 'example.com', '/'],
    ['http://user:pass@example.com/', 'GET', 'example.com', 80, 'example.com', '/'],
    ['http://evil.example@example.com/', 'GET', 'example.com', 80, 'example.com', '/'],
    ['http://[2001:DB8::1]:81/', 'GET', '2001:db8::1', 81, '[2001:db8::1]:81', '/'],
    ['http://[2001:db8::1]/', 'GET', '2001:db8::1', 80, '[2001:db8::1]', '/'],
    ['http://example.com', 'OPTIONS', 'example.com', 80, 'example.com', '*'],
    ['http://example.com/../%2e%2e/a//b', 'GET', 'example.com', 80, 'example.com', '/../%2e%2e/a//b'],
  ])('%s (%s)', (url, method, host, port, authority, path) => {
    expect(parseAbsoluteForm(url, method)).toEqual({ target: { host, port }, authority, path })
  })

  it.each([
    'https://example.com/',
    'ftp://example.com/',
    'http://',
    'http:///x',
    'example.com',
    'http://exa mple.com/',
    'http://example.com:0/',
    'http://example.com:99999/',
    'http://a:b:c/',
    'http://[::1/',
    'http://127.1/',
    '',
  ])('refuses "%s"', (url) => {
    expect(() => parseAbsoluteForm(url, 'GET')).toThrow(MalformedError)
  })
})

describe('an authority-form target', () => {
  it('has a host and a port', () => {
    expect(parseAuthorityForm('Example.com:443')).toEqual({ host: 'example.com', port: 443 })
    expect(parseAuthorityForm('[::1]:443')).toEqual({ host: '::1', port: 443 })
  })
  it.each(['example.com', 'example.com:', ':443', 'example.com:0', 'http://example.com:443', '::1:443', 'a@b:443', 'example.com:443/x'])(
    'refuses "%s"',
    (text) => {
      expect(() => parseAuthorityForm(text)).toThrow(MalformedError)
    },
  )
})

describe('header fields', () => {
  it('lose what is for this hop, and what Connection names', () => {
    const raw = [
      'Host',
      'a',
      'Connection',
      'close, X-Drop',
      'x-drop',
      '1',
      'Keep-Alive',
      '1',
      'TE',
      'trailers',
      'X-Keep',
      'ü',
      'Proxy-Authorization',
      'Basic x',
      'Proxy-Connection',
      'keep-alive',
      'Upgrade',
      'h2c',
      'Transfer-Encoding',
      'chunked',
      'Set-Cookie',
      'a',
      'Set-Cookie',
      'b',
    ]
    expect(withoutHopByHop(raw, ['host'])).toEqual(['X-Keep', 'ü', 'Set-Cookie', 'a', 'Set-Cookie', 'b'])
  })

  it('tell one framing or none', () => {
    expect(requestFraming(['Host', 'a'])).toEqual({ type: 'none' })
    expect(requestFraming(['content-LENGTH', '5'])).toEqual({ type: 'length', length: 5 })
    expect(requestFraming(['Transfer-Encoding', ' Chunked '])).toEqual({ type: 'chunked' })
    expect(requestFraming(['Transfer-Encoding', 'gzip, chunked'])).toEqual({ type: 'unsupported' })
    expect(requestFraming(['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked']).type).toBe('unsupported')
    for (const raw of [
      ['Content-Length', '5', 'Transfer-Encoding', 'chunked'],
      ['Content-Length', '5', 'Content-Length', '5'],
      ['Content-Length', '5, 5'],
      ['Content-Length', '+5'],
      ['Content-Length', '0x5'],
      ['Content-Length', ''],
      ['Content-Length', '9'.repeat(20)],
    ]) {
      expect(requestFraming(raw).type, raw.join()).toBe('unsound')
    }
  })

  it('hold credentials, any bytes of them', () => {
    const basic = (text: string): string => `Basic ${Buffer.from(text, 'latin1').toString('base64')}`
    expect(parseBasic(basic('user:pass:word'))).toEqual({ user: 'user', password: 'pass:word' })
    expect(parseBasic(basic(':'))).toEqual({ user: '', password: '' })
    expect(parseBasic(`bAsIc   ${basic('a:\xff').slice(6)}`)).toEqual({ user: 'a', password: '\xff' })
    for (const bad of [undefined, '', 'Basic', 'Basic !!', basic('no colon'), 'Bearer abc']) expect(parseBasic(bad)).toBeNull()
  })
})

describe('answers of the proxy itself', () => {
  const target = { host: 'site.example', port: 80 }

  it('say what failed, in a status, in RFC 9209 and in words', () => {
    expect(problemOf(new StreamError('policy'), target)).toMatchObject({ status: 403, error: 'destination_ip_prohibited' })
    expect(problemOf(new StreamError('timeout'), target)).toMatchObject({ status: 504, error: 'connection_timeout' })
    expect(problemOf(new StreamError('resolve-failed'), target)).toMatchObject({ status: 502, error: 'dns_error' })
    expect(problemOf(new StreamError('no-circuit'), target).status).toBe(503)
    expect(problemOf(new Error('what'), target)).toMatchObject({ status: 502, error: 'connection_terminated' })
    expect(problemOf(Object.assign(new Error(), { code: 'HPE_INVALID_CONSTANT' }), target).error).toBe('http_protocol_error')
  })

  it('escape what they show', () => {
    const page = problemPage({ status: 502, error: 'dns_error', title: '<b>', detail: '"&\'' }, true)
    expect(page.body).toContain('&#60;b&#62;')
    expect(page.body).toContain('&#34;&#38;&#39;')
    expect(page.headers).toContain('shallot; error=dns_error')
  })

  it('are whole messages with a right length', () => {
    const raw = rawProblem({ status: 407, error: null, title: 'Müde', detail: 'x' }).toString()
    const [head, body] = raw.split('\r\n\r\n') as [string, string]
    expect(head).toMatch(/^HTTP\/1\.1 407 Proxy Authentication Required\r\n/)
    expect(head).toContain('Proxy-Authenticate: Basic realm="Shallot"')
    expect(head).toContain(`Content-Length: ${Buffer.byteLength(body)}\r\n`)
  })
})

describe('parsers', () => {
  it('take noise with nothing but MalformedError', () => {
    const piece = fc.constantFrom(
      'http://',
      'a.example',
      ':',
      '80',
      '@',
      '[',
      ']',
      '::1',
      '/',
      '?',
      '#',
      ' ',
      '%',
      '\0',
      'ü',
      'https',
      '//',
    )
    const noise = fc.oneof(
      fc.string(),
      fc.array(piece).map((parts) => parts.join('')),
    )
    fc.assert(
      fc.property(noise, (text) => {
        for (const parse of [
          () => parseAbsoluteForm(text, 'GET'),
          () => parseAuthorityForm(text),
          () => parseBasic(text),
          () => requestFraming(['Content-Length', text]),
        ]) {
          try {
            parse()
          } catch (error) {
            expect(error).toBeInstanceOf(MalformedError)
          }
        }
      }),
      { numRuns: 2000 },
    )
  })
})
