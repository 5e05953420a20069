import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseIp, SeededRandom } from '../../src/base/index.ts'
import { defaultStunServerConfig, openDatagrams, parseEndpoint, probeNat, StunServer } from '../../src/nat/stun/index.ts'
import { Program, run, temporaryFolder, until } from '../support/processes.ts'

// Programs written elsewhere ask our STUN server, and our probe asks servers written elsewhere: over loopback, where there is no NAT.
// test/netns has the same programs behind real NATs.

// By path: npm's package of that name has a program `stun` too, which npm puts before the system's.
const tools = {
  stun: '/usr/bin/stun',
  stunclient: '/usr/bin/turnutils_stunclient',
  natdiscovery: '/usr/bin/turnutils_natdiscovery',
  turnserver: '/usr/bin/turnserver',
} as const
const missing = (tool: keyof typeof tools): string => (existsSync(tools[tool]) ? '' : ` (needs ${tools[tool]})`)
const tool = (name: keyof typeof tools, title: string, body: () => Promise<void>): void =>
  test.skipIf(missing(name) !== '')(`${title}${missing(name)}`, body)

let complete: StunServer
let single: StunServer

async function serve(...texts: string[]): Promise<StunServer> {
  const server = new StunServer({ config: defaultStunServerConfig, listen: texts.map(parseEndpoint) })
  await server.start()
  return server
}
const place = (server: StunServer): { ip: string; port: string; text: string } => {
  const { ip, port } = server.endpoints[0]!
  const host = ip.bytes.join('.')
  return { ip: host, port: String(port), text: `${host}:${port}` }
}

beforeAll(async () => {
  complete = await serve('127.0.71.1:0', '127.0.71.2:0')
  single = await serve('127.0.71.3:0')
})
afterAll(async () => {
  await complete.stop()
  await single.stop()
})

/** What a program prints, whatever its exit code: these have theirs for results. */
async function output(name: keyof typeof tools, ...args: string[]): Promise<string> {
  const { stdout, log } = await run(tools[name], args, { timeoutMs: 20_000 })
  return stdout + log
}

describe('our server answers', () => {
  tool('stun', "Debian's stun client: no NAT", async () => {
    expect(await output('stun', place(complete).text)).toMatch(/Primary: Open/)
  })

  tool('stun', "Debian's stun client at a server with one address, which can't show that strangers come in", async () => {
    expect(await output('stun', place(single).text)).toMatch(/Primary: Firewall/)
  })

  tool('stun', "Debian's stun client, which repeats its requests, even where not a byte more is allowed than came", async () => {
    const limits = { ...defaultStunServerConfig.limits, allowanceBytesPerMinute: 0 }
    const strict = new StunServer({
      config: { ...defaultStunServerConfig, limits },
      listen: ['127.0.71.4:0', '127.0.71.5:0'].map(parseEndpoint),
    })
    await strict.start()
    expect(await output('stun', place(strict).text)).toMatch(/Primary: Open/)
    const { bytesReceived, bytesSent } = strict.stats()
    expect(bytesSent).toBeLessThanOrEqual(bytesReceived)
    await strict.stop()
  })

  tool('stunclient', "coturn's stunclient, also where there is one address", async () => {
    const { ip, port } = place(complete)
    const both = await output('stunclient', '-p', port, ip)
    expect(both).toMatch(/RFC 5780 response 2[\s\S]*UDP reflexive addr: 127\.0\.0\.1/)
    const one = place(single)
    expect(await output('stunclient', '-p', one.port, one.ip)).toMatch(/UDP reflexive addr: 127\.0\.0\.1/)
  })

  tool('natdiscovery', "coturn's natdiscovery: mapping, filtering, hairpin and padding", async () => {
    const { ip, port } = place(complete)
    const found = await output('natdiscovery', '-p', port, '-m', '-f', ip)
    expect(found).toMatch(/NAT with Endpoint Independent Mapping/)
    expect(found).toMatch(/NAT with Endpoint Independent Filtering/)
    expect(await output('natdiscovery', '-p', port, '-H', ip)).toMatch(/hairpinning/)
    expect(await output('natdiscovery', '-p', port, '-m', '-P', ip)).toMatch(/No ALG: Mapped == XOR-Mapped/)
  })

  test("the npm package 'stun'", async () => {
    const stun = createRequire(import.meta.url)('stun') as {
      request(url: string): Promise<{ getAttribute(type: number): { value: { address: string } } }>
    }
    const answer = await stun.request(`stun://${place(complete).text}`)
    expect(answer.getAttribute(0x0020).value.address).toBe('127.0.0.1')
  })

  test('and sent all of them together hardly more than it got', () => {
    for (const server of [complete, single]) {
      const { bytesReceived, bytesSent } = server.stats()
      expect(bytesSent).toBeLessThanOrEqual(bytesReceived + defaultStunServerConfig.limits.allowanceBytesPerMinute)
    }
  })
})

