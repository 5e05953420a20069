import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { createHost, defaultLinkLimits, type Host, type HostOptions, parseTcpAddress } from '../../../src/link/index.ts'
import { numbered, Recorder, until } from '../../compliance/cell-channel.ts'

const isLinux = process.platform === 'linux'
const hosts: Host[] = []
const servers: net.Server[] = []

async function start(options: Partial<HostOptions> = {}): Promise<Host> {
  const host = await createHost({ key: randomBytes(32), mode: 'server', listen: ['/ip4/127.0.0.1/tcp/0'], ...options })
  hosts.push(host)
  return host
}

async function prepared(options: Partial<HostOptions> = {}): Promise<Host> {
  const host = await start(options)
  await host.preparePunching()
  expect(host.punching.unavailable).toBeNull()
  return host
}

afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop()
  for (const server of servers.splice(0)) server.close()
})

function endpointOf(host: Host): { host: string; port: number } {
  const { host: ip, port } = parseTcpAddress(host.addresses()[0]!)!
  return { host: ip, port }
}

/** A free port of 127.0.0.1 that nobody listens on. */
async function closedPort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

/** Descriptors of sockets that this process has open. */
const openFiles = (): number => readdirSync('/proc/self/fd').length

async function carries(from: Host, to: Host): Promise<void> {
  const taken = new Recorder()
  to.onChannel((channel) => {
    channel.attach(taken)
    return true
  })
  const channel = await from.dialer.openChannel(to.id, [], AbortSignal.timeout(5000))
  channel.attach(new Recorder())
  expect(channel.kind).toBe('tls')
  channel.send(numbered(0, 100))
  await until('the cells', () => taken.count === 100)
  expect(taken.wrong).toBeNull()
}

