import { createHash } from 'node:crypto'
import { appendFileSync, cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CircuitFacts, DrainFacts, NodeStatus, RelayFacts } from '../../src/node/index.ts'
import { circuitOf, controlOf } from '../bench/network.ts'
import { isAlive } from '../support/proc.ts'
import {
  delay,
  killPid,
  Program,
  runOk,
  shallot,
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

// One mesh for the whole file: each test lets another of its nodes go.

const folder = temporaryFolder('leaving')
let testnet: Testnet
let web: WebServer

beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 9, exits: 3 })
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

const BYTES = 2_000_000

/** Four seconds of download over a circuit of its own. */
async function startTransfer(user: string): Promise<{ readonly circuit: CircuitFacts; readonly hash: Promise<string> }> {
  const socks = testnet.ready.socks!
  const circuit = await circuitOf(controlOf(testnet), socks, user)
  const socket = await socksConnect('127.0.0.1', web.port, { proxy: socks, user })
  socket.write(`GET /bytes/${BYTES}?per=20000&every=40 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n`)
  const hash = new Promise<string>((resolve) => {
    const chunks: Buffer[] = []
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', (error) => resolve(`broken: ${error.message}`))
    const ended = (): void => {
      socket.end()
      const all = Buffer.concat(chunks)
      resolve(
        createHash('sha256')
          .update(all.subarray(all.indexOf('\r\n\r\n') + 4))
          .digest('hex'),
      )
    }
    socket.on('end', ended).on('close', ended)
    socket.resume()
  })
  return { circuit, hash }
}

async function asked<T>(node: Pick<TestnetNode, 'dir'>, ...command: string[]): Promise<T> {
  const finished = await shallot([...command, '--json', '--dir', node.dir])
  expect(finished.code, finished.log).toBe(0)
  return JSON.parse(finished.stdout) as T
}

const fetchSoon = (): Promise<string> =>
  runOk('curl', ['-sSf', '--max-time', '10', '--proxy', `socks5h://${testnet.ready.socks}`, `${web.url}/soon`])

test('a relay that drains loses no stream, is chosen for nothing new, and ends with its last circuit', async () => {
  const transfers = await Promise.all(Array.from({ length: 4 }, (_, i) => startTransfer(`drain${i}`)))
  const exit = testnet.node(transfers[0]!.circuit.path[2]!.id)
  const facts = await asked<DrainFacts>(exit, 'drain', '--limit', '60s')
  expect(facts.circuitsLeft).toBeGreaterThan(0)
  expect(facts.until - facts.since).toBe(60_000)
  expect((await asked<NodeStatus>(exit, 'status')).draining).toMatchObject({ since: facts.since })

  // Everybody hears of it. That it serves what it has until then and after is what the hashes below show.
  await until('everybody hears that it leaves', 20_000, async () => {
    const relays = await asked<RelayFacts[]>(testnet.client, 'relays')
    return relays.find(({ id }) => id === exit.id)?.notEligible.includes('leaving') ?? false
  })
  for (let i = 0; i < 4; i++) {
    const circuit = await asked<CircuitFacts>(testnet.client, 'new-circuit')
    expect(circuit.path.map(({ id }) => id)).not.toContain(exit.id)
  }
  expect(await Promise.all(transfers.map(({ hash }) => hash))).toEqual(transfers.map(() => sha256OfBytes(BYTES)))
  await until('the node ends', 30_000, () => !isAlive(exit.pid))
  expect(Date.now()).toBeLessThan(facts.until)
  expect(await fetchSoon()).toContain('hello')
})

test('a limit ends a drain, and asking again moves it', async () => {
  const transfer = await startTransfer('limit')
  const guard = testnet.node(transfer.circuit.path[0]!.id)
  const first = await asked<DrainFacts>(guard, 'drain', '--limit', '1h')
  expect(first.until - first.since).toBe(3_600_000)
  const second = await asked<DrainFacts>(guard, 'drain', '--limit', '1s')
  expect(second.since).toBe(first.since)
  expect(second.until).toBeLessThan(first.until)
  await until('the node ends', 10_000, () => !isAlive(guard.pid))
  expect(await transfer.hash).not.toBe(sha256OfBytes(BYTES))
  expect(await fetchSoon()).toContain('hello')
})

