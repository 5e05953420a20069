import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import { type ControlServer, startControl } from '../../../src/control/index.ts'
import { SocksServer, socksConfig } from '../../../src/ingress/index.ts'
import { certificateAuthority } from '../../support/certificates.ts'
import { DirectClientService } from '../../support/direct-client-service.ts'
import { FakeNode, fakeStatus } from '../../support/fake-node.ts'
import { shallot, temporaryFolder } from '../../support/processes.ts'

const folder = temporaryFolder('asking')
const authority = certificateAuthority()
const body = randomBytes(300_000)
let runtimeDir: string | undefined
let node: FakeNode
let control: ControlServer
let socks: SocksServer
let web: Server
let tls: Server

beforeAll(async () => {
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
  socks = new SocksServer(socksConfig.parse({ listen: ['127.0.0.1:0'] }), { client: new DirectClientService(), logger: silentLogger })
  await socks.start()
  node = new FakeNode()
  node.status = () => ({ ...fakeStatus, socks: socks.addresses[0]! })
  control = await startControl(node, {
    config: { enabled: true, listen: '127.0.0.1:0' },
    dir: folder.path,
    logger: silentLogger,
    random: (length) => new Uint8Array(randomBytes(length)),
  })
  const { certificate, key } = authority.issue('127.0.0.1')
  web = await listening(createServer(answer))
  tls = await listening(createTlsServer({ cert: certificate, key }, answer))
})
afterEach(() => {
  node.asked.length = 0
})
afterAll(async () => {
  await control.close()
  await socks.stop()
  web.close()
  tls.close()
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})

function answer(request: { url?: string | undefined }, response: import('node:http').ServerResponse): void {
  if (request.url === '/redirect') response.writeHead(302, { location: '/file' }).end()
  else if (request.url === '/loop') response.writeHead(302, { location: '/loop' }).end()
  else if (request.url === '/missing') response.writeHead(404).end('not here')
  else if (request.url === '/chunked') {
    response.write(body.subarray(0, 1000))
    response.end(body.subarray(1000))
  } else if (request.url === '/cut') {
    response.writeHead(200, { 'content-length': body.length })
    response.write(body.subarray(0, 100_000), () => response.destroy())
  } else response.writeHead(200, { 'content-length': body.length }).end(body)
}

async function listening(server: Server): Promise<Server> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return server
}
const url = (server: Server, path: string): string =>
  `${server === tls ? 'https' : 'http'}://127.0.0.1:${(server.address() as AddressInfo).port}${path}`
const cli = (args: string[], env: Record<string, string> = {}) =>
  shallot(args, {
    env: { XDG_RUNTIME_DIR: folder.path, XDG_DATA_HOME: join(folder.path, 'data'), SHALLOT_DIR: undefined, ...env },
    cwd: folder.path,
  })

