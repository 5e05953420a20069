import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import {
  type DnsMessage,
  decodeMessage,
  encodeAnswer,
  encodeName,
  encodeQuestion,
  encodeUnread,
  Flag,
  FrameReader,
  frameMessage,
} from '../../../src/dns/index.ts'
import { DnsServer, dnsConfig } from '../../../src/ingress/index.ts'
import { until } from '../../support/processes.ts'
import { dnsAnswer, txtData } from '../../support/raw-dns-server.ts'

type Ask = (message: Uint8Array, isolation: string, signal?: AbortSignal) => Promise<Uint8Array>

const servers: DnsServer[] = []
const sockets: { destroy?: () => void; close?: () => void }[] = []
afterEach(async () => {
  for (const one of sockets.splice(0)) one.destroy ? one.destroy() : one.close!()
  for (const one of servers.splice(0)) await one.stop()
})

const answering: Ask = async (message) => dnsAnswer(decodeMessage(message), [Uint8Array.of(192, 0, 2, 1)])

async function start(ask: Ask, config: object = {}): Promise<DnsServer> {
  const one = new DnsServer(dnsConfig.parse({ listen: ['127.0.0.1:0'], ...config }), { service: { ask }, logger: silentLogger })
  servers.push(one)
  await one.start()
  return one
}
const portOf = (server: DnsServer, i = 0): number => Number(/:(\d+)$/.exec(server.addresses[i]!)![1])
const question = (id: number, udpBytes: number | null = null, name = 'a.example', type = 1): Uint8Array =>
  encodeQuestion({
    id,
    question: { wire: encodeName(name), type, class: 1 },
    edns: udpBytes === null ? null : { udpBytes, dnssecOk: false },
  })

/** A program that asks by UDP. */
async function udp(from = '127.0.0.1'): Promise<{ socket: UdpSocket; got: DnsMessage[] }> {
  const socket = createSocket(from.includes(':') ? 'udp6' : 'udp4')
  const got: DnsMessage[] = []
  socket.on('message', (bytes) => got.push(decodeMessage(Uint8Array.from(bytes))))
  socket.bind(0, from)
  await once(socket, 'listening')
  sockets.push(socket)
  return { socket, got }
}

/** A program that asks by TCP. */
async function tcp(server: DnsServer): Promise<{ socket: Socket; got: DnsMessage[]; state: { ended: boolean; closed: boolean } }> {
  const socket = connect({ host: '127.0.0.1', port: portOf(server), allowHalfOpen: true })
  const got: DnsMessage[] = []
  const state = { ended: false, closed: false }
  const reader = new FrameReader()
  socket.on('data', (chunk) => got.push(...reader.push(chunk).map(decodeMessage)))
  socket.on('end', () => {
    state.ended = true
  })
  socket.on('close', () => {
    state.closed = true
  })
  socket.on('error', () => {})
  await once(socket, 'connect')
  sockets.push(socket)
  return { socket, got, state }
}

