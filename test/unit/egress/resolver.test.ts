import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatIp, parseIp } from '../../../src/base/index.ts'
import { createResolver, exitConfig, type NameSource, type Resolver } from '../../../src/egress/index.ts'
import { LookupCache, NotFound } from '../../../src/egress/lookup-cache.ts'
import { ExitRefusal } from '../../../src/relaying/index.ts'
import { DnsServer } from '../../support/dns-server.ts'

const never = new AbortController().signal
const texts = async (resolver: Resolver, name: string): Promise<string[]> => (await resolver.addresses(name, never)).value.map(formatIp)

describe('with configured servers', () => {
  let server: DnsServer
  let now = 0
  const resolver = (changes: object = {}): Resolver =>
    createResolver({ config: exitConfig.parse({ resolvers: [server.address], resolveTimeoutMs: 600, ...changes }), now: () => now })

  beforeEach(async () => {
    now = 0
    server = await DnsServer.start()
    server.add('both.example', 'A', '192.0.2.1', 120)
    server.add('both.example', 'AAAA', '2001:db8::1', 90)
    server.add('four.example', 'A', '192.0.2.4', 5)
    server.add('six.example', 'AAAA', '2001:db8::6', 1_000_000)
    server.add('1.2.0.192.in-addr.arpa', 'PTR', 'both.example')
    server.add('empty.example', 'PTR', 'nothing.example')
  })
  afterEach(() => server.close())

  it('gives the addresses of both families, with the lower time to live', async () => {
    const found = await resolver().addresses('both.example', never)
    expect(found.value.map(formatIp)).toEqual(['192.0.2.1', '2001:db8::1'])
    expect(found.ttlSeconds).toBe(90)
    expect(await texts(resolver(), 'four.example')).toEqual(['192.0.2.4'])
    expect(await texts(resolver(), 'six.example')).toEqual(['2001:db8::6'])
  })

  it('asks once for what it still remembers, and again after the clamped time to live', async () => {
    const one = resolver()
    expect((await one.addresses('four.example', never)).ttlSeconds).toBe(60)
    now = 59_000
    expect((await one.addresses('four.example', never)).ttlSeconds).toBe(1)
    expect(server.asked).toHaveLength(2)
    now = 60_001
    await one.addresses('four.example', never)
    expect(server.asked).toHaveLength(4)
    expect((await one.addresses('six.example', never)).ttlSeconds).toBe(3600)
  })

  it('shares a question that is under way', async () => {
    const one = resolver()
    const all = await Promise.all(Array.from({ length: 20 }, () => texts(one, 'both.example')))
    expect(new Set(all.map(String)).size).toBe(1)
    expect(server.asked.sort()).toEqual(['A both.example', 'AAAA both.example'])
  })

  it('refuses and remembers a name that does not exist, or has no address', async () => {
    const one = resolver()
    for (const name of ['no.example', 'empty.example']) {
      await expect(one.addresses(name, never)).rejects.toMatchObject({ reason: 'resolve-failed', name: 'NotFound' })
      const asked = server.asked.length
      await expect(one.addresses(name, never)).rejects.toMatchObject({ reason: 'resolve-failed' })
      expect(server.asked).toHaveLength(asked)
    }
    now = 31_000
    server.add('no.example', 'A', '192.0.2.9')
    expect(await texts(one, 'no.example')).toEqual(['192.0.2.9'])
  })

  it("does not remember a server's failure", async () => {
    const one = resolver()
    server.failing.add('both.example')
    await expect(one.addresses('both.example', never)).rejects.toMatchObject({ reason: 'resolve-failed', name: 'ExitRefusal' })
    server.failing.clear()
    expect(await texts(one, 'both.example')).toHaveLength(2)
  })

  it('gives up on a silent server with "timeout"', async () => {
    server.silent.add('both.example')
    await expect(resolver().addresses('both.example', never)).rejects.toMatchObject({ reason: 'timeout' })
  })

  it("ends with the asker's signal", async () => {
    server.silent.add('both.example')
    const abort = new AbortController()
    const asking = resolver().addresses('both.example', abort.signal)
    const gone = new ExitRefusal('internal', 'gone')
    abort.abort(gone)
    await expect(asking).rejects.toBe(gone)
  })

  it('gives the names of an address', async () => {
    expect((await resolver().names(parseIp('192.0.2.1'), never)).value).toEqual(['both.example'])
    await expect(resolver().names(parseIp('192.0.2.77'), never)).rejects.toMatchObject({ reason: 'resolve-failed' })
  })

  it('never asks for names that are nobody else’s business', async () => {
    const one = resolver()
    for (const name of ['printer.local', 'abc.onion', 'x.invalid', 'y.alt', 'local']) {
      await expect(one.addresses(name, never)).rejects.toMatchObject({ reason: 'resolve-failed' })
    }
    expect(await texts(one, 'localhost')).toEqual(['127.0.0.1', '::1'])
    expect(await texts(one, 'app.localhost')).toEqual(['127.0.0.1', '::1'])
    expect(server.asked).toEqual([])
  })
})

