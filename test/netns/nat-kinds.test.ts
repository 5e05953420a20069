import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { debianCommand, Lab, type Machine, missingPackages, natKinds, reasonAgainstLab } from './lab/index.ts'

const reason = await reasonAgainstLab()
const missing = missingPackages({ turnserver: 'coturn', turnutils_natdiscovery: 'coturn', stun: 'stun-client' })
const ourServer = fileURLToPath(new URL('../support/stun-server.ts', import.meta.url))
const ourProbe = fileURLToPath(new URL('../support/stun-probe.ts', import.meta.url))
const ourPort = 4460

/** What one place is: in the words of the stun client (RFC 3489), and mapping and filtering (RFC 5780). */
interface Expected {
  readonly sentence: string
  readonly mapping: Behaviour | 'none'
  readonly filtering: Behaviour
}
type Behaviour = keyof typeof coturnWords

const coturnWords = {
  'endpoint-independent': 'Endpoint Independent',
  'address-dependent': 'Address Dependent',
  'address-and-port-dependent': 'Address and Port Dependent',
} as const

const independent = 'endpoint-independent'
const dependent = 'address-and-port-dependent'
const portRestricted: Expected = {
  sentence: 'Independent Mapping, Port Dependent Filter, preserves ports',
  mapping: independent,
  filtering: dependent,
}
const symmetric: Expected = { sentence: 'Dependent Mapping, random port', mapping: dependent, filtering: dependent }

const expected: Readonly<Record<string, Expected>> = {
  public: { sentence: 'Open', mapping: 'none', filtering: independent },
  'full-cone': { sentence: 'Independent Mapping, Independent Filter, preserves ports', mapping: independent, filtering: independent },
  'address-restricted': {
    sentence: 'Independent Mapping, Address Dependent Filter, preserves ports',
    mapping: independent,
    filtering: 'address-dependent',
  },
  'port-restricted': portRestricted,
  'port-changing': { ...portRestricted, sentence: 'Independent Mapping, Port Dependent Filter, random port' },
  symmetric,
  // A carrier's NAT decides, whatever the router at home does.
  carrier: symmetric,
}

describe.skipIf(reason !== null || missing.length > 0)('the kind of every NAT of the lab', () => {
  let lab: Lab
  const machines = new Map<string, Machine>()

  beforeAll(async () => {
    lab = await Lab.build({
      hosts: { coturn: { addresses: 2 }, ours: { addresses: 2 }, public: {} },
      homes: {
        ...Object.fromEntries(natKinds.map((nat) => [nat, { nat }])),
        carrier: { nat: 'full-cone', carrier: 'symmetric' },
        'six-only': { nat: null, ipv6: 'firewalled' },
      },
    })
    machines.set('public', lab.host('public'))
    for (const home of lab.homes) machines.set(home.name, home.machine())
    const { addresses } = lab.host('coturn')
    const listen = [...addresses.flatMap((address) => ['-L', address]), '-p', '3478', '--log-file', 'stdout']
    const coturn = lab.host('coturn').start('turnserver', ['-n', '--no-tls', '--no-dtls', '--stun-only', '--no-cli', ...listen])
    const six = `/ip6/${lab.host('ours').ipv6}/udp/${ourPort}`
    const ours = lab
      .host('ours')
      .startNode(ourServer, [...lab.host('ours').addresses.map((address) => `/ip4/${address}/udp/${ourPort}`), six])
    await Promise.all([coturn.waitFor(/Total General servers/, 10_000), ours.waitFor(/^ready/m, 10_000)])
  })
  afterAll(() => lab?.remove())

  for (const server of ['coturn', 'ours']) {
    const [port, localPort] = server === 'coturn' ? [3478, 5555] : [ourPort, 5565]
    // The stun client takes the next port too. The two servers at the same time; the three programs one after the other, since ours answers one address only so often.
    test.concurrent(`by the server of ${server}, for the stun client, coturn's tool and our probe`, async () => {
      const { address } = lab.host(server)
      const byStun = await ofAll(async (machine) => {
        const { stdout, log } = await machine.run(debianCommand('stun'), [`${address}:${port}`, '-p', String(localPort)])
        return /^Primary: (.*?)(?:, no hairpin)?\s*$/m.exec(stdout)?.[1] ?? log
      })
      expect(byStun).toEqual(all(({ sentence }) => sentence))
      const byCoturn = await ofAll(async (machine) => {
        const { stdout } = await machine.run(debianCommand('turnutils_natdiscovery'), ['-m', '-f', '-p', String(port), address])
        return [...stdout.matchAll(/^NAT with (.*)!$/gm)].map((match) => match[1]!)
      })
      // It does not tell a public address from a NAT that maps independently.
      const words = (behaviour: Behaviour | 'none'): string => coturnWords[behaviour === 'none' ? independent : behaviour]
      expect(byCoturn).toEqual(all(({ mapping, filtering }) => [`${words(mapping)} Mapping`, `${words(filtering)} Filtering`]))
      const byUs = await ofAll(async (machine) => {
        const { mapping, filtering } = await probe(machine, `${address}:${port}`)
        return { mapping, filtering }
      })
      expect(byUs).toEqual(all(({ mapping, filtering }) => ({ mapping, filtering })))
    })
  }

  test('a firewall of IPv6 is one, and no NAT', async () => {
    const machine = lab.home('six-only').machine()
    const { mapping, publicEndpoint } = await probe(machine, `[${lab.host('ours').ipv6}]:${ourPort}`)
    expect({ mapping, address: publicEndpoint?.slice(0, publicEndpoint.lastIndexOf(':')) }).toEqual({
      mapping: 'none',
      address: `[${machine.ipv6}]`,
    })
  })

  function all<T>(pick: (kind: Expected) => T): Record<string, T> {
    return Object.fromEntries(Object.entries(expected).map(([name, kind]) => [name, pick(kind)]))
  }

  async function ofAll<T>(ask: (machine: Machine) => Promise<T>): Promise<Record<string, T>> {
    const found = await Promise.all(Object.keys(expected).map(async (name) => [name, await ask(machines.get(name)!)] as const))
    return Object.fromEntries(found)
  }
})

interface Found {
  readonly family: number
  readonly publicEndpoint: string | null
  readonly mapping: string | null
  readonly filtering: string | null
}

async function probe(machine: Machine, server: string): Promise<Found> {
  const report = await machine.runOk(process.execPath, [ourProbe, server])
  const { ipv4, ipv6 } = JSON.parse(report) as Record<'ipv4' | 'ipv6', { readonly behaviour: Found } | null>
  const found = (ipv4 ?? ipv6)?.behaviour
  if (!found) throw new Error(`nothing found out: ${report}`)
  return found
}
