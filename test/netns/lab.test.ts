import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Machine, NatKind, Talker } from './lab/index.ts'
import { debianCommand, Lab, type LinkLabel, labelLink, missingPackages, natKinds, type Observer, reasonAgainstLab } from './lab/index.ts'
import { possibleLink } from './support/expectations.ts'

const reason = await reasonAgainstLab()
const probes = missingPackages({ turnserver: 'coturn', turnutils_natdiscovery: 'coturn', stun: 'stun-client', python3: 'python3' })
const puncher = fileURLToPath(new URL('support/puncher.py', import.meta.url))
const reflectorPort = 4000

describe.skipIf(reason !== null || probes.length > 0)('the lab', () => {
  let lab: Lab
  let observer: Observer

  beforeAll(async () => {
    const homes = natKinds.flatMap((nat) => ['a', 'b'].map((side) => [`${nat}-${side}`, { nat }] as const))
    lab = await Lab.build({
      hosts: { stun: { addresses: 2 }, plain: {}, slow: { wire: { delayMs: 30, bitsPerSecond: 20e6 } } },
      homes: {
        ...Object.fromEntries(homes),
        'six-a': { nat: 'port-restricted', ipv6: 'firewalled' },
        'six-b': { nat: null, ipv6: 'firewalled' },
        customer: { nat: 'full-cone', carrier: 'symmetric', machines: ['pc', 'phone'] },
      },
    })
    observer = await lab.observe()
    await lab
      .host('plain')
      .start('python3', [puncher, 'reflect', String(reflectorPort)])
      .waitFor(/ready/, 5000)
  })
  afterAll(() => lab?.remove())

  test('every NAT is what it says, for coturn and for the stun client', async () => {
    const [first, second] = lab.host('stun').addresses
    const listen = ['-L', first!, '-L', second!, '-p', '3478']
    const server = lab
      .host('stun')
      .start('turnserver', ['-n', '--no-tls', '--no-dtls', '--stun-only', '--no-cli', '--log-file', 'stdout', ...listen])
    await server.waitFor(/Total General servers/, 10_000)
    const places: [string, Machine][] = natKinds.map((kind) => [kind, lab.home(`${kind}-a`).machine()])
    places.push(['public', lab.host('plain')], ['carrier', lab.home('customer').machine()], ['dual-stack', lab.home('six-a').machine()])
    const found = await Promise.all(places.map(async ([name, machine]) => [name, await classify(machine, first!)]))
    expect(Object.fromEntries(found)).toEqual({
      'full-cone': [
        'Independent Mapping, Independent Filter, preserves ports',
        'Endpoint Independent Mapping',
        'Endpoint Independent Filtering',
      ],
      'address-restricted': [
        'Independent Mapping, Address Dependent Filter, preserves ports',
        'Endpoint Independent Mapping',
        'Address Dependent Filtering',
      ],
      'port-restricted': [
        'Independent Mapping, Port Dependent Filter, preserves ports',
        'Endpoint Independent Mapping',
        'Address and Port Dependent Filtering',
      ],
      'port-changing': [
        'Independent Mapping, Port Dependent Filter, random port',
        'Endpoint Independent Mapping',
        'Address and Port Dependent Filtering',
      ],
      symmetric: ['Dependent Mapping, random port', 'Address and Port Dependent Mapping', 'Address and Port Dependent Filtering'],
      public: ['Open', 'Endpoint Independent Mapping', 'Endpoint Independent Filtering'],
      carrier: ['Dependent Mapping, random port', 'Address and Port Dependent Mapping', 'Address and Port Dependent Filtering'],
      'dual-stack': [
        'Independent Mapping, Port Dependent Filter, preserves ports',
        'Endpoint Independent Mapping',
        'Address and Port Dependent Filtering',
      ],
    })
  })

  describe('lets two homes meet for exactly the pairs that can', () => {
    const pairs = natKinds.flatMap((a, i) => natKinds.slice(i).map((b) => [a, b] as const))
    for (const protocol of ['tcp', 'udp']) {
      test(protocol, async () => {
        const met = await Promise.all(pairs.map(([a, b], i) => meet(protocol, 5000 + i, `${a}-a`, `${b}-b`, 'meet')))
        const unexpected = pairs.flatMap(([a, b], i) => {
          const { result, label } = met[i]!
          const possible = possibleLabels(protocol, a, b)
          const right = possible.includes(label) && result === (label === 'relayed' ? 'failed' : 'linked')
          return right ? [] : [`${a} and ${b}: ${result}, ${label}, not ${possible.join(' or ')}`]
        })
        expect(unexpected).toEqual([])
      })
    }
  })

  describe('lets strangers in only through a full cone', () => {
    for (const protocol of ['tcp', 'udp']) {
      test(protocol, async () => {
        const homes = natKinds.map((kind) => `${kind}-a`)
        const met = await Promise.all(homes.map((home, i) => meet(protocol, 5100 + i, 'six-a', home, 'dial')))
        expect(met.map(({ result }) => result)).toEqual(['linked', 'failed', 'failed', 'failed', 'failed'])
        expect(met[0]!.label).toBe(protocol === 'tcp' ? 'direct' : 'punched-udp')
      })
    }
  })

  /** Of a pair whose second is the symmetric one, if one is. */
  function possibleLabels(protocol: string, a: NatKind, b: NatKind): readonly LinkLabel[] {
    const link = possibleLink(a, b)
    if (link === 'relayed') return ['relayed']
    if (protocol === 'udp') return ['punched-udp']
    if (link === 'from-symmetric') return ['reversed']
    // A full cone lets in whoever is first: then the other side has no need to begin.
    return a === 'full-cone' || b === 'full-cone' ? ['punched-tcp', 'direct', 'reversed'] : ['punched-tcp']
  }

  /** Two plain punchers, one in each home, from the same port. @param how what the first one does: `meet` (as the other does), or only `dial` */
  async function meet(protocol: string, port: number, a: string, b: string, how: 'meet' | 'dial') {
    const since = Date.now()
    const talkers = [a, b].map((home) =>
      lab
        .home(home)
        .machine()
        .talkTo('python3', [puncher, protocol, String(port), lab.host('plain').address, String(reflectorPort)]),
    ) as [Talker, Talker]
    try {
      const seen = await Promise.all(talkers.map((talker) => talker.hear()))
      talkers[1].say(how === 'meet' ? `meet ${seen[0]}` : 'wait')
      talkers[0].say(`${how} ${seen[1]}`)
      const results = new Set(await Promise.all(talkers.map((talker) => talker.hear())))
      const ports = seen.map((endpoint) => Number(endpoint.split(' ')[1]))
      const flows = (await observer.flows()).filter(
        (flow) => flow.protocol === protocol && (ports.includes(flow.a.port) || ports.includes(flow.b.port)),
      )
      const { label } = labelLink(flows, [lab.home(a).publicAddress], [lab.home(b).publicAddress], since)
      return { result: [...results].join('/'), label }
    } finally {
      for (const talker of talkers) await talker.stop()
    }
  }
})

/** What two programs of others find out about the NAT in front of a machine: of one the sentence, of the other mapping and filtering. */
async function classify(machine: Machine, server: string): Promise<readonly string[]> {
  const [plain, discovery] = await Promise.all([
    machine.run(debianCommand('stun'), ['-p', '5555', server]),
    machine.run(debianCommand('turnutils_natdiscovery'), ['-m', '-f', server]),
  ])
  const [, sentence = plain.log] = /^Primary: (.*?)(?:, no hairpin)?\s*$/m.exec(plain.stdout) ?? []
  return [sentence, ...[...discovery.stdout.matchAll(/^NAT with (.*)!$/gm)].map((match) => match[1]!)]
}
