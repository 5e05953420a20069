import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import '../../src/control/api/document.ts'
import { ROUTES, type Route } from '../../src/control/api/routes.ts'
import { schemaNamed } from '../../src/control/api/schema.ts'
import { type Api, ControlClient, runningNodes } from '../../src/control/index.ts'
import { Control } from '../support/control.ts'
import { runOk, startTestnet, type Testnet, until } from '../support/processes.ts'
import { socksConnect } from '../support/socks-client.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

let testnet: Testnet
let web: WebServer
let client: ControlClient
let exit: ControlClient
beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 5, exits: 2 })
  client = new ControlClient(testnet.ready.control, join(testnet.client.dir, 'control-token'))
  exit = await controlOf(testnet.nodes('exit')[0]!.dir)
})
afterAll(async () => {
  await testnet?.stop()
  await web?.close()
})

async function controlOf(dir: string): Promise<ControlClient> {
  const node = (await runningNodes()).find((one) => one.dir === dir)!
  return new ControlClient(node.address, node.tokenFile)
}

const fetchOnce = (): Promise<string> => runOk('curl', ['-sSf', '-x', `socks5h://${testnet.ready.socks}`, `${web.url}/bytes/1000`])

/** Every field is one that the schema has, and as it says. */
function fits(name: string, value: unknown): void {
  if (name.endsWith('[]')) for (const one of value as unknown[]) fits(name.slice(0, -2), one)
  else if (!(name.endsWith('?') && value === null)) expect(schemaNamed(name.replace('?', ''))!.parse(value), name).toEqual(value)
}

describe('a running node', () => {
  test.each(['client', 'exit'])('answers every question as the document says: %s', async (which) => {
    await fetchOnce()
    const dir = which === 'client' ? testnet.client.dir : testnet.nodes('exit')[0]!.dir
    const control = new Control((await controlOf(dir)).address, dir)
    const ids = { circuits: 1, relays: testnet.nodes('exit')[0]!.id }
    for (const [name, route] of Object.entries<Route>(ROUTES)) {
      const [method, path] = name.split(' ') as [string, string]
      if (method !== 'GET' || route.as !== undefined) continue
      fits(route.answer, await control.ask('GET', path.replace('{id}', ids.relays)))
    }
    fits('Circuit[]', await control.ask('GET', '/v1/circuits?why=1'))
    fits('Stream[]', await control.ask('GET', '/v1/streams?recent=1'))
  })

  test('tells of a request while it happens, and for a while after', async () => {
    const stop = new AbortController()
    const seen: Api.Event[] = []
    const following = (async () => {
      for await (const event of client.events(stop.signal, { types: ['stream-open', 'stream-closed', 'streams', 'traffic'] })) {
        fits('Event', event)
        seen.push(event)
      }
    })()
    await until('the first second', 5000, () => seen.some(({ type }) => type === 'traffic'))
    await fetchOnce()
    const target = new URL(web.url).host
    const closed = await until('the end of the stream', 5000, () =>
      seen.find(
        (event): event is Extract<Api.Event, { stream: unknown }> => event.type === 'stream-closed' && event.stream.target === target,
      ),
    )
    expect(closed.stream.bytesReceived).toBeGreaterThan(1000)
    expect(seen.some((event) => event.type === 'stream-open' && event.stream.id === closed.stream.id)).toBe(true)
    await until('a second with traffic', 5000, () => seen.some((event) => event.type === 'traffic' && event.traffic.received > 1000))
    stop.abort()
    await following
    expect((await client.streams(true)).find(({ id }) => id === closed.stream.id)).toMatchObject({ state: 'closed', target })
    expect((await client.traffic()).some(({ received }) => received > 1000)).toBe(true)
    expect((await client.streams()).some(({ id }) => id === closed.stream.id)).toBe(false)
  })

  test('measures every hop of a circuit', async () => {
    const circuit = (await client.circuits(false)).find(({ state }) => state === 'open')!
    const { path } = await client.pingCircuit(circuit.id)
    expect(path.map(({ rttMs }) => rttMs !== null && rttMs > 0)).toEqual([true, true, true])
    await expect(client.pingCircuit(999_999)).rejects.toMatchObject({ code: 'no-such-circuit' })
  })

  test('resets a stream, and the application sees it', async () => {
    const socket = await socksConnect('127.0.0.1', Number(new URL(web.url).port), { proxy: testnet.ready.socks })
    socket.resume()
    const reset = once(socket, 'error')
    const stream = await until('the stream', 5000, async () =>
      (await client.streams()).find(({ state, kind }) => state === 'open' && kind === 'stream'),
    )
    expect(await client.closeStream(stream.id)).toMatchObject({ id: stream.id, state: 'closed' })
    expect((await reset)[0]).toMatchObject({ code: 'ECONNRESET' })
    await expect(client.closeStream(stream.id)).rejects.toMatchObject({ code: 'no-such-stream' })
  })

  test('ends a circuit', async () => {
    const circuit = (await client.circuits(false)).find(({ state }) => state === 'open')!
    await client.closeCircuit(circuit.id)
    await until('the end', 5000, async () => (await client.circuits(false)).find(({ id }) => id === circuit.id)?.state === 'closed')
    await fetchOnce()
  })

  test('uses another exit from the next request on when its settings say so', async () => {
    const exits = testnet.nodes('exit').map(({ id }) => id)
    for (const wanted of exits) {
      const changed = await client.changeSettings({ set: { 'path.exit_nodes': [wanted] } })
      expect(changed).toMatchObject({ applied: ['path.exit_nodes'], restart: [] })
      await fetchOnce()
      const last = (await client.streams(true)).at(-1)!
      expect((await client.circuits(false)).find(({ id }) => id === last.circuit)!.path[2]!.id).toBe(wanted)
    }
    expect((await client.changeSettings({ set: { 'path.exit_nodes': null } })).applied).toEqual(['path.exit_nodes'])
    await expect(client.changeSettings({ set: { 'path.exit_nodes': ['x'] } })).rejects.toMatchObject({ code: 'config-invalid' })
  })

  test('refuses at its exits what a new policy refuses, at once', async () => {
    const port = new URL(web.url).port
    const exits = await Promise.all(testnet.nodes('exit').map(({ dir }) => controlOf(dir)))
    for (const one of exits) {
      const { applied } = await one.changeSettings({ set: { 'exit.policy': [`reject *:${port}`, 'accept *:*'] } })
      expect(applied).toEqual(['exit.policy'])
    }
    await expect(fetchOnce()).rejects.toThrow()
    const { exit: facts } = await exit.status()
    expect(facts).not.toBeNull()
    for (const one of exits) await one.changeSettings({ set: { 'exit.policy': null } })
    await until('the exits’ new descriptors', 30_000, () => fetchOnce().then(() => true))
  })

  test('writes more to its log when it is told to, and shows it', async () => {
    const before = await client.logLevels()
    await client.setLogLevels({ level: 'info', subsystems: { client: 'debug' } })
    await client.newCircuit()
    await client.setLogLevels(before)
    const { lines, next } = await client.log({ level: 'info' })
    expect(lines.length).toBeGreaterThan(0)
    expect((await client.log({ since: next })).lines).toEqual([])
    expect(JSON.stringify(lines), 'no address above debug').not.toMatch(/127\.\d+\.0\.1/)
  })
})
