import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { NodeStatus } from '../../src/node/node-control.ts'
import { median } from '../bench/stats.ts'
import { Control } from '../support/control.ts'
import { memoryOf } from '../support/proc.ts'
import {
  type ExtraNode,
  killPid,
  runOk,
  shallot,
  startNode,
  startTestnet,
  type Testnet,
  temporaryFolder,
  until,
  writeClientConfig,
} from '../support/processes.ts'
import { socksConnect } from '../support/socks-client.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

// A client that stops reading altogether, with 200 downloads under way: its process is stopped, so that nothing is taken from its links.

const circuits = 200
/** Of each relay: a good deal less than what 200 circuits would queue (each up to the 256 KiB that a stream may have under way at first). */
const budgetBytes = 8 << 20
const speedBytes = 20_000_000

const folder = temporaryFolder('never-reads')
let testnet: Testnet
let web: WebServer
let relays: { readonly name: string; readonly pid: number; readonly control: Control }[]
let reader: ExtraNode
/** Talks without end once it is told to. */
let talker: Server
const listeners: Socket[] = []

beforeAll(async () => {
  web = await startWebServer()
  talker = createServer((socket) => {
    socket.on('error', () => {})
    listeners.push(socket)
  })
  talker.listen(0, '127.0.0.1')
  await once(talker, 'listening')
  const limits = join(folder.path, 'relays.toml')
  writeFileSync(limits, `[relaying]\nqueue_budget_bytes = ${budgetBytes}\nstall_timeout_ms = 10000\npressed_stall_timeout_ms = 5000\n`)
  testnet = await startTestnet({ relays: 3, exits: 1, more: ['--relay-config', limits] })
  relays = []
  for (const { name, pid, dir, roles } of testnet.ready.nodes) {
    if (!roles.some((role) => role === 'middle' || role === 'exit')) continue
    const status = JSON.parse((await shallot(['status', '--json', '--dir', dir])).stdout) as NodeStatus
    relays.push({ name, pid, control: new Control(status.control!, dir) })
  }
  const more = ['[path]', 'max_circuits = 240']
  reader = await startNode(writeClientConfig(testnet, join(folder.path, 'reader'), more))
})

afterAll(async () => {
  if (reader) killPid(reader.pid, 'SIGKILL')
  await reader?.program.exited
  await testnet?.stop()
  await web?.close()
  for (const socket of listeners) socket.destroy()
  talker?.close()
  folder.remove()
})

/** MB/s of one download by a client that has nothing to do with it. */
async function speed(): Promise<number> {
  const rates: number[] = []
  for (let i = 0; i < 3; i++) {
    const args = [
      '-sSf',
      '-o',
      '/dev/null',
      '-w',
      '%{speed_download}',
      '-x',
      `socks5h://${testnet.ready.socks}`,
      `${web.url}/bytes/${speedBytes}`,
    ]
    rates.push(Number(await runOk('curl', args)) / 1e6)
  }
  return median(rates)
}

const chunk = Buffer.alloc(64 * 1024)

function talk(socket: Socket): void {
  while (socket.writable && socket.write(chunk));
  socket.once('drain', () => talk(socket))
}

const facts = async (): Promise<readonly NonNullable<NodeStatus['relaying']>[]> =>
  Promise.all(relays.map(async ({ control }) => (await control.status()).relaying!))

test('a reader that never reads costs a relay no more than its budget, and the others keep their speed', { timeout: 300_000 }, async () => {
  const alone = await speed()
  const before = relays.map(({ pid }) => memoryOf(pid).rssBytes)
  const sockets: Socket[] = []
  for (let i = 0; i < circuits; i += 10) {
    const ten = Array.from({ length: 10 }, (_, j) =>
      socksConnect('127.0.0.1', (talker.address() as AddressInfo).port, { proxy: reader.ready.socks!, user: `reader${i + j}` }),
    )
    for (const socket of await Promise.all(ten)) {
      socket.on('error', () => {})
      sockets.push(socket)
    }
  }
  const open = (await facts()).map((one) => one.circuitsOpen)
  expect(Math.min(...open)).toBeGreaterThanOrEqual(circuits)
  killPid(reader.pid, 'SIGSTOP')
  for (const socket of listeners) talk(socket)

  const during: number[] = []
  let mostQueued = 0
  const watchUntil = performance.now() + 15_000
  while (performance.now() < watchUntil) {
    for (const { budget } of await facts()) {
      // One batch for each of its neighbours may arrive before the closing is through.
      expect(budget.usedBytes).toBeLessThanOrEqual(budget.limitBytes + (1 << 20))
      mostQueued = Math.max(mostQueued, budget.usedBytes)
    }
    during.push(await speed())
  }
  const grown = relays.map(({ pid }, i) => memoryOf(pid).rssBytes - before[i]!)
  const limits = (await facts()).map((one) => one.budget.limitBytes)
  console.log(
    `alone ${alone.toFixed(0)} MB/s, beside it ${median(during).toFixed(0)} MB/s; at most ${(mostQueued / 1e6).toFixed(1)} MB queued in a relay; ` +
      `relays grew by ${grown.map((bytes) => (bytes / 1e6).toFixed(0)).join(', ')} MB`,
  )
  expect(mostQueued).toBeGreaterThan(budgetBytes / 2)
  expect((await facts()).some((one) => one.circuitsShed > 0)).toBe(true)
  expect(median(during)).toBeGreaterThan(alone / 2)
  // The budget, 200 circuits, and the pools of the link.
  for (const [i, bytes] of grown.entries()) expect(bytes, relays[i]!.name).toBeLessThan(limits[i]! + (96 << 20))

  // Nobody waits for such a reader: after ten seconds without movement its circuits are closed.
  await until('the stalled circuits are closed', 150_000, async () => (await facts()).every((one) => one.circuitsOpen < circuits / 2), 2000)
  expect(await speed()).toBeGreaterThan(alone / 2)
  for (const socket of sockets) socket.destroy()
})
