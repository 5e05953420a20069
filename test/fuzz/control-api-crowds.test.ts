import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ControlBench } from '../support/control-server.ts'
import { FakeNode, fakeCircuit, fakeIds } from '../support/fake-node.ts'

type Listener = 'web' | 'socket'
let bench: ControlBench
let node: FakeNode
const sockets = new Set<Socket>()
beforeAll(async () => {
  node = new FakeNode()
  bench = await ControlBench.start(node)
})
afterEach(() => {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
})
afterAll(() => bench.close())

/** A connection, with what came on it. */
interface Peer {
  readonly socket: Socket
  readonly said: () => string
  readonly closed: Promise<unknown>
}

async function dial(where: Listener): Promise<Peer> {
  const [host, port] = bench.server.dashboard!.split(':')
  const socket = where === 'web' ? connect({ host: host!, port: Number(port) }) : connect({ path: bench.server.address })
  sockets.add(socket)
  let said = ''
  socket
    .on('error', () => {})
    .on('data', (bytes) => {
      said += bytes.toString('latin1')
    })
  const closed = new Promise((done) => socket.once('close', done))
  await once(socket, 'connect')
  return { socket, said: () => said, closed }
}

const hostOf = (where: Listener): string => (where === 'web' ? bench.server.dashboard! : 'localhost')
const owner = (): Record<string, string> => ({ authorization: `Bearer ${bench.token}` })
const head = (where: Listener, request: string, ...more: string[]): string =>
  `${[`${request} HTTP/1.1`, `Host: ${hostOf(where)}`, ...more].join('\r\n')}\r\n`

/** The owner is answered, soon enough for a person. */
async function serves(where: Listener): Promise<void> {
  const deadline = Date.now() + 3_000
  for (;;) {
    const answer = await bench[where]('GET', '/v1/status', owner()).catch(() => null)
    if (answer?.status === 200) return
    expect(Date.now(), 'the owner was not answered').toBeLessThan(deadline)
    await new Promise((done) => setTimeout(done, 50))
  }
}

/** Sends until the other side has ended it, at most so many bytes. */
async function pour({ socket, closed }: Peer, piece: string, most: number): Promise<number> {
  let sent = 0
  let open = true
  void closed.then(() => {
    open = false
  })
  while (open && sent < most) {
    sent += piece.length
    if (!socket.write(piece)) await Promise.race([once(socket, 'drain').catch(() => {}), closed])
    else await new Promise((done) => setImmediate(done))
  }
  return sent
}