describe('the listener', () => {
  it('answers by UDP and TCP on one port, of both families', async () => {
    const server = await start(answering, { listen: ['127.0.0.1:0', '[::1]:0'] })
    for (const [i, host] of ['127.0.0.1', '::1'].entries()) {
      const { socket, got } = await udp(host)
      socket.send(question(7), portOf(server, i), host)
      await until('the answer', 2000, () => got.length > 0)
      expect(got[0]).toMatchObject({ id: 7, counts: [1, 0, 0] })
    }
    const program = await tcp(server)
    program.socket.write(frameMessage(question(8)))
    await until('the answer', 2000, () => program.got.length > 0)
    expect(server.counts).toMatchObject({ questions: 3, dropped: 0, open: 1 })
  })

  it('gives every client address its own isolation, and one address one', async () => {
    const seen: string[] = []
    const server = await start((message, isolation) => {
      seen.push(isolation)
      return answering(message, isolation)
    })
    for (const host of ['127.0.0.1', '127.0.0.1', '127.0.0.9']) {
      const { socket, got } = await udp(host)
      socket.send(question(1), portOf(server), '127.0.0.1')
      await until('the answer', 2000, () => got.length > 0)
    }
    const program = await tcp(server)
    program.socket.write(frameMessage(question(2)))
    await until('the answer', 2000, () => program.got.length > 0)
    expect(seen[1]).toBe(seen[0])
    expect(seen[2]).not.toBe(seen[0])
    expect(seen[3]).toBe(seen[0])
  })

  it('says by UDP that there is more, by TCP all of it', async () => {
    const server = await start(async (message) =>
      encodeAnswer(decodeMessage(message), { rcode: 0, answers: [{ type: 16, ttl: 1, data: txtData('x'.repeat(900)) }] }),
    )
    const { socket, got } = await udp()
    for (const [i, size] of [null, 512, 800, 1000, 4096].entries())
      socket.send(question(i, size, 'a.example', 16), portOf(server), '127.0.0.1')
    await until('all', 2000, () => got.length === 5)
    const cut = got.sort((a, b) => a.id - b.id).map(({ flags, counts }) => [(flags & Flag.truncated) !== 0, counts[0]])
    expect(cut).toEqual([
      [true, 0],
      [true, 0],
      [true, 0],
      [false, 1],
      [false, 1],
    ])
    const program = await tcp(server)
    program.socket.write(frameMessage(question(9, null, 'a.example', 16)))
    await until('the answer', 2000, () => program.got.length > 0)
    expect(program.got[0]!.counts[0]).toBe(1)
  })

  it('says nothing to answers and to what is too short, so that nobody talks in circles', async () => {
    const server = await start(answering)
    const { socket, got } = await udp()
    socket.send(encodeUnread(Uint8Array.of(0, 1), 0), portOf(server), '127.0.0.1')
    socket.send(Uint8Array.of(1, 2, 3), portOf(server), '127.0.0.1')
    socket.send(question(5), portOf(server), '127.0.0.1')
    await until('the answer', 2000, () => got.length > 0)
    expect(got.map(({ id }) => id)).toEqual([5])
    expect(server.counts).toMatchObject({ questions: 1, dropped: 2 })
  })
})

describe('a TCP connection', () => {
  it('may ask many things at once; answers come as they are there, also after its end', async () => {
    const server = await start(async (message) => {
      const asked = decodeMessage(message)
      if (asked.id === 1) await new Promise((resolve) => setTimeout(resolve, 80))
      return dnsAnswer(asked, [new Uint8Array(4)])
    })
    const { socket, got, state } = await tcp(server)
    for (const id of [1, 2, 3]) socket.write(frameMessage(question(id)))
    socket.end()
    await until('its end', 2000, () => state.ended)
    expect(got.map(({ id }) => id)).toEqual([2, 3, 1])
  })

  it('is read no further while it has many questions under way, and loses none', async () => {
    let open = 0
    let most = 0
    const server = await start(async (message) => {
      most = Math.max(most, ++open)
      await new Promise((resolve) => setTimeout(resolve, 2))
      open--
      return dnsAnswer(decodeMessage(message), [new Uint8Array(4)])
    })
    const { socket, got } = await tcp(server)
    for (let id = 0; id < 500; id++) socket.write(frameMessage(question(id)))
    await until('all', 5000, () => got.length === 500)
    expect(most).toBeLessThanOrEqual(64)
  })

  it('that does not take its answers is reset, and its questions are given up', async () => {
    const signals: AbortSignal[] = []
    const big = txtData('x'.repeat(60_000))
    const server = await start(
      async (message, _, signal) => {
        signals.push(signal!)
        return encodeAnswer(decodeMessage(message), { rcode: 0, answers: [{ type: 16, ttl: 1, data: big }] })
      },
      { idleTimeoutMs: 300 },
    )
    const { socket, state } = await tcp(server)
    socket.pause()
    for (let id = 0; id < 2000; id++) socket.write(frameMessage(question(id, null, 'a.example', 16)))
    await until('it is over', 5000, () => server.counts.open === 0)
    expect(signals.length).toBeLessThan(500)
    expect(signals.every(({ aborted }) => aborted)).toBe(true)
    socket.resume()
    await until('the program sees it', 2000, () => state.closed)
  })

  it('is closed when it sends what is no DNS, or nothing for long', async () => {
    const server = await start(answering, { idleTimeoutMs: 150 })
    const [bad, idle] = [await tcp(server), await tcp(server)]
    bad.socket.write('GET / HTTP/1.1\r\n\r\n')
    await until('one is gone', 1000, () => bad.state.closed || bad.state.ended)
    idle.socket.write(frameMessage(question(1)))
    await until('the answer', 1000, () => idle.got.length > 0)
    await until('the other is gone', 2000, () => idle.state.ended || idle.state.closed)
  })

  it('is refused when there are too many', async () => {
    const server = await start(answering, { maxConnections: 2 })
    const [one, , three] = [await tcp(server), await tcp(server), await tcp(server)]
    await until('the third is closed', 2000, () => three.state.closed || three.state.ended)
    one.socket.write(frameMessage(question(1)))
    await until('the first is served', 2000, () => one.got.length > 0)
    expect(server.counts.dropped).toBe(1)
  })
})

