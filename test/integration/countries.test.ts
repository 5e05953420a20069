import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Control } from '../support/control.ts'
import { runOk, shallot, startNode, startTestnet, type Testnet, temporaryFolder, writeClientConfig } from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

const file = '# A world of three countries\n127.0.0.0/10 DE\n127.64.0.0/10 FR\n127.128.0.0/9 NL\n'

describe('countries', () => {
  const folder = temporaryFolder('countries')
  const countries = join(folder.path, 'world')
  let web: WebServer
  let testnet: Testnet

  beforeAll(async () => {
    writeFileSync(countries, file)
    web = await startWebServer()
    testnet = await startTestnet({ relays: 9, exits: 3, processes: false, more: ['--countries', countries] })
  })
  afterAll(async () => {
    await testnet?.stop()
    await web?.close()
    folder.remove()
  })

  /** The node whose address the server saw, of each of some fetches that share no circuit. */
  async function exitsSeen(socks: string, fetches: number): Promise<Testnet['ready']['nodes']> {
    const seen: string[] = []
    for (let i = 0; i < fetches; i++) {
      const proxy = `socks5h://fetch${i}-${Math.random()}:x@${socks}`
      seen.push(await runOk('curl', ['-sSf', '--max-time', '30', '-x', proxy, `${web.url}/seen`]))
    }
    return seen.map((address) => testnet.ready.nodes.find((node) => node.address?.startsWith(`${address}:`))!)
  }

  test('a testnet spreads exits and other relays over the countries, and shows them', async () => {
    expect(
      testnet
        .nodes('exit')
        .map(({ country }) => country)
        .sort(),
    ).toEqual(['DE', 'FR', 'NL'])
    expect(new Set(testnet.nodes('guard').map(({ country }) => country))).toEqual(new Set(['DE', 'FR', 'NL']))
    const control = new Control(testnet.ready.control, testnet.client.dir)
    const shown = Object.fromEntries((await control.relays()).map(({ id, country }) => [id, country]))
    const planned = Object.fromEntries(
      testnet.ready.nodes.filter(({ address }) => address !== null).map(({ id, country }) => [id, country]),
    )
    // The client may not know all of them yet.
    expect(Object.keys(shown).length).toBeGreaterThan(4)
    expect(planned).toMatchObject(shown)
    for (const { path } of await control.circuits()) for (const hop of path) expect(hop.country).toBe(planned[hop.id])
  })

  test('a server sees the address of the exit that carried the fetch', async () => {
    const [exit] = await exitsSeen(testnet.ready.socks, 1)
    expect(exit?.roles).toContain('exit')
  })

  test.each(['DE', 'FR', 'NL'])('a client that comes out in %s is seen from there', async (country) => {
    const config = writeClientConfig(testnet, join(folder.path, `out-${country}`), [
      '[path]',
      `exit_countries = ["${country}"]`,
      '[geo]',
      'countries_file = "../world"',
    ])
    const node = await startNode(config)
    try {
      const exits = await exitsSeen(node.ready.socks!, 4)
      expect(exits.map((exit) => exit?.country)).toEqual([country, country, country, country])
    } finally {
      await node.stop()
    }
  })

  test('no hop is in an excluded country', async () => {
    const config = writeClientConfig(testnet, join(folder.path, 'without'), [
      '[path]',
      'exclude_countries = ["FR"]',
      '[geo]',
      'countries_file = "../world"',
    ])
    const node = await startNode(config)
    try {
      const exits = await exitsSeen(node.ready.socks!, 6)
      expect(new Set(exits.map((exit) => exit?.country))).not.toContain('FR')
      const control = new Control(node.ready.control!, node.dir)
      const hops = (await control.circuits()).flatMap(({ path }) => path.map(({ id }) => testnet.node(id).country))
      expect(hops.length).toBeGreaterThan(6)
      expect(hops).not.toContain('FR')
    } finally {
      await node.stop()
    }
  })

  test('a choice at run time is that of the very next fetch, of the same isolation key too, and stays in the file', async () => {
    const config = writeClientConfig(testnet, join(folder.path, 'live'), ['[geo]', 'countries_file = "../world"'])
    const node = await startNode(config)
    try {
      const control = new Control(node.ready.control!, node.dir)
      const fetchOnce = async (): Promise<string | null | undefined> => {
        const seen = await runOk('curl', ['-sSf', '--max-time', '30', '-x', `socks5h://same:x@${node.ready.socks}`, `${web.url}/seen`])
        return testnet.ready.nodes.find(({ address }) => address?.startsWith(`${seen}:`))?.country
      }
      await fetchOnce()
      for (const country of ['FR', 'DE', 'NL']) {
        const changed = await control.ask<{ applied: string[]; restart: string[] }>('PATCH', '/v1/settings', {
          set: { 'path.exit_countries': [country] },
        })
        expect(changed).toMatchObject({ applied: ['path.exit_countries'], restart: [] })
        expect(await fetchOnce()).toBe(country)
        const open = (await control.circuits()).filter(({ state }) => state === 'open')
        expect(open.map(({ path }) => path.at(-1)!.country)).toEqual(open.map(() => country))
      }
      expect(readFileSync(config, 'utf8')).toContain('exit_countries = ["NL"]')
      await expect(control.ask('PATCH', '/v1/settings', { set: { 'path.exit_countries': ['UK'] } })).rejects.toThrow(/GB is meant/)
    } finally {
      await node.stop()
    }
  })

  test('reasons name the rule that kept relays out', async () => {
    const config = writeClientConfig(testnet, join(folder.path, 'why'), [
      '[path]',
      'exit_countries = ["DE"]',
      'exclude_countries = ["FR"]',
      '[geo]',
      'countries_file = "../world"',
    ])
    const node = await startNode(config)
    try {
      const out = await shallot(['circuits', '--why', '--dir', node.dir], { env: { NO_COLOR: '1' } })
      expect(out.stdout).toMatch(/drawn by weight from 1 candidate/)
      expect(out.stdout).toMatch(/exit \S+ at 127\.\d+\.0\.1:\d+, Germany \(DE\)/)
    } finally {
      await node.stop()
    }
  })
})