test('SIGTERM drains a serving node; a second one ends it at once', async () => {
  const transfer = await startTransfer('term')
  const relay = testnet.node(transfer.circuit.path[1]!.id)
  killPid(relay.pid, 'SIGTERM')
  await until('it drains', 10_000, async () => (await asked<NodeStatus>(relay, 'status')).draining !== null)
  await delay(1_500)
  expect(isAlive(relay.pid)).toBe(true)
  killPid(relay.pid, 'SIGTERM')
  await until('the node ends', 5_000, () => !isAlive(relay.pid))
  expect(await transfer.hash).not.toBe(sha256OfBytes(BYTES))
  expect(await fetchSoon()).toContain('hello')
})

test('a client has nobody to wait for: it refuses to drain, and SIGTERM ends it', async () => {
  const node = await startNode(writeClientConfig(testnet, join(folder.path, 'client')))
  const finished = await shallot(['drain', '--dir', join(folder.path, 'client')])
  expect(finished.code).not.toBe(0)
  expect(finished.log).toContain('serves nobody')
  const began = performance.now()
  expect((await node.stop()).code).toBe(0)
  expect(performance.now() - began).toBeLessThan(5_000)
})

/** What a service manager hears: python has datagram sockets. */
const listener = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1].replace('@', '\\0', 1) if sys.argv[1][0] == '@' else sys.argv[1]); print("bound", flush=True)
while True: print(repr(s.recv(4096).decode()), flush=True)`

test.each(['a path', 'the abstract namespace'])(
  'a service manager at %s is told of readiness, life, reloads and the end',
  async (where) => {
    const dir = join(folder.path, where.replace(' ', '-'))
    const config = writeClientConfig(testnet, dir)
    const isPath = where === 'a path'
    const name = isPath ? join(dir, 'notify') : `@shallot-test-${process.pid}`
    const heard = Program.start('python3', ['-c', listener, name])
    await heard.waitFor(/bound/, 15_000)
    const node = await startNode(config, { env: { NOTIFY_SOCKET: name, WATCHDOG_USEC: '3000000' } })
    await heard.waitFor(/READY=1\\nSTATUS=client; \d+ relays known/, 15_000)
    await heard.waitFor(/WATCHDOG=1/, 15_000)
    const transfer = runOk('curl', [
      '-sSf',
      '--proxy',
      `socks5h://${node.ready.socks}`,
      `${web.url}/bytes/${BYTES}?per=20000&every=20`,
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
    ])
    await delay(500)

    appendFileSync(config, '\n[log]\nlevel = "debug"\n')
    killPid(node.pid, 'SIGHUP')
    await heard.waitFor(/RELOADING=1\\nMONOTONIC_USEC=\d{6,}/, 15_000)
    await heard.waitFor(/READY=1\\nSTATUS=configuration read again/, 15_000)
    expect(await transfer).toBe(String(BYTES))

    appendFileSync(config, 'level = 7\n')
    killPid(node.pid, 'SIGHUP')
    await heard.waitFor(/the configuration is wrong; the one before stays in force/, 15_000)
    expect(isAlive(node.pid)).toBe(true)
    expect(node.program.log).toMatch(/WARN +the configuration was not read again: the one before stays in force.*problems=1/)
    await node.stop()
    await heard.waitFor(/STOPPING=1/, 15_000)
    heard.killNow()
  },
)

