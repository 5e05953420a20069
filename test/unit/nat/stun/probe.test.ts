import { describe, expect, test } from 'vitest'
import { fromHex, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import type { Endpoint, FilteringBehaviour, MappingBehaviour } from '../../../../src/nat/behaviour.ts'
import { formatEndpoint, parseEndpoint } from '../../../../src/nat/stun/index.ts'
import { BINDING, decodeStun, encodeStun, type StunAttribute } from '../../../../src/nat/stun/message.ts'
import { NatModel, type NatModelOptions } from '../../../support/nat-model.ts'
import { honestServer, type NetServer, runProbe } from '../../../support/stun-world.ts'

const publicIp = parseIp('11.0.9.9')
const nat = (options: Partial<NatModelOptions> & Pick<NatModelOptions, 'mapping' | 'filtering'>): NatModel =>
  new NatModel({ publicIp, ...options })
const ei = 'endpoint-independent'
const ad = 'address-dependent'
const apd = 'address-and-port-dependent'

/** The kinds that issue and RFCs name. */
const kinds: readonly (readonly [string, MappingBehaviour, FilteringBehaviour, boolean])[] = [
  ['full cone', ei, ei, true],
  ['address-restricted cone', ei, ad, true],
  ['port-restricted cone', ei, apd, true],
  ['port-restricted cone', ei, apd, false],
  ['symmetric', ad, ad, false],
  ['symmetric', apd, apd, false],
  ['symmetric', apd, ei, false],
  ['no NAT', 'none', ei, true],
  ['firewall', 'none', ad, true],
  ['firewall', 'none', apd, true],
]

/** A server that says what `lie` makes of the truth. */
function liar(text: string, lie: (seen: Endpoint) => Endpoint): NetServer {
  const at = parseEndpoint(text)
  return {
    endpoints: [at],
    answer: (bytes, from) => {
      const { transactionId } = decodeStun(bytes)
      const attributes: StunAttribute[] = [{ type: 'xor-mapped-address', endpoint: lie(from) }]
      return [{ from: at, to: from, bytes: encodeStun({ class: 'success', method: BINDING, transactionId }, attributes) }]
    },
  }
}
const silent = (text: string): NetServer => ({ endpoints: [parseEndpoint(text)], answer: () => [] })

describe('behind every kind of NAT', () => {
  for (const [kind, mapping, filtering, preservesPort] of kinds) {
    const name = `${kind} (${mapping}, ${filtering}${preservesPort ? '' : ', ports changed'})`
    const expected = { mapping, filtering, portPreserved: preservesPort }

    test(`one server with two addresses finds ${name}`, () => {
      const found = runProbe({ servers: [honestServer('11.0.1.1:4460', '11.0.1.2:4460')], nat: nat({ mapping, filtering, preservesPort }) })
      expect(found).toMatchObject({ kind, behaviour: expected, verdicts: ['alone'] })
    })

    test(`three servers, one with two addresses, find ${name}`, () => {
      const servers = [honestServer('11.0.1.1:4460', '11.0.1.2:4460'), honestServer('11.0.2.1:4460'), honestServer('11.0.3.1:4461')]
      const found = runProbe({ servers, nat: nat({ mapping, filtering, preservesPort }) })
      expect(found).toMatchObject({ kind, behaviour: expected, verdicts: ['believed', 'believed', 'believed'], notes: [] })
    })

    test(`servers with one address find the mapping of ${name}, and say what of the filtering they could not`, () => {
      const servers = ['11.0.1.1:4460', '11.0.2.1:4460', '11.0.3.1:4460'].map((text) => honestServer(text))
      const found = runProbe({ servers, nat: nat({ mapping, filtering, preservesPort }) })
      expect(found.behaviour).toMatchObject({ mapping, filtering: filtering === apd ? apd : null, portPreserved: preservesPort })
      expect(found.notes).toHaveLength(filtering === apd ? 0 : 1)
    })

    test(`a tenth of the datagrams lost each way does not hide ${name}`, () => {
      for (let seed = 1; seed <= 10; seed++) {
        const servers = [
          honestServer('11.0.1.1:4460', '11.0.1.2:4460'),
          honestServer('11.0.2.1:4460', '11.0.2.2:4460'),
          honestServer('11.0.3.1:4460'),
        ]
        const found = runProbe({ servers, nat: nat({ mapping, filtering, preservesPort }), loss: 0.1, seed })
        expect(found.kind, `seed ${seed}`).toBe(kind)
      }
    })
  }

  test('the public endpoint is what the servers saw', () => {
    const found = runProbe({ servers: [honestServer('11.0.1.1:4460')], nat: nat({ mapping: ei, filtering: apd, preservesPort: true }) })
    expect(formatEndpoint(found.behaviour.publicEndpoint!)).toBe('11.0.9.9:50000')
    expect(found.behaviour.mapping).toBeNull()
    expect(found.servers.map(({ said }) => formatEndpoint(said!))).toEqual(['11.0.9.9:50000'])
  })

  test('one server with one address sees a mapping that depends on the port, and leaves open what it cannot see', () => {
    const probe = (mapping: MappingBehaviour) =>
      runProbe({ servers: [honestServer('11.0.1.1:4460')], nat: nat({ mapping, filtering: apd }) }).behaviour.mapping
    expect([probe(apd), probe(ad), probe(ei)]).toEqual([apd, null, null])
  })

  test.each([true, false])('hairpin: %s', (hairpin) => {
    const servers = [honestServer('11.0.1.1:4460', '11.0.1.2:4460')]
    expect(runProbe({ servers, nat: nat({ mapping: ei, filtering: apd, hairpin }) }).behaviour.hairpin).toBe(hairpin)
    expect(runProbe({ servers, nat: nat({ mapping: 'none', filtering: ei, hairpin }) }).behaviour.hairpin).toBeNull()
  })

  test('IPv6: a firewall without NAT, and none', () => {
    const servers = [honestServer('[2001:db8:1::1]:4460', '[2001:db8:1::2]:4460'), honestServer('[2001:db8:2::1]:4460')]
    const inner = parseIp('2001:db8:9::7')
    const probe = (filtering: FilteringBehaviour) =>
      runProbe({ servers, inner, nat: new NatModel({ mapping: 'none', filtering, publicIp: inner }) })
    expect(probe(ei)).toMatchObject({ kind: 'no NAT', behaviour: { family: 6, mapping: 'none', filtering: ei } })
    expect(probe(apd)).toMatchObject({ kind: 'firewall', behaviour: { family: 6, mapping: 'none', filtering: apd } })
  })

  test('nobody answers: blocked, in a bounded time and number of datagrams', () => {
    const found = runProbe({ servers: ['11.0.1.1:1', '11.0.2.1:1'].map(silent), nat: nat({ mapping: ei, filtering: ei }) })
    expect(found).toMatchObject({
      kind: 'blocked',
      verdicts: ['silent', 'silent'],
      behaviour: { publicEndpoint: null, mapping: null, filtering: null },
    })
    expect(found.sent).toHaveLength(8)
    expect(found.tookMs).toBeLessThan(6_000)
  })

  test('asking for the address alone takes one round trip', () => {
    const found = runProbe({
      servers: [honestServer('11.0.1.1:4460'), honestServer('11.0.2.1:4460')],
      nat: nat({ mapping: ei, filtering: ei }),
      depth: 'address',
    })
    expect(found.sent).toHaveLength(2)
    expect(found.tookMs).toBeLessThan(200)
    expect(found.behaviour).toMatchObject({ mapping: ei, filtering: null })
  })
})

describe('several servers', () => {
  const others = ['11.0.1.1:4460', '11.0.2.1:4460'].map((text) => honestServer(text))
  const cone = () => nat({ mapping: ei, filtering: apd })

  test.each([
    ['another address', (seen: Endpoint) => ({ ...seen, ip: parseIp('11.6.6.6') })],
    ['another port', (seen: Endpoint) => ({ ...seen, port: seen.port ^ 1 })],
  ])('one that says %s is named as lying, and the others are believed', (_, lie) => {
    for (const at of [0, 1, 2]) {
      const servers = [...others]
      servers.splice(at, 0, liar('11.0.6.6:4460', lie))
      const found = runProbe({ servers, nat: cone() })
      expect(found.verdicts).toEqual([0, 1, 2].map((i) => (i === at ? 'lying' : 'believed')))
      expect(found.behaviour).toMatchObject({ mapping: ei, publicEndpoint: { ip: publicIp } })
    }
  })

  test('behind a symmetric NAT different ports are no lie, another address is', () => {
    const found = runProbe({
      servers: [...others, liar('11.0.6.6:4460', (seen) => ({ ...seen, ip: parseIp('11.6.6.6') }))],
      nat: nat({ mapping: apd, filtering: apd }),
    })
    expect(found).toMatchObject({ verdicts: ['believed', 'believed', 'lying'], kind: 'symmetric' })
  })

  test('two that contradict each other leave it open', () => {
    const found = runProbe({ servers: [others[0]!, liar('11.0.6.6:4460', (seen) => ({ ...seen, ip: parseIp('11.6.6.6') }))], nat: cone() })
    expect(found).toMatchObject({ verdicts: ['alone', 'alone'], kind: 'unknown', behaviour: { publicEndpoint: null, mapping: null } })
    expect(found.notes).toHaveLength(1)
  })

  test('a silent one is named and does not matter', () => {
    const found = runProbe({ servers: [...others, silent('11.0.6.6:4460')], nat: cone() })
    expect(found).toMatchObject({ verdicts: ['believed', 'believed', 'silent'], kind: 'port-restricted cone' })
  })

  test('many ports of one address are one voice', () => {
    const lie = (seen: Endpoint): Endpoint => ({ ...seen, ip: parseIp('11.6.6.6') })
    const found = runProbe({ servers: [...others, ...[1, 2, 3, 4, 5].map((port) => liar(`11.0.6.6:${port}`, lie))], nat: cone() })
    expect(found.verdicts).toEqual(['believed', 'believed', 'lying'])
  })

  test('no more than eight are asked', () => {
    const servers = Array.from({ length: 30 }, (_, i) => honestServer(`11.0.${i + 1}.1:4460`))
    expect(runProbe({ servers, nat: cone(), depth: 'address' }).sent).toHaveLength(8)
  })
})

describe('a hostile server', () => {
  const cone = () => nat({ mapping: ei, filtering: ei })

  /** Answers truly, but names another address of its own choice. */
  function pointing(text: string, other: string): NetServer {
    const at = parseEndpoint(text)
    return {
      endpoints: [at],
      answer: (bytes, from) => {
        const { transactionId } = decodeStun(bytes)
        const attributes: StunAttribute[] = [
          { type: 'xor-mapped-address', endpoint: from },
          { type: 'other-address', endpoint: parseEndpoint(other) },
        ]
        return [{ from: at, to: from, bytes: encodeStun({ class: 'success', method: BINDING, transactionId }, attributes) }]
      },
    }
  }

  test.each(['127.0.0.1:22', '192.168.1.1:53', '224.0.0.1:1', '255.255.255.255:9', '0.0.0.0:1', '10.0.0.1:80', '11.0.5.5:0'])(
    'cannot make us send to %s',
    (other) => {
      const found = runProbe({ servers: [pointing('11.0.1.1:4460', other)], nat: cone() })
      expect(found.sent.map(({ to }) => formatEndpoint(to))).not.toContain(other)
      expect(found.behaviour.filtering).not.toBe(ei)
    },
  )

  test('cannot make us send to a third party when there is another server to compare with', () => {
    const found = runProbe({ servers: [pointing('11.0.1.1:4460', '11.0.5.5:53'), honestServer('11.0.2.1:4460')], nat: cone() })
    expect(new Set(found.sent.map(({ to }) => to.ip.bytes.join('.')))).toEqual(new Set(['11.0.1.1', '11.0.2.1', '11.0.9.9']))
  })

  test('that answers from its first socket to everything proves nothing about filtering', () => {
    const found = runProbe({
      servers: [pointing('11.0.1.1:4460', '11.0.5.5:4460'), honestServer('11.0.2.1:4460')],
      nat: nat({ mapping: ei, filtering: apd }),
    })
    expect(found).toMatchObject({ kind: 'port-restricted cone' })
  })

  test('gets no bytes back for more than it got: every answer is at most as long as its request', () => {
    const found = runProbe({ servers: [honestServer('11.0.1.1:4460', '11.0.1.2:4460'), honestServer('11.0.2.1:4460')], nat: cone() })
    expect(found.receivedBytes).toBeLessThanOrEqual(found.sent.reduce((sum, { bytes }) => sum + bytes.length, 0))
    expect(found.sent.every(({ bytes }) => bytes.length === 68)).toBe(true)
  })
})

describe('forged answers', () => {
  const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)
  const random = new SeededRandom(seed)
  const lie: StunAttribute[] = [{ type: 'xor-mapped-address', endpoint: parseEndpoint('11.6.6.6:666') }]
  const answer = (sent: Uint8Array, attributes = lie): Uint8Array =>
    encodeStun({ class: 'success', method: BINDING, transactionId: decodeStun(sent).transactionId }, attributes)
  const elsewhere = parseEndpoint('11.0.7.7:4460')
  const stranger = (sent: Uint8Array): Uint8Array => {
    const bytes = answer(sent)
    bytes[19]! ^= 1
    return bytes
  }

  const forgeries: readonly (readonly [string, (sent: Uint8Array, to: Endpoint) => { from: Endpoint; bytes: Uint8Array }])[] = [
    ['from an address that was not asked', (sent) => ({ from: elsewhere, bytes: answer(sent) })],
    ['from a port that was not asked', (sent, to) => ({ from: { ...to, port: to.port + 7 }, bytes: answer(sent) })],
    ['with a wrong transaction id', (sent, to) => ({ from: to, bytes: stranger(sent) })],
    ['cut short', (sent, to) => ({ from: to, bytes: answer(sent).subarray(0, 27) })],
    ['with bytes after the end', (sent, to) => ({ from: to, bytes: new Uint8Array([...answer(sent), ...new Uint8Array(60_000)]) })],
    ['without an address', (sent, to) => ({ from: to, bytes: answer(sent, []) })],
    [
      'with an address of the other family',
      (sent, to) => ({ from: to, bytes: answer(sent, [{ type: 'xor-mapped-address', endpoint: parseEndpoint('[2001:db8::1]:1') }]) }),
    ],
    [
      'with port 0',
      (sent, to) => ({ from: to, bytes: answer(sent, [{ type: 'xor-mapped-address', endpoint: parseEndpoint('11.6.6.6:0') }]) }),
    ],
    ['that are random bytes', (_, to) => ({ from: to, bytes: random.bytes(random.int(200)) })],
    ['that are our own request, come back', (sent, to) => ({ from: to, bytes: sent })],
    ['that are not STUN', (_, to) => ({ from: to, bytes: fromHex('8001000021') })],
  ]

  test.each(forgeries)('%s change nothing', (_, forge) => {
    // Other ports of a server may answer once they were asked to: there the forger would have to be the server itself.
    const found = runProbe({
      servers: [honestServer('11.0.1.1:4460', '11.0.1.2:4460'), honestServer('11.0.2.1:4460')],
      nat: nat({ mapping: ei, filtering: apd }),
      inject: (sent, to) => (to.ip.bytes[2] === 9 || decodeStun(sent).attributes.length > 0 ? [] : [forge(sent, to)]),
    })
    expect(found, `seed ${seed}`).toMatchObject({
      kind: 'port-restricted cone',
      verdicts: ['believed', 'believed'],
      behaviour: { publicEndpoint: { ip: publicIp } },
    })
  })
})

