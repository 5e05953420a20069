import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatIp, type IpAddress, parseIp, silentLogger } from '../../../src/base/index.ts'
import { createExitService, type Exit, type ExitModules, exitConfig, KernelBackend, type Resolver } from '../../../src/egress/index.ts'
import type { Target } from '../../../src/onion/index.ts'
import { ExitRefusal, endReasonOf } from '../../../src/relaying/index.ts'

const never = new AbortController().signal
const closers: (() => unknown)[] = []
afterEach(() => {
  for (const close of closers.splice(0).reverse()) close()
})

const names = new Map<string, string[]>()
const asked: string[] = []
const resolver: Resolver = {
  addresses: async (name) => {
    asked.push(name)
    const found = names.get(name)
    if (!found) throw new ExitRefusal('resolve-failed', 'no such name')
    return { value: found.map(parseIp), ttlSeconds: 60 }
  },
  names: async (address) => {
    asked.push(formatIp(address))
    return { value: ['pointer.example'], ttlSeconds: 60 }
  },
}

beforeEach(() => {
  names.clear()
  asked.length = 0
  names.set('site.example', ['127.0.0.1'])
  names.set('private.example', ['10.0.0.1', '192.168.0.1'])
  names.set('rebound.example', ['10.0.0.1', '127.0.0.1'])
})

function makeExit(config: object = {}, changes: Partial<ExitModules> = {}): Exit {
  const exit = createExitService({
    config: exitConfig.parse({ connectTimeoutMs: 2000, attemptTimeoutMs: 1000, ...config }),
    backend: new KernelBackend(),
    resolver,
    privateDestinations: ['127.0.0.0/8', '::1/128'],
    isRelayAddress: () => false,
    isOwnAddress: () => false,
    now: () => performance.now(),
    logger: silentLogger,
    ...changes,
  })
  closers.push(() => exit.close())
  return exit
}

async function listen(handler: (socket: Socket) => void, host = '127.0.0.1'): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    handler(socket)
  }).listen(0, host)
  await once(server, 'listening')
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

const echo = (): Promise<number> => listen((socket) => socket.pipe(socket))

async function reply(socket: Duplex, question: string): Promise<string> {
  socket.write(question)
  const [bytes] = (await once(socket, 'data')) as [Uint8Array]
  return Buffer.from(bytes).toString()
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!condition()) {
    if (Date.now() > end) throw new Error('waited 5 s in vain')
    await sleep(5)
  }
}

