import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { SeededRandom, silentLogger } from '../../../../src/base/index.ts'
import { mappingConfig } from '../../../../src/nat/mapping/config.ts'
import { gatewayIn } from '../../../../src/nat/mapping/gateway.ts'
import { PortMapper } from '../../../../src/nat/mapping/port-mapper.ts'
import { descriptionXml, FakeControlGateway, FakeUpnpGateway, fakeNetwork } from './fake-gateways.ts'

const PORT = 4460
const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function control(): Promise<FakeControlGateway> {
  const gateway = await FakeControlGateway.open()
  closing.push(() => gateway.close())
  return gateway
}
async function upnp(): Promise<FakeUpnpGateway> {
  const gateway = await FakeUpnpGateway.open()
  closing.push(() => gateway.close())
  return gateway
}
function mapper(
  gateways: { control?: FakeControlGateway; upnp?: FakeUpnpGateway },
  settings: { enabled?: boolean; checkMs?: number } = {},
): PortMapper {
  const made = new PortMapper({
    config: mappingConfig.parse({ answerTimeoutMs: 400, checkMs: 1_000, retryMs: 1_000, ...settings }),
    now: () => Date.now(),
    random: new SeededRandom(1),
    logger: silentLogger,
    network: fakeNetwork(gateways.control ?? null, gateways.upnp ?? null),
  })
  closing.push(() => made.stop())
  return made
}
/** Waits for the next thing that the mapper says. */
function next(of: PortMapper): Promise<{ external: string | null; problem: string | null }> {
  return new Promise((resolve) => {
    const off = of.onChange((mapping, problem) => {
      off()
      resolve({ external: mapping?.external ?? null, problem })
    })
  })
}
const started = (of: PortMapper): ReturnType<typeof next> => {
  const said = next(of)
  of.start(PORT)
  return said
}

describe('a router that speaks', () => {
  test('PCP forwards the port, and forgets it at the end', async () => {
    const gateway = await control()
    const mapped = mapper({ control: gateway })
    expect(await started(mapped)).toEqual({ external: `11.9.9.9:${PORT}`, problem: null })
    expect(mapped.mapping).toMatchObject({ protocol: 'pcp' })
    expect(mapped.mapping!.expiresAt).toBeGreaterThan(Date.now() + 3_500_000)
    expect(gateway.mappings.get(PORT)).toBe(PORT)
    await mapped.stop()
    expect(gateway.mappings.size).toBe(0)
    expect(gateway.nonces.size).toBe(1)
    expect(mapped.mapping).toBeNull()
  })

  test('NAT-PMP only is found through its answer to PCP', async () => {
    const gateway = await control()
    gateway.speaks = 'nat-pmp'
    const mapped = mapper({ control: gateway })
    expect(await started(mapped)).toEqual({ external: `11.9.9.9:${PORT}`, problem: null })
    expect(mapped.mapping!.protocol).toBe('nat-pmp')
    await mapped.stop()
    expect(gateway.mappings.size).toBe(0)
  })

  test.each([1, 2] as const)('UPnP only (version %i) is found by a search', async (version) => {
    const gateway = await upnp()
    gateway.version = version
    const mapped = mapper({ upnp: gateway })
    expect(await started(mapped)).toEqual({ external: `11.8.8.8:${PORT}`, problem: null })
    expect(mapped.mapping!.protocol).toBe('upnp')
    expect(gateway.entries.get(PORT)).toEqual({ client: '127.0.0.1', port: PORT, lease: 3600 })
    await mapped.stop()
    expect(gateway.entries.size).toBe(0)
  })

  test('PCP and UPnP is asked by PCP alone', async () => {
    const [gateway, other] = [await control(), await upnp()]
    const mapped = mapper({ control: gateway, upnp: other })
    await started(mapped)
    expect(mapped.mapping!.protocol).toBe('pcp')
    expect(other.calls).toEqual([])
  })

  test('another external port is taken as it is', async () => {
    const gateway = await control()
    gateway.port = 50_001
    expect((await started(mapper({ control: gateway }))).external).toBe('11.9.9.9:50001')
  })

  test('a port that another machine has is left to it, and a near one taken', async () => {
    const gateway = await upnp()
    gateway.entries.set(PORT, { client: '127.0.0.99', port: 80, lease: 0 })
    gateway.conflicts.add(1024 + ((PORT + 1_013) % 64_000))
    const mapped = mapper({ upnp: gateway })
    const { external } = await started(mapped)
    expect(external).toBe(`11.8.8.8:${1024 + ((PORT + 2 * 1_013) % 64_000)}`)
    await mapped.stop()
    expect([...gateway.entries]).toEqual([[PORT, { client: '127.0.0.99', port: 80, lease: 0 }]])
  })

  test('a router that only maps for good is taken at that, and cleaned up', async () => {
    const gateway = await upnp()
    gateway.permanentOnly = true
    const mapped = mapper({ upnp: gateway })
    expect((await started(mapped)).problem).toBeNull()
    expect(gateway.entries.get(PORT)!.lease).toBe(0)
    await mapped.stop()
    expect(gateway.entries.size).toBe(0)
  })
})