describe.each(['web', 'socket'] as const)('many and slow ones at the %s listener', { timeout: 60_000 }, (where) => {
  test('requests that do not get on are ended, and the owner is answered', async () => {
    const slow = await Promise.all(
      [
        '',
        'GET /v1/sta',
        head(where, 'GET /v1/status'),
        `${head(where, 'PATCH /v1/settings', `Authorization: Bearer ${bench.token}`, 'Content-Type: application/json', 'Content-Length: 50')}\r\n{"set"`,
        `${head(where, 'PATCH /v1/settings', `Authorization: Bearer ${bench.token}`, 'Content-Type: application/json', 'Transfer-Encoding: chunked')}\r\n5\r\n{"set\r\n`,
      ].flatMap((text) =>
        Array.from({ length: 8 }, async () => {
          const peer = await dial(where)
          peer.socket.write(text)
          return peer
        }),
      ),
    )
    // One more byte now and then makes it no better.
    const dripping = setInterval(() => {
      for (const { socket } of slow) if (socket.writable) socket.write(' ')
    }, 1000)
    await serves(where)
    await Promise.all(slow.map(({ closed }) => closed))
    clearInterval(dripping)
    for (const { said } of slow) expect(said()).not.toMatch(/^HTTP\/1\.1 (2|5)/)
    await serves(where)
  })

  test('more connections than there may be take nothing from the owner for long', async () => {
    const crowd = await Promise.all(Array.from({ length: 150 }, () => dial(where).catch(() => null)))
    expect(crowd.filter((peer) => peer !== null).length).toBeGreaterThan(50)
    await serves(where)
    // Nor do requests that ask for no token, and take their time.
    const slow = head(where, 'POST /v1/session', 'Content-Type: application/json', 'Content-Length: 50')
    for (let i = 0; i < 100; i++) (await dial(where)).socket.write(`${slow}\r\n{`)
    await serves(where)
  })

  test.each([
    ['without the token', false],
    ['with it', true],
  ])('a body without end is cut off: %s', async (_, known) => {
    await serves(where)
    const peer = await dial(where)
    const authorization = known ? [`Authorization: Bearer ${bench.token}`] : []
    peer.socket.write(
      `${head(where, 'PATCH /v1/settings', ...authorization, 'Content-Type: application/json', 'Transfer-Encoding: chunked')}\r\n`,
    )
    const most = 64 << 20
    expect(await pour(peer, `4000\r\n${'x'.repeat(0x4000)}\r\n`, most)).toBeLessThan(most)
    // What was said may be lost with a connection that is cut off while something comes in.
    expect(peer.said()).toMatch(known ? /^(HTTP\/1\.1 413|$)/ : /^(HTTP\/1\.1 (401|429)|$)/)
    await serves(where)
  })

  test('a head without end is cut off', async () => {
    const peer = await dial(where)
    peer.socket.write(head(where, 'GET /v1/status', `Authorization: Bearer ${bench.token}`))
    const most = 64 << 20
    expect(await pour(peer, 'X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n'.repeat(20), most)).toBeLessThan(most)
    expect(peer.said()).toMatch(/^(HTTP\/1\.1 431|$)/)
    await serves(where)
  })

  test('readers of events that never read are cut off, and hold no memory', async () => {
    const readers = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const peer = await dial(where)
        peer.socket.pause()
        peer.socket.write(`${head(where, 'GET /v1/events', `Authorization: Bearer ${bench.token}`)}\r\n`)
        return peer
      }),
    )
    await new Promise((done) => setTimeout(done, 100))
    const fat = { ...fakeCircuit, isolation: 'x'.repeat(100_000) }
    const before = process.memoryUsage().rss
    for (let i = 0; i < 500; i++) {
      node.emit({ type: 'circuit-open', at: i, circuit: fat })
      if (i % 20 === 0) await new Promise((done) => setImmediate(done))
    }
    // Half a gigabyte was told to them.
    expect(process.memoryUsage().rss - before).toBeLessThan(200 << 20)
    for (const { socket } of readers) socket.resume()
    await Promise.all(readers.map(({ closed }) => closed))
    await serves(where)
  })
})

describe('who guesses', { timeout: 60_000 }, () => {
  test('codes of links is told to wait, and whoever has one gets in', async () => {
    const code = await bench.code()
    const statuses = new Map<number, number>()
    for (let i = 0; i < 300; i++) {
      const guess = i % 3 === 0 ? code.slice(0, -1) : i % 3 === 1 ? `${code}x` : Buffer.from(`guess ${i}`).toString('base64url')
      const { status, text } = await bench.web('POST', '/v1/session', {}, JSON.stringify({ code: guess }))
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      expect(text).not.toContain('token"')
    }
    expect([...statuses.keys()].filter((status) => status !== 401 && status !== 429)).toEqual([])
    expect(statuses.get(401) ?? 0).toBeLessThan(60)
    expect(statuses.get(429)!).toBeGreaterThan(200)
    expect((await bench.web('POST', '/v1/session', {}, JSON.stringify({ code }))).status).toBe(200)
    expect((await bench.web('POST', '/v1/session', {}, JSON.stringify({ code }))).status).not.toBe(200)
  })

  test('tokens learns nothing from what it is told', async () => {
    const answers = new Set<string>()
    for (const guess of [bench.token.slice(0, -1), `${bench.token}x`, 'x'.repeat(bench.token.length), bench.token.toLowerCase()]) {
      const { status, text } = await bench.socket('GET', '/v1/status', { authorization: `Bearer ${guess}` })
      expect([401, 429]).toContain(status)
      answers.add(`${status} ${text}`)
      for (const told of [...fakeIds, bench.folder, bench.token]) expect(text).not.toContain(told)
    }
    expect(answers.size).toBeLessThanOrEqual(2)
  })
})
