import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatIp, MalformedError, parseIp } from '../../../src/base/index.ts'
import { allowsPort } from '../../../src/directory/index.ts'
import { ExitPolicy, embeddedIpv4, exitConfig, type PolicyFacts, parsePolicy } from '../../../src/egress/index.ts'

const defaults = exitConfig.parse({}).policy

function policy(lines: readonly string[] = defaults, facts: Partial<PolicyFacts> = {}): ExitPolicy {
  return new ExitPolicy({
    lines,
    privateDestinations: [],
    families: [4, 6],
    isOwnAddress: () => false,
    isRelayAddress: () => false,
    ...facts,
  })
}

const allowed = (of: ExitPolicy, address: string, port = 443): boolean => of.check(parseIp(address), port).allowed

describe('the default policy', () => {
  it.each([
    '1.1.1.1',
    '8.8.8.8',
    '172.15.255.255',
    '172.32.0.1',
    '100.63.0.1',
    '100.128.0.1',
    '11.0.0.1',
    '2606:4700::1111',
    '2a00:1450::1',
  ])('lets %s through', (address) => {
    expect(allowed(policy(), address)).toBe(true)
  })

  it.each([
    ['this network', '0.0.0.0'],
    ['this network', '0.1.2.3'],
    ['private', '10.1.2.3'],
    ['private', '172.16.0.1'],
    ['private', '172.31.255.255'],
    ['private', '192.168.1.1'],
    ['carrier-grade NAT', '100.64.0.1'],
    ["Alibaba's metadata", '100.100.100.200'],
    ['loopback', '127.0.0.1'],
    ['loopback', '127.255.0.1'],
    ['metadata', '169.254.169.254'],
    ["Amazon's container metadata", '169.254.170.2'],
    ["Azure's platform service", '168.63.129.16'],
    ["Oracle's metadata", '192.0.0.192'],
    ['documentation', '192.0.2.1'],
    ['documentation', '198.51.100.1'],
    ['documentation', '203.0.113.1'],
    ['benchmarks', '198.18.0.1'],
    ['multicast', '224.0.0.1'],
    ['multicast', '239.255.255.250'],
    ['reserved', '240.0.0.1'],
    ['broadcast', '255.255.255.255'],
    ['unspecified', '::'],
    ['loopback', '::1'],
    ['IPv4-compatible', '::7f00:1'],
    ['IPv4-mapped', '::ffff:127.0.0.1'],
    ['IPv4-mapped', '::ffff:10.0.0.1'],
    ['link-local', 'fe80::1'],
    ['site-local', 'fec0::1'],
    ['unique local', 'fc00::1'],
    ["Amazon's metadata", 'fd00:ec2::254'],
    ['multicast', 'ff02::1'],
    ['documentation', '2001:db8::1'],
    ['documentation', '3fff::1'],
    ['discard', '100::1'],
    ['segment routing', '5f00::1'],
    ['Teredo', '2001:0:53aa:64c:0:0:f5ff:fffe'],
    ['6to4 of 10.0.0.1', '2002:a00:1::1'],
    ['6to4 of 127.0.0.1', '2002:7f00:1::'],
    ['6to4 of 169.254.169.254', '2002:a9fe:a9fe::1'],
    ['NAT64 of 10.0.0.1', '64:ff9b::10.0.0.1'],
    ['NAT64 of 169.254.169.254', '64:ff9b::169.254.169.254'],
    ['local NAT64', '64:ff9b:1::1.1.1.1'],
    ['ISATAP of 192.168.0.1', '2606:4700::5efe:c0a8:1'],
    ['ISATAP of 10.0.0.1, universal', '2606:4700::200:5efe:a00:1'],
  ])('refuses %s (%s)', (_, address) => {
    expect(allowed(policy(), address)).toBe(false)
  })

  it('lets wrapped public addresses through, but only where the wrapped one may go', () => {
    expect(allowed(policy(), '64:ff9b::1.1.1.1')).toBe(true)
    expect(allowed(policy(), '2002:101:101::1')).toBe(true)
    const without = policy(['reject 1.1.1.1:*', 'accept *:*'])
    expect(allowed(without, '64:ff9b::1.1.1.1')).toBe(false)
    expect(allowed(without, '2002:101:101::1')).toBe(false)
  })

  it('refuses the mail port, and says by which line', () => {
    expect(policy().check(parseIp('1.1.1.1'), 25)).toEqual({ allowed: false, rule: 'reject *:25' })
    expect(policy().checkPort(25).allowed).toBe(false)
    expect(policy().checkPort(443).allowed).toBe(true)
  })

  it('can not be talked into private addresses by its lines', () => {
    const open = policy(['accept 10.0.0.0/8:*', 'accept [fd00::]/8:*', 'accept *:*'])
    expect(allowed(open, '10.0.0.1')).toBe(false)
    expect(allowed(open, 'fd00::1')).toBe(false)
  })
})