describe('a flood of datagrams', () => {
  it('has so many questions under way and no more; afterwards all is as before', async () => {
    let open = 0
    let most = 0
    let go: (() => void) | undefined
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    const server = await start(
      async (message) => {
        most = Math.max(most, ++open)
        await gate
        open--
        return answering(message, '')
      },
      { maxQuestions: 40 },
    )
    const { socket, got } = await udp()
    for (let i = 0; i < 5000; i++) socket.send(question(i & 0xffff, null, `f${i}.example`), portOf(server), '127.0.0.1')
    await until('most are dropped', 5000, () => server.counts.dropped > 100)
    expect(most).toBe(40)
    go!()
    await until('what was under way is answered', 2000, () => got.length >= 40)
    await until('one more is served', 5000, () => {
      socket.send(question(0xabcd), portOf(server), '127.0.0.1')
      return got.some(({ id }) => id === 0xabcd)
    })
  })
})

describe('listening', () => {
  it('fails as a whole, with what is wrong', async () => {
    const taken = createServer()
    taken.listen(0, '127.0.0.1')
    await once(taken, 'listening')
    sockets.push({ close: () => taken.close() })
    const { port } = taken.address() as { port: number }
    await expect(start(answering, { listen: ['127.0.0.1:0', `127.0.0.1:${port}`] })).rejects.toMatchObject({
      code: 'port-in-use',
      message: expect.stringContaining('ingress.dns'),
    })
    expect(servers.at(-1)!.addresses).toEqual([])
    const { socket } = await udp()
    await expect(start(answering, { listen: [`127.0.0.1:${socket.address().port}`] })).rejects.toMatchObject({ code: 'port-in-use' })
    await expect(start(answering, { listen: ['192.0.2.1:0'], allowOthers: true })).rejects.toMatchObject({ code: 'address-not-available' })
  })

  it('is on loopback only, unless others may', () => {
    const problems = (config: object): string[] =>
      (dnsConfig.safeParse(config).error?.issues ?? []).map(({ path, message }) => `${path.join('.')}: ${message}`)
    expect(dnsConfig.parse({}).listen).toEqual(['127.0.0.1:9253'])
    for (const listen of ['0.0.0.0:53', '[::]:53', '192.168.1.1:53']) {
      expect(problems({ listen: [listen] })).toEqual([expect.stringMatching(/^listen\.0: .*allow_others = true/)])
      expect(problems({ listen: [listen], allowOthers: true })).toEqual([])
    }
    expect(problems({ listen: ['127.9.9.9:53', '[::1]:0'] })).toEqual([])
    expect(problems({ listen: ['localhost:53'] })).toHaveLength(1)
    for (const [name, schema] of Object.entries(dnsConfig.shape)) expect(schema.description, name).toBeTruthy()
  })

  it('ends with stop: the port is free again', async () => {
    const server = await start(answering)
    const port = portOf(server)
    await tcp(server)
    await server.stop()
    const again = await start(answering, { listen: [`127.0.0.1:${port}`] })
    expect(again.addresses).toEqual([`127.0.0.1:${port}`])
  })
})
