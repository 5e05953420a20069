import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { NodeStatus } from '../../src/node/node-control.ts'
import { shallot, startNode, startShallot, startTestnet, type Testnet, temporaryFolder, writeClientConfig } from '../support/processes.ts'

// Files of a node's directory are damaged between two starts: state is kept aside and the node goes on, an identity is never replaced silently.

const folder = temporaryFolder('damaged')
let testnet: Testnet

beforeAll(async () => {
  testnet = await startTestnet({ relays: 4, exits: 1 })
})

afterAll(async () => {
  await testnet?.stop()
  folder.remove()
})

const warningsOf = async (dir: string): Promise<readonly string[]> => {
  const status = JSON.parse((await shallot(['status', '--json', '--dir', dir])).stdout) as NodeStatus
  return status.warnings.map(({ code, message }) => `${code} ${message}`)
}

test('a damaged view and guard file are kept aside, named, and the client goes on', { timeout: 120_000 }, async () => {
  const config = writeClientConfig(testnet, join(folder.path, 'client'))
  const first = await startNode(config)
  await first.stop()
  const { dir } = first
  expect(readdirSync(dir)).toEqual(expect.arrayContaining(['guards.json', 'view']))
  writeFileSync(join(dir, 'guards.json'), '{"version":1,"guards":[{"id":7}]}')
  // Damage to single relays of a view is skipped; this one is damaged as a whole.
  writeFileSync(join(dir, 'view'), readFileSync(join(dir, 'view')).fill(0, 0, 64))

  const second = await startNode(config)
  const warnings = await warningsOf(dir)
  const kept = readdirSync(dir).filter((name) => name.includes('.corrupt-'))
  await second.stop()
  expect(kept.map((name) => name.replace(/\.corrupt-.*/, '')).sort()).toEqual(['guards.json', 'view'])
  for (const name of kept) expect(warnings.some((text) => text.startsWith('state-corrupt') && text.includes(name))).toBe(true)
})

test('a relay whose identity is damaged does not start, and says what to do', { timeout: 60_000 }, async () => {
  const dir = join(folder.path, 'relay')
  const listen = '/ip4/127.253.0.1/tcp/0'
  const made = await shallot([
    'init',
    '--role',
    'middle',
    '--network',
    join(testnet.dir, 'network.toml'),
    '--listen',
    '/ip4/127.253.0.1/tcp/9',
    '--dir',
    dir,
  ])
  expect(made.code).toBe(0)
  const config = join(dir, 'shallot.toml')
  writeFileSync(config, readFileSync(config, 'utf8').replace('/ip4/127.253.0.1/tcp/9', listen))
  const identity = join(dir, 'keys', 'identity')
  const intact = readFileSync(identity)
  writeFileSync(identity, intact.toString('utf8').replace(/.{4}\n$/, '====\n'))
  const failed = startShallot(['run', '--dir', dir])
  const { code } = await failed.waitForExit(20_000)
  expect(code).toBe(1)
  expect(failed.tail(2000)).toMatch(/keys\/identity is damaged.*[Rr]estore it from a copy/s)
  expect(readFileSync(identity).equals(intact)).toBe(false)

  // Whole again, it is the same relay; damaged onion keys only cost the circuits that were being made.
  writeFileSync(identity, intact)
  const first = await startNode(config)
  const id = (JSON.parse((await shallot(['status', '--json', '--dir', dir])).stdout) as NodeStatus).id
  await first.stop()
  expect(intact.toString('utf8')).toContain(id)
  writeFileSync(join(dir, 'keys', 'onion'), 'not keys')
  const second = await startNode(config)
  expect((await warningsOf(dir)).some((text) => text.startsWith('state-corrupt') && text.includes('onion'))).toBe(true)
  expect((JSON.parse((await shallot(['status', '--json', '--dir', dir])).stdout) as NodeStatus).id).toBe(id)
  await second.stop()
})
