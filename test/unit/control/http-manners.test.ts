import { request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ControlBench } from '../../support/control-server.ts'
import { FakeNode } from '../../support/fake-node.ts'

let node: FakeNode
let bench: ControlBench
beforeEach(async () => {
  node = new FakeNode()
  bench = await ControlBench.start(node)
})
afterEach(() => bench.close())

const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` })

/** Asks for the events on the dashboard's listener; settles with the whole text when they end. */
async function follow(token: string): Promise<{ begun: Promise<void>; ended: Promise<string> }> {
  const begun = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<string>()
  const [host, port] = bench.server.dashboard!.split(':')
  request({ host, port, path: '/v1/events', agent: false, headers: bearer(token) }, (response) => {
    let text = ''
    response.on('data', (piece) => {
      text += String(piece)
      begun.resolve()
    })
    response.on('end', () => ended.resolve(text)).on('error', ended.reject)
  }).end()
  return { begun: begun.promise, ended: ended.promise }
}

describe('a request', () => {
  test('for the head of what can be had is answered without a body', async () => {
    const whole = await bench.socket('GET', '/v1/status', bearer(bench.token))
    const head = await bench.socket('HEAD', '/v1/status', bearer(bench.token))
    expect(head).toMatchObject({ status: 200, text: '' })
    expect(head.headers['content-length']).toBe(whole.headers['content-length'])
    const events = await bench.socket('HEAD', '/v1/events', bearer(bench.token))
    expect(events).toMatchObject({ status: 200, text: '' })
    expect(events.headers['content-type']).toBe('text/event-stream')
    expect(await bench.socket('HEAD', '/v1/shutdown', bearer(bench.token))).toMatchObject({ status: 405 })
    expect((await bench.socket('POST', '/v1/status', bearer(bench.token))).headers.allow).toBe('GET, HEAD')
  })

  test('with an id that is none is told so of the place where it stands', async () => {
    const inPath = await bench.socket('GET', '/v1/relays/nobody', bearer(bench.token))
    expect(inPath.body.error).toMatchObject({ code: 'bad-parameter' })
    const inBody = await bench.socket('POST', '/v1/reach', bearer(bench.token), '{"id":"nobody"}')
    expect(inBody.body.error).toMatchObject({ code: 'bad-body' })
  })

  test.each(['{"set":{"__proto__":1}}', '{"__proto__":{"set":{}},"set":{}}', '{"set":{"log.subsystems":{"__proto__":"debug"}}}'])(
    'with a name that objects have by nature is refused: %s',
    async (body) => {
      const { status, body: answer } = await bench.socket('PATCH', '/v1/settings', bearer(bench.token), body)
      expect(status).toBe(400)
      expect(answer.error).toMatchObject({ code: 'bad-body', problems: [{ key: '__proto__' }] })
      expect(node.asked).toEqual([])
    },
  )
})

test('the events of a session end with it, and those of others go on', async () => {
  const [mine, other] = [await bench.session(), await bench.session()]
  const [ending, lasting] = [await follow(mine), await follow(other)]
  await Promise.all([ending.begun, lasting.begun])
  await bench.web('DELETE', '/v1/session', bearer(mine))
  expect(await ending.ended).toContain('shallot events')
  expect(await Promise.race([lasting.ended.then(() => 'ended'), bench.web('GET', '/v1/status', bearer(other)).then(() => 'lasts')])).toBe(
    'lasts',
  )
})

describe('a session of a browser', () => {
  const change = (set: object, token: string, check = false) =>
    bench.web('PATCH', '/v1/settings', bearer(token), JSON.stringify({ set, check }))

  test.each<[string, unknown]>([
    ['control.listen', 'unix:other.sock'],
    ['node.data_dir', '/etc'],
    ['node.network', '/tmp/mine.toml'],
    ['node.network_publisher', ''],
    ['node.bootstrap', []],
    ['node.bootstrap_files', ['/etc/passwd']],
    ['geo.countries_file', '/etc/passwd'],
    ['ingress.tun.pcap', '/etc/profile'],
    ['ingress.socks.credentials', null],
    ['ingress.socks.listen', ['127.0.0.1:1', '0.0.0.0:9250']],
    ['metrics.listen', ['[2001:db8::1]:9297']],
  ])('does not change %s, not even to try; the node’s own token does', async (key, value) => {
    const session = await bench.session()
    for (const check of [false, true]) {
      const { status, body } = await change({ 'log.level': 'info', [key]: value }, session, check)
      expect(status).toBe(403)
      expect(body.error).toMatchObject({ code: 'needs-token', problems: [{ key, message: expect.stringContaining(key) }] })
    }
    expect(node.asked).toEqual([])
    expect((await change({ [key]: value }, bench.token)).status).toBe(200)
    expect((await bench.socket('PATCH', '/v1/settings', bearer(bench.token), JSON.stringify({ set: { [key]: value } }))).status).toBe(200)
  })

  test('moves listeners on the loopback, and changes the rest', async () => {
    const set = { 'ingress.socks.listen': ['127.0.0.1:9999', '[::1]:1'], 'path.exit_countries': ['DE'], 'metrics.listen': null }
    expect((await change(set, await bench.session())).status).toBe(200)
  })
})
