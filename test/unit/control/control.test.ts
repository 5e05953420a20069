import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { lstatSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer as createHttp, request } from 'node:http'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import packageJson from '../../../package.json' with { type: 'json' }
import { type NodeId, ShallotError, silentLogger } from '../../../src/base/index.ts'
import { ControlClient, type ControlServer, runningNodes, startControl } from '../../../src/control/index.ts'
import type { NatFacts } from '../../../src/nat/index.ts'
import { FakeNode, fakeCircuit, fakeStatus, fakeVpn } from '../../support/fake-node.ts'
import { temporaryFolder } from '../../support/processes.ts'

const peer = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw' as NodeId
let folder: { path: string; remove(): void }
let node: FakeNode
let server: ControlServer
let runtimeDir: string | undefined
beforeEach(async () => {
  folder = temporaryFolder('control')
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
  node = new FakeNode()
  server = await start('127.0.0.1:0')
})
afterEach(async () => {
  await server.close()
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})

function start(listen: string): Promise<ControlServer> {
  return startControl(node, {
    config: { enabled: true, listen },
    dir: folder.path,
    logger: silentLogger,
    random: (length) => new Uint8Array(randomBytes(length)),
  })
}
const token = (): string => readFileSync(join(folder.path, 'control-token'), 'utf8').trim()
const client = (): ControlClient => new ControlClient(server.address, join(folder.path, 'control-token'))

interface Answer {
  readonly status: number
  readonly headers: Record<string, unknown>
  readonly body: { error?: { code: string; message: string } } & Record<string, unknown>
}

function ask(method: string, path: string, headers: Record<string, string> = {}, body = ''): Promise<Answer> {
  const [host, port] = server.address.split(':')
  return new Promise((done, fail) => {
    const asked = request(
      { host, port, method, path, agent: false, headers: { authorization: `Bearer ${token()}`, ...headers } },
      async (response) => {
        let text = ''
        for await (const chunk of response) text += chunk
        done({ status: response.statusCode!, headers: response.headers, body: JSON.parse(text) })
      },
    )
    asked.on('error', fail).end(body)
  })
}

