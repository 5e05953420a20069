import { describe, expect, test } from 'vitest'
import { type NodeId, SeededRandom, silentLogger } from '../../../src/base/index.ts'
import { encodeSnapshot, View } from '../../../src/directory/index.ts'
import { Discovery, type DiscoveryModules, discoveryConfig, MemoryDiscoveryStore } from '../../../src/discovery/index.ts'
import { quickRules, START, suite, testDescriptor, testRelay } from '../directory/support.ts'

const RELAYS = 300
const random = new SeededRandom(12)
const snapshot = (() => {
  const view = new View({ suite, rules: quickRules })
  for (let i = 0; i < RELAYS; i++) {
    const addresses = [`/ip4/127.${i % 250}.${Math.floor(i / 250)}.1/tcp/1`]
    view.add(testDescriptor(testRelay(random), quickRules, START, { addresses }).bytes, START)
  }
  return encodeSnapshot(suite, view, START)
})()

/** A client's discovery that knows nobody, over what the disk has. */
function client(bytes: Uint8Array): { discovery: Discovery; view: View; store: MemoryDiscoveryStore } {
  const view = new View({ suite, rules: quickRules })
  const store = new MemoryDiscoveryStore()
  store.files.set('view', bytes)
  const self: NodeId = testRelay(new SeededRandom(13)).id
  const discovery = new Discovery({ rules: quickRules, config: discoveryConfig.parse({ dialTimeoutMs: 100 }), serving: null }, {
    host: { peerId: { toString: () => self }, getConnections: () => [] },
    dht: null,
    view,
    suite,
    random: new SeededRandom(14),
    store,
    logger: silentLogger,
    now: () => START + 1_000,
  } as unknown as DiscoveryModules)
  return { discovery, view, store }
}

describe('reading the view from disk', () => {
  test('leaves turns of the event loop to others', async () => {
    const { discovery, view } = client(snapshot)
    const sizes = new Set<number>()
    const watch = (): void => {
      sizes.add(view.size)
      if (view.size < RELAYS) setImmediate(watch)
    }
    watch()
    await discovery.start()
    expect(view.size).toBe(RELAYS)
    // What others saw in between, beside none and all.
    expect(sizes.size).toBeGreaterThanOrEqual(2)
    expect(Math.max(...[...sizes].filter((size) => size < RELAYS))).toBeGreaterThan(0)
    await discovery.stop()
  })

  test('stopped in the middle keeps what the disk has', async () => {
    const { discovery, view, store } = client(snapshot)
    const starting = discovery.start()
    while (view.size === 0) await new Promise((resolve) => setImmediate(resolve))
    expect(view.size).toBeLessThan(RELAYS)
    await discovery.stop()
    await starting
    expect(discovery.state).toBe('stopped')
    expect(store.files.get('view')).toEqual(snapshot)
  })
})
