import { afterEach, describe, expect, test } from 'vitest'
import { SeededRandom, silentLogger, toHex } from '../../../src/base/index.ts'
import {
  descriptorWorkHash,
  type NetworkRules,
  networkId,
  parseRules,
  type SignedDescriptor,
  testnetRules,
  View,
} from '../../../src/directory/index.ts'
import { decodePublisherState, MemoryDiscoveryStore, type OwnFields, PUBLISHER_STATE } from '../../../src/discovery/index.ts'
import { EXTRA_BITS_MAX, Publisher } from '../../../src/discovery/publisher.ts'
import { suite } from '../directory/support.ts'

const seed = new SeededRandom(4).bytes(32)
const quick = parseRules({ ...testnetRules, work: { bits: 6, periodMs: 3_600_000 }, descriptors: { lifetimeMs: 60_000, republishMs: 500 } })
const running = new Set<Publisher>()
let bandwidth = 1
let says = true

afterEach(async () => {
  for (const publisher of running) await publisher.stop()
  running.clear()
  says = true
})

function fields(): OwnFields | null {
  if (!says) return null
  return {
    onionKey: { x25519: seed },
    addresses: ['/ip4/127.1.0.1/tcp/1'],
    reach: { kind: 'direct' },
    roles: ['middle'],
    exitPolicy: null,
    bandwidth,
    family: [],
    protocols: { circuit: [1], link: [1], packet: [] },
    leaving: false,
    software: 'test',
  }
}

async function started(rules: NetworkRules, options: { store?: MemoryDiscoveryStore; now?: () => number } = {}) {
  const store = options.store ?? new MemoryDiscoveryStore()
  const now = options.now ?? Date.now
  const published: SignedDescriptor[] = []
  const publisher = new Publisher(
    { rules, seed, workShare: 1, fields, publish: (signed) => published.push(signed) },
    { suite, store, logger: silentLogger, now },
  )
  running.add(publisher)
  await publisher.start()
  return { publisher, published, store }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10))
  expect(condition()).toBe(true)
}

describe('a publisher', () => {
  test('makes a descriptor that a view takes, and a new edition before it gets old', async () => {
    const { published, publisher } = await started(quick)
    await until(() => published.length >= 2)
    const view = new View({ suite, rules: quick })
    expect(view.add(published[0]!.bytes, Date.now()).type).toBe('added')
    expect(view.add(published[1]!.bytes, Date.now()).type).toBe('replaced')
    expect(publisher.status).toMatchObject({ state: 'published', workAttempts: null })
  })

  test('publishes a change soon, several at once as one', async () => {
    const slow = { ...quick, descriptors: { ...quick.descriptors, republishMs: 60_000 } }
    const { published, publisher } = await started(slow)
    await until(() => published.length === 1)
    bandwidth = 2
    publisher.changed()
    bandwidth = 3
    publisher.changed()
    await until(() => published.length === 2)
    expect(published[1]!.descriptor.bandwidth).toBe(3)
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect(published).toHaveLength(2)
  })

  test('says nothing while there is nothing to say, does its work meanwhile, and speaks as soon as there is', async () => {
    const slow = { ...quick, descriptors: { ...quick.descriptors, republishMs: 60_000 } }
    says = false
    const { published, publisher } = await started(slow)
    await until(() => publisher.status.state === 'waiting')
    expect([published.length, publisher.current, publisher.status.sequence]).toEqual([0, null, 0])
    says = true
    const before = performance.now()
    publisher.changed()
    await until(() => published.length === 1)
    expect(performance.now() - before).toBeLessThan(2_000)
    expect(publisher.status.state).toBe('published')
    // With nothing to say again the last edition stands, and no other follows.
    says = false
    publisher.changed()
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(published).toHaveLength(1)
    expect(publisher.current).toBe(published[0])
  })

  test('goes on above its former numbers after a restart, even if the clock went back', async () => {
    const first = await started(quick)
    await until(() => first.published.length >= 1)
    await first.publisher.stop()
    const { sequence } = first.published.at(-1)!.descriptor
    const second = await started(quick, { store: first.store, now: () => Date.now() - 10_000 })
    await until(() => second.published.length >= 1)
    expect(second.published[0]!.descriptor.sequence).toBeGreaterThan(sequence)
    // Without its state, the clock alone is enough.
    const third = await started(quick)
    await until(() => third.published.length >= 1)
    expect(third.published[0]!.descriptor.sequence).toBeGreaterThan(sequence)
  })

  test('goes on above an edition of another life that it hears of', async () => {
    const { published, publisher } = await started({ ...quick, descriptors: { ...quick.descriptors, republishMs: 60_000 } })
    await until(() => published.length === 1)
    const above = published[0]!.descriptor.sequence + 1_000_000_000
    publisher.noteSequence(above)
    await until(() => published.length === 2)
    expect(published[1]!.descriptor.sequence).toBeGreaterThan(above)
  })

  test('keeps its proof of work, and finds the next one before the period ends', async () => {
    const { periodMs } = quick.work
    const at = (part: number) => () => Math.floor(Date.now() / periodMs) * periodMs + part * periodMs
    const { published, publisher, store } = await started(quick, { now: at(0.5) })
    await until(() => published.length >= 1)
    expect(decodePublisherState(store.files.get(PUBLISHER_STATE)!).proofs).toHaveLength(1)
    await publisher.stop()
    const later = await started(quick, { store, now: at(0.95) })
    await until(() => decodePublisherState(store.files.get(PUBLISHER_STATE)!).proofs.length === 2)
    expect(later.published[0]!.descriptor.work).toEqual(published[0]!.descriptor.work)
  })

  test('works more when it is kept out of the view by others', async () => {
    const { published, publisher } = await started({ ...quick, descriptors: { ...quick.descriptors, republishMs: 60_000 } })
    await until(() => published.length === 1)
    const rank = (signed: SignedDescriptor) => toHex(descriptorWorkHash(suite, networkId(suite, quick), signed.descriptor))
    for (let more = 1; more <= EXTRA_BITS_MAX; more++) {
      expect(publisher.workMore()).toBe(true)
      await until(() => published.length === 1 + more)
    }
    expect(publisher.workMore()).toBe(false)
    expect(Number.parseInt(rank(published.at(-1)!).slice(0, 4), 16)).toBeLessThan(1 << (16 - 6 - EXTRA_BITS_MAX))
  })

  test('stops while it works, and does not hold up the event loop', async () => {
    const hard = { ...quick, work: { ...quick.work, bits: 40 } }
    const { publisher, published } = await started(hard)
    let turns = 0
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => setTimeout(resolve, 5))
      turns++
    }
    expect(turns).toBe(10)
    expect(publisher.status.state).toBe('working')
    expect(publisher.status.workAttempts).toBeGreaterThan(0)
    await publisher.stop()
    expect(published).toEqual([])
  })
})
