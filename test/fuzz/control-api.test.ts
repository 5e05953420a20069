import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Logger, SeededRandom, silentLogger } from '../../src/base/index.ts'
import { apiDocument } from '../../src/control/api/document.ts'
import { ROUTES, type Route } from '../../src/control/api/routes.ts'
import { loadConfig } from '../../src/node/config.ts'
import { LiveConfig } from '../../src/node/live-config.ts'
import { Settings } from '../../src/node/settings.ts'
import { type Answer, ControlBench } from '../support/control-server.ts'
import { FakeNode, fakeIds } from '../support/fake-node.ts'
import { temporaryFolder } from '../support/processes.ts'

const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)
const random = new SeededRandom(seed)
const BODIES_PER_ROUTE = 60

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'M-SEARCH', 'LOCK']
/** Every route that the document names: one that is new is asked too. */
const routes = Object.entries(apiDocument().paths as Record<string, object>).flatMap(([pattern, methods]) =>
  Object.keys(methods).map((one) => {
    const method = one.toUpperCase()
    const name = `${method} ${pattern}`
    return { name, route: (ROUTES as Record<string, Route>)[name]!, method, pattern }
  }),
)
type Listener = 'web' | 'socket'
const LISTENERS: readonly Listener[] = ['web', 'socket']

const folder = temporaryFolder('api-fuzz')
const file = join(folder.path, 'shallot.toml')
/** What nobody but the owner may read, and what no answer at all may hold. */
const PASSWORD = 'open-sesame-1f3a'
let bench: ControlBench
let node: FakeNode
const mistakes: unknown[] = []

beforeAll(async () => {
  writeFileSync(
    file,
    `[node]\nroles = ["client"]\n[ingress.socks]\ncredentials = [{ user = "u", password = "${PASSWORD}" }]\n[log]\nlevel = "info" # a comment\n`,
  )
  writeFileSync(join(folder.path, 'network.toml'), `bootstrap = ["/ip4/198.51.100.1/tcp/4460/p2p/${fakeRelayId}"]\n`)
  node = new FakeNode()
  const settings = new Settings(new LiveConfig(await loadConfig(file)))
  node.settings = () => settings.facts()
  node.changeSettings = (change) => settings.change(change)
  node.reload = () => settings.reload()
  const logger: Logger = { ...silentLogger, error: (_, fields) => mistakes.push(fields), child: () => logger }
  bench = await ControlBench.start(node, { enabled: true, listen: '127.0.0.1:0' }, logger)
})
afterAll(async () => {
  await bench.close()
  folder.remove()
})

const fakeRelayId = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
const owner = (): Record<string, string> => ({ authorization: `Bearer ${bench.token}` })

/** Holds of every answer, whoever asked. */
function isSound(answer: Answer, what: string): void {
  expect(answer.status, `${what}: ${answer.text.slice(0, 300)} (SHALLOT_FUZZ_SEED=${seed})`).toBeLessThan(500)
  expect(answer.status, what).toBeGreaterThanOrEqual(200)
  for (const secret of [PASSWORD, bench.token, 'node_modules', '.ts:', '    at ']) expect(answer.text, what).not.toContain(secret)
  expect(
    Object.keys(answer.headers).filter((name) => name.startsWith('access-control')),
    what,
  ).toEqual([])
  if (answer.status >= 400 && answer.text !== '' && answer.headers['content-type'] === 'application/json')
    expect(answer.body.error, what).toMatchObject({ code: expect.stringMatching(/^[a-z-]+$/), message: expect.any(String) })
}

/** Holds besides of an answer to somebody who may not ask. */
function tellsNothing(answer: Answer, what: string): void {
  isSound(answer, what)
  expect([401, 403, 415, 429], `${what}: ${answer.status}`).toContain(answer.status)
  for (const told of [...fakeIds, 'example.com', bench.folder, folder.path, 'shallot0', 'testnet'])
    expect(answer.text, what).not.toContain(told)
}

const filled = (pattern: string, value: string): string => pattern.replace(/\{\w+\}/g, () => value)
const ask = (where: Listener, method: string, path: string, headers: Record<string, string>, body?: string): Promise<Answer> =>
  bench[where](method, path, headers, body)

test('every route that is answered is one that the document names', () => {
  expect(routes.map(({ name }) => name).sort()).toEqual(Object.keys(ROUTES).sort())
})

