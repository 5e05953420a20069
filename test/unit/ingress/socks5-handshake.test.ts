import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromHex, MalformedError, toHex } from '../../../src/base/index.ts'
import {
  decodeGreeting,
  decodeRequest,
  decodeSocks4Request,
  decodeUdp,
  decodeUserPassword,
  encodeReply,
  encodeSocks4Reply,
  encodeUdp,
  SocksHandshake,
  type SocksOutput,
  SocksReply,
} from '../../../src/ingress/index.ts'

const text = (value: string): string => toHex(Buffer.from(value, 'latin1'))
const name = (host: string): string => `03${host.length.toString(16).padStart(2, '0')}${text(host)}`

/** What a handshake answers to bytes, in short words. */
function run(hexes: readonly string[], check: ((given: { user: string; password: string }) => boolean) | null = null): string[] {
  const handshake = new SocksHandshake({ checkCredentials: check })
  return hexes.flatMap((hex) => handshake.handleBytes(fromHex(hex)).map(show))
}

function show(output: SocksOutput): string {
  switch (output.type) {
    case 'send':
      return `send ${toHex(output.bytes)}`
    case 'refuse':
      return `refuse ${toHex(output.bytes)}`
    case 'ask': {
      const { version, command, target, credentials } = output.ask
      const who = credentials ? ` as ${credentials.user}/${credentials.password}` : ''
      return `ask ${version} ${command} ${target.host} ${target.port}${who} rest ${toHex(output.rest)}`
    }
  }
}

