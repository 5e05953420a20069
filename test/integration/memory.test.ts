import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { controlOf } from '../bench/network.ts'
import type { Control } from '../support/control.ts'
import { killPid, Program, projectRoot, startTestnet, type Testnet, temporaryFolder, until } from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

// What is left after a collection must not grow with the circuits and streams that have been. `npm test` takes 400 circuits and 2,000 streams;
// SHALLOT_SOAK=1 takes 2,000 and 10,000.

const circuits = process.env.SHALLOT_SOAK !== undefined ? 2000 : 400
const firstCircuits = 100
const streamsPerCircuit = 5

const folder = temporaryFolder('memory')
let testnet: Testnet
let control: Control
let web: WebServer

beforeAll(async () => {
  web = await startWebServer()
  const probe = join(projectRoot, 'test', 'support', 'memory-probe.ts')
  testnet = await startTestnet({ relays: 3, exits: 1, env: { NODE_OPTIONS: `--import=${probe}`, SHALLOT_MEMORY_PROBE: folder.path } })
  control = controlOf(testnet)
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

interface Left {
  readonly name: string
  readonly heapBytes: number
  readonly rssBytes: number
}

/** What every node holds after a collection. */
async function collect(): Promise<readonly Left[]> {
  // Retired circuits, closed sockets and timers of a few seconds go first.
  await until('the circuits that were replaced have closed', 20_000, async () => (await control.status()).client!.circuitsOpen < 20)
  await new Promise((resolve) => setTimeout(resolve, 3000))
  const left: Left[] = []
  for (const { name, pid } of testnet.ready.nodes) {
    const file = join(folder.path, `${pid}.json`)
    rmSync(file, { force: true })
    killPid(pid, 'SIGUSR2')
    const usage = await until(`${name} has collected`, 10_000, () => {
      if (!existsSync(file)) return undefined
      const text = readFileSync(file, 'utf8')
      return text.endsWith('}') ? (JSON.parse(text) as NodeJS.MemoryUsage) : undefined
    })
    left.push({ name, heapBytes: usage.heapUsed + usage.external, rssBytes: usage.rss })
  }
  return left
}

async function use(count: number): Promise<void> {
  for (let done = 0; done < count; done += 20) {
    for (let i = 0; i < 20; i++) await control.newCircuit()
    const n = String(20 * streamsPerCircuit)
    const args = [
      '--socks',
      testnet.ready.socks,
      '--target',
      `127.0.0.1:${web.port}`,
      '--path',
      '/bytes/1024',
      '--n',
      n,
      '--c',
      '8',
      '--warm',
      '0',
    ]
    const load = Program.node(join(projectRoot, 'test', 'bench', 'load-client.ts'), args)
    expect((await load.waitForExit(60_000)).code, load.tail()).toBe(0)
    expect(JSON.parse(load.stdout)).toMatchObject({ n: 20 * streamsPerCircuit, errors: 0 })
  }
}

test(`memory after ${circuits} circuits and ${circuits * streamsPerCircuit} streams is that after the first hundred`, {
  timeout: 1_200_000,
}, async () => {
  await use(firstCircuits)
  const before = await collect()
  await use(circuits - firstCircuits)
  const after = await collect()
  const mb = (bytes: number): string => (bytes / 1e6).toFixed(1)
  const rows = after.map((now, i) => {
    const then = before[i]!
    return `${now.name}: heap and buffers ${mb(then.heapBytes)} -> ${mb(now.heapBytes)} MB, resident ${mb(then.rssBytes)} -> ${mb(now.rssBytes)} MB`
  })
  console.log(rows.join('\n'))
  for (const [i, now] of after.entries()) expect(now.heapBytes, rows[i]).toBeLessThan(before[i]!.heapBytes * 1.1)
})
