import { afterEach, describe, expect, test } from 'vitest'
import { parseIp, SeededRandom } from '../../../../src/base/index.ts'
import type { Endpoint } from '../../../../src/nat/behaviour.ts'
import { hasRoute } from '../../../../src/nat/stun/datagrams.ts'
import {
  type DatagramSocket,
  defaultStunProbeTiming,
  defaultStunServerConfig,
  formatEndpoint,
  openDatagrams,
  parseEndpoint,
  probeNat,
  resolveStunServer,
  StunServer,
  type StunServerConfig,
  stunListen,
  stunServerConfig,
  stunServersOf,
} from '../../../../src/nat/stun/index.ts'
import { addressOf, BINDING, decodeStun, encodeStun } from '../../../../src/nat/stun/message.ts'

const running: { stop(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()))
})

async function serve(
  listen: readonly string[],
  config: Partial<StunServerConfig> = {},
  ownAddresses: readonly string[] = [],
): Promise<StunServer> {
  const server = new StunServer({
    config: { ...defaultStunServerConfig, ...config },
    listen: listen.map(parseEndpoint),
    ownAddresses: ownAddresses.map(parseIp),
  })
  running.push(server)
  await server.start()
  return server
}
async function open(text: string, onDatagram: (bytes: Uint8Array, from: Endpoint) => void = () => {}): Promise<DatagramSocket> {
  const socket = await openDatagrams(parseEndpoint(text), onDatagram)
  running.push({ stop: () => socket.close() })
  return socket
}
/** Quick: nothing is lost on loopback. */
const timing = { ...defaultStunProbeTiming, rtoMs: 60, minRtoMs: 30, paceMs: 0, sends: 3 }
const random = new SeededRandom(Date.now())
const ask = (servers: readonly StunServer[], more: Partial<Parameters<typeof probeNat>[0]> = {}) =>
  probeNat({ servers: servers.map((server) => ({ ...server.endpoints[0]!, alternatePort: null })), random, timing, ...more })