describe('what the network and the node add', () => {
  it('reaches private destinations that the network allows, and no others', () => {
    const testnet = policy(defaults, { privateDestinations: ['127.0.0.0/8', '::1/128'] })
    expect(allowed(testnet, '127.0.0.1')).toBe(true)
    expect(allowed(testnet, '::1')).toBe(true)
    expect(allowed(testnet, '::ffff:127.0.0.1')).toBe(true)
    expect(allowed(testnet, '10.0.0.1')).toBe(false)
    expect(allowed(testnet, '127.0.0.1', 25)).toBe(false)
  })

  it("refuses the exit's own and relays' addresses, even where private destinations are allowed, and when wrapped", () => {
    const own = (address: string) => (ip: { bytes: Uint8Array }) => formatIp(ip as never) === address
    const one = policy(defaults, { privateDestinations: ['127.0.0.0/8'], isOwnAddress: own('127.3.0.1'), isRelayAddress: own('9.9.9.9') })
    expect(one.check(parseIp('127.3.0.1'), 80)).toEqual({ allowed: false, rule: "the exit's own address" })
    expect(one.check(parseIp('9.9.9.9'), 80)).toEqual({ allowed: false, rule: "a relay's address" })
    expect(one.check(parseIp('64:ff9b::9.9.9.9'), 80)).toEqual({ allowed: false, rule: "a relay's address" })
    expect(one.checkAddress(parseIp('9.9.9.9')).allowed).toBe(false)
  })

  it('serves only its families', () => {
    const four = policy(defaults, { families: [4] })
    expect(allowed(four, '2606:4700::1111')).toBe(false)
    expect(four.summary().ipv6).toEqual([])
    expect(policy(['accept6 *:443'], { families: [4] }).checkPort(443).allowed).toBe(false)
  })
})

describe('policy lines', () => {
  it('decide in order, and what none fits is refused', () => {
    const one = policy(['reject 8.8.8.0/24:*', 'accept 8.0.0.0/8:53,80-90', 'reject *:80', 'accept *:80-81', 'accept6 *:443'])
    expect(allowed(one, '8.8.8.8', 53)).toBe(false)
    expect(allowed(one, '8.8.4.4', 53)).toBe(true)
    expect(allowed(one, '8.8.4.4', 85)).toBe(true)
    expect(allowed(one, '1.1.1.1', 80)).toBe(false)
    expect(allowed(one, '1.1.1.1', 81)).toBe(true)
    expect(allowed(one, '1.1.1.1', 443)).toBe(false)
    expect(allowed(one, '2606:4700::1', 443)).toBe(true)
    expect(one.check(parseIp('1.1.1.1'), 9)).toEqual({ allowed: false, rule: 'no line accepts it' })
  })

  it('are read in every form', () => {
    const rules = parsePolicy([
      '  ACCEPT   *:443 # web',
      '',
      '# nothing',
      'reject [2001:db8::]/32:80-90',
      'reject [2001:db8::/32]:1',
      'accept4 *:22',
      'accept 1.2.3.4:5,7-8',
    ])
    expect(rules.map((rule) => [rule.accept, rule.network?.bits ?? null, rule.families, rule.ports])).toEqual([
      [true, null, [4, 6], [{ from: 443, to: 443 }]],
      [false, 32, [6], [{ from: 80, to: 90 }]],
      [false, 32, [6], [{ from: 1, to: 1 }]],
      [true, null, [4], [{ from: 22, to: 22 }]],
      [
        true,
        32,
        [4],
        [
          { from: 5, to: 5 },
          { from: 7, to: 8 },
        ],
      ],
    ])
  })

  it.each([
    'accept',
    'accept *',
    'accept *:',
    'allow *:80',
    'accept *:0',
    'accept *:65536',
    'accept *:90-80',
    'accept 10.0.0.0/33:80',
    'accept 10.0.0:80',
    'accept 2001:db8::/32:80',
    'accept [1.2.3.4]:80',
    'accept [2001:db8::/32]/32:80',
    'accept [::ffff:1.2.3.4]:80',
    'accept4 [2001:db8::]/32:80',
    'accept6 1.2.3.4:80',
    'accept example.com:80',
    'accept *:http',
  ])('refuse "%s" and name the line', (line) => {
    expect(() => parsePolicy(['accept *:443', line])).toThrow(MalformedError)
    expect(() => parsePolicy(['accept *:443', line])).toThrow(/^exit policy line 2: /)
  })

  it('are checked with the configuration', () => {
    const result = exitConfig.safeParse({ policy: ['accept *:80', 'nonsense'] })
    expect(result.error?.issues[0]?.message).toMatch(/^exit policy line 2: /)
  })

  it('never throw anything but MalformedError', () => {
    const piece = fc.constantFrom('accept', 'reject6', ' ', '*', ':', '[', ']', '/', '2001:db8::', '10.0.0.0', '80', '-', ',', '#', '99999')
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(piece).map((parts) => parts.join('')),
        ),
        (line) => {
          try {
            parsePolicy([line])
          } catch (error) {
            expect(error).toBeInstanceOf(MalformedError)
          }
        },
      ),
    )
  })
})

