import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EVENT_TYPES } from '../../src/control/api/routes.ts'
import { type Api, ControlClient, runningNodes } from '../../src/control/index.ts'
import { killPid, run, startTestnet, type Testnet, until } from '../support/processes.ts'
import { socksConnect } from '../support/socks-client.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

let testnet: Testnet
let web: WebServer
const ending = new AbortController()
beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 6, exits: 2 })
})
afterAll(async () => {
  ending.abort()
  await testnet?.stop()
  await web?.close()
})

async function controlOf(dir: string): Promise<ControlClient> {
  const node = (await runningNodes()).find((one) => one.dir === dir)!
  return new ControlClient(node.address, node.tokenFile)
}

type Seen<T> = Extract<Api.Event, { readonly type: T }>

/** Everything that a node tells from now on. */
async function follow(node: ControlClient) {
  const seen: Api.Event[] = []
  void (async () => {
    for await (const event of node.events(ending.signal, { types: EVENT_TYPES })) seen.push(event)
  })().catch(() => {})
  await until('the first event', 5_000, () => seen.length > 0)
  return <T extends Api.Event['type']>(type: T, fits: (event: Seen<T>) => boolean = () => true): Promise<Seen<T>> =>
    until(`the event ${type}`, 30_000, () => seen.find((event): event is Seen<T> => event.type === type && fits(event as Seen<T>)))
}

test('each kind of change is told to who follows a node', async () => {
  const client = new ControlClient(testnet.ready.control, join(testnet.client.dir, 'control-token'))
  const leaver = testnet.nodes('exit')[0]!
  const exit = await controlOf(leaver.dir)
  const [atClient, atExit] = [await follow(client), await follow(exit)]

  // A stream, and the circuit under it: in use, then retired, then over.
  const socket = await socksConnect('127.0.0.1', Number(new URL(web.url).port), { proxy: testnet.ready.socks })
  socket.resume()
  const { stream } = await atClient('stream-open', (event) => event.stream.kind === 'stream')
  await atClient('streams', ({ open }) => open > 0)
  const { id } = await client.newCircuit()
  await atClient('circuit-open', ({ circuit }) => circuit.id === id)
  const { circuit } = await atClient('circuit-retired', (event) => event.circuit.id === stream.circuit)
  expect(circuit).toMatchObject({ state: 'retired', streams: 1 })
  socket.destroy()
  await once(socket, 'close')
  await atClient('stream-closed', (event) => event.stream.id === stream.id)
  await atClient('circuit-closed', (event) => event.circuit.id === stream.circuit)

  // Settings: by this program, and by another that edits the file and sends SIGHUP.
  await client.changeSettings({ set: { 'path.max_building': 7 } })
  await atClient('settings', ({ settings }) => settings.applied.includes('path.max_building'))
  appendFileSync(join(leaver.dir, 'shallot.toml'), '\n[relaying]\nmax_circuits = 900\n')
  killPid(leaver.pid, 'SIGHUP')
  await atExit('settings', ({ settings }) => settings.applied.includes('relaying.max_circuits'))
  await atExit('log', ({ line }) => line.message.includes('settings changed'))

  await atClient('traffic')
  // A relay that leaves: by a command, seen by itself and by everybody else.
  const left = await run('sh', [join(import.meta.dirname, '../../bin/shallot'), 'drain', '--dir', leaver.dir, '--limit', '60s'])
  expect(left.code, left.log).toBe(0)
  await atExit('draining')
  await atClient('relays', ({ changed }) => changed.some((relay) => relay.id === leaver.id && !relay.eligible))
  await atClient('view')
  await atExit('stopping')
})
