import { randomBytes } from 'node:crypto'
import net from 'node:net'
import { networkInterfaces } from 'node:os'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { createHost, defaultLinkLimits, formatTcpAddress, type Host, type HostOptions } from '../../../src/link/index.ts'
import { hello, numbered, Recorder, until } from '../../compliance/cell-channel.ts'

const hosts: Host[] = []
async function start(options: Partial<HostOptions>): Promise<Host> {
  const host = await createHost({ key: randomBytes(32), mode: 'server', ...options })
  hosts.push(host)
  return host
}

afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop()
})

function taking(host: Host): Recorder[] {
  const recorders: Recorder[] = []
  host.onChannel((channel) => {
    const recorder = new Recorder()
    recorder.channel = channel
    channel.attach(recorder)
    recorders.push(recorder)
    return true
  })
  return recorders
}

async function open(from: Host, to: Host, addresses = to.addresses()): Promise<Recorder> {
  const channel = await from.dialer.openChannel(to.id, addresses, AbortSignal.timeout(10_000))
  const recorder = new Recorder()
  recorder.channel = channel
  channel.attach(recorder)
  return recorder
}

const libp2pOnly = (host: Host): string[] => host.addresses().filter((address) => !address.endsWith('/tls'))

describe('the host', () => {
  it('takes direct links and libp2p on one port, IPv4 and IPv6', async () => {
    const server = await start({ listen: ['/ip4/127.5.0.1/tcp/0', '/ip6/::1/tcp/0'] })
    const taken = taking(server)
    const addresses = server.addresses()
    expect(addresses.length).toBe(4)
    expect(addresses[1]).toBe(`${addresses[0]}/tls`)
    for (const address of addresses) {
      const client = await start({ mode: 'client' })
      const recorder = await open(client, server, [address])
      recorder.channel!.send(numbered(0, 4))
      const isDirect = address.endsWith('/tls')
      expect(recorder.channel!.kind).toBe(isDirect ? 'tls' : 'libp2p')
      await until('the cells', () => taken.at(-1)?.count === 4)
      expect(taken.at(-1)!.channel!.remoteAddress).toBe(address.startsWith('/ip4') ? '127.0.0.1' : '::1')
      expect(taken.at(-1)!.channel!.peer).toBe(client.id)
      const status = client.links().find((link) => link.kind === recorder.channel!.kind)
      expect(status).toMatchObject({ peer: server.id, direction: 'outbound', channels: 1 })
      taken.length = 0
    }
  })

  it('prefers the direct link, and takes libp2p where there is none', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    taking(server)
    const client = await start({ mode: 'client' })
    expect((await open(client, server, libp2pOnly(server))).channel!.kind).toBe('libp2p')
    expect((await open(client, server)).channel!.kind).toBe('tls')
    // A link that is up is used whatever the addresses.
    expect((await open(client, server, libp2pOnly(server))).channel!.kind).toBe('tls')
    // The direct address is dead, the other answers.
    const other = await start({ mode: 'client' })
    const recorder = await open(other, server, ['/ip4/127.0.0.1/tcp/1/tls', ...libp2pOnly(server)])
    expect(recorder.channel!.kind).toBe('libp2p')
  })

  it('proves identities on both ways in', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    taking(server)
    const client = await start({ mode: 'client' })
    const stranger = await start({ mode: 'client' })
    for (const address of server.addresses()) {
      await expect(client.dialer.openChannel(stranger.id, [address], AbortSignal.timeout(5000))).rejects.toMatchObject({
        code: 'identity-mismatch',
      })
    }
    const closed = ['/ip4/127.0.0.1/tcp/1', '/ip4/127.0.0.1/tcp/1/tls']
    await expect(client.dialer.openChannel(stranger.id, closed, AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'connect-failed',
    })
    await expect(client.dialer.openChannel(stranger.id, ['nonsense'], AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'connect-failed',
    })
    await expect(client.dialer.openChannel(server.id, server.addresses(), AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' })
  })

  it('refuses channels when nobody takes them, and always as a client', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const client = await start({ mode: 'client' })
    const refused = await open(client, server)
    refused.channel!.send(hello())
    await until('the refusal', () => refused.ends.length > 0)
    expect(refused.ends).toEqual(['reset'])
    taking(client)
    taking(server)
    const back = await open(server, client, [])
    back.channel!.send(hello())
    await until('the refusal', () => back.ends.length > 0)
    expect(back.ends).toEqual(['reset'])
  })

  it('names the address and port that it cannot listen on', async () => {
    const holder = net.createServer()
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve))
    const { port } = holder.address() as net.AddressInfo
    await expect(start({ listen: [`/ip4/127.0.0.1/tcp/${port}`] })).rejects.toMatchObject({
      code: 'address-in-use',
      kind: 'host',
      message: `cannot listen on 127.0.0.1 port ${port}: another program listens there`,
    })
    holder.close()
    await expect(start({ listen: ['/ip4/192.0.2.1/tcp/0'] })).rejects.toMatchObject({ code: 'address-unavailable' })
    await expect(start({ listen: ['127.0.0.1:80'] })).rejects.toMatchObject({ code: 'bad-address', kind: 'config' })
  })

  it('dials from the address it listens on when that is a loopback one, or from the one it is told', async () => {
    const server = await start({ listen: ['/ip4/127.9.0.1/tcp/0'] })
    const taken = taking(server)
    const auto = await start({ listen: ['/ip4/127.5.0.1/tcp/0'] })
    const told = await start({ mode: 'client', outboundAddress: '127.6.0.1' })
    for (const [host, address] of [
      [auto, '127.5.0.1'],
      [told, '127.6.0.1'],
    ] as const) {
      for (const addresses of [libp2pOnly(server), server.addresses()]) {
        const recorder = await open(host, server, addresses)
        recorder.channel!.send(hello())
        await until('the channel', () => taken.length > 0)
        expect(taken.pop()!.channel!.remoteAddress).toBe(address)
      }
    }
  })

  it('shows nothing of a client but its fresh key', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const client = await start({ mode: 'client', listen: ['/ip4/127.0.0.1/tcp/0'] })
    expect(client.addresses()).toEqual([])
    expect(client.libp2p.getMultiaddrs()).toEqual([])
    await client.libp2p.dial(multiaddr(`${libp2pOnly(server)[0]}/p2p/${client.id}`)).catch(() => {})
    await client.libp2p.dial(multiaddr(libp2pOnly(server)[0]!))
    const identified = async () =>
      (await server.libp2p.peerStore.all()).find((peer) => peer.id.toString() === client.id && peer.metadata.size > 0)
    for (let i = 0; i < 500 && !(await identified()); i++) await new Promise((resolve) => setTimeout(resolve, 5))
    const seen = (await identified())!
    expect(seen.addresses).toEqual([])
    expect(new TextDecoder().decode(seen.metadata.get('AgentVersion'))).toBe('shallot/1')
  })

  it('dials nobody that it may not dial', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    taking(server)
    const client = await start({ mode: 'client', mayDial: () => false })
    await expect(client.libp2p.dial(multiaddr(`${libp2pOnly(server)[0]}/p2p/${server.id}`))).rejects.toThrow()
    expect(client.links()).toEqual([])
    const asked = await start({ mode: 'client', mayDial: (peer) => peer === null || peer === server.id })
    await asked.libp2p.dial(multiaddr(`${libp2pOnly(server)[0]}/p2p/${server.id}`))
    expect(asked.links().length).toBe(1)
  })

  it('keeps the peers of circuits tagged, and only them', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const client = await start({ mode: 'client' })
    const taken = taking(server)
    const tags = async (): Promise<string[]> =>
      (await server.libp2p.peerStore.all()).filter((peer) => peer.id.toString() === client.id).flatMap((peer) => [...peer.tags.keys()])
    const recorder = await open(client, server, libp2pOnly(server))
    recorder.channel!.send(hello())
    await until('the channel', () => taken.length === 1)
    for (let i = 0; i < 200 && (await tags()).length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await tags()).toEqual(['shallot-circuit'])
    server.tag(client.id)
    recorder.channel!.close()
    await until('the end', () => taken[0]!.ends.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await tags()).toEqual(['shallot-circuit'])
    server.untag(client.id)
    for (let i = 0; i < 200 && (await tags()).length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await tags()).toEqual([])
  })

  it('keeps no more silent connections of one address than a few, and none for long', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'], limits: { ...defaultLinkLimits, handshakeTimeoutMs: 300 } })
    const port = Number(server.addresses()[0]!.split('/').at(-1))
    let closed = 0
    for (let i = 0; i < 50; i++) {
      const socket = net.connect(port, '127.0.0.1')
      socket.on('error', () => {})
      socket.on('close', () => closed++)
    }
    await until('those beyond the limit to be closed', () => closed === 18)
    await until('the others to be closed', () => closed === 50)
    const client = await start({ mode: 'client' })
    taking(server)
    await open(client, server)
  })

  it('stops with channels open and frees its ports at once', async () => {
    const server = await start({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const client = await start({ mode: 'client' })
    const taken = taking(server)
    const recorders = [await open(client, server), await open(client, server, libp2pOnly(server))]
    for (const recorder of recorders) recorder.channel!.send(numbered(0, 40))
    await until('the channels', () => taken.length === 2)
    await server.stop()
    await until('the ends', () => [...recorders, ...taken].every((recorder) => recorder.ends.length === 1))
    expect(server.meter.total + client.meter.total).toBe(0)
    const again = await start({ listen: libp2pOnly(server) })
    expect(again.addresses()).toEqual(server.addresses())
  })
})