describe('what changes while it runs', () => {
  test.each(['pcp', 'nat-pmp'] as const)('a restart of the router is seen and the port mapped again (%s)', async (speaks) => {
    const gateway = await control()
    gateway.speaks = speaks
    const mapped = mapper({ control: gateway })
    await started(mapped)
    gateway.restart()
    const said = next(mapped)
    mapped.check()
    await said
    expect(gateway.mappings.get(PORT)).toBe(PORT)
    expect(mapped.mapping).not.toBeNull()
  })

  test('a restart of a UPnP router is seen', async () => {
    const gateway = await upnp()
    const mapped = mapper({ upnp: gateway })
    await started(mapped)
    gateway.entries.clear()
    mapped.check()
    await waitUntil(() => gateway.entries.has(PORT))
  })

  test('another public address of the router is told at once', async () => {
    const gateway = await control()
    const mapped = mapper({ control: gateway })
    await started(mapped)
    gateway.externalIp = '11.7.7.7'
    const said = next(mapped)
    mapped.check()
    expect((await said).external).toBe(`11.7.7.7:${PORT}`)
  })

  test('a port that the router gives to another machine is lost', async () => {
    const gateway = await upnp()
    const mapped = mapper({ upnp: gateway })
    await started(mapped)
    gateway.entries.set(PORT, { client: '127.0.0.77', port: 1, lease: 1 })
    const said = next(mapped)
    mapped.check()
    expect(await said).toEqual({ external: null, problem: 'the router forwards the port to another machine now' })
  })

  test('a router that goes away is looked for again, and found by another protocol', async () => {
    const [gateway, other] = [await control(), await upnp()]
    const mapped = mapper({ control: gateway, upnp: other })
    await started(mapped)
    gateway.speaks = 'nothing'
    const said = next(mapped)
    mapped.check()
    expect((await said).external).toBe(`11.8.8.8:${PORT}`)
  })

  test('in another network everything begins anew', async () => {
    const gateway = await control()
    const mapped = mapper({ control: gateway })
    await started(mapped)
    const first = next(mapped)
    mapped.networkChanged()
    expect((await first).external).toBeNull()
    expect((await next(mapped)).external).toBe(`11.9.9.9:${PORT}`)
  })

  test('a stop in the middle of mapping leaves nothing in the router', async () => {
    const gateway = await upnp()
    gateway.delayMs = 60
    const mapped = mapper({ upnp: gateway })
    mapped.start(PORT)
    await waitUntil(() => gateway.calls.includes('GetSpecificPortMappingEntry'))
    await new Promise((resolve) => setTimeout(resolve, 20))
    await mapped.stop()
    expect(gateway.entries.size).toBe(0)
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(gateway.entries.size).toBe(0)
  })

  test('after a stop it can start again', async () => {
    const gateway = await control()
    const mapped = mapper({ control: gateway })
    await started(mapped)
    await mapped.stop()
    expect((await started(mapped)).external).toBe(`11.9.9.9:${PORT}`)
  })
})