describe('a running node is found by itself', () => {
  test('and its status is told within 80 columns, without colours in a pipe', async () => {
    const { code, stdout } = await cli(['status'])
    expect(code).toBe(0)
    expect(stdout).toContain(node.id)
    expect(stdout).toContain('work.bits = 10 (usually 24)')
    expect(stdout).toContain('the guard fails often')
    expect(stdout.split('\n').filter((line) => line.length > 80)).toEqual([])
    expect(stdout).not.toContain('\u001b')
  })

  test('or by its directory, or by its address', async () => {
    expect((await cli(['status', '--json', '--dir', folder.path])).code).toBe(0)
    expect(JSON.parse((await cli(['status', '--json', '--control', control.address])).stdout).control).toBe(control.address)
    expect((await cli(['status', '--control', '127.0.0.1:1'])).code).toBe(1)
    expect(await cli(['status', '--control', 'nonsense', '--dir', folder.path])).toMatchObject({
      code: 2,
      log: expect.stringContaining('it must be unix:PATH or ADDRESS:PORT'),
    })
  })

  test('that of another user by its directory alone, for whoever may read that', async () => {
    const other = temporaryFolder('service')
    const own = await startControl(node, {
      config: { enabled: true, listen: 'unix:control.sock' },
      dir: other.path,
      logger: silentLogger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
    const elsewhere = { XDG_RUNTIME_DIR: other.path }
    expect((await cli(['status', '--dir', other.path], elsewhere)).code).toBe(0)
    await own.close()
    expect(await cli(['status', '--dir', other.path], elsewhere)).toMatchObject({
      code: 1,
      log: expect.stringContaining('no node runs in'),
    })
    other.remove()
  })

  test('and tells of circuits, relays and streams', async () => {
    const circuits = (await cli(['circuits', '--why'])).stdout
    expect(circuits).toContain('first primary guard')
    expect(circuits).toMatch(/^7 +open +1 min \d+ s +3 ms +1 +rdGuard1 DE > Middle22 > ExitEx33 NL$/m)
    expect(circuits).toContain('at 127.1.0.1:4460, Germany (DE)')
    expect((await cli(['relays', '--role', 'exit'])).stdout).toContain('known for too short a time')
    expect((await cli(['streams'])).stdout).toContain('example.com:443')
    expect((await cli(['new-circuit'])).code).toBe(0)
    expect(node.asked).toEqual(['circuits true', 'relays exit', 'newCircuit'])
    for (const name of ['circuits', 'relays', 'streams', 'new-circuit']) JSON.parse((await cli([name, '--json'])).stdout)
  })
})

describe('fetch', () => {
  test('writes the body to standard output, whole', async () => {
    const { code, stdout } = await cli(['fetch', url(web, '/missing')])
    expect(stdout).toBe('not here')
    expect(code).toBe(1)
  })

  test.each(['/file', '/redirect', '/chunked'])('writes %s to a file, whole', async (path) => {
    const { code, stdout } = await cli(['fetch', url(web, path), '-o', 'out', '--json'])
    expect(JSON.parse(stdout)).toMatchObject({ status: 200, bytes: body.length, file: 'out' })
    expect(code).toBe(0)
    expect(readFileSync(join(folder.path, 'out')).equals(body)).toBe(true)
  })

  test('checks TLS end to end', async () => {
    const refused = await cli(['fetch', url(tls, '/file'), '-o', 'tls'])
    expect(refused.code).toBe(1)
    expect(refused.log).toMatch(/certificate/)
    expect(existsSync(join(folder.path, 'tls'))).toBe(false)
    const ca = join(folder.path, 'ca.pem')
    ;(await import('node:fs')).writeFileSync(ca, authority.certificate)
    expect((await cli(['fetch', url(tls, '/file'), '-o', 'tls'], { NODE_EXTRA_CA_CERTS: ca })).code).toBe(0)
    expect(readFileSync(join(folder.path, 'tls')).equals(body)).toBe(true)
  })

  test('of a transfer that is cut keeps nothing and fails', async () => {
    const { code, log } = await cli(['fetch', url(web, '/cut'), '-o', 'cut'])
    expect(code).toBe(1)
    expect(log).toContain('the connection was lost before the end')
    expect(existsSync(join(folder.path, 'cut'))).toBe(false)
    expect(existsSync(join(folder.path, 'cut.part'))).toBe(false)
  })

  test.each([
    ['no/such/dir/x', 'there is no directory no/such/dir'],
    ['.', 'it is a directory'],
  ])('to a place that is none asks nobody: %s', async (output, why) => {
    const { code, log } = await cli(['fetch', url(web, '/file'), '-o', output])
    expect(code).toBe(2)
    expect(log).toContain(`shallot: ${output} cannot be written: ${why}`)
  })

  test('says what the exit could not do, and gives up on endless redirects', async () => {
    const refused = await cli(['fetch', 'http://127.0.0.1:1/'])
    expect(refused.code).toBe(1)
    expect(refused.log).toMatch(/127\.0\.0\.1:1: the server refused the connection/)
    expect((await cli(['fetch', url(web, '/loop')])).log).toContain('leads on more than 10 times')
  })
})
