import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, ControlClient, runningNodes } from '../../src/control/index.ts'
import { run, startTestnet, type Testnet, until } from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

let testnet: Testnet
let web: WebServer
let client: ControlClient
let guard: ControlClient
let exit: ControlClient
beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 4, exits: 1 })
  client = new ControlClient(testnet.ready.control, join(testnet.client.dir, 'control-token'))
  guard = await controlOf(testnet.nodes('guard')[0]!.dir)
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

/** A fetch; what curl ended with. */
async function fetched(bytes = 1000, ...more: string[]): Promise<number> {
  const args = ['-sSf', '-o', '/dev/null', ...more, '-x', `socks5h://${testnet.ready.socks}`, `${web.url}/bytes/${bytes}`]
  return (await run('curl', args)).code ?? -1
}

/** Sets keys that count at once. */
async function set(node: ControlClient, values: Api.SettingsChange['set']): Promise<void> {
  const { applied, restart } = await node.changeSettings({ set: values })
  expect({ applied: [...applied].sort(), restart }).toEqual({ applied: Object.keys(values).sort(), restart: [] })
}

/** A relay refuses for this reason what the client tries now. */
async function refuses(relay: ControlClient, reason: string): Promise<void> {
  const refused = async (): Promise<number> => (await relay.status()).relaying!.refused[reason] ?? 0
  const before = await refused()
  await until(`a refusal: ${reason}`, 20_000, async () => {
    await client.newCircuit().catch(() => {})
    return (await refused()) > before
  })
}

describe('a setting that counts at once does', () => {
  test('a relay’s limits and rates', async () => {
    await set(exit, { 'relaying.max_circuits': 1 })
    await refuses(exit, 'circuits')
    await set(exit, { 'relaying.max_circuits': null, 'relaying.creates_per_second': 1 })
    await refuses(exit, 'creates')
    await exit.changeSettings({ set: { 'relaying.max_circuits': null, 'relaying.creates_per_second': null } })
    expect((await exit.status()).relaying!.budget.limitBytes).toBe(128 << 20)
    await set(exit, { 'relaying.queue_budget_bytes': 64 << 20 })
    expect((await exit.status()).relaying!.budget.limitBytes).toBe(64 << 20)
    await until('circuits again', 20_000, async () => (await fetched()) === 0)
  })

  test('what a relay says of itself to the network', async () => {
    const { id } = await guard.status()
    await set(guard, { 'node.bandwidth_bytes_per_second': 7_654_321, 'node.family': [(await exit.status()).id] })
    const told = await until('the new descriptor', 30_000, async () => {
      const relay = (await client.relays()).find((one) => one.id === id)!
      return relay.bandwidth === 7_654_321 ? relay : undefined
    })
    expect(told.family).toEqual([(await exit.status()).id])
    await set(guard, { 'node.bandwidth_bytes_per_second': null, 'node.family': null })
  })

  test('who may use the proxy, and what for', async () => {
    await set(client, { 'ingress.socks.credentials': [{ user: 'ann', password: 'sesame' }], 'ingress.socks.require_credentials': true })
    expect(await fetched()).not.toBe(0)
    expect(await fetched(1000, '-U', 'ann:wrong')).not.toBe(0)
    expect(await fetched(1000, '-U', 'ann:sesame')).toBe(0)
    await set(client, { 'ingress.socks.require_credentials': false, 'ingress.socks.credentials': null })
    expect(await fetched()).toBe(0)
  })

  test('an exit’s rates', async () => {
    await set(exit, { 'exit.rate_bytes_per_second': 100_000 })
    const begun = performance.now()
    expect(await fetched(300_000)).toBe(0)
    // The burst, and what is sent last, are 65,536 bytes each.
    expect(performance.now() - begun).toBeGreaterThan(1500)
    await set(exit, { 'exit.rate_bytes_per_second': 0 })
    await set(exit, { 'exit.max_streams_per_circuit': 1, 'exit.connects_per_second': 1, 'exit.connect_burst': 1 })
    const codes = await Promise.all([1, 2, 3, 4].map(() => fetched()))
    expect(codes).toContain(0)
    await until('a stream refused for the limit', 20_000, async () => {
      await Promise.all([1, 2, 3].map(() => fetched()))
      return ((await exit.status()).exit!.refused['resource-limit'] ?? 0) > 0
    })
    await exit.changeSettings({
      set: { 'exit.max_streams_per_circuit': null, 'exit.connects_per_second': null, 'exit.connect_burst': null },
    })
  })
})