describe('streams', () => {
  it('reach a server by name and by address, and tell the address', async () => {
    const port = await echo()
    const circuit = makeExit().openCircuit()
    for (const host of ['site.example', '127.0.0.1', 'SITE.example.', '::ffff:127.0.0.1']) {
      const { socket, address } = await circuit.connect({ host, port }, never)
      expect(address).toBe('127.0.0.1')
      expect(await reply(socket, 'hello')).toBe('hello')
    }
  })

  it('are counted while they are open, with bytes, and without where to', async () => {
    const port = await echo()
    const exit = makeExit()
    const circuit = exit.openCircuit()
    const { socket } = await circuit.connect({ host: 'site.example', port }, never)
    await reply(socket, 'hello')
    expect(exit.counts).toMatchObject({ circuits: 1, streams: 1, opened: 1, refused: {}, bytesFromServers: 5, bytesToServers: 5 })
    socket.destroy()
    await until(() => exit.counts.streams === 0)
    expect(exit.counts).toMatchObject({ opened: 1, bytesFromServers: 5, bytesToServers: 5 })
    expect(JSON.stringify(exit.counts)).not.toContain('example')
    circuit.close()
    expect(exit.counts.circuits).toBe(0)
  })

  it('are refused by policy before the name is asked for, when no address could be allowed', async () => {
    const circuit = makeExit().openCircuit()
    await expect(circuit.connect({ host: 'site.example', port: 25 }, never)).rejects.toMatchObject({ reason: 'policy' })
    await expect(circuit.connect({ host: 'site.example', port: 0 }, never)).rejects.toMatchObject({ reason: 'policy' })
    await expect(circuit.connect({ host: '10.0.0.1', port: 80 }, never)).rejects.toMatchObject({ reason: 'policy' })
    await expect(circuit.connect({ host: '[fd00::1]', port: 80 }, never)).rejects.toMatchObject({ reason: 'policy' })
    expect(asked).toEqual([])
  })

  it('are refused by policy after the name is known, address by address', async () => {
    const port = await echo()
    const exit = makeExit()
    const circuit = exit.openCircuit()
    await expect(circuit.connect({ host: 'private.example', port }, never)).rejects.toMatchObject({ reason: 'policy' })
    expect((await circuit.connect({ host: 'rebound.example', port }, never)).address).toBe('127.0.0.1')
    expect(exit.counts.refused).toEqual({ policy: 1 })
  })

  it('never reach loopback unless the network allows it', async () => {
    const port = await echo()
    const circuit = makeExit({}, { privateDestinations: [] }).openCircuit()
    for (const host of ['127.0.0.1', 'site.example', '::ffff:127.0.0.1', '::1']) {
      await expect(circuit.connect({ host, port }, never)).rejects.toMatchObject({ reason: 'policy' })
    }
  })

  it('never reach relays or the exit itself', async () => {
    const port = await echo()
    const is = (text: string) => (ip: IpAddress) => formatIp(ip) === text
    const circuit = makeExit({}, { isRelayAddress: is('127.0.0.1'), isOwnAddress: is('127.0.0.2') }).openCircuit()
    for (const host of ['127.0.0.1', '127.0.0.2', 'site.example']) {
      await expect(circuit.connect({ host, port }, never)).rejects.toMatchObject({ reason: 'policy' })
    }
  })

  it('fail with the reason of what went wrong', async () => {
    const exit = makeExit()
    const circuit = exit.openCircuit()
    const port = await listen(() => {})
    await expect(circuit.connect({ host: 'no.example', port }, never)).rejects.toMatchObject({ reason: 'resolve-failed' })
    for (const host of ['bad name', '', '1.2.3', '0x7f.1', 'a'.repeat(300)]) {
      await expect(circuit.connect({ host, port }, never)).rejects.toMatchObject({ reason: 'resolve-failed' })
    }
    await expect(circuit.connect({ host: '127.0.0.9', port }, never)).rejects.toMatchObject({ reason: 'refused' })
    expect(exit.counts.refused).toEqual({ 'resolve-failed': 6, refused: 1 })
    expect(exit.counts.streams).toBe(0)
  })

  it('try the next address when one fails', async () => {
    const port = await echo()
    names.set('two.example', ['::1', '127.0.0.1'])
    const { address } = await makeExit().openCircuit().connect({ host: 'two.example', port }, never)
    expect(address).toBe('127.0.0.1')
  })

  it('give up in time, when the name or the server says nothing', async () => {
    const addresses: Resolver['addresses'] = (_, signal) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const slow = makeExit({ connectTimeoutMs: 30 }, { resolver: { ...resolver, addresses } })
    await expect(slow.openCircuit().connect({ host: 'site.example', port: 80 }, never)).rejects.toMatchObject({ reason: 'timeout' })
    await expect(slow.openCircuit().resolve('site.example', AbortSignal.abort())).rejects.toBeInstanceOf(ExitRefusal)
    const backend = Object.assign(new KernelBackend(), {
      connect: (_: unknown, signal: AbortSignal) =>
        new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    const exit = makeExit({ connectTimeoutMs: 30 }, { backend })
    await expect(exit.openCircuit().connect({ host: '127.0.0.1', port: 80 }, never)).rejects.toMatchObject({ reason: 'timeout' })
    expect(exit.counts).toMatchObject({ streams: 0, refused: { timeout: 1 } })
  })

  it("end with the asker's signal without being counted as refused", async () => {
    const backend = Object.assign(new KernelBackend(), {
      connect: (_: unknown, signal: AbortSignal) =>
        new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    const exit = makeExit({}, { backend })
    const abort = new AbortController()
    const connecting = exit.openCircuit().connect({ host: '127.0.0.1', port: 80 }, abort.signal)
    abort.abort()
    await expect(connecting).rejects.toBeInstanceOf(ExitRefusal)
    expect(exit.counts).toMatchObject({ streams: 0, refused: {} })
  })

  it('are reset, all of them, when the circuit is over', async () => {
    const ends: string[] = []
    const port = await listen((socket) => {
      socket.resume()
      socket.on('error', (error: NodeJS.ErrnoException) => ends.push(String(error.code)))
    })
    const exit = makeExit()
    const circuit = exit.openCircuit()
    await Promise.all(Array.from({ length: 3 }, () => circuit.connect({ host: '127.0.0.1', port }, never)))
    circuit.close()
    await until(() => ends.length === 3)
    expect(ends).toEqual(['ECONNRESET', 'ECONNRESET', 'ECONNRESET'])
    await expect(circuit.connect({ host: '127.0.0.1', port }, never)).rejects.toBeInstanceOf(ExitRefusal)
    await until(() => exit.counts.streams === 0)
  })

  it('that stand still for too long are ended with an error', async () => {
    const port = await echo()
    const circuit = makeExit({ streamIdleTimeoutMs: 120 }).openCircuit()
    const busy = (await circuit.connect({ host: '127.0.0.1', port }, never)).socket
    const idle = (await circuit.connect({ host: '127.0.0.1', port }, never)).socket
    busy.resume()
    const talk = setInterval(() => busy.write('x'), 20)
    closers.push(() => clearInterval(talk))
    const [error] = await once(idle, 'error')
    expect(endReasonOf(error)).toBe('timeout')
    await sleep(200)
    expect(busy.destroyed).toBe(false)
  })
})

describe('limits', () => {
  it('hold the streams of a circuit and of all', async () => {
    const port = await echo()
    const exit = makeExit({ maxStreamsPerCircuit: 2, maxStreams: 3 })
    const [one, other] = [exit.openCircuit(), exit.openCircuit()]
    const first = await one.connect({ host: '127.0.0.1', port }, never)
    await one.connect({ host: '127.0.0.1', port }, never)
    await expect(one.connect({ host: '127.0.0.1', port }, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    await other.connect({ host: '127.0.0.1', port }, never)
    await expect(other.connect({ host: '127.0.0.1', port }, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    first.socket.destroy()
    await until(() => exit.counts.streams === 2)
    await other.connect({ host: '127.0.0.1', port }, never)
    expect(exit.counts.refused).toEqual({ 'resource-limit': 2 })
  })

  it('hold how many streams a circuit may open in a time', async () => {
    const port = await echo()
    let now = 0
    const circuit = makeExit({ connectsPerSecond: 10, connectBurst: 2 }, { now: () => now }).openCircuit()
    const connect = (): Promise<unknown> => circuit.connect({ host: '127.0.0.1', port }, never)
    await connect()
    await connect()
    await expect(connect()).rejects.toMatchObject({ reason: 'resource-limit' })
    now = 100
    await connect()
  })

  it('hold the names and the associations of a circuit', async () => {
    const silent: Resolver = {
      ...resolver,
      addresses: (_, signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    }
    const exit = makeExit({ maxResolvesPerCircuit: 1, maxAssociationsPerCircuit: 1, maxAssociations: 2 }, { resolver: silent })
    const circuit = exit.openCircuit()
    const waiting = circuit.resolve('site.example', never)
    await expect(circuit.resolve('site.example', never)).rejects.toMatchObject({ reason: 'resource-limit' })
    const port = circuit.openDatagrams(() => {})
    expect(() => circuit.openDatagrams(() => {})).toThrow(ExitRefusal)
    port.close()
    port.close()
    expect(exit.counts.associations).toBe(0)
    circuit.openDatagrams(() => {})
    exit.openCircuit().openDatagrams(() => {})
    expect(() => exit.openCircuit().openDatagrams(() => {})).toThrow(ExitRefusal)
    circuit.close()
    await expect(waiting).rejects.toBeInstanceOf(ExitRefusal)
    expect(exit.counts.associations).toBe(1)
  })

  it('keeps to other limits and rates as soon as it is told of them, on circuits that are open too', async () => {
    const config = { ...exitConfig.parse({ connectsPerSecond: 0 }) }
    const exit = makeExit({}, { config })
    const circuit = exit.openCircuit()
    const port = await listen(() => {})
    const open = async (): Promise<void> => void (await circuit.connect({ host: '127.0.0.1', port }, never))
    for (let i = 0; i < 5; i++) await open()
    Object.assign(config, { connectsPerSecond: 1, connectBurst: 2 })
    exit.reconfigure()
    await open()
    await open()
    await expect(open()).rejects.toMatchObject({ reason: 'resource-limit' })
    Object.assign(config, { connectsPerSecond: 0, maxStreamsPerCircuit: 8 })
    exit.reconfigure()
    await open()
    await expect(open()).rejects.toMatchObject({ reason: 'resource-limit' })
    Object.assign(config, { maxStreamsPerCircuit: 512, policy: [`reject *:${port}`, 'accept *:*'] })
    exit.reconfigure()
    await expect(open()).rejects.toMatchObject({ reason: 'policy' })
  })

  it.each(['rateBytesPerSecond', 'rateBytesPerSecondPerCircuit'])('hold %s, in both directions, and nothing is lost', async (key) => {
    const size = 150_000
    const port = await listen((socket) => {
      socket.pipe(socket)
    })
    const circuit = makeExit({ [key]: 400_000 }).openCircuit()
    const { socket } = await circuit.connect({ host: '127.0.0.1', port }, never)
    const start = performance.now()
    socket.end(Buffer.alloc(size, 7))
    let received = 0
    for await (const chunk of socket) received += (chunk as Uint8Array).length
    expect(received).toBe(size)
    // 300 kB both ways, of which the burst (100 kB) is free, at 400 kB/s.
    expect(performance.now() - start).toBeGreaterThan(300)
  })

  it('throttled streams keep resets and half-close', async () => {
    const port = await listen((socket) => {
      socket.once('data', (chunk) => (String(chunk) === 'reset' ? socket.resetAndDestroy() : socket.end('bye')))
    })
    const circuit = makeExit({ rateBytesPerSecond: 1_000_000 }).openCircuit()
    const orderly = (await circuit.connect({ host: '127.0.0.1', port }, never)).socket
    orderly.end('hello')
    let text = ''
    for await (const chunk of orderly) text += chunk
    expect(text).toBe('bye')
    const broken = (await circuit.connect({ host: '127.0.0.1', port }, never)).socket
    let ended = false
    broken.on('end', () => {
      ended = true
    })
    broken.resume()
    broken.write('reset')
    const [error] = await once(broken, 'error')
    expect(endReasonOf(error)).toBe('reset')
    expect(ended).toBe(false)
  })
})

describe('names', () => {
  it('are answered with what is public, or allowed by the network', async () => {
    const circuit = makeExit().openCircuit()
    names.set('mixed.example', ['10.0.0.1', '1.1.1.1', '2606:4700::1', '169.254.169.254'])
    expect(await circuit.resolve('Mixed.example', never)).toEqual([
      { type: 'address', value: '1.1.1.1', ttlSeconds: 60 },
      { type: 'address', value: '2606:4700::1', ttlSeconds: 60 },
    ])
    await expect(circuit.resolve('private.example', never)).rejects.toMatchObject({ reason: 'policy' })
    await expect(circuit.resolve('no.example', never)).rejects.toMatchObject({ reason: 'resolve-failed' })
    await expect(circuit.resolve('no name', never)).rejects.toMatchObject({ reason: 'resolve-failed' })
  })

  it('of addresses are answered for public addresses only', async () => {
    const circuit = makeExit().openCircuit()
    expect(await circuit.resolve('1.1.1.1', never)).toEqual([{ type: 'name', value: 'pointer.example', ttlSeconds: 60 }])
    asked.length = 0
    await expect(circuit.resolve('10.0.0.1', never)).rejects.toMatchObject({ reason: 'policy' })
    expect(asked).toEqual([])
  })
})

describe('datagrams', () => {
  async function udpServer(host = '127.0.0.1'): Promise<{ socket: UdpSocket; port: number; seen: string[]; from: number[] }> {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    const seen: string[] = []
    const from: number[] = []
    socket.on('message', (bytes, peer) => {
      seen.push(bytes.toString())
      from.push(peer.port)
      socket.send(`re: ${bytes}`, peer.port, peer.address)
    })
    socket.bind(0, host)
    await once(socket, 'listening')
    closers.push(() => socket.close())
    return { socket, port: socket.address().port, seen, from }
  }

  const open = (exit: Exit, got: string[] = []) => {
    const port = exit.openCircuit().openDatagrams((from: Target, bytes) => got.push(`${Buffer.from(bytes)} from ${from.host}:${from.port}`))
    closers.push(() => port.close())
    return { port, got }
  }

  it('go out and come back, by address and by name, from one port, over both families', async () => {
    const [four, six] = [await udpServer(), await udpServer('::1')]
    const exit = makeExit()
    const { port, got } = open(exit)
    port.send({ host: '127.0.0.1', port: four.port }, Buffer.from('a'))
    port.send({ host: 'site.example', port: four.port }, Buffer.from('b'))
    port.send({ host: '::1', port: six.port }, Buffer.from('c'))
    await until(() => got.length === 3)
    expect(got.sort()).toEqual([`re: a from 127.0.0.1:${four.port}`, `re: b from 127.0.0.1:${four.port}`, `re: c from ::1:${six.port}`])
    expect(new Set(four.from).size).toBe(1)
    expect(exit.counts.datagrams).toEqual({ sent: 3, received: 3, dropped: 0 })
  })

  it('take the bytes at once: what the caller does to them later changes nothing', async () => {
    const server = await udpServer()
    const { port } = open(makeExit())
    const bytes = Buffer.from('right')
    port.send({ host: '127.0.0.1', port: server.port }, bytes)
    port.send({ host: 'site.example', port: server.port }, bytes)
    bytes.fill('x')
    await until(() => server.seen.length === 2)
    expect(server.seen).toEqual(['right', 'right'])
  })

  it('are dropped by policy, with missing names and bad targets', async () => {
    const server = await udpServer()
    const exit = makeExit()
    const { port } = open(exit)
    for (const [host, number] of [
      ['10.0.0.1', 53],
      ['127.0.0.1', 25],
      ['127.0.0.1', 0],
      ['no.example', 53],
      ['private.example', 53],
      ['bad name', 53],
      ['site.example', 25],
    ] as const) {
      port.send({ host, port: number }, Buffer.from('no'))
    }
    port.send({ host: '127.0.0.1', port: server.port }, Buffer.from('yes'))
    await until(() => server.seen.length === 1 && exit.counts.datagrams.dropped === 7)
    expect(server.seen).toEqual(['yes'])
  })

  it('come in only from addresses that were sent to', async () => {
    const server = await udpServer()
    const stranger = createSocket('udp4').bind(0, '127.0.0.7')
    await once(stranger, 'listening')
    closers.push(() => stranger.close())
    const exit = makeExit()
    const { port, got } = open(exit)
    port.send({ host: '127.0.0.1', port: server.port }, Buffer.from('a'))
    await until(() => got.length === 1)
    stranger.send('let me in', server.from[0]!, '127.0.0.1')
    await until(() => exit.counts.datagrams.dropped === 1)
    // The same address may answer from another port.
    const sibling = createSocket('udp4').bind(0, '127.0.0.1')
    await once(sibling, 'listening')
    closers.push(() => sibling.close())
    sibling.send('hello', server.from[0]!, '127.0.0.1')
    await until(() => got.length === 2)
    expect(got[1]).toMatch(/^hello from 127\.0\.0\.1:/)
  })

  it('forget the oldest peer when there are too many', async () => {
    const servers = await Promise.all([udpServer('127.0.0.1'), udpServer('127.0.0.2'), udpServer('127.0.0.3')])
    const exit = makeExit({ maxUdpPeers: 2 })
    const { port, got } = open(exit)
    for (const [i, server] of servers.entries()) {
      port.send({ host: `127.0.0.${i + 1}`, port: server.port }, Buffer.from(String(i)))
      await until(() => got.length === i + 1)
    }
    servers[0]!.socket.send('late', servers[0]!.from[0]!, '127.0.0.1')
    await until(() => exit.counts.datagrams.dropped === 1)
  })

  it('get a new socket after a long rest', async () => {
    const server = await udpServer()
    const { port, got } = open(makeExit({ udpIdleTimeoutMs: 60 }))
    port.send({ host: '127.0.0.1', port: server.port }, Buffer.from('a'))
    await until(() => got.length === 1)
    await sleep(200)
    server.socket.send('late', server.from[0]!, '127.0.0.1')
    await sleep(30)
    expect(got).toHaveLength(1)
    port.send({ host: '127.0.0.1', port: server.port }, Buffer.from('b'))
    await until(() => got.length === 2)
  })

  it('wait for a name only in small number', async () => {
    const server = await udpServer()
    let answer = (): void => {}
    const slow: Resolver = {
      ...resolver,
      addresses: () =>
        new Promise((resolve) => {
          answer = () => resolve({ value: [parseIp('127.0.0.1')], ttlSeconds: 60 })
        }),
    }
    const exit = makeExit({}, { resolver: slow })
    const { port } = open(exit)
    for (let i = 0; i < 20; i++) port.send({ host: 'slow.example', port: server.port }, Buffer.from(String(i)))
    expect(exit.counts.datagrams.dropped).toBe(12)
    answer()
    await until(() => server.seen.length === 8)
  })

  it('keep to the rate by being dropped', async () => {
    const server = await udpServer()
    const exit = makeExit({ rateBytesPerSecondPerCircuit: 1000 })
    const { port } = open(exit)
    for (let i = 0; i < 100; i++) port.send({ host: '127.0.0.1', port: server.port }, Buffer.alloc(1400))
    expect(exit.counts.datagrams.sent).toBe(46) // the burst of 65,536 bytes
    expect(exit.counts.datagrams.dropped).toBe(54)
  })
})