test('an identity is backed up, restored elsewhere, and never overwritten', async () => {
  const relay = testnet.nodes('middle').find(({ pid }) => isAlive(pid))!
  const file = join(folder.path, 'relay.backup')
  expect(await asked(relay, 'backup', file)).toMatchObject({ id: relay.id })
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect((await shallot(['backup', file, '--dir', relay.dir])).log).toContain('exists already')

  const home = { dir: join(folder.path, 'restored') }
  expect(await asked(home, 'restore', file)).toMatchObject({ id: relay.id })
  for (const name of ['keys/identity', 'keys/onion', 'shallot.toml']) {
    expect(readFileSync(join(home.dir, name)), name).toEqual(readFileSync(join(relay.dir, name)))
    expect(statSync(join(home.dir, name)).mode & 0o077).toBe(0)
  }
  const network = readFileSync(join(testnet.dir, 'network.toml'))
  expect(readFileSync(join(home.dir, 'network.toml'))).toEqual(network)
  const again = await shallot(['restore', file, '--dir', home.dir])
  expect(again.code).toBe(2)
  expect(again.log).toContain('is not overwritten')
  expect((await shallot(['restore', file, '--dir', relay.dir])).log).toMatch(/in use/)

  const text = readFileSync(file, 'utf8')
  const damaged = join(folder.path, 'damaged')
  for (const [wrong, why] of [
    [text.replace(/"sha256": "./, '"sha256": "x'), 'damaged'],
    [text.slice(0, -20), 'not JSON'],
    [text.replace('keys/onion', '../../etc/passwd'), 'not of the form'],
    [text.replace(/"id": "12D3KooW[^"]*"/, `"id": "${testnet.client.id}"`), 'another node'],
  ]) {
    writeFileSync(damaged, wrong!)
    const finished = await shallot(['restore', damaged, '--dir', join(folder.path, 'nowhere')])
    expect(finished.code, wrong).toBe(2)
    expect(finished.log).toContain(why)
  }
  expect((await shallot(['backup', join(folder.path, 'none'), '--dir', testnet.client.dir])).log).toContain('no identity')
})

interface Report {
  readonly well: boolean
  readonly findings: readonly {
    readonly check: string
    readonly result: string
    readonly message: string
    readonly advice: string | null
  }[]
}

test('the doctor finds nothing wrong with a node that is well, and says what to do about one that is not', async () => {
  const relay = testnet.nodes('exit').find(({ pid }) => isAlive(pid))!
  const report = JSON.parse((await shallot(['doctor', '--json', '--dir', relay.dir])).stdout) as Report
  expect(report.findings.filter(({ result }) => result === 'fail')).toEqual([])
  expect(report.findings.map(({ check }) => check)).toEqual(
    expect.arrayContaining(['configuration', 'directory', 'disk', 'open-files', 'memory', 'network', 'clock', 'version']),
  )
  expect(report.findings.find(({ check }) => check === 'clock')?.result).not.toBe('fail')

  const sick = join(folder.path, 'sick')
  mkdirSync(join(sick, 'keys'), { recursive: true })
  cpSync(join(testnet.dir, 'network.toml'), join(sick, 'network.toml'))
  writeFileSync(join(sick, 'network.toml'), readFileSync(join(sick, 'network.toml'), 'utf8').replace(/\/tcp\/\d+\/p2p/g, '/tcp/9/p2p'))
  const listen = /listen = \["(.*?)"\]/.exec(readFileSync(join(relay.dir, 'shallot.toml'), 'utf8'))![1]!
  writeFileSync(join(sick, 'shallot.toml'), `[node]\nroles = ["middle"]\n[link]\nlisten = ["${listen}"]\n`)
  writeFileSync(join(sick, 'keys/identity'), 'x', { mode: 0o644 })
  const finished = await shallot(['doctor', '--json', '--dir', sick])
  expect(finished.code).toBe(1)
  const failed = (JSON.parse(finished.stdout) as Report).findings.filter(({ result }) => result === 'fail')
  expect(failed.map(({ check }) => check).sort()).toEqual(['bootstrap', 'directory', 'ports'])
  for (const { advice } of failed) expect(advice).toBeTruthy()

  const empty = await shallot(['doctor', '--dir', join(folder.path, 'empty')])
  expect(empty.code).toBe(1)
  expect(empty.stdout).toContain('shallot init')
})
