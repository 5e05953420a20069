import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type NodeId, SeededRandom, silentLogger } from '../../../src/base/index.ts'
import { CircuitPool, Client, clientConfig, type PooledCircuit } from '../../../src/client/index.ts'
import { BatchPool } from '../../../src/link/index.ts'
import { constraintsOf, GuardSample, type PathConfig, PathViews, pathConfig } from '../../../src/path/index.ts'
import { MemoryMesh, suite } from '../../support/mesh-in-memory.ts'

const liveness = { probeAfterMs: 250, probeTimeoutMs: 250 }
const cleanups: (() => void)[] = []
let port = 0

beforeEach(async () => {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as { port: number }).port
  cleanups.push(() => server.close())
})
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

function world(path: Partial<PathConfig> = {}) {
  const mesh = new MemoryMesh({ relays: 12, exits: 4 })
  const view = mesh.view()
  const config = pathConfig.parse({ cleanCircuits: 3, ...path })
  const guards = new GuardSample(config)
  const suspected: NodeId[] = []
  const pool = new CircuitPool({
    config,
    buildAttempts: 3,
    liveness,
    suite,
    random: new SeededRandom(11),
    view,
    paths: new PathViews(view, constraintsOf(config)),
    guards,
    memory: new BatchPool(true),
    dialer: mesh.dialer(mesh.clientId, mesh.clientMeter),
    now: () => performance.now(),
    wall: () => Date.now(),
    logger: silentLogger,
    suspectLink: (id) => suspected.push(id),
    guardsChanged: () => {},
    event: () => {},
  })
  const client = new Client({ config: clientConfig.parse({ circuitWaitMs: 5_000 }), pool, logger: silentLogger })
  cleanups.push(() => {
    client.stop()
    pool.stop()
    mesh.stop()
  })
  const carrier = (): PooledCircuit => pool.circuits().find(({ circuit, state }) => state === 'ready' && circuit!.openStreams > 0)!
  return { mesh, pool, client, guards, suspected, carrier }
}

/** Nothing goes to or from the relay any more, and nobody is told: what a router that restarts does to the node behind it. */
function silence(mesh: MemoryMesh, relay: NodeId): void {
  for (const { near, far, from, to } of mesh.channels) {
    if (from !== relay && to !== relay) continue
    for (const channel of [near, far]) {
      channel.pause()
      channel.resume = () => {}
    }
  }
}

async function echo(client: Client, isolation: string): Promise<string> {
  const { stream } = await client.connect({ host: 'echo.example', port }, { isolation })
  stream.end('ping')
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part as Uint8Array)
  return Buffer.concat(parts).toString()
}

async function until(what: string, condition: () => boolean, ms = 5_000): Promise<void> {
  const end = performance.now() + ms
  while (!condition()) {
    if (performance.now() > end) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe('a circuit whose relay vanishes without a word', () => {
  test.each([1, 2])('at hop %i is closed within two time-outs, its streams are reset, and new ones go elsewhere at once', async (hop) => {
    const { mesh, client, carrier, pool } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    const lost = once(stream, 'error')
    stream.write('one')
    await once(stream, 'data')
    const used = carrier()
    const gone = used.choice.path[hop]!
    silence(mesh, gone)
    stream.write('two')
    const from = performance.now()
    const [error] = (await lost) as [Error & { reason: string }]
    expect(error.reason).toBe('circuit-lost')
    expect(performance.now() - from).toBeGreaterThan(400)
    expect(performance.now() - from).toBeLessThan(1_500)
    expect(used.end).toMatchObject({ reason: 'timeout', origin: 'local', silent: hop })
    expect(await echo(client, 'a')).toBe('ping')
    expect(performance.now() - from).toBeLessThan(3_000)
    await until('no circuit through it is left', () =>
      pool.circuits().every(({ state, choice }) => state === 'closed' || !choice.path.includes(gone)),
    )
  })

  test('is found out for all others through the same relay, used or not', async () => {
    const { mesh, client, carrier, pool } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    stream.on('error', () => {})
    await until('clean circuits are there', () => pool.circuits().filter(({ state }) => state === 'ready').length >= 3)
    const guard = carrier().choice.path[0]
    const shared = pool.circuits().filter(({ choice, state }) => state === 'ready' && choice.path[0] === guard)
    expect(shared.length).toBeGreaterThanOrEqual(3)
    silence(mesh, guard)
    stream.write('anybody?')
    await until('all of them are closed', () => shared.every(({ state }) => state === 'closed'), 1_500)
  })

  test('at the guard counts nothing against it, asks for its link, and goes through another', async () => {
    const { mesh, client, carrier, guards, suspected } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    const lost = once(stream, 'error')
    const [guard] = carrier().choice.path
    silence(mesh, guard)
    stream.write('anybody?')
    await lost
    expect(suspected).toContain(guard)
    const now = performance.now()
    expect(guards.facts(now).find(({ id }) => id === guard)).toMatchObject({ state: 'doubtful' })
    expect(guards.current(now)[0]).not.toBe(guard)
    expect(await echo(client, 'a')).toBe('ping')
  })
})

describe('a circuit that is only quiet', () => {
  test('lives on, however long nothing is said on it', async () => {
    const { client, carrier } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    const used = carrier()
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    expect(used.state).toBe('ready')
    stream.write('still here')
    const [answer] = (await once(stream, 'data')) as [Uint8Array]
    expect(Buffer.from(answer).toString()).toBe('still here')
    stream.destroy()
  })

  test('is asked for no more than its streams need: nothing goes once they are closed', async () => {
    const { client, mesh, carrier } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    const used = carrier()
    stream.end()
    stream.resume()
    await once(stream, 'close')
    const guard = mesh.relays.find(({ id }) => id === used.choice.path[0])!
    await new Promise((resolve) => setTimeout(resolve, 100))
    const { cellsRelayed } = guard.engine.stats()
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    expect(guard.engine.stats().cellsRelayed).toBe(cellsRelayed)
  })
})