describe('the lifetime of a binding', () => {
  const twoAddresses = () => [honestServer('11.0.1.1:4460', '11.0.1.2:4460')]

  test.each([7_000, 30_000, 45_000, 120_000])('of %i ms is found, within a tenth and never above', (lifetimeMs) => {
    const found = runProbe({
      servers: twoAddresses(),
      nat: nat({ mapping: ei, filtering: apd, lifetimeMs }),
      depth: 'lifetime',
      maxLifetimeMs: 1_200_000,
    })
    expect(found.behaviour.bindingLifetimeMs).toBeLessThanOrEqual(lifetimeMs)
    expect(found.behaviour.bindingLifetimeMs).toBeGreaterThan(lifetimeMs * 0.85)
    expect(found.kind).toBe('port-restricted cone')
  })

  test.each([5_000, 60_000, 600_000])('is not looked for longer than %i ms, and the longest survived is told', (maxLifetimeMs) => {
    const found = runProbe({ servers: twoAddresses(), nat: nat({ mapping: ei, filtering: ad }), depth: 'lifetime', maxLifetimeMs })
    expect(found.tookMs).toBeLessThan(maxLifetimeMs + 15_000)
    expect(found.behaviour.bindingLifetimeMs).toBeGreaterThan(maxLifetimeMs / 8)
  })

  test('is not told when the server does not send to another port', () => {
    const found = runProbe({
      servers: [liar('11.0.6.6:4460', (seen) => seen)],
      nat: nat({ mapping: ei, filtering: apd }),
      depth: 'lifetime',
    })
    expect(found.behaviour.bindingLifetimeMs).toBeNull()
    expect(found.notes.join()).toMatch(/How long a binding lives was not found out/)
  })

  test('is not looked for unless asked', () => {
    const found = runProbe({ servers: twoAddresses(), nat: nat({ mapping: ei, filtering: apd }) })
    expect(found.behaviour.bindingLifetimeMs).toBeNull()
    expect(found.tookMs).toBeLessThan(10_000)
  })
})
