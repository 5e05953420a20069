import { createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer as createWebServer } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fromHex, silentLogger, toHex } from '../../../src/base/index.ts'
import type { StreamErrorReason } from '../../../src/client/index.ts'
import { decodeUdp, encodeUdp, SocksServer, socksConfig } from '../../../src/ingress/index.ts'
import { curl } from '../../support/curl.ts'
import { DirectClientService } from '../../support/direct-client-service.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

let client: DirectClientService
beforeEach(() => {
  client = new DirectClientService()
  client.names.set('site.example', '127.0.0.1')
})

async function start(config: object = {}): Promise<{ server: SocksServer; proxy: string; port: number }> {
  const server = new SocksServer(socksConfig.parse({ listen: ['127.0.0.1:0'], ...config }), { client, logger: silentLogger })
  await server.start()
  closers.push(() => server.stop())
  const proxy = server.addresses[0]!
  return { server, proxy, port: Number(proxy.split(':').at(-1)) }
}

async function listen(handler: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    handler(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

async function web(body: (url: string) => string | Uint8Array): Promise<number> {
  const server = createWebServer((request, response) => response.end(body(request.url ?? ''))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A raw connection that remembers what it got and how it ended. */
async function dial(
  port: number,
): Promise<{ socket: Socket; got: () => string; ended: () => 'fin' | 'reset' | null; until: (length: number) => Promise<string> }> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  let bytes = Buffer.alloc(0)
  let ended: 'fin' | 'reset' | null = null
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk])
  })
  socket.on('end', () => {
    ended = 'fin'
  })
  socket.on('error', () => {
    ended = 'reset'
  })
  await once(socket, 'connect')
  closers.push(() => socket.destroy())
  const until = async (length: number): Promise<string> => {
    await eventually(() => bytes.length >= length || ended !== null)
    return toHex(bytes)
  }
  return { socket, got: () => toHex(bytes), ended: () => ended, until }
}

async function eventually(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!condition()) {
    if (Date.now() > end) throw new Error('waited 5 s in vain')
    await sleep(5)
  }
}

const connectTo = (port: number): Uint8Array => fromHex(`050100050100017f000001${port.toString(16).padStart(4, '0')}`)