describe('the summary', () => {
  it('of the default is every port but 25', () => {
    const ranges = [
      { from: 1, to: 24 },
      { from: 26, to: 65_535 },
    ]
    expect(policy().summary()).toEqual({ ipv4: ranges, ipv6: ranges })
  })

  it('shows a port when a few networks are refused on it, and hides it when a few are accepted', () => {
    expect(policy(['reject 1.0.0.0/8:*', 'accept *:80']).summary().ipv4).toEqual([{ from: 80, to: 80 }])
    expect(policy(['accept 1.0.0.0/8:80', 'accept *:443']).summary().ipv4).toEqual([{ from: 443, to: 443 }])
    expect(policy(['reject 0.0.0.0/1:*', 'accept *:80']).summary().ipv4).toEqual([])
    expect(policy(['reject 0.0.0.0/1:*', 'accept *:80']).summary().ipv6).toEqual([{ from: 80, to: 80 }])
    expect(policy(['accept 0.0.0.0/1:80', 'accept 128.0.0.0/1:80']).summary().ipv4).toEqual([{ from: 80, to: 80 }])
  })

  it('counts nested networks once', () => {
    // A small hole that was accepted before the big refusal does not open the port; many of them do.
    expect(policy(['accept 0.0.0.0/2:80', 'reject 0.0.0.0/1:80', 'accept *:80']).summary().ipv4).toEqual([])
    expect(policy(['accept 0.0.0.0/1:80', 'reject 0.0.0.0/1:80', 'accept *:80']).summary().ipv4).toEqual([{ from: 80, to: 80 }])
    expect(policy(['reject 1.1.0.0/16:80', 'reject 1.0.0.0/8:80', 'accept *:80']).summary().ipv4).toEqual([{ from: 80, to: 80 }])
  })

  it('agrees with the decision for policies without networks', () => {
    const rule = fc.record({
      verb: fc.constantFrom('accept', 'reject', 'accept4', 'reject6'),
      from: fc.integer({ min: 1, max: 300 }),
      width: fc.integer({ min: 0, max: 100 }),
    })
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 12 }), fc.integer({ min: 1, max: 400 }), (rules, port) => {
        const one = policy(rules.map(({ verb, from, width }) => `${verb} *:${from}-${from + width}`))
        expect(allowsPort(one.summary(), port, 4)).toBe(allowed(one, '1.1.1.1', port))
        expect(allowsPort(one.summary(), port, 6)).toBe(allowed(one, '2606:4700::1', port))
        // What is refused before resolution is never allowed after it.
        expect(one.checkPort(port).allowed).toBe(allowed(one, '1.1.1.1', port) || allowed(one, '2606:4700::1', port))
      }),
    )
  })
})

describe('an IPv4 address inside an IPv6 one', () => {
  it.each([
    ['2002:c000:201::1', '192.0.2.1'],
    ['64:ff9b::c000:201', '192.0.2.1'],
    ['2001:0:4136:e378:8000:63bf:3fff:fdd2', '192.0.2.45'],
    ['2a00::5efe:c000:201', '192.0.2.1'],
  ])('of %s is %s', (outer, inner) => {
    expect(formatIp(embeddedIpv4(parseIp(outer))!)).toBe(inner)
  })

  it('is not seen where there is none', () => {
    expect(embeddedIpv4(parseIp('2606:4700::1111'))).toBeNull()
    expect(embeddedIpv4(parseIp('1.2.3.4'))).toBeNull()
  })
})