describe('a client of the control API', () => {
  test('gets what the node says, and the address that it asked', async () => {
    expect(await client().status()).toEqual({ ...fakeStatus, control: server.address })
    expect((await client().circuits(false))[0]!.why).toBeNull()
    expect((await client().circuits(true))[0]!.why).toHaveLength(1)
    expect((await client().relays('exit'))[0]!.roles).toContain('exit')
    expect((await client().streams())[0]!.target).toBe('example.com:443')
    expect((await client().newCircuit()).id).toBe(7)
    expect(node.asked).toEqual(['circuits false', 'circuits true', 'relays exit', 'newCircuit'])
  })

  test('gets the streams of a kind, or the last that began', async () => {
    const ids = async (query: string): Promise<unknown> =>
      ((await ask('GET', `/v1/streams?${query}`)).body as unknown as { id: number }[]).map(({ id }) => id)
    expect(await ids('recent=1')).toEqual([3, 2])
    expect(await ids('recent=1&last=5')).toEqual([2, 3])
    expect(await ids('recent=1&last=1')).toEqual([3])
    expect(await ids('recent=1&kind=stream')).toEqual([3, 2])
    expect(await ids('recent=1&kind=dns')).toEqual([])
  })

  test('is told how the node is reached, and has it reach for another', async () => {
    expect(await client().nat()).toBeNull()
    node.natFacts = { state: 'public' } as NatFacts
    expect(await client().nat()).toEqual({ state: 'public' })
    expect(await client().reach(peer)).toMatchObject({ peer, how: 'punched-tcp' })
    expect(node.asked).toEqual([`reach ${peer}`])
    node.failure = new ShallotError('not-serving', 'only a client', { kind: 'usage', retry: 'never' })
    await expect(client().reach(peer)).rejects.toMatchObject({ code: 'not-serving' })
  })

  test('is told of the VPN, and has it go up and down', async () => {
    expect(await client().vpn()).toBeNull()
    expect(await client().vpnUp()).toEqual(fakeVpn)
    expect(await client().vpn()).toEqual(fakeVpn)
    expect(await client().vpnDown()).toMatchObject({ state: 'down', device: null })
    expect(node.asked).toEqual(['vpnUp', 'vpnDown'])
    node.failure = new ShallotError('vpn-not-permitted', 'it needs CAP_NET_ADMIN', { kind: 'host', retry: 'never' })
    await expect(client().vpnUp()).rejects.toMatchObject({ code: 'vpn-not-permitted', message: 'it needs CAP_NET_ADMIN' })
    await expect(client().vpnDown()).rejects.toMatchObject({ code: 'vpn-not-permitted' })
  })

  test('that goes away while the node reaches for another ends that', async () => {
    const reaching = Promise.withResolvers<void>()
    node.reach = (_, signal) => {
      node.reaching = signal
      reaching.resolve()
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
    const [host, port] = server.address.split(':')
    const body = JSON.stringify({ id: peer })
    const socket = connect(Number(port), host)
    socket.write(
      `POST /v1/reach HTTP/1.1\r\nHost: ${server.address}\r\nAuthorization: Bearer ${token()}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    await reaching.promise
    socket.destroy()
    await waitUntil(() => node.reaching!.aborted)
    expect(node.reaching!.aborted).toBe(true)
  })

  test('stops the node, and is answered before', async () => {
    expect(await client().shutdown()).toEqual({ stopping: true })
    await node.stopped
  })

  test("sees the node's typed failures by their code", async () => {
    node.failure = new ShallotError('no-circuit', 'none could be built', { kind: 'relay', retry: 'later' })
    await expect(client().newCircuit()).rejects.toMatchObject({ code: 'no-circuit', message: 'none could be built' })
  })

  test('is not told of our mistakes', async () => {
    node.failure = new Error('secret detail')
    const answer = await ask('POST', '/v1/new-circuit')
    expect(answer.status).toBe(500)
    expect(JSON.stringify(answer.body)).not.toContain('secret detail')
  })

  test('reads events as they happen, until the node stops', async () => {
    const seen: string[] = []
    const reading = (async () => {
      for await (const event of client().events(AbortSignal.timeout(10_000))) {
        seen.push(event.type)
        if (event.type === 'stopping') return
      }
    })()
    await waitUntil(() => node.listeners > 0)
    const timer = setInterval(() => {
      node.emit({ type: 'circuit-open', at: 1, circuit: fakeCircuit })
      node.emit({ type: 'stopping', at: 2 })
    }, 20)
    await reading
    clearInterval(timer)
    expect(seen).toEqual(['circuit-open', 'stopping'])
  })

  test.each<[string, number, Record<string, string>, string, string, RegExp]>([
    [
      'another version that lacks the route',
      404,
      { 'shallot-version': '0.9.1' },
      '{"error":{"code":"unknown-route","message":"no"}}',
      'version-mismatch',
      /runs Shallot 0\.9\.1, and this program is \S+: restart the node/,
    ],
    [
      'an early version that lacks the route',
      404,
      {},
      '{"error":{"code":"unknown-route","message":"no"}}',
      'version-mismatch',
      /another version of Shallot .*: restart the node/,
    ],
    ['another version that answers otherwise', 200, { 'shallot-version': '0.9.1' }, '{"id":5}', 'version-mismatch', /runs Shallot 0\.9\.1/],
    ['another version with an answer that is no JSON', 200, { 'shallot-version': '9é' }, '<html>', 'version-mismatch', /runs Shallot 9\?,/],
    ['what is no node', 200, {}, '<html>', 'version-mismatch', /or something else/],
    [
      'this version with an answer that is no JSON',
      200,
      { 'shallot-version': packageJson.version },
      '{',
      'control-failed',
      /cannot be read/,
    ],
    [
      'another version with another failure',
      409,
      { 'shallot-version': '0.9.1' },
      '{"error":{"code":"not-a-client","message":"no"}}',
      'not-a-client',
      /^no$/,
    ],
    ['a proxy', 502, {}, 'bad gateway', 'control-failed', /answered 502/],
  ])('is told what it has met: %s', async (_, status, headers, body, code, message) => {
    const other = createHttp((_, response) => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
      response.writeHead(status).end(body)
    }).listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const asked = new ControlClient(`127.0.0.1:${port}`, join(folder.path, 'control-token')).status()
    await expect(asked).rejects.toMatchObject({ name: 'ShallotError', code, message: expect.stringMatching(message) })
    other.close()
  })

  test('goes on with another version whose answer has what this one knows', async () => {
    const answer = { ...fakeStatus, somethingNew: 1 }
    const other = createHttp((_, response) => response.setHeader('shallot-version', '0.9.1').end(JSON.stringify(answer))).listen(
      0,
      '127.0.0.1',
    )
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    expect(await new ControlClient(`127.0.0.1:${port}`, join(folder.path, 'control-token')).status()).toEqual(answer)
    other.close()
  })

  test.each(['a\nb: c', '', 'ü'])('is told of a file that holds no token: %j', async (text) => {
    const file = join(folder.path, 'other-token')
    writeFileSync(file, text)
    const asked = new ControlClient(server.address, file).status()
    await expect(asked).rejects.toMatchObject({ code: 'control-refused', message: expect.stringContaining(`${file} holds no token`) })
  })

  test('is told whose token is not taken, and what to do', async () => {
    const file = join(folder.path, 'other-token')
    writeFileSync(file, 'wrong\n')
    const message = expect.stringMatching(`${server.address} does not take the token in ${file}.*--dir`)
    await expect(new ControlClient(server.address, file).status()).rejects.toMatchObject({ code: 'control-refused', message })
  })

  test('is told when no node runs there', async () => {
    const gone = client()
    await server.close()
    await expect(gone.status()).rejects.toMatchObject({ code: 'node-not-running' })
    server = await start('127.0.0.1:0')
  })
})

describe('the control API refuses', () => {
  test.each<[string, string, string, Record<string, string>, number, string]>([
    ['no token', 'GET', '/v1/status', { authorization: '' }, 401, 'token-required'],
    ['a wrong token', 'GET', '/v1/status', { authorization: `Bearer ${'x'.repeat(43)}` }, 401, 'token-required'],
    ['another scheme', 'GET', '/v1/status', { authorization: 'Basic eDp5' }, 401, 'token-required'],
    ['a rebound name', 'GET', '/v1/status', { host: 'evil.example' }, 403, 'host-refused'],
    ['a web page, even with the token', 'GET', '/v1/status', { origin: 'http://evil.example' }, 403, 'origin-refused'],
    ['an unknown route', 'GET', '/v1/secrets', {}, 404, 'unknown-route'],
    ['a wrong method', 'POST', '/v1/status', {}, 405, 'wrong-method'],
    ['a GET that would change something', 'GET', '/v1/shutdown', {}, 405, 'wrong-method'],
    ['an unknown parameter', 'GET', '/v1/status?x=1', {}, 400, 'unknown-parameter'],
    ['a wrong flag', 'GET', '/v1/circuits?why=yes', {}, 400, 'bad-parameter'],
    ['a role that is none', 'GET', '/v1/relays?role=client', {}, 400, 'bad-parameter'],
    ['a path that climbs', 'GET', '/v1/../../etc/passwd', {}, 404, 'unknown-route'],
  ])('%s', async (_, method, path, headers, status, code) => {
    const answer = await ask(method, path, headers)
    expect(answer.status).toBe(status)
    expect(answer.body.error?.code).toBe(code)
    expect(node.asked).toEqual([])
  })

  test.each(['', 'x', '{}', '{"id":5}', '[]', 'null', '{"id":"12D3KooWnobody"}', `{"id":"${peer}","more":1}`])(
    'to reach for %j',
    async (body) => {
      const answer = await ask('POST', '/v1/reach', {}, body)
      expect([answer.status, answer.body.error?.code]).toEqual([400, 'bad-body'])
      expect(node.asked).toEqual([])
    },
  )

  test('a body that is too long', async () => {
    expect((await ask('POST', '/v1/new-circuit', {}, 'x'.repeat(2000))).status).toBe(413)
    expect(node.asked).toEqual([])
  })

  test('a wrong method with the right ones', async () => {
    expect((await ask('DELETE', '/v1/status')).headers.allow).toBe('GET, HEAD')
  })

  test('what is not HTTP, and lives on', async () => {
    const [host, port] = server.address.split(':')
    const socket = connect(Number(port), host)
    socket.on('error', () => {}).resume()
    socket.write('\x00\x01garbage\r\n\r\n')
    await once(socket, 'close')
    expect((await ask('GET', '/v1/status')).status).toBe(200)
  })
})

describe('the control API', () => {
  test('names its version in every answer to who may ask, and to nobody else', async () => {
    expect((await ask('GET', '/v1/status')).headers['shallot-version']).toBe(packageJson.version)
    expect((await ask('GET', '/v1/nothing')).headers['shallot-version']).toBe(packageJson.version)
    expect((await ask('GET', '/v1/status', { authorization: 'Bearer x' })).headers['shallot-version']).toBeUndefined()
  })

  test('keeps its token private and takes it away at the end', async () => {
    expect(statSync(join(folder.path, 'control-token')).mode & 0o777).toBe(0o600)
    const before = token()
    await server.close()
    expect(() => token()).toThrow()
    server = await start('127.0.0.1:0')
    expect(token()).not.toBe(before)
  })

  test('can be a private socket', async () => {
    await server.close()
    server = await start('unix:control.sock')
    expect(server.address).toBe(join(folder.path, 'control.sock'))
    expect(statSync(server.address).mode & 0o777).toBe(0o600)
    expect((await client().status()).id).toBe(node.id)
  })

  test('takes over a socket that a dead node left', async () => {
    const path = join(folder.path, 'left.sock')
    const child = spawn(process.execPath, ['-e', 'require("net").createServer().listen(process.argv[1], () => console.log("up"))', path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(statSync(path).isSocket()).toBe(true)
    const second = await start('unix:left.sock')
    expect((await new ControlClient(path, join(folder.path, 'control-token')).status()).id).toBe(node.id)
    await second.close()
  })

  test('leaves a socket alone on which somebody answers', async () => {
    const path = join(folder.path, 'live.sock')
    const live = createServer().listen(path)
    await once(live, 'listening')
    await expect(start('unix:live.sock')).rejects.toMatchObject({ code: 'address-in-use', message: expect.stringContaining(path) })
    const socket = connect(path)
    await once(socket, 'connect')
    socket.destroy()
    live.close()
  })

  test.each<[string, (path: string) => void]>([
    ['a file', (path) => writeFileSync(path, 'the identity')],
    ['a directory', (path) => mkdirSync(path)],
    ['a symbolic link', (path) => symlinkSync('control-token', path)],
  ])('replaces nothing that is no socket: %s', async (what, make) => {
    const path = join(folder.path, 'there')
    make(path)
    const before = lstatSync(path)
    await expect(start('unix:there')).rejects.toMatchObject({
      code: 'listen-failed',
      message: expect.stringContaining(`${path} is ${what}`),
    })
    expect(lstatSync(path)).toMatchObject({ ino: before.ino, mode: before.mode, size: before.size })
  })

  test('says which port is in use, and which socket path is too long', async () => {
    await expect(start(server.address)).rejects.toMatchObject({ code: 'address-in-use', message: expect.stringContaining(server.address) })
    await expect(start(`unix:${'x'.repeat(120)}`)).rejects.toMatchObject({ code: 'socket-path-too-long' })
  })

  test('is found by other programs of this user while it runs', async () => {
    expect(await runningNodes()).toMatchObject([{ address: server.address, dir: folder.path, pid: process.pid, roles: ['client'] }])
    await server.close()
    expect(await runningNodes()).toEqual([])
    server = await start('127.0.0.1:0')
  })

  test('is not confused by what others say in that place', async () => {
    const dir = join(folder.path, 'shallot')
    const [mine] = await runningNodes()
    writeFileSync(join(dir, '1-broken.json'), '{')
    writeFileSync(join(dir, `${process.pid}-later.json`), JSON.stringify({ of: 'a later version' }))
    writeFileSync(join(dir, `${process.pid}-old.json`), JSON.stringify({ ...mine, mark: '1/of-another-boot' }))
    writeFileSync(join(dir, `${process.pid}-more.json`), JSON.stringify({ ...mine, address: '/elsewhere', more: 1 }))
    expect((await runningNodes()).map(({ address }) => address).sort()).toEqual(['/elsewhere', server.address])
    expect(readdirSync(dir)).toContain(`${process.pid}-later.json`)
    expect(readdirSync(dir)).not.toContain(`${process.pid}-old.json`)
  })

  test('lets the node go when it closes', async () => {
    await server.close()
    expect(node.listeners).toBe(0)
    server = await start('127.0.0.1:0')
  })
})

async function waitUntil(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i++) await new Promise((done) => setTimeout(done, 10))
}
