import { once } from 'node:events'
import { createServer } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type CountryOf, parseIp, SeededRandom, silentLogger } from '../../../src/base/index.ts'
import { CircuitPool, Client, clientConfig, type LivenessOptions, type PoolEvent, StreamError } from '../../../src/client/index.ts'
import type { View } from '../../../src/directory/index.ts'
import { BatchPool } from '../../../src/link/index.ts'
import { constraintsOf, GuardSample, type PathConfig, PathViews, pathConfig } from '../../../src/path/index.ts'
import { MemoryMesh, suite } from '../../support/mesh-in-memory.ts'

interface World {
  readonly mesh: MemoryMesh
  readonly view: View
  readonly pool: CircuitPool
  readonly client: Client
  readonly guards: GuardSample
  /** Other wishes from now on, as at run time. */
  readonly wish: (path: Partial<PathConfig>) => void
  readonly events: PoolEvent[]
}

/** Every relay has an address of its own; odd ones are in one country, even ones in another. */
const countryOf: CountryOf = ({ bytes }) => (bytes[1]! % 2 === 1 ? 'AA' : 'BB')

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

function world(
  options: {
    path?: Partial<PathConfig>
    relays?: number
    exits?: number
    circuitWaitMs?: number
    liveness?: LivenessOptions
    wall?: () => number
  } = {},
): World {
  const mesh = new MemoryMesh({ relays: options.relays ?? 7, exits: options.exits ?? 2 })
  const view = mesh.view()
  const config = pathConfig.parse({ cleanCircuits: 1, ...options.path })
  const guards = new GuardSample(config)
  const events: PoolEvent[] = []
  const paths = new PathViews(view, constraintsOf(config, null, countryOf))
  const pool = new CircuitPool({
    config,
    buildAttempts: 3,
    liveness: options.liveness ?? { probeAfterMs: 3_000, probeTimeoutMs: 3_000 },
    suite,
    random: new SeededRandom(7),
    view,
    paths,
    guards,
    memory: new BatchPool(true),
    dialer: mesh.dialer(mesh.clientId, mesh.clientMeter),
    now: () => performance.now(),
    wall: options.wall ?? (() => Date.now()),
    logger: silentLogger,
    guardsChanged: () => {},
    event: (event) => events.push(event),
  })
  const client = new Client({ config: clientConfig.parse({ circuitWaitMs: options.circuitWaitMs ?? 5_000 }), pool, logger: silentLogger })
  cleanups.push(() => {
    client.stop()
    pool.stop()
    mesh.stop()
  })
  const wish = (path: Partial<PathConfig>): void => {
    const changed = pathConfig.parse({ cleanCircuits: 1, ...options.path, ...path })
    paths.constrain(constraintsOf(changed, null, countryOf))
    guards.configure(changed)
    pool.pathsChanged(changed)
  }
  return { mesh, view, pool, client, guards, events, wish }
}