describe('a SOCKS 5 handshake', () => {
  it.each([
    ['an IPv4 address', '05010001c0000201', '192.0.2.1'],
    ['an IPv6 address', '0501000420010db8000000000000000000000001', '2001:db8::1'],
    ['an IPv4-mapped address, as IPv4', '0501000400000000000000000000ffffc0000201', '192.0.2.1'],
    ['a name', `050100${name('Example.COM.')}`, 'example.com'],
    ['an address in the name field', `050100${name('192.0.2.1')}`, '192.0.2.1'],
    ['an IPv6 address in the name field', `050100${name('2001:DB8::1')}`, '2001:db8::1'],
    ['an IPv6 address in brackets in the name field', `050100${name('[2001:db8::1]')}`, '2001:db8::1'],
    ['an international name', `050100${name(Buffer.from('bücher.example').toString('latin1'))}`, 'xn--bcher-kva.example'],
  ])('takes %s', (_, request, host) => {
    expect(run(['050100', `${request}0050`])).toEqual(['send 0500', `ask 5 connect ${host} 80 rest `])
  })

  it('takes everything at once, and keeps what comes behind', () => {
    expect(run([`050100${'05010001c00002010050'}${text('GET /')}`])).toEqual([
      'send 0500',
      `ask 5 connect 192.0.2.1 80 rest ${text('GET /')}`,
    ])
  })

  it('takes bytes one by one', () => {
    const bytes = `050202000105${text('alice')}03${text('pwd')}050100${name('example.com')}01bb`
    const wanted = ['send 0502', 'send 0100', 'ask 5 connect example.com 443 as alice/pwd rest ']
    // Method 02 is preferred to 00: the credentials isolate.
    expect(run([bytes.replace('05020200', '05020002')])).toEqual(wanted)
    expect(run(bytes.replace('05020200', '05020002').match(/../g)!)).toEqual(wanted)
  })

  it('prefers no authentication only where no credentials are offered', () => {
    expect(run(['050100'])).toEqual(['send 0500'])
    expect(run(['05020002'])).toEqual(['send 0502'])
    expect(run(['050101'])).toEqual(['refuse 05ff'])
    expect(run(['0500'])).toEqual(['refuse 05ff'])
  })

  it('takes any bytes as credentials, empty ones too', () => {
    expect(run(['050102', '0100000501', '0001c00002010050'])).toContain('ask 5 connect 192.0.2.1 80 as / rest ')
    const outputs = run(['050102', `0102ff0001fe`, '05010001c00002010050'])
    expect(outputs.at(-1)).toBe('ask 5 connect 192.0.2.1 80 as \xff\x00/\xfe rest ')
  })

  it('where credentials are needed, lets in only who has them', () => {
    const check = ({ user, password }: { user: string; password: string }): boolean => user === 'u' && password === 'p'
    expect(run(['050100'], check)).toEqual(['refuse 05ff'])
    expect(run(['05020002', '01017501'], check)).toEqual(['send 0502'])
    expect(run(['05020002', '0101750170', '05010001c00002010050'], check)).toEqual([
      'send 0502',
      'send 0100',
      'ask 5 connect 192.0.2.1 80 as u/p rest ',
    ])
    expect(run(['05020002', '0101750178', '05010001c00002010050'], check)).toEqual(['send 0502', 'refuse 0101'])
    expect(run(['04010050c000020100'], check)).toEqual(['refuse 005b000000000000'])
  })

  it.each([
    ['UDP ASSOCIATE', '05030001000000000000', 'ask 5 associate 0.0.0.0 0 rest '],
    ['RESOLVE', `05f000${name('example.com')}0000`, 'ask 5 resolve example.com 0 rest '],
    ['RESOLVE_PTR', '05f10001c00002010000', 'ask 5 resolve-pointer 192.0.2.1 0 rest '],
  ])('takes %s', (_, request, wanted) => {
    expect(run(['050100', request]).at(-1)).toBe(wanted)
  })

  it.each([
    ['BIND', '05020001c00002010050', '07'],
    ['an unknown command', '05090001c00002010050', '07'],
    ['an unknown address type', '05010002c00002010050', '08'],
    ['RESOLVE_PTR of a name', `05f100${name('example.com')}0000`, '08'],
    ['port 0', '05010001c00002010000', '01'],
    ['an empty name', `050100${name('')}0050`, '01'],
    ['a name with a space', `050100${name('a b.example')}0050`, '01'],
    ['a name with a zero byte', `050100${name('a\0b.example')}0050`, '01'],
    ['a name with a slash', `050100${name('a/b')}0050`, '01'],
    ['a name of only dots', `050100${name('...')}0050`, '01'],
    ['a label of 64 characters', `050100${name(`${'a'.repeat(64)}.example`)}0050`, '01'],
    ['a name of 254 characters', `050100${name('a.'.repeat(127).slice(0, 253) + 'b'.repeat(2))}0050`, '01'],
    ['a name that is not UTF-8', `050100${name('\xff\xfe')}0050`, '01'],
    ['an address in an old notation', `050100${name('127.1')}0050`, '01'],
    ['an address as a number', `050100${name('2130706433')}0050`, '01'],
    ['an address in hexadecimal', `050100${name('0x7f000001')}0050`, '01'],
    ['another version in the request', '04010001c00002010050', '01'],
  ])('refuses %s with its code', (_, request, code) => {
    expect(run(['050100', request]).at(-1)).toBe(`refuse 05${code}0001000000000000`)
  })

  it('says in HTTP what it is to who speaks HTTP, and nothing to other noise', () => {
    const outputs = new SocksHandshake({ checkCredentials: null }).handleBytes(Buffer.from('GET http://example.com/ HTTP/1.1\r\n'))
    expect(outputs).toHaveLength(1)
    expect(outputs[0]).toMatchObject({ type: 'refuse', why: 'HTTP on a SOCKS port' })
    const said = Buffer.from((outputs[0] as { bytes: Uint8Array }).bytes).toString()
    expect(said).toMatch(/^HTTP\/1\.1 400 /)
    expect(said).toMatch(/This is a SOCKS5 port/)
    expect(run(['160301'])).toEqual(['refuse '])
    expect(run(['00'])).toEqual(['refuse '])
    expect(run(['050102', '05'])).toEqual(['send 0502'])
    expect(run(['050102', '0501'])).toEqual(['send 0502'])
    expect(run(['050102', '050061'])).toEqual(['send 0502'])
    expect(run(['050102', '05000061'])).toEqual(['send 0502', 'refuse '])
  })

  it('says nothing more once it is over', () => {
    expect(run(['00', '050100', '05010001c00002010050'])).toEqual(['refuse '])
  })

  it('does not change the bytes it was given, nor keep them', () => {
    const bytes = fromHex(`050100${'05010001c00002010050'}${text('later')}`)
    const before = toHex(bytes)
    const outputs = new SocksHandshake({ checkCredentials: null }).handleBytes(bytes)
    expect(toHex(bytes)).toBe(before)
    bytes.fill(0)
    expect(show(outputs.at(-1)!)).toContain(text('later'))
  })

  it('ends alike however the bytes are cut', () => {
    const whole = `05020002${'0105'}${text('alice')}03${text('pwd')}050100${name('example.com')}01bb${text('early')}`
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: whole.length / 2 - 1 }), { maxLength: 6 }), (cuts) => {
        const places = [0, ...[...new Set(cuts)].sort((a, b) => a - b), whole.length / 2]
        const parts = places.slice(1).map((end, i) => whole.slice(places[i]! * 2, end * 2))
        const outputs = run(parts)
        expect(outputs.slice(0, 2)).toEqual(['send 0502', 'send 0100'])
        expect(outputs.at(-1)).toMatch(/^ask 5 connect example\.com 443 as alice\/pwd rest /)
      }),
    )
  })

  it('takes any noise without a throw, and never asks for more than a message holds', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 700 }), { maxLength: 5 }),
        fc.constantFrom('', '05', '0501', '050100', '0502000101', '04'),
        (parts, start) => {
          const handshake = new SocksHandshake({ checkCredentials: null })
          for (const part of [fromHex(start), ...parts])
            for (const output of handshake.handleBytes(part)) expect(output.type).toMatch(/^(send|ask|refuse)$/)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('a SOCKS 4 handshake', () => {
  it.each([
    ['CONNECT', `04010050c0000201${text('bob')}00`, 'ask 4 connect 192.0.2.1 80 as bob/ rest '],
    ['CONNECT without a user', '04010050c000020100', 'ask 4 connect 192.0.2.1 80 rest '],
    ['4a with a name', `0401005000000001${text('bob')}00${text('example.com')}00ff`, 'ask 4 connect example.com 80 as bob/ rest ff'],
    ['4a RESOLVE', `04f000000000000100${text('example.com')}00`, 'ask 4 resolve example.com 0 rest '],
  ])('takes %s', (_, request, wanted) => {
    expect(run([request])).toEqual([wanted])
    expect(run(request.match(/../g)!).at(-1)).toBe(wanted.replace('rest ff', 'rest '))
  })

  it('refuses BIND, endless texts and bad names', () => {
    const refusal = 'refuse 005b000000000000'
    expect(run(['04020050c000020100'])).toEqual([refusal])
    expect(run([`04010050c0000201${'61'.repeat(256)}`])).toEqual([refusal])
    expect(run([`0401005000000001${'00'}${'61'.repeat(256)}`])).toEqual([refusal])
    expect(run([`040100500000000100${text('no name')}00`])).toEqual([refusal])
    expect(run(['04010000c000020100'])).toEqual([refusal])
  })
})

describe('encoders', () => {
  it('write replies with each kind of address', () => {
    expect(toHex(encodeReply(SocksReply.succeeded))).toBe('05000001000000000000')
    expect(toHex(encodeReply(SocksReply.succeeded, { host: '192.0.2.1', port: 80 }))).toBe('05000001c00002010050')
    expect(toHex(encodeReply(SocksReply.succeeded, { host: '2001:db8::1', port: 80 }))).toBe('0500000420010db80000000000000000000000010050')
    expect(toHex(encodeReply(SocksReply.succeeded, { host: 'a.example', port: 0 }))).toBe(`0500${'00'}${name('a.example')}0000`)
    expect(toHex(encodeSocks4Reply(true, { host: '192.0.2.1', port: 80 }))).toBe('005a0050c0000201')
    expect(toHex(encodeSocks4Reply(false))).toBe('005b000000000000')
  })

  it('write datagrams that the decoder reads back', () => {
    const host = fc.oneof(fc.ipV4(), fc.constantFrom('2001:db8::1', 'example.com'))
    fc.assert(
      fc.property(host, fc.integer({ min: 0, max: 65_535 }), fc.uint8Array({ maxLength: 64 }), (from, port, bytes) => {
        const decoded = decodeUdp(encodeUdp({ host: from, port }, bytes))
        expect(decoded.to).toEqual({ host: from, port })
        expect(toHex(decoded.bytes)).toBe(toHex(bytes))
      }),
    )
  })

  it('drop fragments and cut datagrams', () => {
    expect(() => decodeUdp(fromHex('00000101c000020100350a'))).toThrow(MalformedError)
    expect(() => decodeUdp(fromHex('0000000ac000020100350a'))).toThrow(MalformedError)
    expect(() => decodeUdp(fromHex('00000001c0000201'))).toThrow(MalformedError)
    expect(() => decodeUdp(new Uint8Array(0))).toThrow(MalformedError)
    // What stands in RSV is not looked at.
    expect(decodeUdp(fromHex('ffff0001c000020100350a')).to).toEqual({ host: '192.0.2.1', port: 53 })
  })
})

describe('decoders', () => {
  it('take noise with nothing but MalformedError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        for (const decode of [decodeGreeting, decodeUserPassword, decodeRequest, decodeSocks4Request, decodeUdp]) {
          try {
            decode(bytes)
          } catch (error) {
            expect(error).toBeInstanceOf(MalformedError)
          }
        }
      }),
      { numRuns: 2000 },
    )
  })
})
