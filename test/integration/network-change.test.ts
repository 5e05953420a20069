import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { silentLogger } from '../../src/base/index.ts'
import { loadConfig, type NodeControl, startNode } from '../../src/node/index.ts'
import { startTestnet, type Testnet, writeClientConfig } from '../support/processes.ts'

let testnet: Testnet
let node: NodeControl | null = null
const dir = mkdtempSync(join(tmpdir(), 'shallot-network-change-'))
let place = '203.0.113.5'

beforeAll(async () => {
  testnet = await startTestnet({ relays: 4, exits: 1 })
}, 120_000)

afterAll(async () => {
  await node?.stop()
  await testnet?.stop()
  rmSync(dir, { recursive: true, force: true })
})

test('a client that changes its network is somebody new there, with the same guards', async () => {
  const config = await loadConfig(writeClientConfig(testnet, dir))
  node = await startNode(config, { dir, logger: silentLogger, signal: new AbortController().signal, place: () => place })
  await node.ready(AbortSignal.timeout(30_000))
  const before = { id: node.id, guards: node.status().guards!.map(({ id }) => id), circuits: node.circuits(false).map(({ id }) => id) }
  place = '198.51.100.7'
  await expect.poll(() => node!.id, { timeout: 20_000, interval: 100 }).not.toBe(before.id)
  const open = (): number[] =>
    node!
      .circuits(false)
      .filter(({ state }) => state === 'open')
      .map(({ id }) => id)
  await expect.poll(() => open().length, { timeout: 20_000, interval: 100 }).toBeGreaterThan(0)
  expect(open().some((id) => before.circuits.includes(id))).toBe(false)
  expect(node.status().guards!.map(({ id }) => id)).toEqual(before.guards)
}, 90_000)