describe('curl through the SOCKS port', () => {
  it.each(['socks5h', 'socks5', 'socks4a', 'socks4'])('fetches with %s', async (scheme) => {
    const { proxy } = await start()
    const port = await web((url) => `you asked for ${url}`)
    const host = scheme === 'socks5h' || scheme === 'socks4a' ? 'site.example' : '127.0.0.1'
    const result = await curl('-x', `${scheme}://${proxy}`, `http://${host}:${port}/page`)
    expect(result).toEqual({ code: 0, out: 'you asked for /page', error: '' })
    expect(client.asked.map((one) => one.target)).toEqual([`${host}:${port}`])
  })

  it('carries large bodies intact both ways', async () => {
    const { proxy } = await start()
    const body = Buffer.alloc(20e6, 'shallot ')
    const sum = createHash('sha256').update(body).digest('hex')
    let uploaded = ''
    const server = createWebServer((request, response) => {
      const hash = createHash('sha256')
      request.on('data', (chunk) => hash.update(chunk))
      request.on('end', () => {
        uploaded = hash.digest('hex')
        response.end(request.method === 'GET' ? body : uploaded)
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    closers.push(() => server.close())
    const url = `http://site.example:${(server.address() as AddressInfo).port}/`
    const down = await curl('-x', `socks5h://${proxy}`, url)
    expect(createHash('sha256').update(down.out).digest('hex')).toBe(sum)
    const up = await curl('-x', `socks5h://${proxy}`, '-T', process.execPath, url)
    expect(up.out).toBe(uploaded)
    expect(up.code).toBe(0)
  })

  it.each<[StreamErrorReason, number]>([
    ['policy', 2],
    ['unreachable', 3],
    ['resolve-failed', 4],
    ['refused', 5],
    ['reset', 5],
    ['timeout', 6],
    ['internal', 1],
    ['no-circuit', 1],
    ['resource-limit', 1],
    ['circuit-lost', 1],
    ['not-exit', 1],
  ])('is told that "%s" by reply %i', async (reason, reply) => {
    const { proxy, server } = await start()
    client.failures.set('site.example:80', reason)
    const result = await curl('-x', `socks5h://${proxy}`, 'http://site.example/')
    expect(result.code).toBe(97)
    expect(result.error).toContain(`(${reply})`)
    await eventually(() => server.counts.open === 0)
  })

  it('isolates by credentials, which are kept nowhere', async () => {
    const { proxy } = await start()
    const port = await web(() => 'ok')
    for (const who of ['alice:1', 'alice:2', 'bob:1', 'alice:1'])
      await curl('-x', `socks5h://${who}@${proxy}`, `http://site.example:${port}/`)
    const keys = client.asked.map((one) => one.isolation)
    expect(new Set(keys).size).toBe(3)
    expect(keys[0]).toBe(keys[3])
    expect(keys.join()).not.toContain('alice')
  })

  it('needs the right credentials when they are required', async () => {
    const { proxy } = await start({ requireCredentials: true, credentials: [{ user: 'u', password: 'right' }] })
    const port = await web(() => 'ok')
    const url = `http://site.example:${port}/`
    expect((await curl('-x', `socks5h://u:right@${proxy}`, url)).out).toBe('ok')
    expect((await curl('-x', `socks5h://u:wrong@${proxy}`, url)).code).toBe(97)
    expect((await curl('-x', `socks5h://${proxy}`, url)).code).toBe(97)
    expect((await curl('-x', `socks4a://u@${proxy}`, url)).code).toBe(97)
    expect(client.asked).toHaveLength(1)
  })

  it('is told what it is when taken for an HTTP proxy or a web server', async () => {
    const { proxy } = await start()
    for (const args of [['-x', `http://${proxy}`, 'http://site.example/'], [`http://${proxy}/`]]) {
      expect((await curl(...args)).out).toMatch(/^This is a SOCKS5 port/)
    }
  })
})

describe('a SOCKS connection', () => {
  it('carries what is sent before the answer, and keeps half-close both ways', async () => {
    const port = await listen((socket) => {
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.on('end', () => socket.end(`got ${text}`))
    })
    const { port: proxy } = await start()
    const { socket, until, ended } = await dial(proxy)
    socket.end(Buffer.concat([connectTo(port), Buffer.from('early')]))
    const got = await until(12 + 9)
    expect(Buffer.from(got.slice(24), 'hex').toString()).toBe('got early')
    await eventually(() => ended() === 'fin')
  })

  it('is not cut short when the server ends first', async () => {
    let received = ''
    const port = await listen((socket) => {
      socket.end('hello')
      socket.on('data', (chunk) => {
        received += chunk
      })
    })
    const { port: proxy } = await start()
    const { socket, until, ended } = await dial(proxy)
    socket.write(connectTo(port))
    await until(12 + 5)
    await eventually(() => ended() === 'fin')
    socket.end('still here')
    await eventually(() => received === 'still here')
  })

  it('is reset, not closed, when the circuit is lost', async () => {
    const port = await listen((socket) => socket.write('part of it'))
    const { port: proxy, server } = await start()
    const { socket, until, ended } = await dial(proxy)
    socket.write(connectTo(port))
    await until(12 + 10)
    client.loseCircuits()
    await eventually(() => ended() !== null)
    expect(ended()).toBe('reset')
    await eventually(() => server.counts.open === 0)
  })

  it('is reset when the server resets', async () => {
    const port = await listen((socket) => socket.write('part', () => setTimeout(() => socket.resetAndDestroy(), 20)))
    const { port: proxy } = await start()
    const { socket, ended } = await dial(proxy)
    socket.write(connectTo(port))
    await eventually(() => ended() !== null)
    expect(ended()).toBe('reset')
  })

  it('passes a reset of the application on', async () => {
    let end = ''
    const port = await listen((socket) => {
      socket.resume()
      socket.on('close', (failed) => {
        end = failed ? 'reset' : 'closed'
      })
    })
    const { port: proxy } = await start()
    const { socket, until } = await dial(proxy)
    socket.write(connectTo(port))
    await until(12)
    socket.resetAndDestroy()
    await eventually(() => client.streams.size === 0 && end !== '')
    expect(end).toBe('reset')
  })

  it('holds a fast server back while the application does not read', async () => {
    let sent = 0
    const port = await listen((socket) => {
      const chunk = Buffer.alloc(65_536)
      const more = (): void => {
        while (!socket.destroyed && sent < 512e6) {
          sent += chunk.length
          if (!socket.write(chunk)) return
        }
      }
      socket.on('drain', more)
      more()
    })
    const { port: proxy } = await start()
    const { socket } = await dial(proxy)
    socket.pause()
    socket.write(connectTo(port))
    await eventually(() => sent > 0)
    await sleep(300)
    const after = sent
    await sleep(150)
    expect(sent).toBe(after)
    expect(sent).toBeLessThan(100e6)
  })

  it('that goes away while its stream opens gives the opening up', async () => {
    const { port: proxy } = await start()
    let aborted = false
    client.connect = (_, options) =>
      new Promise((_, reject) => {
        options.signal?.addEventListener('abort', () => {
          aborted = true
          reject(options.signal?.reason)
        })
      })
    const { socket } = await dial(proxy)
    socket.write(connectTo(80))
    await sleep(30)
    socket.resetAndDestroy()
    await eventually(() => aborted)
  })

  it('that takes too long to open is answered with reply 06', async () => {
    const { port: proxy } = await start({ connectTimeoutMs: 100 })
    client.connect = (_, options) =>
      new Promise((_, reject) => options.signal?.addEventListener('abort', () => reject(options.signal?.reason)))
    const { socket, until, ended } = await dial(proxy)
    socket.write(connectTo(80))
    expect(await until(12)).toBe('0500' + '05060001000000000000')
    await eventually(() => ended() === 'fin')
  })

  it('that says nothing, or speaks too slowly, is closed', async () => {
    const { port: proxy, server } = await start({ handshakeTimeoutMs: 150 })
    const silent = await dial(proxy)
    const slow = await dial(proxy)
    const drip = setInterval(() => slow.socket.destroyed || slow.socket.write(Uint8Array.of(5)), 40)
    closers.push(() => clearInterval(drip))
    await eventually(() => silent.ended() !== null && slow.ended() !== null)
    await eventually(() => server.counts.open === 0)
  })

  it('that ends before it has asked is closed', async () => {
    const { port: proxy, server } = await start()
    const { socket, ended } = await dial(proxy)
    socket.end(fromHex('0501'))
    await eventually(() => ended() !== null && server.counts.open === 0)
  })

  it('over the limit is refused in the words of the protocol, and others go on', async () => {
    const port = await listen((socket) => socket.pipe(socket))
    const { port: proxy, server } = await start({ maxConnections: 1 })
    const first = await dial(proxy)
    first.socket.write(connectTo(port))
    await first.until(12)
    const second = await dial(proxy)
    second.socket.write(fromHex('050100'))
    expect(await second.until(2)).toBe('05ff')
    await eventually(() => second.ended() !== null)
    expect(server.counts.refused).toBe(1)
    first.socket.write('still here')
    await first.until(12 + 10)
    first.socket.destroy()
    await eventually(() => server.counts.open === 0)
    const third = await dial(proxy)
    third.socket.write(connectTo(port))
    expect(await third.until(12)).toMatch(/^05000500/)
  })

  it('of noise never brings the listener down', async () => {
    const { port: proxy, server } = await start()
    for (const noise of [
      '',
      '00',
      '05',
      '16030100',
      '0401',
      '05ff',
      `04010050c0000201${'61'.repeat(70_000)}`,
      '4745',
      '05010005010003ff',
    ]) {
      const { socket } = await dial(proxy)
      socket.write(fromHex(noise))
      socket.end()
    }
    await eventually(() => server.counts.open === 0)
    const port = await listen((socket) => socket.end('fine'))
    const { socket, until } = await dial(proxy)
    socket.write(connectTo(port))
    await until(12 + 4)
  })
})

describe('RESOLVE', () => {
  const ask = async (request: string): Promise<string> => {
    const { port: proxy } = await start()
    const { socket, until, ended } = await dial(proxy)
    socket.write(fromHex(`050100${request}`))
    await until(12)
    await eventually(() => ended() === 'fin')
    return until(12)
  }
  const named = (command: string, host: string): string =>
    `05${command}0003${host.length.toString(16).padStart(2, '0')}${toHex(Buffer.from(host))}0000`

  it('answers with the address, IPv4 before IPv6', async () => {
    expect(await ask(named('f0', 'site.example'))).toBe('0500' + '050000017f0000010000')
    client.resolve = async () => [
      { type: 'address', value: '2001:db8::1', ttlSeconds: 1 },
      { type: 'address', value: '192.0.2.1', ttlSeconds: 1 },
    ]
    expect(await ask(named('f0', 'site.example'))).toBe('0500' + '05000001c00002010000')
    client.resolve = async () => [{ type: 'address', value: '2001:db8::1', ttlSeconds: 1 }]
    expect(await ask(named('f0', 'site.example'))).toBe('0500' + '0500000420010db80000000000000000000000010000')
  })

  it('answers an address with itself, without asking anybody', async () => {
    expect(await ask('05f00001c00002010000')).toBe('0500' + '05000001c00002010000')
    expect(client.asked).toEqual([])
  })

  it('answers a pointer with the name, and a missing name with reply 04', async () => {
    client.pointers.set('192.0.2.1', 'host.example')
    expect(await ask('05f10001c00002010000')).toBe(`0500${named('00', 'host.example')}`)
    expect(await ask(named('f0', 'no.example'))).toBe('0500' + '05040001000000000000')
    client.resolve = async () => []
    expect(await ask(named('f0', 'no.example'))).toBe('0500' + '05040001000000000000')
  })
})

describe('UDP ASSOCIATE', () => {
  async function udpEcho(): Promise<number> {
    const socket = createSocket('udp4')
    socket.on('message', (bytes, peer) => socket.send(`re: ${bytes}`, peer.port, peer.address))
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    closers.push(() => socket.close())
    return socket.address().port
  }

  async function associate(proxy: number, announcedPort = 0) {
    const control = await dial(proxy)
    control.socket.write(fromHex(`05010005030001${'00000000'}${announcedPort.toString(16).padStart(4, '0')}`))
    const reply = await control.until(12)
    return { ...control, reply, relay: Number.parseInt(reply.slice(-4), 16) }
  }

  async function udp(host = '127.0.0.1', port = 0) {
    const socket = createSocket('udp4')
    const got: string[] = []
    socket.on('message', (bytes) => {
      const { to, bytes: data } = decodeUdp(bytes)
      got.push(`${Buffer.from(data)} from ${to.host}:${to.port}`)
    })
    socket.bind(port, host)
    await once(socket, 'listening')
    closers.push(() => socket.close())
    return { socket, got }
  }

  it('carries datagrams by address and by name, both ways', async () => {
    const echo = await udpEcho()
    const { port: proxy, server } = await start()
    const { reply, relay } = await associate(proxy)
    expect(reply).toMatch(/^0500050000017f000001/)
    const { socket, got } = await udp()
    socket.send(encodeUdp({ host: '127.0.0.1', port: echo }, Buffer.from('a')), relay, '127.0.0.1')
    socket.send(encodeUdp({ host: 'site.example', port: echo }, Buffer.from('b')), relay, '127.0.0.1')
    await eventually(() => got.length === 2)
    expect(got.sort()).toEqual([`re: a from 127.0.0.1:${echo}`, `re: b from 127.0.0.1:${echo}`])
    expect(server.counts.associations).toBe(1)
  })

  it('ends with its TCP connection, in order or not', async () => {
    const { port: proxy, server } = await start()
    for (const end of ['end', 'destroy', 'resetAndDestroy'] as const) {
      const { socket } = await associate(proxy)
      expect(client.associations).toBe(1)
      socket[end]()
      await eventually(() => client.associations === 0 && server.counts.associations === 0 && server.counts.open === 0)
    }
  })

  it('resets its TCP connection when the circuit is lost', async () => {
    const { port: proxy, server } = await start()
    const { ended } = await associate(proxy)
    client.loseCircuits()
    await eventually(() => ended() === 'reset')
    expect(server.counts.associations).toBe(0)
  })

  it('takes only the datagrams of its application', async () => {
    const echo = await udpEcho()
    const { port: proxy } = await start()
    const { relay } = await associate(proxy)
    const [mine, other, stranger] = [await udp(), await udp(), await udp('127.0.0.2')]
    const packet = (text: string): Uint8Array => encodeUdp({ host: '127.0.0.1', port: echo }, Buffer.from(text))
    stranger.socket.send(packet('not me'), relay, '127.0.0.1')
    await sleep(20)
    mine.socket.send(packet('me'), relay, '127.0.0.1')
    await eventually(() => mine.got.length === 1)
    other.socket.send(packet('nor me'), relay, '127.0.0.1')
    mine.socket.send(packet('me again'), relay, '127.0.0.1')
    await eventually(() => mine.got.length === 2)
    expect(stranger.got).toEqual([])
    expect(other.got).toEqual([])
  })

  it('takes only the announced port, when one was announced', async () => {
    const echo = await udpEcho()
    const { port: proxy } = await start()
    const [mine, other] = [await udp(), await udp()]
    const { relay } = await associate(proxy, mine.socket.address().port)
    const packet = encodeUdp({ host: '127.0.0.1', port: echo }, Buffer.from('x'))
    other.socket.send(packet, relay, '127.0.0.1')
    await sleep(20)
    mine.socket.send(packet, relay, '127.0.0.1')
    await eventually(() => mine.got.length === 1)
    expect(other.got).toEqual([])
  })

  it('drops fragments, noise and bad targets, and goes on', async () => {
    const echo = await udpEcho()
    const { port: proxy } = await start()
    const { relay } = await associate(proxy)
    const { socket, got } = await udp()
    const good = encodeUdp({ host: '127.0.0.1', port: echo }, Buffer.from('good'))
    const fragment = Uint8Array.from(good)
    fragment[2] = 1
    for (const bad of [
      fragment,
      new Uint8Array(0),
      fromHex('000000'),
      encodeUdp({ host: 'bad name', port: 53 }, good),
      encodeUdp({ host: '127.0.0.1', port: 0 }, good),
    ]) {
      socket.send(bad, relay, '127.0.0.1')
    }
    socket.send(good, relay, '127.0.0.1')
    await eventually(() => got.length === 1)
    await sleep(30)
    expect(got).toEqual([`re: good from 127.0.0.1:${echo}`])
  })

  it('is refused over the limit, and when the client can not', async () => {
    const { port: proxy } = await start({ maxAssociations: 1 })
    await associate(proxy)
    expect((await associate(proxy)).reply).toBe('0500' + '05010001000000000000')
    const { port: other, server } = await start()
    client.openDatagrams = async () => {
      throw new Error('unexpected')
    }
    expect((await associate(other)).reply).toBe('0500' + '05010001000000000000')
    await eventually(() => server.counts.associations === 0)
  })
})

describe('the listener', () => {
  it('names the address when the port is in use, and then listens nowhere', async () => {
    const { proxy } = await start()
    const server = new SocksServer(socksConfig.parse({ listen: ['127.0.0.1:0', proxy] }), { client, logger: silentLogger })
    await expect(server.start()).rejects.toMatchObject({
      code: 'port-in-use',
      kind: 'host',
      message: `ingress.socks: cannot listen on ${proxy}: the port is in use by another program, or by a second node: stop that or choose another port`,
    })
    expect(server.addresses).toEqual([])
  })

  it('names an address that this machine does not have', async () => {
    const config = socksConfig.parse({ listen: ['192.0.2.1:0'], credentials: [{ user: 'u', password: 'p' }] })
    const server = new SocksServer(config, { client, logger: silentLogger })
    await expect(server.start()).rejects.toMatchObject({ code: 'address-not-available' })
  })

  it('listens on several addresses, both families', async () => {
    const { server } = await start({ listen: ['127.0.0.1:0', '[::1]:0'] })
    const port = await web(() => 'ok')
    for (const proxy of server.addresses) expect((await curl('-x', `socks5h://${proxy}`, `http://site.example:${port}/`)).out).toBe('ok')
  })

  it('resets what is open when it stops, and is gone', async () => {
    const port = await listen((socket) => socket.write('x'))
    const { port: proxy, server, proxy: address } = await start()
    const { socket, until, ended } = await dial(proxy)
    socket.write(connectTo(port))
    await until(13)
    await server.stop()
    await eventually(() => ended() === 'reset')
    expect((await curl('-x', `socks5h://${address}`, 'http://site.example/')).code).toBe(7)
    await eventually(() => client.streams.size === 0)
  })
})
