import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Control } from '../support/control.ts'
import { hasCommand, runOk, startNode, startTestnet, type Testnet, temporaryFolder, writeClientConfig } from '../support/processes.ts'
import { outgoingCalls, straceWrapper, strayCalls } from '../support/socket-calls.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

// What a client asks of the system's network is watched by strace, from its first instruction to its last.

const canTrace = await hasCommand('strace')
const folder = temporaryFolder('no-leaks')
let testnet: Testnet
let web: WebServer

beforeAll(async () => {
  if (!canTrace) return
  web = await startWebServer()
  // Enough guards that a client leaves most of them alone.
  testnet = await startTestnet({ relays: 9, exits: 2 })
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

/** Runs a traced client that fetches by address and by name, and gives its trace and the addresses that it may speak to. */
async function traceClient(
  name: string,
  env: Record<string, string> = {},
): Promise<{ trace: string; allowed: Set<string>; guards: number }> {
  const file = join(folder.path, `${name}.strace`)
  const config = writeClientConfig(testnet, join(folder.path, name))
  const client = await startNode(config, { wrapper: straceWrapper(file), env, readyWithinMs: 100_000 })
  try {
    for (const url of [`${web.url}/address`, `http://localhost:${web.port}/name`]) {
      expect(await runOk('curl', ['-sSf', '-x', `socks5h://${client.ready.socks}`, url])).toContain('hello')
      expect(await runOk('curl', ['-sSf', '-x', `http://${client.ready.http}`, url])).toContain('hello')
    }
    const control = new Control(client.ready.control!, client.dir)
    await control.newCircuit()
    const guards = (await control.status()).guards!.filter((guard) => guard.state === 'primary')
    const allowed = guards.map((guard) => testnet.node(guard.id).address!)
    const bootstrap = testnet.nodes('bootstrap').map((node) => node.address!)
    return { allowed: new Set([...allowed, ...bootstrap]), guards: guards.length, trace: '' }
  } finally {
    await client.stop()
  }
}

async function traceOf(name: string, env: Record<string, string> = {}): Promise<{ trace: string; allowed: Set<string>; guards: number }> {
  const traced = await traceClient(name, env)
  return { ...traced, trace: readFileSync(join(folder.path, `${name}.strace`), 'latin1') }
}

test.skipIf(!canTrace)(
  'a client opens no socket but to its guards and the bootstrap nodes, and looks up no name',
  { timeout: 180_000 },
  async () => {
    const { trace, allowed, guards } = await traceOf('clean')
    expect(outgoingCalls(trace).length).toBeGreaterThan(0)
    // Otherwise this test would allow every relay there is.
    expect(guards).toBeLessThan(testnet.nodes('guard').length)
    expect(strayCalls(trace, allowed)).toEqual([])
  },
)

const strays = {
  'a lookup by the system': `import { lookup } from 'node:dns'\nsetTimeout(() => lookup('stray.example', () => {}), 500)`,
  'a lookup that the hosts file answers': `import { lookup } from 'node:dns'\nsetTimeout(() => lookup('localhost', () => {}), 500)`,
  'a DNS question of its own': `import { Resolver } from 'node:dns'\nconst resolver = new Resolver({ timeout: 500, tries: 1 })\nresolver.setServers(['127.0.0.1:5'])\nsetTimeout(() => resolver.resolve4('stray.example', () => {}), 500)`,
  'a connection': `import { connect } from 'node:net'\nsetTimeout(() => connect(9, '127.0.0.99').on('error', () => {}), 500)`,
}

test.skipIf(!canTrace).each(Object.entries(strays))(
  'the check fails when %s is put into the client',
  { timeout: 180_000 },
  async (what, code) => {
    const name = what.replaceAll(' ', '-')
    const script = join(folder.path, `${name}.mjs`)
    writeFileSync(
      script,
      `import { setTimeout as unused } from 'node:timers'\nif (process.argv.includes('run')) {\n  await import('./${name}.code.mjs')\n}\n`,
    )
    writeFileSync(join(folder.path, `${name}.code.mjs`), code)
    const { trace, allowed } = await traceOf(name, { NODE_OPTIONS: `--import=${script}` })
    expect(strayCalls(trace, allowed)).not.toEqual([])
  },
)
