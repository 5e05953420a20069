import { describe, expect, test } from 'vitest'
import { parseIp } from '../../../../src/base/index.ts'
import {
  type Classification,
  classify,
  type FilteringObservation,
  type MappingObservation,
  natKind,
  type StunObservations,
} from '../../../../src/nat/stun/classify.ts'
import { formatEndpoint, parseEndpoint } from '../../../../src/nat/stun/index.ts'

const inner = parseIp('192.168.1.7')
const base: StunObservations = {
  family: 4,
  local: parseEndpoint('0.0.0.0:5000'),
  localAddresses: [inner],
  servers: 0,
  mappings: [],
  filterings: [],
  hairpin: null,
  bindingLifetimeMs: null,
}

/** "server > destination = seen", the first address of server n being n.1:1. */
function mappings(...texts: readonly string[]): MappingObservation[] {
  return texts.map((text) => {
    const [server, to, mapped] = text.split(/ [>=] /)
    return { server: Number(server), to: parseEndpoint(to!), mapped: parseEndpoint(mapped!) }
  })
}
const tests = (
  server: number,
  otherAddress: FilteringObservation['outcome'] | null,
  otherPort: FilteringObservation['outcome'] | null,
): FilteringObservation[] => [
  ...(otherAddress === null ? [] : [{ server, from: 'other-address' as const, outcome: otherAddress }]),
  ...(otherPort === null ? [] : [{ server, from: 'other-port' as const, outcome: otherPort }]),
]
const over = (servers: number, texts: readonly string[], filterings: readonly FilteringObservation[] = []): Classification =>
  classify({ ...base, servers, mappings: mappings(...texts), filterings })

