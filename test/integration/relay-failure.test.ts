import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CircuitFacts } from '../../src/node/node-control.ts'
import { circuitOf, controlOf } from '../bench/network.ts'
import type { Control } from '../support/control.ts'
import { isAlive } from '../support/proc.ts'
import {
  killPid,
  runOk,
  startNode,
  startTestnet,
  type Testnet,
  type TestnetNode,
  temporaryFolder,
  until,
  writeClientConfig,
} from '../support/processes.ts'
import { socksConnect } from '../support/socks-client.ts'
import { sha256OfBytes, startWebServer, type WebServer } from '../support/web-server.ts'

// One mesh for the whole file: each test kills another of its nodes.

const folder = temporaryFolder('relay-failure')
const dead = new Set<number>()
let testnet: Testnet
let control: Control
let web: WebServer

beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 10, exits: 4 })
  control = controlOf(testnet)
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

/** A slow download on a circuit of its own. */
interface Transfer {
  readonly user: string
  readonly circuit: CircuitFacts
  /** What became of it: the hash of a whole body, or how it broke. */
  readonly outcome: Promise<string>
}

const bodyBytes = 2_000_000
const whole = sha256OfBytes(bodyBytes)

async function startTransfer(user: string): Promise<Transfer> {
  const circuit = await circuitOf(control, testnet.ready.socks, user)
  const socket = await socksConnect('127.0.0.1', web.port, { proxy: testnet.ready.socks, user })
  // 20 KB every 40 ms: four seconds.
  socket.write(`GET /bytes/${bodyBytes}?per=20000&every=40 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n`)
  return { user, circuit, outcome: outcomeOf(socket) }
}

function outcomeOf(socket: Socket): Promise<string> {
  const hash = createHash('sha256')
  let head: Buffer | null = Buffer.alloc(0)
  socket.on('data', (piece: Buffer) => {
    if (head === null) {
      hash.update(piece)
      return
    }
    head = Buffer.concat([head, piece])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    hash.update(head.subarray(end + 4))
    head = null
  })
  return new Promise((resolve) => {
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(`broken: ${error.code}`))
    socket.once('end', () => resolve(hash.digest('hex')))
    socket.resume()
  })
}

async function kill(node: TestnetNode): Promise<void> {
  killPid(node.pid, 'SIGKILL')
  dead.add(node.pid)
  await until(`${node.name} is gone`, 2000, () => !isAlive(node.pid))
}

/** A request that begins now is answered within two seconds. */
async function requestSoon(): Promise<void> {
  const began = performance.now()
  const answer = await runOk('curl', [
    '-sSf',
    '--max-time',
    '10',
    '-x',
    `socks5h://fresh${dead.size}:x@${testnet.ready.socks}`,
    `${web.url}/soon`,
  ])
  expect(answer).toContain('hello')
  expect(performance.now() - began).toBeLessThan(2000)
}

function expectOthersAlive(): void {
  const gone = testnet.ready.nodes.filter((node) => !dead.has(node.pid) && !isAlive(node.pid)).map((node) => node.name)
  expect(gone).toEqual([])
  expect(isAlive(testnet.program.pid)).toBe(true)
}

test.each(['exit', 'middle', 'guard'] as const)(
  'a killed %s breaks only the transfers through it, and none of them looks complete',
  async (position) => {
    const hop = ['guard', 'middle', 'exit'].indexOf(position)
    const transfers: Transfer[] = []
    for (let i = 0; i < 8; i++) transfers.push(await startTransfer(`${position}${i}`))
    const victim = testnet.node(transfers[0]!.circuit.path[hop]!.id)
    await kill(victim)
    await requestSoon()
    let went = 0
    for (const { circuit, outcome } of transfers) {
      if (circuit.path.some((one) => one.id === victim.id)) {
        // Broken, unless it was complete before the kill: then it has every byte.
        expect(await outcome).toSatisfy((text: string) => text.startsWith('broken') || text === whole)
      } else {
        expect(await outcome).toBe(whole)
        went++
      }
    }
    // All circuits share the guard; of exits and middles there are several.
    if (position !== 'guard') expect(went).toBeGreaterThan(0)
    await requestSoon()
    expectOthersAlive()
  },
)

test('a killed bootstrap node is not missed, and a restarted client comes back without any', { timeout: 180_000 }, async () => {
  const config = writeClientConfig(testnet, join(folder.path, 'client'))
  const fetchThrough = (socks: string): Promise<string> =>
    runOk('curl', ['-sSf', '--max-time', '10', '-x', `socks5h://${socks}`, `${web.url}/again`])
  const first = await startNode(config)
  expect(await fetchThrough(first.ready.socks!)).toContain('hello')
  await first.stop()

  const transfer = await startTransfer('bootstrap')
  await kill(testnet.nodes('bootstrap')[0]!)
  await requestSoon()
  expect(await transfer.outcome).toBe(whole)

  const second = await startNode(config)
  try {
    expect(await fetchThrough(second.ready.socks!)).toContain('hello')
  } finally {
    await second.stop()
  }
  expectOthersAlive()
})