describe('a bad router costs little, and is named', () => {
  test('none at all', async () => {
    const { problem } = await started(mapper({}))
    expect(problem).toBe('the router does not forward ports on request: it answers neither PCP nor NAT-PMP nor UPnP')
  })

  test('one that refuses, in its own words', async () => {
    const gateway = await control()
    gateway.result = 2
    const { external, problem } = await started(mapper({ control: gateway }))
    expect(external).toBeNull()
    expect(problem).toBe('the router did not forward the port: PCP: not allowed')
  })

  test('one whose own address is private: another NAT stands before it', async () => {
    const gateway = await control()
    gateway.externalIp = '100.64.3.4'
    const { external, problem } = await started(mapper({ control: gateway }))
    expect(external).toBe(`100.64.3.4:${PORT}`)
    expect(problem).toMatch(/100\.64\.3\.4 is private: there is another NAT before it/)
  })

  test('one that grants port 0, or no time', async () => {
    const gateway = await control()
    gateway.port = 0
    expect((await started(mapper({ control: gateway }))).problem).toMatch(/granted a mapping without a port, an address or a time/)
    gateway.port = null
    gateway.lifetime = 0
    expect((await started(mapper({ control: gateway }))).problem).toMatch(/without a port, an address or a time/)
  })

  test('one that answers noise, and then the truth', async () => {
    const gateway = await control()
    gateway.garble = (answer) => [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(1400, 0xff), answer.subarray(0, 30), answer]
    expect((await started(mapper({ control: gateway }))).external).toBe(`11.9.9.9:${PORT}`)
  })

  test('one that answers with another nonce or port is not believed', async () => {
    const gateway = await control()
    gateway.garble = (answer) => [Buffer.concat([answer.subarray(0, 24), Buffer.alloc(12), answer.subarray(36)])]
    expect((await started(mapper({ control: gateway }))).external).toBeNull()
  })

  test.each<[string, (gateway: FakeUpnpGateway) => unknown]>([
    ['garbage', (gateway) => Object.assign(gateway, { description: () => '<root><device>' })],
    [
      'a document type that would grow',
      (gateway) => Object.assign(gateway, { description: () => `<!DOCTYPE r [<!ENTITY a "aaaa">]>${descriptionXml(1)}` }),
    ],
    ['deep nesting', (gateway) => Object.assign(gateway, { description: () => '<a>'.repeat(5_000) })],
    [
      'a control address elsewhere',
      (gateway) => Object.assign(gateway, { description: () => descriptionXml(1, 'http://127.0.0.2:1/ctl') }),
    ],
    [
      'no service of use',
      (gateway) => Object.assign(gateway, { description: () => '<root><device><deviceType>x</deviceType></device></root>' }),
    ],
    ['a huge answer', (gateway) => Object.assign(gateway, { description: () => 'x'.repeat(5_000_000) })],
    ['an endless answer', (gateway) => Object.assign(gateway, { intercept: (_: string, response: ServerResponse) => endless(response) })],
    ['no answer', (gateway) => Object.assign(gateway, { intercept: () => true })],
    ['an address that is none', (gateway) => Object.assign(gateway, { externalIp: 'router.example' })],
    ['a description at another host', (gateway) => Object.assign(gateway, { location: () => 'http://127.0.0.2:1/rootDesc.xml' })],
    ['a description in a file', (gateway) => Object.assign(gateway, { location: () => 'file:///etc/passwd' })],
  ])('UPnP: %s', async (_, spoil) => {
    const gateway = await upnp()
    spoil(gateway)
    const startedAt = performance.now()
    const { external, problem } = await started(mapper({ upnp: gateway }))
    expect(external).toBeNull()
    expect(problem).toMatch(/^the router/)
    expect(performance.now() - startedAt).toBeLessThan(3_000)
    expect(gateway.entries.size).toBe(0)
  })

  test('a slow one holds a stop up for a bounded time', async () => {
    const gateway = await upnp()
    gateway.intercept = () => true
    const mapped = mapper({ upnp: gateway })
    mapped.start(PORT)
    await waitUntil(() => gateway.calls.length > 0)
    const stoppingAt = performance.now()
    await mapped.stop()
    expect(performance.now() - stoppingAt).toBeLessThan(2_500)
  })
})

test('switched off it sends nothing', async () => {
  const [gateway, other] = [await control(), await upnp()]
  const mapped = mapper({ control: gateway, upnp: other }, { enabled: false })
  mapped.start(PORT)
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect([gateway.requests, other.searches]).toEqual([0, 0])
})

test('nothing is sent before the start either', async () => {
  const [gateway, other] = [await control(), await upnp()]
  mapper({ control: gateway, upnp: other })
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect([gateway.requests, other.searches]).toEqual([0, 0])
})

test('the default gateway is the one of the lowest metric', () => {
  const head = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT'
  const routes = [
    head,
    'eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0',
    'eth1\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0',
    'eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0',
    'ppp0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0',
  ]
  expect(gatewayIn(routes.join('\n'))).toBe('192.168.1.254')
  expect(gatewayIn(head)).toBeNull()
  expect(gatewayIn('')).toBeNull()
})

function endless(response: ServerResponse): boolean {
  const more = (): void => {
    while (!response.destroyed && response.write('<a>'.repeat(10_000)));
    if (!response.destroyed) response.once('drain', more)
  }
  more()
  return true
}

async function waitUntil(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10))
  expect(condition()).toBe(true)
}