async function echo(client: Client, isolation: string): Promise<string> {
  const { stream } = await client.connect({ host: 'echo.example', port }, { isolation })
  stream.end('ping')
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part as Uint8Array)
  return Buffer.concat(parts).toString()
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const started = performance.now()
  while (!condition()) {
    if (performance.now() - started > 8_000) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const ready = (pool: CircuitPool) => pool.circuits().filter(({ state }) => state === 'ready')

describe('the circuit pool', () => {
  test('builds circuits ahead of need, by the rules', async () => {
    const { pool, mesh } = world()
    pool.plan()
    await until(() => ready(pool).length >= 1, 'a clean circuit')
    const [{ choice, circuit }] = ready(pool) as [ReturnType<typeof ready>[number]]
    expect(new Set(choice.path).size).toBe(3)
    expect(mesh.relays.find(({ id }) => id === choice.path[2])?.isExit).toBe(true)
    await until(() => circuit?.rttMs !== null, 'its round trip is measured')
  })

  test('exits that are back are used though nobody asks, and though the view that paths are drawn from is a moment behind', async () => {
    let wall = Date.now()
    const { pool, mesh, view } = world({ wall: () => wall })
    const exits = mesh.relays.filter(({ isExit }) => isExit)
    for (const exit of exits) mesh.announce(view, exit, 2, true)
    pool.plan()
    await nextTurn()
    await nextTurn()
    expect(pool.circuits()).toEqual([])
    for (const exit of exits) mesh.announce(view, exit, 3)
    // What the node does when the view has changed: once.
    pool.plan()
    await nextTurn()
    await nextTurn()
    expect(pool.circuits()).toEqual([])
    wall += 1_000
    await until(() => ready(pool).length >= 1, 'a circuit through an exit that is back')
  })

  test('streams of one isolation share a circuit, those of others never do', async () => {
    const { pool, client } = world()
    expect(await Promise.all([echo(client, 'a'), echo(client, 'a'), echo(client, 'b')])).toEqual(['ping', 'ping', 'ping'])
    const used = pool.circuits().filter(({ firstUsedAt }) => firstUsedAt !== null)
    expect(used.map(({ isolation }) => isolation).sort()).toEqual(['a', 'b'])
  })

  test('a circuit is replaced when a relay of it dies, and the next request does not notice', async () => {
    const { mesh, pool, client } = world({ relays: 9, exits: 3 })
    await echo(client, 'a')
    const [used] = ready(pool).filter(({ isolation }) => isolation === 'a')
    mesh.relays.find(({ id }) => id === used!.choice.path[1])!.engine.stop()
    expect(await echo(client, 'a')).toBe('ping')
    const [after] = ready(pool).filter(({ isolation }) => isolation === 'a')
    expect(after!.choice.path[1]).not.toBe(used!.choice.path[1])
  })

  test('a guard that does not answer is passed over without a new sample', async () => {
    const { mesh, client, guards, pool } = world({ relays: 9, exits: 3 })
    await echo(client, 'a')
    const sample = guards.facts(performance.now()).map(({ id }) => id)
    const [first] = ready(pool)[0]!.choice.path
    mesh.relays.find(({ id }) => id === first)!.engine.stop()
    expect(await echo(client, 'b')).toBe('ping')
    expect(ready(pool).find(({ isolation }) => isolation === 'b')!.choice.path[0]).not.toBe(first)
    expect(
      guards
        .facts(performance.now())
        .map(({ id }) => id)
        .sort(),
    ).toEqual(sample.sort())
  })

  test('a new identity retires every circuit; streams that are open live on', async () => {
    const { pool, client } = world()
    const { stream } = await client.connect({ host: 'h', port }, { isolation: 'a' })
    const before = ready(pool).map(({ id }) => id)
    pool.retireAll()
    const fresh = await pool.buildOne()
    expect(before).not.toContain(fresh.id)
    await echo(client, 'a')
    expect(ready(pool).every(({ id }) => !before.includes(id))).toBe(true)
    stream.write('still there')
    const [answer] = (await once(stream, 'data')) as [Uint8Array]
    expect(Buffer.from(answer).toString()).toBe('still there')
    const carrier = pool.circuits().find(({ state }) => state === 'retired')
    stream.destroy()
    await until(() => carrier!.state === 'closed', 'the retired circuit is closed after its last stream')
  })

  test('tells of a circuit that takes nothing new while something is on it, and of its end once', async () => {
    const { pool, client, events } = world({ path: { cleanCircuits: 2 } })
    const { stream } = await client.connect({ host: '127.0.0.1', port }, { isolation: 'a' })
    await until(() => ready(pool).length >= 2, 'one in use and one that is not')
    const used = ready(pool).find(({ isolation }) => isolation === 'a')!
    const clean = ready(pool).find(({ isolation }) => isolation === null)!
    const told = (id: number): string[] => events.filter((one) => one.circuit.id === id && !('stream' in one)).map(({ type }) => type)
    pool.retireAll()
    expect(told(used.id)).toEqual(['open', 'retired'])
    expect(told(clean.id)).toEqual(['open', 'closed'])
    stream.destroy()
    await until(() => used.state === 'closed', 'its end')
    expect(told(used.id)).toEqual(['open', 'retired', 'closed'])
  })

  test('a circuit past its lifetime takes no more streams', async () => {
    const { pool, client } = world({ path: { circuitLifetimeMs: 10_000 } })
    await echo(client, 'a')
    const [used] = ready(pool).filter(({ isolation }) => isolation === 'a')
    used!.firstUsedAt = performance.now() - 10_001
    await echo(client, 'a')
    const [after] = ready(pool).filter(({ isolation }) => isolation === 'a')
    expect(after!.id).not.toBe(used!.id)
  })

  test('without a path the request waits, then says why', async () => {
    const { client } = world({ relays: 2, exits: 1, circuitWaitMs: 400 })
    const failure = await client
      .connect({ host: 'h', port }, { isolation: 'a', signal: AbortSignal.timeout(20_000) })
      .catch((error) => error)
    expect(failure).toMatchObject({ reason: 'no-circuit' })
    expect(failure.message).toContain('no middle')
  })

  test('what no exit lets through is refused soon, and by its name', async () => {
    const { client } = world({ circuitWaitMs: 60_000 })
    await expect(client.connect({ host: '2001:db8::1', port: 25 }, { isolation: 'a' })).rejects.toMatchObject({ reason: 'policy' })
  }, 20_000)

  test('an exit that refuses by its policy is left for another', async () => {
    const { client, pool } = world({ relays: 9, exits: 3 })
    const asked: string[] = []
    await echo(client, 'a')
    const [used] = ready(pool).filter(({ isolation }) => isolation === 'a')
    used!.circuit!.connect = (target) => {
      asked.push(target.host)
      return Promise.reject(new StreamError('policy'))
    }
    expect(await echo(client, 'a')).toBe('ping')
    expect(asked).toEqual(['echo.example'])
    const exits = ready(pool)
      .filter(({ isolation }) => isolation === 'a')
      .map(({ choice }) => choice.path[2])
    expect(new Set(exits).size).toBe(2)
  })

  test('a refused connection is not tried again', async () => {
    const { client, pool } = world()
    await echo(client, 'a')
    await expect(client.connect({ host: 'h', port: 1 }, { isolation: 'a' })).rejects.toMatchObject({ reason: 'refused' })
    expect(pool.circuits().filter(({ isolation }) => isolation === 'a')).toHaveLength(1)
  })

  test('stopping ends what waits and what is open', async () => {
    const { mesh, pool, client } = world()
    await echo(client, 'a')
    client.stop()
    pool.stop()
    await expect(client.connect({ host: 'h', port }, { isolation: 'a' })).rejects.toMatchObject({ reason: 'aborted' })
    await until(() => mesh.relays.every(({ engine }) => engine.stats().circuits === 0), 'relays have forgotten the client')
  })

  test('new wishes retire the circuits that they do not allow, at once for what comes next, and let their streams end', async () => {
    const { client, pool, mesh, wish } = world({ relays: 12, exits: 4 })
    const country = (id: string) => countryOf(parseIp(`127.${mesh.relays.findIndex((relay) => relay.id === id) + 10}.0.1`))
    await echo(client, 'a')
    const [used] = ready(pool).filter(({ isolation }) => isolation === 'a')
    const here = country(used!.choice.path[2])!
    const there = here === 'AA' ? 'BB' : 'AA'
    const { stream } = await client.connect({ host: 'echo.example', port }, { isolation: 'a' })
    wish({ exitCountries: [there] })
    expect(used!.state).toBe('retired')
    expect(await echo(client, 'a')).toBe('ping')
    const open = pool.circuits().filter(({ state }) => state === 'ready')
    expect(open.map(({ choice }) => country(choice.path[2]))).toEqual(open.map(() => there))
    stream.end('still here')
    const parts: Uint8Array[] = []
    for await (const part of stream) parts.push(part as Uint8Array)
    expect(Buffer.concat(parts).toString()).toBe('still here')
    await until(() => used!.state === 'closed', 'the retired circuit ends with its last stream')
  })

  test('a circuit that is being built when wishes change is not used; one that fits stays', async () => {
    const { client, pool, mesh, wish } = world({ relays: 12, exits: 4 })
    const country = (id: string) => countryOf(parseIp(`127.${mesh.relays.findIndex((relay) => relay.id === id) + 10}.0.1`))
    const built = pool.buildOne()
    const [building] = pool.circuits()
    expect(building!.state).toBe('building')
    const here = country(building!.choice.path[2])!
    wish({ exitCountries: [here === 'AA' ? 'BB' : 'AA'] })
    expect(building!.unwanted).toBe(true)
    await built
    expect(await echo(client, 'a')).toBe('ping')
    const [used] = pool.circuits().filter(({ isolation }) => isolation === 'a')
    expect(country(used!.choice.path[2])).not.toBe(here)
    wish({ exitCountries: [country(used!.choice.path[2])!], cleanCircuits: 2 })
    expect(used!.state).toBe('ready')
  })

  test('a wish that nothing fulfils is not relaxed: the request says which', async () => {
    const { client, wish } = world({ circuitWaitMs: 400 })
    await echo(client, 'a')
    wish({ exitCountries: ['CC'] })
    await expect(client.connect({ host: 'h', port }, { isolation: 'a' })).rejects.toThrow(/not in path.exit_countries/)
    wish({})
    expect(await echo(client, 'a')).toBe('ping')
  })
})