describe.each(LISTENERS)('the API on its %s listener', { timeout: 60_000 }, (where) => {
  test('tells nothing to who has no right token', async () => {
    const wrong: Record<string, string>[] = [
      {},
      { authorization: 'Bearer' },
      { authorization: 'Bearer ' },
      { authorization: `Bearer ${bench.token}x` },
      { authorization: `Bearer ${bench.token.slice(0, -1)}` },
      { authorization: `bearer ${bench.token}` },
      { authorization: `Basic ${bench.token}` },
      { authorization: bench.token },
      { authorization: `Bearer ${'A'.repeat(4000)}` },
      { cookie: `token=${bench.token}`, 'x-token': bench.token },
    ]
    for (const { name, route, method, pattern } of routes) {
      if (route.access === 'code' && where === 'web') continue
      for (const headers of wrong)
        tellsNothing(await ask(where, method, filled(pattern, '1'), headers, '{}'), `${name} ${JSON.stringify(headers).slice(0, 80)}`)
      tellsNothing(await ask(where, method, `${filled(pattern, '1')}?token=${bench.token}`, {}), name)
    }
  })

  test('tells nothing to pages of other origins and under other names, whatever they know', async () => {
    const own = where === 'web' ? bench.server.dashboard! : 'localhost'
    const foreign: Record<string, string>[] = [
      { origin: 'http://evil.example' },
      { origin: 'null' },
      { origin: `http://${own}.evil.example` },
      { origin: `http://evil.example/${own}` },
      { host: 'evil.example' },
      { host: `${own}.evil.example` },
      { host: `evil.example, ${own}` },
      { host: `${own}@evil.example` },
      { host: '[::1]' },
      // What a browser says of a page elsewhere, which no page can leave out.
      ...(where === 'web'
        ? [
            { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'script' },
            { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' },
            { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' },
          ]
        : []),
    ]
    for (const { name, method, pattern } of routes)
      for (const headers of foreign)
        tellsNothing(await ask(where, method, filled(pattern, '1'), { ...owner(), ...headers }, '{}'), `${name} ${JSON.stringify(headers)}`)
  })

  test('tells nothing to other methods, and to other spellings of a path, without the token', async () => {
    const spelt = (path: string): string[] => [
      `/v1/..${path}`,
      `/x/..${path}`,
      `/${path}`,
      `/.${path}`,
      `${path}/`,
      `${path}/.`,
      `${path}%2f`,
      `${path}%00`,
      `${path};x=1`,
      path.replace('/v1', '/%76%31'),
      path.replace('/v1', '/V1'),
      path.replace('/v1/', '/v1%2f'),
      path.replace('/v1/', '/v1\\'),
      path.replace('/v1', '/v01'),
      path.replace('/v1', '/v1.0'),
      `http://${where === 'web' ? bench.server.dashboard : 'localhost'}${path}`,
      `${path}#x`,
      `${path}?x#/v1/status`,
    ]
    for (const pattern of new Set(routes.map((one) => one.pattern))) {
      const path = filled(pattern, '1')
      for (const method of METHODS) {
        if (where === 'web' && `${method} ${path}` === 'POST /v1/session') continue
        tellsNothing(await ask(where, method, path, {}), `${method} ${path}`)
      }
      for (const other of spelt(path))
        for (const method of ['GET', 'POST']) {
          const answer = await ask(where, method, other, {})
          isSound(answer, `${method} ${other}`)
          // The page's own listener gives its page to everybody, and says what is no file of it.
          for (const told of [...fakeIds, 'example.com', bench.folder, folder.path, 'testnet', 'schemas'])
            expect(answer.text, `${method} ${other}`).not.toContain(told)
        }
    }
  })

  test('answers every method on every path with what it does or why not', async () => {
    for (const path of new Set(routes.map(({ pattern }) => pattern)))
      for (const method of METHODS) {
        if (`${method} ${path}` === 'POST /v1/vpn/session') continue
        isSound(await ask(where, method, filled(path, '1'), owner()), `${method} ${path}`)
      }
  })

  test('answers paths that are none', async () => {
    const odd = [
      '/v1',
      '/v1/',
      '/v1//status',
      '/v1/status/',
      '/v1/../v1/status',
      '/v1/%73tatus',
      '/v1/status%00',
      '/v1/status;x',
      '/v2/status',
      '/V1/status',
      '/v1/circuits/%ff',
      '/v1/circuits/%',
      '/v1/circuits/-1',
      '/v1/circuits/1e9',
      '/v1/circuits/99999999999999999999',
      '/v1/relays/..%2f..%2fetc',
      `/v1/relays/${'a'.repeat(5000)}`,
      '/v1/relays/__proto__',
      '/v1/constructor',
      '/v1/{id}',
      '/v1/circuits/{id}',
      '*',
      'v1/status',
      'http://evil.example/v1/status',
      '//evil.example/v1/status',
      '/v1/relays/%F0%9F%A7%85',
    ]
    for (const path of odd)
      for (const method of ['GET', 'DELETE', 'POST']) isSound(await ask(where, method, path, owner()), `${method} ${path}`)
    for (let i = 0; i < 200; i++) {
      const { pattern, method } = pick(routes)
      isSound(await ask(where, method, mutated(filled(pattern, '7')), owner()), `${method} near ${pattern}`)
    }
  })

  test('answers parameters of wrong names, kinds and sizes', async () => {
    const values = [
      '',
      '0',
      '1',
      '-1',
      '2',
      '1.5',
      'NaN',
      'true',
      'null',
      'exit',
      'debug',
      'log,log',
      ',',
      '%00',
      '%ff',
      '%F0%9F%A7%85',
      'a'.repeat(3000),
      '[]',
      '1e3',
      '__proto__',
    ]
    for (const { name, route, method, pattern } of routes) {
      const names = [...Object.keys(route.query ?? {}), 'nonsense', '__proto__', 'constructor', 'types[]']
      for (const key of names) {
        for (const value of values) {
          const answer = await ask(where, method, `${filled(pattern, '1')}?${key}=${value}`, owner())
          isSound(answer, `${name} ?${key}=${value.slice(0, 20)}`)
          if (route.query === undefined) expect(answer.status, `${name} ?${key}`).toBeGreaterThanOrEqual(400)
        }
        isSound(await ask(where, method, `${filled(pattern, '1')}?${key}=1&${key}=1`, owner()), name)
      }
    }
  })

  test('answers bodies of wrong kinds, near right ones, deep ones and huge ones', async () => {
    for (const { name, route, method, pattern } of routes) {
      if (name === 'POST /v1/shutdown') continue
      const path = filled(pattern, '7')
      const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
      const fixed = [
        '',
        ' ',
        '{',
        'null',
        '[]',
        '1',
        '"x"',
        'true',
        '{}{}',
        '\u0000',
        '\ufeff{}',
        '{"__proto__":{"x":1}}',
        '{"set":{"__proto__":1}}',
        '{"set":{"constructor.prototype":1}}',
        deep,
        `{"set":{"log.level":${deep}}}`,
        'x'.repeat(70_000),
        `{"x":"${'y'.repeat(1_000_000)}"}`,
      ]
      for (const body of fixed) isSound(await ask(where, method, path, owner(), body), `${name} with ${body.slice(0, 30)}`)
      if (route.body === undefined) continue
      for (let i = 0; i < BODIES_PER_ROUTE; i++) {
        const body = JSON.stringify(bodyNear(route.body))
        isSound(await ask(where, method, path, owner(), body), `${name} with ${body.slice(0, 200)}`)
      }
    }
    const big = await ask(where, 'PATCH', '/v1/settings', owner(), JSON.stringify({ set: { x: 'y'.repeat(100_000) } }))
    expect(big.status).toBe(413)
  })

  test('survives what is not HTTP', async () => {
    const host = where === 'web' ? bench.server.dashboard! : 'localhost'
    const head = `GET /v1/status HTTP/1.1\r\nHost: ${host}\r\n`
    const raw = [
      '',
      '\r\n\r\n',
      'GET',
      'GET / HTTP/0.9\r\n\r\n',
      'GET /v1/status HTTP/1.1\r\n\r\n',
      `${head}${head}\r\n`,
      `${head}Content-Length: -1\r\n\r\n`,
      `${head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      `${head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n`,
      `${head}X: ${'a'.repeat(20_000)}\r\n\r\n`,
      `${head}${'A: b\r\n'.repeat(3000)}\r\n`,
      `${head}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n`,
      `CONNECT evil.example:80 HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00',
      `${head}Authorization: Bearer ${bench.token}\r\nContent-Length: 10\r\n\r\nabc`,
      `${head}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    ]
    for (const text of raw) {
      const answer = await sendRaw(where, text)
      expect(answer, JSON.stringify(text.slice(0, 60))).not.toMatch(/^HTTP\/1\.1 5/)
      expect(answer).not.toContain(fakeIds[0])
    }
    for (let i = 0; i < 100; i++) {
      const bytes = random.bytes(random.int(300))
      expect(await sendRaw(where, Buffer.from(bytes))).not.toMatch(/^HTTP\/1\.1 5/)
    }
  })
})

describe('after all that', () => {
  test('both listeners answer their owner, nothing was our mistake, and the configuration is one', async () => {
    for (const where of LISTENERS) expect((await ask(where, 'GET', '/v1/status', owner())).status).toBe(200)
    expect(mistakes).toEqual([])
    await loadConfig(file)
    expect(readFileSync(file, 'utf8')).toContain(PASSWORD)
  })
})

function pick<T>(of: readonly T[]): T {
  return of[random.int(of.length)]!
}

/** A path with a few characters changed. */
function mutated(path: string): string {
  const characters = [...path]
  for (let i = 0; i < 1 + random.int(3); i++) {
    const at = 1 + random.int(characters.length)
    characters.splice(at, random.int(2), String.fromCharCode(0x21 + random.int(0x5d)))
  }
  return characters.join('')
}

/** Something like what a schema wants: right in most places, wrong in some. */
function bodyNear(name: string): unknown {
  const { schemas } = apiDocument().components as { schemas: Record<string, Json> }
  return near(schemas[name]!, schemas, 0)
}

type Json = Record<string, unknown>

function near(schema: Json, schemas: Record<string, Json>, depth: number): unknown {
  if (random.int(8) === 0 || depth > 4) return anything(0)
  if (typeof schema.$ref === 'string') return near(schemas[schema.$ref.split('/').at(-1)!]!, schemas, depth)
  if (Array.isArray(schema.enum)) return pick(schema.enum)
  if (schema.type === 'object') {
    const made: Json = {}
    for (const [key, inner] of Object.entries((schema.properties ?? {}) as Record<string, Json>))
      if (random.int(5) > 0) made[key] = near(inner, schemas, depth + 1)
    if (typeof schema.additionalProperties === 'object')
      for (let i = 0; i < random.int(4); i++)
        made[
          pick([
            'log.level',
            'path.exclude_nodes',
            'path.guards_in_use',
            'ingress.socks.listen',
            'log.subsystems',
            'link',
            'x',
            'a\n[b]',
            'node.roles',
            'log',
          ])
        ] = near(schema.additionalProperties as Json, schemas, depth + 1)
    if (random.int(6) === 0) made[String(anything(3))] = anything(0)
    return made
  }
  if (schema.type === 'array') return Array.from({ length: random.int(3) }, () => near((schema.items ?? {}) as Json, schemas, depth + 1))
  if (schema.type === 'integer') return pick([0, 1, 2, 1000, 1420, 60_000, -1, 1.5, Number.MAX_SAFE_INTEGER])
  if (schema.type === 'string') return pick(['x', '', fakeRelayId, '10.0.0.1/30', '/x', 'info', '\ud800', '\u0000\n"', "'''"])
  return anything(0)
}

function anything(depth: number): unknown {
  const leaf = pick([
    null,
    true,
    false,
    0,
    -0,
    1,
    -1,
    1.5,
    1e308,
    '',
    'x',
    '\u0000',
    '\ud800',
    'info',
    [],
    {},
    fakeRelayId,
    'a'.repeat(500),
  ] as const)
  if (depth > 3 || random.int(3) > 0) return leaf
  return random.int(2) === 0
    ? [anything(depth + 1), anything(depth + 1)]
    : { [String(leaf)]: anything(depth + 1), __proto__x: anything(depth + 1) }
}

/** What comes back for some bytes, until the connection ends or for a moment. */
function sendRaw(where: Listener, bytes: string | Uint8Array): Promise<string> {
  const [host, port] = bench.server.dashboard!.split(':')
  return new Promise((done) => {
    const socket = where === 'web' ? connect({ host: host!, port: Number(port) }) : connect({ path: bench.server.address })
    let text = ''
    const timer = setTimeout(() => socket.destroy(), 30)
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
    })
    socket
      .on('error', () => {})
      .on('close', () => {
        clearTimeout(timer)
        done(text)
      })
    socket.write(bytes)
  })
}