describe('a server on real sockets', () => {
  test('with two addresses shows that there is no NAT and nothing filters', async () => {
    const pair = await serve(['127.0.61.3:0', '127.0.61.4:0'])
    const { port } = pair.endpoints[0]!
    expect(pair.complete).toEqual([4])
    expect(pair.endpoints.map(formatEndpoint)).toEqual([
      `127.0.61.3:${port}`,
      `127.0.61.4:${port}`,
      `127.0.61.3:${port + 1}`,
      `127.0.61.4:${port + 1}`,
    ])
    const report = await ask([pair])
    expect(report.ipv6).toBeNull()
    expect(report.ipv4).toMatchObject({
      kind: 'no NAT',
      behaviour: { mapping: 'none', filtering: 'endpoint-independent', portPreserved: true },
    })
    expect(report.servers).toEqual([{ server: `127.0.61.3:${port}`, verdict: 'alone', said: `127.0.0.1:${report.ipv4!.local.port}` }])
  })

  test('never sends our own probe more than it got', async () => {
    const servers = [await serve(['127.0.62.1:0']), await serve(['127.0.62.2:0'])]
    await ask(servers, { localAddresses: [parseIp('127.0.62.9')] })
    for (const server of servers) {
      const { bytesReceived, bytesSent, answers, requests } = server.stats()
      expect(answers).toBe(requests)
      expect(bytesSent).toBeLessThanOrEqual(bytesReceived)
    }
  })

  test('answers both families, each over sockets of its own', async () => {
    const server = await serve(['127.0.63.1:0', '[::1]:0'])
    const servers = [0, 2].map((i) => ({ ...server.endpoints[i]!, alternatePort: null }))
    const report = await probeNat({ servers, random, timing })
    expect(report.ipv4?.behaviour).toMatchObject({ family: 4, mapping: 'none' })
    expect(report.ipv6?.behaviour).toMatchObject({ family: 6, mapping: 'none' })
    expect(report.servers.map(({ verdict }) => verdict)).toEqual(['alone', 'alone'])
  })

  test('names its address as others see it when it listens on all', async () => {
    const server = await serve(['0.0.0.0:0'], {}, ['198.51.100.7'])
    const { promise, resolve } = Promise.withResolvers<Uint8Array>()
    const socket = await open('127.0.0.1:0', (bytes) => resolve(bytes.slice()))
    const bytes = encodeStun({ class: 'request', method: BINDING, transactionId: random.bytes(12) }, [{ type: 'filler', length: 60 }])
    const { port } = server.endpoints[0]!
    socket.send(bytes, { ip: parseIp('127.0.0.1'), port })
    expect(formatEndpoint(addressOf(decodeStun(await promise), 'response-origin')!)).toBe(`198.51.100.7:${port}`)
  })

  test('claims no second address when others see it behind a NAT', async () => {
    const { port } = (await serve(['127.0.64.1:0'])).endpoints[0]!
    const server = await serve([`127.0.64.3:${port}`, `127.0.64.4:${port}`], {}, ['198.51.100.7'])
    expect(server.complete).toEqual([])
  })

  test('survives a flood of noise and forged requests, and answers on', async () => {
    const server = await serve(['127.0.65.1:0'], { limits: { ...defaultStunServerConfig.limits, sources: 16 } })
    const to = server.endpoints[0]!
    const senders = await Promise.all(Array.from({ length: 40 }, (_, i) => open(`127.0.66.${i + 1}:0`)))
    for (let i = 0; i < 4000; i++) {
      const sender = senders[i % senders.length]!
      sender.send(
        i % 2 === 0
          ? random.bytes(random.int(1400))
          : encodeStun({ class: 'request', method: BINDING, transactionId: random.bytes(12) }, []),
        to,
      )
      if (i % 200 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    const report = await ask([server])
    expect(report.servers[0]!.verdict).toBe('alone')
    const stats = server.stats()
    expect(stats.sources).toBeLessThanOrEqual(16)
    expect(stats.droppedMalformed).toBeGreaterThan(0)
    expect(stats.bytesSent).toBeLessThan(stats.bytesReceived)
  })

  test('says which port is taken, and leaves none open', async () => {
    const first = await serve(['127.0.67.1:0'])
    const [primary, alternate] = first.endpoints.map(({ port }) => port)
    for (const port of [primary!, alternate! - 2]) {
      const config = port === primary ? {} : { alternatePort: alternate! }
      const second = new StunServer({ config: { ...defaultStunServerConfig, ...config }, listen: [parseEndpoint(`127.0.67.1:${port}`)] })
      await expect(second.start()).rejects.toMatchObject({
        code: 'udp-port-in-use',
        kind: 'host',
        message: expect.stringContaining(`127.0.67.1:${port === primary ? primary : alternate}`),
      })
      expect(second.endpoints).toEqual([])
    }
  })

  test('stops, frees its ports, and starts again', async () => {
    const server = await serve(['127.0.68.1:0'])
    const { port } = server.endpoints[0]!
    await server.stop()
    expect(server.endpoints).toEqual([])
    const again = await serve([`127.0.68.1:${port}`])
    expect((await ask([again])).ipv4!.kind).toBe('no NAT')
  })
})

describe('where a server listens', () => {
  const link = ['/ip4/198.51.100.7/tcp/4460', '/ip6/2001:db8::7/tcp/4460', '/dns4/example.com/tcp/4460']

  test('is where links are, unless it is told otherwise', () => {
    expect(stunListen(defaultStunServerConfig, link).map(formatEndpoint)).toEqual(['198.51.100.7:4460', '[2001:db8::7]:4460'])
    const config = stunServerConfig.parse({ listen: ['/ip4/198.51.100.8/udp/3478'] })
    expect(stunListen(config, link).map(formatEndpoint)).toEqual(['198.51.100.8:3478'])
  })

  test.each(['/ip4/198.51.100.8/tcp/3478', '198.51.100.8:3478', '/ip4/2001:db8::1/udp/1', '/ip4/1.2.3.4/udp/70000'])(
    '%s is refused',
    (text) => {
      expect(() => stunListen(stunServerConfig.parse({ listen: [text] }), link)).toThrow(
        expect.objectContaining({ code: 'config-invalid' }),
      )
    },
  )

  test.each<[string, string[], Partial<StunServerConfig>]>([
    ['two addresses, one of which is all', ['0.0.0.0:4460'], { alternateAddresses: ['127.0.0.2'] }],
    ['a second address of a family without a first', ['127.0.0.1:4460'], { alternateAddresses: ['::1'] }],
    ['no port after the last', ['127.0.0.1:65535'], {}],
    ['twice the same port', ['127.0.0.1:4460'], { alternatePort: 4460 }],
  ])('%s is refused', async (_, listen, config) => {
    const server = new StunServer({ config: { ...defaultStunServerConfig, ...config }, listen: listen.map(parseEndpoint) })
    await expect(server.start()).rejects.toMatchObject({ code: 'config-invalid' })
  })
})

describe('asking', () => {
  test('finds the servers of bootstrap nodes, and of names', async () => {
    const servers = stunServersOf([
      '/ip4/11.0.0.1/tcp/4460/p2p/12D3KooWA',
      '/ip6/2001:db8::1/tcp/4460',
      '/dns4/x/tcp/1',
      '/ip4/11.0.0.2/tcp/0',
    ])
    expect(servers.map((one) => [formatEndpoint(one), one.alternatePort])).toEqual([
      ['11.0.0.1:4460', 4461],
      ['[2001:db8::1]:4460', 4461],
    ])
    expect((await resolveStunServer('[2001:db8::1]')).map(formatEndpoint)).toEqual(['[2001:db8::1]:3478'])
    expect((await resolveStunServer('localhost:99')).map(formatEndpoint)).toContain('127.0.0.1:99')
    await expect(resolveStunServer('a b')).rejects.toMatchObject({ code: 'malformed' })
  })

  test('silent servers end in time; being called off ends at once with what is known', async () => {
    const silent = await open('127.0.69.1:0')
    const server = { ...silent.local, alternatePort: null }
    expect((await probeNat({ servers: [server], random, timing })).ipv4).toMatchObject({ kind: 'blocked' })
    const stop = new AbortController()
    const slow = probeNat({ servers: [server], random, signal: stop.signal })
    stop.abort()
    const started = performance.now()
    expect((await slow).servers).toEqual([{ server: formatEndpoint(server), verdict: 'silent', said: null }])
    expect(performance.now() - started).toBeLessThan(400)
    expect((await probeNat({ servers: [server], random, signal: stop.signal })).ipv4?.kind).toBe('blocked')
  })

  test('a port that is taken is an error; an address that is not here is no connectivity', async () => {
    const taken = await open('127.0.69.2:0')
    const server = { ...taken.local, alternatePort: null }
    const from = { localAddresses: [parseIp('127.0.69.2')], localPort: taken.local.port }
    await expect(probeNat({ servers: [server], random, timing, ...from })).rejects.toMatchObject({ code: 'udp-port-in-use' })
    const report = await probeNat({ servers: [server], random, timing, localAddresses: [parseIp('198.51.100.99')] })
    expect(report.ipv4).toMatchObject({ kind: 'blocked', notes: [expect.stringContaining('198.51.100.99')] })
  })

  test('each family is told of when it is through, whatever the other one takes', async () => {
    const server = await serve(['127.0.69.5:0'])
    const silent = await open('[::1]:0')
    const told: (number | string)[] = []
    const servers = [server.endpoints[0]!, silent.local].map((one) => ({ ...one, alternatePort: null }))
    const report = await probeNat({
      servers,
      random,
      timing,
      done: ({ behaviour, kind }, facts) => told.push(behaviour.family, kind, facts[0]!.verdict),
    })
    expect(told).toEqual([4, report.ipv4!.kind, 'alone', 6, 'blocked', 'silent'])
  })

  test('a family without a way to any server is left out, unless that is so of both', async () => {
    const server = await serve(['127.0.69.6:0'])
    const servers = [server.endpoints[0]!, parseEndpoint('[2001:db8::1]:4460')].map((one) => ({ ...one, alternatePort: null }))
    const isRouted = async ({ ip }: Endpoint): Promise<boolean> => ip.family === 4
    const report = await probeNat({ servers, random, timing, isRouted })
    expect(report.ipv6).toBeNull()
    expect(report.servers.map((one) => one.server)).toEqual([formatEndpoint(server.endpoints[0]!)])
    const silent = await open('127.0.69.7:0')
    const offline = await probeNat({ servers: [{ ...silent.local, alternatePort: null }], random, timing, isRouted: async () => false })
    expect(offline).toMatchObject({ ipv4: { kind: 'blocked' }, servers: [{ verdict: 'silent' }] })
  })

  test('what the system knows no way to is no place to ask', async () => {
    expect(await hasRoute(parseEndpoint('127.0.69.8:9'))).toBe(true)
    expect(await hasRoute(parseEndpoint('[::1]:9'))).toBe(true)
    // Link-local without an interface.
    expect(await hasRoute(parseEndpoint('[fe80::1]:9'))).toBe(false)
  })

  test('asks from the port it is told', async () => {
    const server = await serve(['127.0.69.3:0'])
    const free = await open('127.0.69.4:0')
    const { port } = free.local
    await free.close()
    running.splice(-1)
    const report = await ask([server], { localAddresses: [parseIp('127.0.69.4')], localPort: port })
    expect(report.servers[0]!.said).toBe(`127.0.69.4:${port}`)
  })
})
