import { randomBytes } from 'node:crypto'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Sessions } from '../../../src/control/sessions.ts'
import { ControlBench } from '../../support/control-server.ts'
import { FakeNode, fakeStatus } from '../../support/fake-node.ts'

let node: FakeNode
let bench: ControlBench
beforeEach(async () => {
  node = new FakeNode()
  bench = await ControlBench.start(node)
})
afterEach(() => bench.close())

const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` })

describe('what is kept of sessions', () => {
  const start = (now: () => number, changed = () => {}): Sessions => new Sessions((length) => randomBytes(length), now, changed)

  test('outlives the node by what was kept, which is no token, and ends when it would have', () => {
    let now = 1_000_000
    let changes = 0
    const sessions = start(
      () => now,
      () => changes++,
    )
    const { token } = sessions.open(sessions.issueCode(1000, 1).code)!
    const gone = sessions.open(sessions.issueCode(1000, 1).code)!
    sessions.end(gone.token)
    expect(changes).toBe(3)
    const kept = sessions.serialise()
    expect(kept).not.toContain(token)
    const again = start(() => now)
    expect(again.restore(kept)).toBe(true)
    expect([again.use(token), again.use(gone.token), again.use('guess')]).toEqual([true, false, false])
    now += 13 * 3_600_000
    const late = start(() => now)
    expect([late.restore(kept), late.use(token)]).toEqual([true, false])
  })

  test.each(['', 'x', '{}', '{"version":1,"sessions":[{"hash":"aa","endsAt":1,"usedAt":1}]}', '{"version":2,"sessions":[]}'])(
    'is not made of what is damaged: %s',
    (text) => expect(start(() => 0).restore(text)).toBe(false),
  )

  test('lasts no longer for a clock that was wrong', () => {
    const sessions = start(() => 1e15)
    const { token } = sessions.open(sessions.issueCode(1000, 1).code)!
    let now = 0
    const again = start(() => now)
    expect([again.restore(sessions.serialise()), again.use(token)]).toEqual([true, true])
    for (; now < 8 * 86_400_000; now += 3_600_000) again.use(token)
    expect(again.use(token)).toBe(false)
  })
})

describe("the dashboard's files", () => {
  test('are served with everything from elsewhere forbidden', async () => {
    const page = await bench.web('GET', '/')
    expect(page.status).toBe(200)
    expect(page.text).toContain('<title>page</title>')
    expect(page.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(page.headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self'/)
    expect(page.headers['content-security-policy']).toContain("frame-ancestors 'none'")
    expect(page.headers['content-security-policy']).not.toMatch(/unsafe|\*|https?:/)
    expect(page.headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-cache',
    })
    const script = await bench.web('GET', '/assets/app-1a2b.js')
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8')
    expect(script.headers['cache-control']).toContain('immutable')
    expect((await bench.web('HEAD', '/')).text).toBe('')
  })

  test('are sent once, and after that only said to be the same', async () => {
    const { etag } = (await bench.web('GET', '/')).headers
    const again = await bench.web('GET', '/', { 'if-none-match': etag! })
    expect(again.status).toBe(304)
    expect(again.text).toBe('')
  })

  test.each([
    '/../control-token',
    '/assets/../../control-token',
    '/%2e%2e/control-token',
    '/..%2fcontrol-token',
    '/%00',
    '/assets/',
    '/assets',
    '/link.txt',
    '//etc/passwd',
    '/\\..\\control-token',
    '/index.html/',
  ])('are all that can be had: %s is not there', async (path) => {
    const answer = await bench.web('GET', path)
    expect(answer.status).toBe(404)
    expect(answer.text).not.toContain(bench.token)
  })

  test('are only read', async () => {
    const answer = await bench.web('POST', '/', {}, 'x')
    expect(answer.status).toBe(405)
    expect(answer.headers.allow).toBe('GET, HEAD')
  })
})

describe('the API on the web listener', () => {
  test('takes the token of a session, and the node’s own', async () => {
    const session = await bench.session()
    expect((await bench.web('GET', '/v1/status', bearer(session))).body).toEqual({
      ...fakeStatus,
      control: bench.server.address,
      dashboard: bench.server.dashboard,
    })
    expect((await bench.web('GET', '/v1/status', bearer(bench.token))).status).toBe(200)
  })

  test('refuses everything without one', async () => {
    for (const headers of [
      {},
      bearer('wrong'),
      bearer(''),
      { authorization: `Basic ${bench.token}` },
      { cookie: `token=${bench.token}` },
    ]) {
      const answer = await bench.web('GET', '/v1/status', headers as Record<string, string>)
      expect(answer.status).toBe(401)
      expect(answer.body.error!.code).toBe('token-required')
    }
    expect(node.asked).toEqual([])
  })

  test('refuses a name that was rebound to this machine, for files too', async () => {
    const port = bench.server.dashboard!.split(':')[1]
    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1', `127.0.0.2:${port}`, `[::1]:${port}`, '']) {
      for (const path of ['/', '/v1/status']) {
        const answer = await bench.web('GET', path, { ...bearer(bench.token), host })
        expect(answer.status, host).toBe(403)
        expect(answer.body.error!.code).toBe('host-refused')
      }
    }
    expect((await bench.web('GET', '/v1/status', { ...bearer(bench.token), host: `localhost:${port}` })).status).toBe(200)
  })

  test('refuses pages of another origin, even with a token', async () => {
    const foreign: Record<string, string>[] = [
      { origin: 'http://evil.example' },
      { origin: 'null' },
      { origin: `https://${bench.server.dashboard}` },
      { origin: 'http://127.0.0.1:1' },
      { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors' },
      { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' },
      { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' },
    ]
    for (const headers of foreign) {
      for (const path of ['/v1/status', '/assets/app-1a2b.js']) {
        const answer = await bench.web('GET', path, { ...bearer(bench.token), ...headers })
        expect(answer.status, JSON.stringify(headers)).toBe(403)
        expect(answer.headers['access-control-allow-origin']).toBeUndefined()
      }
    }
    const preflight = await bench.web('OPTIONS', '/v1/status', { origin: 'http://evil.example', 'access-control-request-method': 'GET' })
    expect(preflight.status).toBe(403)
    expect(Object.keys(preflight.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
  })

  test('answers its own page', async () => {
    const own = { ...bearer(bench.token), origin: bench.origin, 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' }
    expect((await bench.web('POST', '/v1/new-circuit', own)).status).toBe(200)
    // A link that a person follows from anywhere shows the page.
    expect(
      (await bench.web('GET', '/', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' })).status,
    ).toBe(200)
  })

  test('takes no body that a form of another site could send', async () => {
    const body = JSON.stringify({ set: {} })
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '']) {
      const answer = await bench.web('PATCH', '/v1/settings', { ...bearer(bench.token), 'content-type': type }, body)
      expect(answer.status, type).toBe(415)
    }
    expect(node.asked).toEqual([])
  })

  test('does not give links, nor carries devices: that is for the control socket', async () => {
    const session = await bench.session()
    for (const token of [session, bench.token]) {
      expect((await bench.web('POST', '/v1/dashboard-link', bearer(token), '{}')).body.error!.code).toBe('socket-only')
      const device = JSON.stringify({ descriptor: '/x', mtu: 1420, addresses: ['10.0.0.1/30'] })
      expect((await bench.web('POST', '/v1/vpn/session', bearer(token), device)).body.error!.code).toBe('socket-only')
    }
    expect((await bench.socket('POST', '/v1/session', bearer(bench.token), '{"code":"x"}')).body.error!.code).toBe('dashboard-only')
  })
})

describe('a link', () => {
  test('opens one session, once', async () => {
    const code = await bench.code()
    const first = await bench.web('POST', '/v1/session', { origin: bench.origin }, JSON.stringify({ code }))
    expect(first.status).toBe(200)
    expect(first.body.expiresAt).toBeGreaterThan(Date.now())
    const second = await bench.web('POST', '/v1/session', {}, JSON.stringify({ code }))
    expect(second.status).toBe(401)
    expect(second.body.error!.code).toBe('code-refused')
  })

  test('may be used more often where the node’s owner says so', async () => {
    const code = await bench.code({ uses: 2, forMs: 60_000 })
    for (const status of [200, 200, 401]) expect((await bench.web('POST', '/v1/session', {}, JSON.stringify({ code }))).status).toBe(status)
  })

  test('leads to the listener, its code where no browser sends it', async () => {
    const { body } = await bench.socket('POST', '/v1/dashboard-link', bearer(bench.token))
    expect(body.url).toMatch(new RegExp(`^${bench.origin}/#code=[\\w-]{43}$`))
    expect((body.expiresAt as number) - Date.now()).toBeGreaterThan(100_000)
    expect((body.expiresAt as number) - Date.now()).toBeLessThanOrEqual(120_000)
  })

  test('is not given without the token', async () => {
    expect((await bench.socket('POST', '/v1/dashboard-link')).status).toBe(401)
  })
})

describe('a session', () => {
  test('ends when it is asked to', async () => {
    const session = await bench.session()
    expect((await bench.web('DELETE', '/v1/session', bearer(session))).body).toEqual({ ended: true })
    expect((await bench.web('GET', '/v1/status', bearer(session))).status).toBe(401)
  })

  test('lasts while it is used, and not for ever', () => {
    let now = 0
    const sessions = new Sessions(
      (length) => crypto.getRandomValues(new Uint8Array(length)),
      () => now,
    )
    const hour = 3_600_000
    const { token } = sessions.open(sessions.issueCode(120_000, 1).code)!
    for (let i = 0; i < 16; i++) {
      now += 10 * hour
      expect(sessions.use(token)).toBe(true)
    }
    now += 10 * hour
    expect(sessions.use(token), 'a week after it began').toBe(false)
    const other = sessions.open(sessions.issueCode(120_000, 1).code)!
    now += 12 * hour
    expect(sessions.use(other.token), 'silent for half a day').toBe(false)
  })

  test('is not had for a code that is too old', () => {
    let now = 0
    const sessions = new Sessions(
      (length) => crypto.getRandomValues(new Uint8Array(length)),
      () => now,
    )
    const { code } = sessions.issueCode(120_000, 1)
    now = 120_000
    expect(sessions.open(code)).toBeNull()
  })

  test('is one of a few: the silent ones go first', () => {
    let now = 0
    const sessions = new Sessions(
      (length) => crypto.getRandomValues(new Uint8Array(length)),
      () => now++,
    )
    const open = (): string => sessions.open(sessions.issueCode(120_000, 1).code)!.token
    const first = open()
    const second = open()
    for (let i = 0; i < 14; i++) open()
    expect(sessions.use(first)).toBe(true)
    open()
    expect([sessions.use(first), sessions.use(second)]).toEqual([true, false])
  })
})

describe('who guesses', () => {
  test('is told to wait, and the right token still passes', async () => {
    const statuses: number[] = []
    for (let i = 0; i < 40; i++) statuses.push((await bench.web('GET', '/v1/status', bearer(`wrong${i}`))).status)
    expect(statuses[0]).toBe(401)
    expect(statuses.at(-1)).toBe(429)
    expect((await bench.web('POST', '/v1/session', {}, '{"code":"guess"}')).status).toBe(429)
    expect((await bench.socket('GET', '/v1/status', bearer('wrong'))).status).toBe(429)
    expect((await bench.web('GET', '/v1/status', bearer(bench.token))).status).toBe(200)
    expect((await bench.socket('GET', '/v1/status', bearer(bench.token))).status).toBe(200)
  })
})

describe('where the dashboard is', () => {
  test('another port is taken when nobody has asked for this one, and none when somebody has', async () => {
    const other = createServer()
    await new Promise<void>((done) => other.listen({ host: '127.0.0.1', port: 0 }, done))
    const listen = `127.0.0.1:${(other.address() as { port: number }).port}`
    const moved = await ControlBench.start(new FakeNode(), { enabled: 'auto', listen })
    expect(moved.server.dashboard).not.toBe(listen)
    expect((await moved.web('GET', '/')).status).toBe(200)
    await moved.close()
    await expect(ControlBench.start(new FakeNode(), { enabled: true, listen })).rejects.toMatchObject({ code: 'address-in-use' })
    other.close()
  })

  test('a relay has none unless it is said, and says so when it is asked for a link', async () => {
    const relay = new FakeNode()
    relay.status = () => ({ ...fakeStatus, roles: ['middle'] })
    const without = await ControlBench.start(relay, { enabled: 'auto', listen: '127.0.0.1:0' })
    expect(without.server.dashboard).toBeNull()
    const refused = await without.socket('POST', '/v1/dashboard-link', bearer(without.token))
    expect(refused.body.error!.code).toBe('no-dashboard')
    await without.close()
    const asked = await ControlBench.start(relay, { enabled: true, listen: '127.0.0.1:0' })
    expect(asked.server.dashboard).not.toBeNull()
    await asked.close()
  })
})