describe.runIf(isLinux)('punching', () => {
  it('says what is missing before it is prepared', async () => {
    const host = await start()
    expect(host.punching.unavailable).toBe('punching has not been prepared')
    const target = { id: host.id, endpoints: [{ host: '127.0.0.1', port: 1 }], tlsRole: 'client' } as const
    const other = await start()
    await expect(other.punch(target, AbortSignal.timeout(100))).rejects.toMatchObject({ code: 'not-prepared' })
    const client = await start({ mode: 'client', listen: [] })
    await client.preparePunching()
    expect(client.punching.unavailable).toBe('this node listens on no port')
  })

  it('meets a peer that punches too, from the ports both listen on', async () => {
    for (const listen of ['/ip4/127.0.0.1/tcp/0', '/ip6/::1/tcp/0', '/ip4/0.0.0.0/tcp/0']) {
      const a = await prepared({ listen: [listen] })
      const b = await prepared({ listen: [listen] })
      const ip = listen.includes('ip6') ? '::1' : '127.0.0.1'
      const at = (host: Host) => ({ host: ip, port: endpointOf(host).port })
      const told: string[] = []
      a.onDirectLink((link) => told.push(`${link.peer} ${link.origin}`))
      const signal = AbortSignal.timeout(5000)
      await Promise.all([
        a.punch({ id: b.id, endpoints: [at(b)], tlsRole: 'client' }, signal),
        b.punch({ id: a.id, endpoints: [at(a)], tlsRole: 'server' }, signal),
      ])
      expect(told).toContain(`${b.id} punched`)
      expect(a.directLink(b.id)).toMatchObject({ origin: 'punched', kind: 'tls', direction: 'outbound', via: null })
      expect(b.directLink(a.id)).toMatchObject({ origin: 'punched', direction: 'inbound' })
      await carries(a, b)
      await carries(b, a)
    }
  })

  it('is TLS client on a connection that came in, when that is its role', async () => {
    const a = await prepared()
    const b = await prepared()
    // All that a dials is refused: only b's connection can come up, and b never speaks first.
    const nowhere = { host: '127.0.0.1', port: await closedPort() }
    const signal = AbortSignal.timeout(5000)
    await Promise.all([
      a.punch({ id: b.id, endpoints: [nowhere], tlsRole: 'client' }, signal),
      b.punch({ id: a.id, endpoints: [endpointOf(a)], tlsRole: 'server' }, signal),
    ])
    expect(a.directLink(b.id)).toMatchObject({ origin: 'punched', direction: 'outbound' })
    await carries(b, a)
  })

  it('takes up a connection that came before it was asked to punch', async () => {
    const a = await prepared()
    const b = await prepared()
    const signal = AbortSignal.timeout(5000)
    const early = b.punch({ id: a.id, endpoints: [endpointOf(a)], tlsRole: 'server' }, signal)
    await delay(300)
    await a.punch({ id: b.id, endpoints: [endpointOf(b)], tlsRole: 'client' }, signal)
    await early
    await carries(a, b)
  })

  it('goes on where the other side refuses at first', async () => {
    const a = await prepared()
    const port = await closedPort()
    const met = a.punch({ id: hosts[0]!.id, endpoints: [{ host: '127.0.0.1', port }], tlsRole: 'server' }, AbortSignal.timeout(300))
    await expect(met).rejects.toMatchObject({ code: 'punch-failed', message: expect.stringContaining('ECONNREFUSED') })
    const key = randomBytes(32)
    const early = await start({ key })
    const { id } = early
    await early.stop()
    const meeting = a.punch({ id, endpoints: [{ host: '127.0.0.1', port }], tlsRole: 'server' }, AbortSignal.timeout(5000))
    await delay(200)
    const b = await prepared({ key, listen: [`/ip4/127.0.0.1/tcp/${port}`] })
    await b.punch({ id: a.id, endpoints: [endpointOf(a)], tlsRole: 'client' }, AbortSignal.timeout(5000))
    await meeting
  })

  it('makes no link with anybody but the wanted peer, in either role', async () => {
    const a = await prepared()
    const b = await prepared()
    const wanted = await start()
    for (const [mine, theirs] of [
      ['client', 'server'],
      ['server', 'client'],
    ] as const) {
      const results = await Promise.allSettled([
        a.punch({ id: wanted.id, endpoints: [endpointOf(b)], tlsRole: mine }, AbortSignal.timeout(700)),
        b.punch({ id: wanted.id, endpoints: [endpointOf(a)], tlsRole: theirs }, AbortSignal.timeout(700)),
      ])
      expect(results.map((result) => result.status)).toEqual(['rejected', 'rejected'])
      expect(a.links().filter((link) => link.origin === 'punched')).toEqual([])
      expect(b.links().filter((link) => link.origin === 'punched')).toEqual([])
    }
  })

  it('leaves ordinary connections from the same address alone while it punches', async () => {
    const a = await prepared()
    a.onChannel((channel) => {
      channel.attach(new Recorder())
      return true
    })
    const wanted = await start()
    const punching = a.punch(
      { id: wanted.id, endpoints: [{ host: '127.0.0.1', port: await closedPort() }], tlsRole: 'client' },
      AbortSignal.timeout(1500),
    )
    for (const address of a.addresses()) {
      const client = await start({ mode: 'client', listen: [] })
      const channel = await client.dialer.openChannel(a.id, [address], AbortSignal.timeout(1000))
      expect(channel.kind).toBe(address.endsWith('/tls') ? 'tls' : 'libp2p')
    }
    await expect(punching).rejects.toMatchObject({ code: 'punch-failed' })
  })

  it('is content with a link that is up, and stops when it is told to', async () => {
    const a = await prepared()
    const b = await prepared()
    await a.connectDirect(b.id, b.addresses(), AbortSignal.timeout(2000))
    await a.punch({ id: b.id, endpoints: [], tlsRole: 'client' }, AbortSignal.timeout(100))
    const wanted = await start()
    const controller = new AbortController()
    const silent = { host: '127.0.0.1', port: await closedPort() }
    const punching = a.punch({ id: wanted.id, endpoints: [silent], tlsRole: 'client' }, controller.signal)
    controller.abort()
    await expect(punching).rejects.toMatchObject({ code: 'aborted' })
    const other = a.punch({ id: wanted.id, endpoints: [silent], tlsRole: 'client' }, AbortSignal.timeout(5000))
    other.catch(() => {})
    await a.stop()
    await expect(other).rejects.toMatchObject({ code: 'aborted' })
  })

  it('refuses nonsense endpoints, itself, and more peers than it may meet at once', async () => {
    const a = await prepared({ limits: { ...defaultLinkLimits, maxPunches: 1 } })
    const { id } = await start()
    const bad = [
      { host: 'router.example', port: 80 },
      { host: '127.0.0.1', port: 0 },
      { host: '::1', port: 80 },
    ]
    await expect(a.punch({ id, endpoints: bad, tlsRole: 'client' }, AbortSignal.timeout(200))).rejects.toMatchObject({
      code: 'punch-failed',
      message: expect.stringContaining('no endpoint of an address family'),
    })
    // The own endpoint: TCP would connect to itself.
    const self = a.punch({ id, endpoints: [endpointOf(a)], tlsRole: 'server' }, AbortSignal.timeout(400))
    await expect(a.punch({ id, endpoints: [endpointOf(a)], tlsRole: 'server' }, AbortSignal.timeout(100))).rejects.toMatchObject({
      code: 'punch-limit',
    })
    await expect(self).rejects.toMatchObject({ code: 'punch-failed' })
    expect(a.links()).toEqual([])
  })

  it('leaks no descriptor, however attempts end', async () => {
    const a = await prepared()
    const b = await start()
    const before = openFiles()
    const endpoints = [
      { host: '127.0.0.1', port: await closedPort() },
      endpointOf(a),
      // Nobody answers: a documentation address on the loopback route, aborted while it waits.
      { host: '127.255.255.255', port: 9 },
      endpointOf(b),
    ]
    for (const tlsRole of ['client', 'server'] as const) {
      const wanted = (await createHostId()).id
      await a.punch({ id: wanted, endpoints, tlsRole }, AbortSignal.timeout(500)).catch(() => {})
    }
    await until('the descriptors to be closed', () => openFiles() <= before)
  })

  it('still lets nobody listen on its port', async () => {
    const a = await prepared()
    const { port } = endpointOf(a)
    await expect(start({ listen: [`/ip4/127.0.0.1/tcp/${port}`] })).rejects.toMatchObject({ code: 'address-in-use' })
    await expect(start({ listen: [`/ip4/0.0.0.0/tcp/${port}`] })).rejects.toMatchObject({ code: 'address-in-use' })
    // Another program that shares, and was first.
    const holder = net.createServer()
    servers.push(holder)
    await new Promise<void>((resolve) => holder.listen({ host: '127.0.0.1', port: 0, reusePort: true }, resolve))
    const held = (holder.address() as net.AddressInfo).port
    await expect(start({ listen: [`/ip4/127.0.0.1/tcp/${held}`] })).rejects.toMatchObject({ code: 'address-in-use' })
    // A second connection of the same ports can't be had; the first goes on.
    await a.stop()
    const again = await start({ listen: [`/ip4/127.0.0.1/tcp/${port}`] })
    expect(endpointOf(again).port).toBe(port)
  })

  it('dials relays from the listening port once it is prepared, and learns how they see it', async () => {
    const relay = await start()
    const a = await start()
    await a.libp2p.dial(multiaddr(relay.addresses()[0]!))
    await delay(100)
    expect(a.observed()).toEqual([])
    for (const connection of a.libp2p.getConnections()) await connection.close()
    await a.preparePunching()
    const { port } = endpointOf(a)
    await a.libp2p.dial(multiaddr(relay.addresses()[0]!))
    await until('the observation', () => a.observed().length === 1)
    expect(a.observed()[0]).toMatchObject({ host: '127.0.0.1', port, localPort: port, observer: relay.id })
    // A second connection to the same port can't come from there: it comes from another.
    await a.libp2p.dial(multiaddr(relay.addresses()[0]!), { force: true } as never)
    // Where the address to dial from is set, that one, from the same port.
    const b = await prepared({ listen: ['/ip4/0.0.0.0/tcp/0'], outboundAddress: '127.6.0.1' })
    await b.libp2p.dial(multiaddr(relay.addresses()[0]!))
    await until('the observation', () => b.observed().length === 1)
    expect(b.observed()[0]).toMatchObject({ host: '127.6.0.1', port: endpointOf(b).port })
  })
})

describe.runIf(isLinux)('the library that punching needs', () => {
  it('is loaded only by nodes that prepare for punching', () => {
    const script = `
      import { readFileSync } from 'node:fs'
      const { createHost } = await import(${JSON.stringify(new URL('../../../src/link/index.ts', import.meta.url).href)})
      const host = await createHost({ key: new Uint8Array(32).fill(1), mode: 'server', listen: ['/ip4/127.0.0.1/tcp/0'] })
      const isLoaded = () => readFileSync('/proc/self/maps', 'latin1').includes('koffi')
      const before = isLoaded()
      await host.preparePunching()
      console.log(before, isLoaded(), host.punching.unavailable)
      await host.stop()
    `
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' })
    expect(stdout.trim()).toBe('false true null')
  })
})

/** The identity of a node that is not there. */
async function createHostId(): Promise<{ id: Host['id'] }> {
  const host = await createHost({ key: randomBytes(32), mode: 'client' })
  await host.stop()
  return { id: host.id }
}