describe('our probe asks', () => {
  const random = new SeededRandom(Date.now() % 0x1_0000_0000)

  tool('turnserver', "coturn's server: mapping, filtering and lifetime", async () => {
    const folder = temporaryFolder('turnserver')
    // Two ports that are free now.
    const held = await openDatagrams({ ip: parseIp('127.0.72.1'), port: 0 }, () => {})
    const { port } = held.local
    await held.close()
    const args = ['-n', '-S', '--no-tls', '--no-dtls', '--no-cli', '--no-tcp', '-L', '127.0.72.1', '-L', '127.0.72.2']
    const ports = ['-p', String(port), '--alt-listening-port', String(port + 1)]
    const files = ['--log-file', 'stdout', '--pidfile', join(folder.path, 'pid'), '--userdb', join(folder.path, 'db')]
    const server = Program.start(tools.turnserver, [...args, ...ports, ...files])
    try {
      const servers = [{ ip: parseIp('127.0.72.1'), port, alternatePort: null }]
      await until('turnserver answers', 10_000, async () => (await probeNat({ servers, random, depth: 'address' })).ipv4?.kind === 'no NAT')
      const timing = { rtoMs: 200, minRtoMs: 100, sends: 3, paceMs: 0, maxLifetimeMs: 1_200 }
      const report = await probeNat({ servers, random, depth: 'lifetime', timing })
      expect(report.ipv4).toMatchObject({ kind: 'no NAT', behaviour: { mapping: 'none', filtering: 'endpoint-independent' } })
      expect(report.ipv4!.behaviour.bindingLifetimeMs).toBeGreaterThan(100)
    } finally {
      await server.stop('SIGTERM')
      folder.remove()
    }
  })

  test("the npm package's server, which knows only RFC 5389", async () => {
    const stun = createRequire(import.meta.url)('stun') as {
      createServer(options: { type: 'udp4' }): {
        on(event: string, listener: (request: { transactionId: Buffer }, from: { address: string; port: number }) => void): void
        listen(port: number, address: string, listening: () => void): void
        send(message: unknown, port: number, address: string): void
        close(): void
      }
      createMessage(type: number, id: Buffer): { addXorAddress(address: string, port: number): void }
    }
    const server = stun.createServer({ type: 'udp4' })
    server.on('bindingRequest', ({ transactionId }, { address, port }) => {
      const answer = stun.createMessage(0x0101, transactionId)
      answer.addXorAddress(address, port)
      server.send(answer, port, address)
    })
    const held = await openDatagrams({ ip: parseIp('127.0.72.3'), port: 0 }, () => {})
    const { port } = held.local
    await held.close()
    await new Promise<void>((resolve) => server.listen(port, '127.0.72.3', resolve))
    const { ipv4 } = await probeNat({ servers: [{ ip: parseIp('127.0.72.3'), port, alternatePort: null }], random })
    server.close()
    expect(ipv4).toMatchObject({ kind: 'no NAT', behaviour: { mapping: 'none', filtering: null } })
  })
})