describe('the addresses of a host', () => {
  it('are those of all interfaces for a wildcard, on one port for both families', async () => {
    const first = await start({ listen: ['/ip4/0.0.0.0/tcp/0'] })
    const port = Number(first.addresses()[0]!.split('/')[4])
    await first.stop()
    const host = await start({ listen: [`/ip4/0.0.0.0/tcp/${port}`, `/ip6/::/tcp/${port}`] })
    const interfaces = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
    for (const family of ['IPv4', 'IPv6'] as const) {
      const usable = interfaces.filter((address) => address.family === family && !address.address.startsWith('fe80:'))
      const outer = usable.filter((address) => !address.internal)
      const expected = (outer.length > 0 ? outer : usable).map(({ address }) => address)
      const own = host.addresses().filter((address) => address.startsWith(`/${family === 'IPv4' ? 'ip4' : 'ip6'}/`))
      expect(own).toEqual(expected.flatMap((address) => [true, false].map((isDirect) => formatTcpAddress(address, port, !isDirect))))
    }
    taking(host)
    const client = await start({ mode: 'client' })
    for (const address of ['127.0.0.1', '::1']) {
      const recorder = await open(client, host, [formatTcpAddress(address, port, false)])
      expect(recorder.channel!.kind).toBe('libp2p')
      await client.libp2p.hangUp(client.libp2p.getConnections()[0]!.remotePeer)
    }
  })

  it('are never link-local ones', async () => {
    for (const address of ['/ip6/fe80::1/tcp/0', '/ip4/169.254.1.1/tcp/0']) {
      await expect(start({ listen: [address] })).rejects.toMatchObject({
        code: 'bad-address',
        kind: 'config',
        message: expect.stringContaining('link-local'),
      })
    }
  })
})