describe('with the system', () => {
  it('knows no name that does not exist, and drops addresses with a zone', async () => {
    const source: NameSource = {
      maxRunning: 3,
      addresses: async (name) => ({ value: name === 'zoned.example' ? ['fe80::1%eth0'] : ['fe80::1%eth0', '192.0.2.3'], ttlSeconds: 60 }),
      names: async () => [],
    }
    const one = createResolver({ config: exitConfig.parse({}), now: () => 0, source })
    expect(await texts(one, 'mixed.example')).toEqual(['192.0.2.3'])
    await expect(one.addresses('zoned.example', never)).rejects.toMatchObject({ reason: 'resolve-failed' })
    await expect(one.names(parseIp('192.0.2.3'), never)).rejects.toMatchObject({ reason: 'resolve-failed' })
  })

  it('asks getaddrinfo when no servers are set', async () => {
    const one = createResolver({ config: exitConfig.parse({}), now: () => 0 })
    // A literal is what getaddrinfo answers without any network.
    expect(await texts(one, '192.0.2.55')).toEqual(['192.0.2.55'])
  })
})

describe('the lookup cache', () => {
  const options = { maxEntries: 3, maxRunning: 2, maxQueued: 1, minTtlSeconds: 0, maxTtlSeconds: 100, negativeTtlSeconds: 10, now: () => 0 }

  it('runs and queues only so many at once, in order', async () => {
    const cache = new LookupCache<string>(options)
    const done: string[] = []
    const finish: (() => void)[] = []
    const ask = (key: string): Promise<unknown> =>
      cache
        .get(key, () => new Promise((resolve) => finish.push(() => resolve({ value: key, ttlSeconds: 1 }))), 1000, never)
        .then(() => done.push(key))
    const asked = [ask('a'), ask('b'), ask('c')]
    await expect(ask('d')).rejects.toMatchObject({ reason: 'resource-limit' })
    // A question that is under way is shared, limit or not.
    const shared = ask('a')
    expect(finish).toHaveLength(2)
    finish[0]!()
    await Promise.all([asked[0], shared])
    await new Promise(setImmediate)
    expect(finish).toHaveLength(3)
    finish[1]!()
    finish[2]!()
    await Promise.all(asked)
    expect(done).toEqual(['a', 'a', 'b', 'c'])
    expect(cache.running).toBe(0)
  })

  it('goes on for the others when one asker gives up', async () => {
    const cache = new LookupCache<string>(options)
    let finish = (): void => {}
    const load = (): Promise<{ value: string; ttlSeconds: number }> =>
      new Promise((resolve) => {
        finish = () => resolve({ value: 'late', ttlSeconds: 5 })
      })
    const impatient = cache.get('x', load, 10, never)
    const patient = cache.get('x', load, 5000, never)
    await expect(impatient).rejects.toMatchObject({ reason: 'timeout' })
    finish()
    expect((await patient).value).toBe('late')
  })

  it('forgets what was used longest ago', async () => {
    const cache = new LookupCache<string>(options)
    let loads = 0
    const ask = (key: string): Promise<unknown> =>
      cache.get(
        key,
        async () => {
          loads++
          if (key === 'none') throw new NotFound('none')
          return { value: key, ttlSeconds: 50 }
        },
        1000,
        never,
      )
    await ask('a')
    await ask('b')
    await expect(ask('none')).rejects.toThrow()
    await ask('a')
    await ask('c') // pushes b out
    expect(cache.size).toBe(3)
    loads = 0
    await ask('a')
    await expect(ask('none')).rejects.toThrow()
    expect(loads).toBe(0)
    await ask('b')
    expect(loads).toBe(1)
  })
})
