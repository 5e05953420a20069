import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { controlOf } from '../bench/network.ts'
import type { Control } from '../support/control.ts'
import { isAlive } from '../support/proc.ts'
import {
  type ExtraNode,
  killPid,
  run,
  runOk,
  shallot,
  startNode,
  startTestnet,
  type Testnet,
  type TestnetNode,
  until,
} from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

let testnet: Testnet
let control: Control
let web: WebServer
const back: ExtraNode[] = []

beforeAll(async () => {
  web = await startWebServer()
  testnet = await startTestnet({ relays: 6, exits: 2 })
  control = controlOf(testnet)
})

afterAll(async () => {
  for (const node of back) await node.stop()
  await testnet?.stop()
  await web?.close()
})

let user = 0
const fetchArgs = (): string[] => ['-sSf', '--max-time', '30', '-x', `socks5h://u${user++}:x@${testnet.ready.socks}`, `${web.url}/x`]
const codes = async (): Promise<string[]> => (await control.status()).warnings.map(({ code }) => code)

async function end(nodes: readonly TestnetNode[], signal: NodeJS.Signals): Promise<void> {
  for (const { pid } of nodes) killPid(pid, signal)
  await until('the exits are gone', 20_000, () => nodes.every(({ pid }) => !isAlive(pid)))
}

async function start(nodes: readonly TestnetNode[]): Promise<void> {
  for (const { dir } of nodes) back.push(await startNode(join(dir, 'shallot.toml')))
}

const doctor = () => shallot(['doctor', '--dir', testnet.client.dir], { timeoutMs: 60_000 })

test('exits that are gone are said to be, nobody else is blamed, and all is well when they are back', { timeout: 420_000 }, async () => {
  expect(await runOk('curl', fetchArgs())).toContain('hello')
  const exits = testnet.nodes('exit')
  await end(exits, 'SIGKILL')
  // What an impatient person does.
  for (let i = 0; i < 8; i++) await run('curl', fetchArgs())

  // On a slow machine the first builds may break elsewhere: most of the last ones count.
  const status = await until('the node says that it reaches no exit', 60_000, async () => {
    const now = await control.status()
    return now.outage?.code === 'exits-unreachable' ? now : undefined
  })
  expect(status.ready).toBe(false)
  expect(status.warnings.find(({ code }) => code === 'exits-unreachable')?.message).toContain('exits are known, and none')
  const told = await doctor()
  expect(told.code).toBe(1)
  expect(told.stdout).toMatch(/FAIL +network +nothing can be reached/)

  // Enough for a guard to be judged by, and not by these.
  await until('many builds failed', 120_000, async () => {
    await run('curl', fetchArgs())
    return (await control.status()).client!.circuitsFailed >= 60
  })
  expect(await codes()).not.toContain('guard-suspicious')
  expect((await control.status()).guards!.map(({ state }) => state)).not.toContain('suspicious')

  await start(exits)
  await until('a fetch works again', 60_000, async () => (await run('curl', fetchArgs())).code === 0)
  await until('the warning goes', 10_000, async () => !(await codes()).includes('exits-unreachable'))
  expect(await control.status()).toMatchObject({ ready: true, outage: null })
  expect((await doctor()).stdout).toContain('Nothing is wrong')

  // And where nobody asks for anything: they leave, as relays do, and come back.
  for (const node of back.splice(0)) await node.stop()
  await until('the node says so unasked', 60_000, async () => (await control.status()).outage !== null)
  await start(exits)
  await until('all is well again unasked', 60_000, async () => {
    const { ready, outage } = await control.status()
    return ready && outage === null
  })
  expect(await runOk('curl', fetchArgs())).toContain('hello')
})