describe('mapping', () => {
  test.each<[string, string[], unknown]>([
    ['the same for all servers', ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:7'], 'endpoint-independent'],
    ['another for each, ports not tried', ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:8'], 'address-and-port-dependent'],
    [
      'another for each, not by port',
      ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:8', '0 > 1.0.0.1:2 = 9.9.9.9:7'],
      'address-dependent',
    ],
    [
      'another for each, by port too',
      ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:8', '0 > 1.0.0.1:2 = 9.9.9.9:9'],
      'address-and-port-dependent',
    ],
    [
      'the same for all, but by port',
      ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:7', '0 > 1.0.0.1:2 = 9.9.9.9:8'],
      'address-and-port-dependent',
    ],
    ['one server, one socket', ['0 > 1.0.0.1:1 = 9.9.9.9:7'], null],
    ['one server, two ports, the same', ['0 > 1.0.0.1:1 = 9.9.9.9:7', '0 > 1.0.0.1:2 = 9.9.9.9:7'], null],
    ['one server, two ports, different', ['0 > 1.0.0.1:1 = 9.9.9.9:7', '0 > 1.0.0.1:2 = 9.9.9.9:8'], 'address-and-port-dependent'],
    ['RFC 5780: test II as test I', ['0 > 1.0.0.1:1 = 9.9.9.9:7', '0 > 1.0.0.2:1 = 9.9.9.9:7'], 'endpoint-independent'],
    [
      'RFC 5780: test III as test II',
      ['0 > 1.0.0.1:1 = 9.9.9.9:7', '0 > 1.0.0.2:1 = 9.9.9.9:8', '0 > 1.0.0.2:2 = 9.9.9.9:8'],
      'address-dependent',
    ],
    [
      'RFC 5780: all three differ',
      ['0 > 1.0.0.1:1 = 9.9.9.9:7', '0 > 1.0.0.2:1 = 9.9.9.9:8', '0 > 1.0.0.2:2 = 9.9.9.9:9'],
      'address-and-port-dependent',
    ],
    ['what is local', ['0 > 1.0.0.1:1 = 192.168.1.7:5000', '1 > 1.0.0.2:1 = 192.168.1.7:5000'], 'none'],
    ['a local address, another port', ['0 > 1.0.0.1:1 = 192.168.1.7:5001', '1 > 1.0.0.2:1 = 192.168.1.7:5001'], 'endpoint-independent'],
    ['the local port, another address', ['0 > 1.0.0.1:1 = 9.9.9.9:5000', '1 > 1.0.0.2:1 = 9.9.9.9:5000'], 'endpoint-independent'],
    ['nothing', [], null],
  ])('%s', (_, texts, expected) => {
    expect(over(2, texts).behaviour.mapping).toBe(expected)
  })

  test('the port is preserved when every server saw the local one', () => {
    const preserved = (...ports: number[]) =>
      over(
        ports.length,
        ports.map((port, i) => `${i} > 1.0.0.${i}:1 = 9.9.9.9:${port}`),
      ).behaviour.portPreserved
    expect([preserved(5000, 5000), preserved(5000, 5001), preserved(7, 7), preserved()]).toEqual([true, false, false, null])
  })
})

describe('filtering', () => {
  const outcomes = ['answered', 'silent', 'unable', null] as const
  /** From another address, from another port of the same: RFC 5780 §4.4. */
  const expected: Record<string, string | null> = {
    'answered/answered': 'endpoint-independent',
    'answered/silent': 'endpoint-independent',
    'answered/unable': 'endpoint-independent',
    'answered/null': 'endpoint-independent',
    'silent/answered': 'address-dependent',
    'silent/silent': 'address-and-port-dependent',
    'silent/unable': null,
    'silent/null': null,
    'unable/answered': null,
    'unable/silent': 'address-and-port-dependent',
    'unable/unable': null,
    'unable/null': null,
    'null/answered': null,
    'null/silent': 'address-and-port-dependent',
    'null/unable': null,
    'null/null': null,
  }
  for (const address of outcomes) {
    for (const port of outcomes) {
      const want = expected[`${address}/${port}`]!
      test(`another address ${address}, another port ${port}: ${want}`, () => {
        const found = over(1, ['0 > 1.0.0.1:1 = 9.9.9.9:7'], tests(0, address, port))
        expect(found.behaviour.filtering).toBe(want)
        // What was not found out is said: beside mapping and the single server.
        expect(found.notes.length).toBe(want === null ? 3 : 2)
      })
    }
  }

  test("one server's answer outweighs the silence of others", () => {
    const texts = ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 9.9.9.9:7']
    expect(over(2, texts, [...tests(0, 'silent', 'silent'), ...tests(1, 'answered', 'silent')]).behaviour.filtering).toBe(
      'endpoint-independent',
    )
    expect(over(2, texts, [...tests(0, 'silent', 'silent'), ...tests(1, null, 'answered')]).behaviour.filtering).toBe('address-dependent')
  })
})

describe('verdicts', () => {
  const said = (...seen: readonly (string | null)[]) =>
    over(
      seen.length,
      seen.flatMap((mapped, i) => (mapped === null ? [] : [`${i} > 1.0.0.${i + 1}:1 = ${mapped}`])),
    )

  test.each<[(string | null)[], string, string | null]>([
    [[null], 'silent', null],
    [['9.9.9.9:7'], 'alone', '9.9.9.9:7'],
    [['9.9.9.9:7', null], 'alone silent', '9.9.9.9:7'],
    [['9.9.9.9:7', '9.9.9.9:7'], 'believed believed', '9.9.9.9:7'],
    [['9.9.9.9:7', '9.9.9.9:8'], 'believed believed', '9.9.9.9:7'],
    [['9.9.9.9:7', '6.6.6.6:7'], 'alone alone', null],
    [['9.9.9.9:7', '6.6.6.6:7', '9.9.9.9:7'], 'believed lying believed', '9.9.9.9:7'],
    [['9.9.9.9:7', '9.9.9.9:6', '9.9.9.9:7'], 'believed lying believed', '9.9.9.9:7'],
    [['9.9.9.9:6', '9.9.9.9:7', '9.9.9.9:7'], 'lying believed believed', '9.9.9.9:7'],
    [['9.9.9.9:1', '9.9.9.9:2', '9.9.9.9:3'], 'believed believed believed', '9.9.9.9:1'],
    [['9.9.9.9:1', '9.9.9.9:2', '6.6.6.6:3'], 'believed believed lying', '9.9.9.9:1'],
    [['9.9.9.9:7', '6.6.6.6:7', '5.5.5.5:7'], 'alone alone alone', null],
    [['9.9.9.9:7', '9.9.9.9:7', '6.6.6.6:7', '6.6.6.6:7'], 'alone alone alone alone', null],
    [['9.9.9.9:7', '9.9.9.9:7', '9.9.9.9:8', '9.9.9.9:8'], 'believed believed believed believed', '9.9.9.9:7'],
    [['9.9.9.9:7', '9.9.9.9:7', null, '9.9.9.9:8', '6.6.6.6:6'], 'believed believed silent lying lying', '9.9.9.9:7'],
  ])('%j: %s', (seen, verdicts, endpoint) => {
    const found = said(...seen)
    expect(found.verdicts.join(' ')).toBe(verdicts)
    const { publicEndpoint } = found.behaviour
    expect(publicEndpoint === null ? null : formatEndpoint(publicEndpoint)).toBe(endpoint)
  })

  test('what a liar says of mapping and filtering does not count', () => {
    const texts = ['0 > 1.0.0.1:1 = 9.9.9.9:7', '1 > 1.0.0.2:1 = 6.6.6.6:7', '2 > 1.0.0.3:1 = 9.9.9.9:7', '1 > 1.0.0.2:2 = 6.6.6.6:9']
    const found = over(3, texts, [...tests(1, 'answered', 'answered'), ...tests(0, 'silent', 'silent')])
    expect(found).toMatchObject({ kind: 'port-restricted cone', verdicts: ['believed', 'lying', 'believed'] })
  })
})

describe('plain words', () => {
  const mappingOf = ['none', 'endpoint-independent', 'address-dependent', 'address-and-port-dependent', null] as const
  const filteringOf = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent', null] as const
  const words: readonly (readonly string[])[] = [
    ['no NAT', 'firewall', 'firewall', 'no NAT'],
    ['full cone', 'address-restricted cone', 'port-restricted cone', 'cone'],
    ['symmetric', 'symmetric', 'symmetric', 'symmetric'],
    ['symmetric', 'symmetric', 'symmetric', 'symmetric'],
    ['unknown', 'unknown', 'unknown', 'unknown'],
  ]
  for (const [i, mapping] of mappingOf.entries()) {
    for (const [j, filtering] of filteringOf.entries()) {
      test(`mapping ${mapping}, filtering ${filtering}: ${words[i]![j]}`, () => {
        const behaviour = { ...over(1, ['0 > 1.0.0.1:1 = 9.9.9.9:7']).behaviour, mapping, filtering }
        expect(natKind(behaviour, true)).toBe(words[i]![j])
        expect(natKind({ ...behaviour, publicEndpoint: null }, false)).toBe('blocked')
      })
    }
  }
})
