import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { descendantsOf, isAlive } from '../support/proc.ts'
import {
  delay,
  run,
  runOk,
  shallot,
  startNode,
  startTestnet,
  type Testnet,
  temporaryFolder,
  until,
  writeClientConfig,
} from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

const folder = temporaryFolder('lifecycle')
let testnet: Testnet
let web: WebServer

beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 4, exits: 1, dir: join(folder.path, 'mesh') })
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

/** `shallot … --json` against the testnet's client. */
async function asked(...command: string[]): Promise<unknown> {
  const finished = await shallot([...command, '--json', '--dir', testnet.client.dir])
  expect(finished.code, finished.log).toBe(0)
  return JSON.parse(finished.stdout)
}

test('the ready line names the proxies, the control address and every node, the client last', () => {
  expect(testnet.ready).toMatchObject({
    ready: true,
    socks: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    http: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    control: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
  })
  const { nodes } = testnet.ready
  expect(nodes.map((node) => node.roles)).toEqual([
    ['bootstrap'],
    ['guard', 'middle'],
    ['guard', 'middle'],
    ['guard', 'middle'],
    ['middle', 'exit'],
    ['client'],
  ])
  for (const node of nodes.slice(0, -1)) expect(node.address).toMatch(/^127\.\d+\.0\.1:\d+$/)
  expect(new Set(nodes.map((node) => node.address?.split('.')[1])).size).toBe(nodes.length)
  expect(new Set(nodes.map((node) => node.pid)).size).toBe(nodes.length)
  for (const node of nodes) expect(isAlive(node.pid)).toBe(true)
})

test('status, circuits, relays and streams are told as JSON', async () => {
  expect(await asked('status')).toMatchObject({ id: testnet.client.id, roles: ['client'], ready: true, pid: testnet.client.pid })
  const circuits = (await asked('circuits', '--why')) as { state: string; path: { position: string }[]; why: unknown[] | null }[]
  const open = circuits.filter((circuit) => circuit.state === 'open')
  expect(open.length).toBeGreaterThan(0)
  for (const circuit of open) {
    expect(circuit.path.map((hop) => hop.position)).toEqual(['guard', 'middle', 'exit'])
    expect(circuit.why).toHaveLength(3)
  }
  const serving = ((await asked('relays')) as { roles: string[] }[]).filter((relay) => !relay.roles.includes('bootstrap'))
  expect(serving).toHaveLength(4)
  expect(await asked('relays', '--role', 'exit')).toHaveLength(1)
  expect(await asked('streams')).toEqual([])
  expect(await asked('new-circuit')).toMatchObject({ state: 'open' })
})

test('`shallot fetch` brings a page through the mesh', async () => {
  const file = join(folder.path, 'page')
  const finished = await shallot(['fetch', `${web.url}/fetched`, '-o', file, '--dir', testnet.client.dir])
  expect(finished.code, finished.log).toBe(0)
  expect(statSync(file).size).toBe('hello from the web server: /fetched\n'.length)
})

test('a relay has no room for others to read its keys', () => {
  for (const node of testnet.ready.nodes) {
    for (const entry of readdirSync(node.dir, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !/key|identity|token/.test(entry.name)) continue
      expect(statSync(join(entry.parentPath, entry.name)).mode & 0o077, `${node.name}/${entry.name}`).toBe(0)
    }
  }
})

test('wrong use ends with exit code 2 and says what would be right', async () => {
  for (const args of [
    ['testnet', '--relays', 'many'],
    ['no-such-command'],
    ['status', '--no-such-option'],
    ['testnet', '--relays', '2', '--exits', '1'],
  ]) {
    const finished = await shallot(args)
    expect(finished.code, `${args.join(' ')}: ${finished.log}`).toBe(2)
    expect(finished.stdout).toBe('')
    expect(finished.log).not.toMatch(/^\s+at /m)
  }
})

test('a second start in the same directory is refused, and the first goes on', async () => {
  const second = await shallot(['testnet', '--json', '--dir', testnet.dir])
  expect(second.code).toBe(1)
  expect(second.log).toContain(testnet.dir)
  const config = writeClientConfig(testnet, join(folder.path, 'twice'))
  const first = await startNode(config)
  try {
    const again = await shallot(['run', '--config', config])
    expect(again.code).toBe(1)
    expect(again.log).toContain(join(folder.path, 'twice'))
    expect(await runOk('curl', ['-sSf', '-x', `socks5h://${first.ready.socks}`, `${web.url}/`])).toContain('hello')
  } finally {
    expect((await first.stop()).code).toBe(0)
  }
})

test('a port in use is named, and nothing stays running', async () => {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as { port: number }
  try {
    const finished = await shallot([
      'testnet',
      '--processes',
      '--relays',
      '3',
      '--exits',
      '1',
      '--socks',
      `127.0.0.1:${port}`,
      '--dir',
      join(folder.path, 'taken'),
    ])
    expect(finished.code).toBe(1)
    expect(finished.log).toContain(String(port))
  } finally {
    server.close()
  }
  const left = await run('pgrep', ['-f', join(folder.path, 'taken')])
  expect(left.stdout).toBe('')
})

test('a directory that cannot be one is named', async () => {
  const file = join(folder.path, 'file')
  writeFileSync(file, '')
  const finished = await shallot(['testnet', '--dir', join(file, 'below')])
  expect(finished.code).toBe(1)
  expect(finished.log).toContain(file)
})

test.each(['SIGTERM', 'SIGINT'] as const)('%s ends a testnet with exit code 0 and no process left', async (signal) => {
  const short = await startTestnet({ relays: 3, exits: 1 })
  const children = descendantsOf(short.program.pid)
  expect(children.length).toBeGreaterThanOrEqual(5)
  const { exit, leftOver } = await short.stop(signal)
  expect(exit, short.program.tail()).toEqual({ code: 0, signal: null })
  expect(leftOver).toEqual([])
  expect(children.filter(isAlive)).toEqual([])
})

test('a testnet in one process works and stops the same way', async () => {
  const short = await startTestnet({ relays: 3, exits: 1, processes: false })
  expect(await runOk('curl', ['-sSf', '-x', `socks5h://${short.ready.socks}`, `${web.url}/`])).toContain('hello')
  const { exit } = await short.stop()
  expect(exit, short.program.tail()).toEqual({ code: 0, signal: null })
})

test('when a testnet is killed, its nodes end by themselves', async () => {
  const short = await startTestnet({ relays: 3, exits: 1 })
  const children = short.ready.nodes.map((node) => node.pid)
  short.program.signal('SIGKILL')
  await short.program.exited
  await until('all nodes have ended', 15_000, () => children.every((pid) => !isAlive(pid)))
  await delay(0)
  await short.stop()
})
