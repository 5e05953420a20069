import { describe, expect, test } from 'vitest'
import { MalformedError, SeededRandom, toHex } from '../../../src/base/index.ts'
import { encodeSnapshot, restoreSnapshot, SnapshotRestore, View } from '../../../src/directory/index.ts'
import { quickRules, START, suite, testDescriptor, testRelay } from './support.ts'

const random = new SeededRandom(11)
const relays = Array.from({ length: 20 }, () => testRelay(random))

function filled(): View {
  const view = new View({ suite, rules: quickRules })
  relays.forEach((relay, i) => {
    view.add(testDescriptor(relay, quickRules, START, { addresses: [`/ip4/127.${i}.0.1/tcp/1`] }).bytes, START + i)
  })
  return view
}

function restored(bytes: Uint8Array, now: number) {
  const view = new View({ suite, rules: quickRules })
  return { view, report: restoreSnapshot(suite, view, bytes, now) }
}

describe('a snapshot of the view', () => {
  test('brings back descriptors and ages', () => {
    const before = filled()
    before.hearAges(relays[0]!.id, new Map([[before.get(relays[3]!.id)!.tag, 5_000_000]]), START)
    const bytes = encodeSnapshot(suite, before, START + 100)
    const { view, report } = restored(bytes, START + 60_000)
    expect(report).toEqual({ writtenAt: START + 100, damaged: 0, expired: 0 })
    expect(toHex(view.buckets.root())).toBe(toHex(before.buckets.root()))
    expect(view.ageMs(relays[7]!.id, START + 60_000)).toBe(60_000 - 7)
    expect(view.ageMs(relays[3]!.id, START + 60_000)).toBe(5_060_000)
    expect(view.ages.wantsHearsay).toBe(false)
  })

  test('read long after still says where relays were and since when they are known', () => {
    const bytes = encodeSnapshot(suite, filled(), START)
    const later = START + 86_400_000
    const { view, report } = restored(bytes, later)
    expect(report).toMatchObject({ damaged: 0, expired: 20 })
    expect([view.size, view.stale().length]).toEqual([0, 20])
    expect(view.ageMs(relays[7]!.id, later)).toBe(86_400_000 - 7)
    // And it is written again, until they are heard of anew.
    expect(restored(encodeSnapshot(suite, view, later), later).view.stale()).toHaveLength(20)
  })

  test('with damage in the middle loses only what is damaged', () => {
    const bytes = encodeSnapshot(suite, filled(), START)
    const near = bytes.slice()
    near[near.length - 100]! ^= 1
    const { view, report } = restored(near, START + 1_000)
    expect(report.damaged).toBe(1)
    expect(view.size).toBe(19)
    const cut = restored(bytes.subarray(0, bytes.length - 1_000), START + 1_000)
    expect(cut.report.damaged).toBeGreaterThan(1)
    expect(cut.view.size).toBe(20 - cut.report.damaged)
  })

  test('read in steps is the same, and says when it is done', () => {
    const bytes = encodeSnapshot(suite, filled(), START)
    for (const read of [bytes, bytes.subarray(0, bytes.length - 1_000)]) {
      const view = new View({ suite, rules: quickRules })
      const restore = new SnapshotRestore(suite, view, read, START + 1_000)
      let report = restore.step(7)
      expect([report, view.ages.wantsHearsay]).toEqual([null, true])
      for (let i = 0; i < 5 && report === null; i++) report = restore.step(7)
      const whole = restored(read, START + 1_000)
      expect(report).toEqual(whole.report)
      expect(toHex(view.buckets.root())).toBe(toHex(whole.view.buckets.root()))
      expect(view.ages.wantsHearsay).toBe(false)
    }
  })

  test('survives any flipped bit: less is read, or it is refused', () => {
    const bytes = encodeSnapshot(suite, filled(), START)
    for (let at = 0; at < bytes.length; at += 97) {
      const damaged = bytes.slice()
      damaged[at]! ^= 1 << (at & 7)
      try {
        const { report, view } = restored(damaged, START + 1_000)
        expect(report.damaged).toBeGreaterThan(0)
        expect(view.size).toBeLessThanOrEqual(20)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedError)
      }
    }
  })

  test('of another network or kind of file is refused', () => {
    const bytes = encodeSnapshot(suite, filled(), START)
    const other = new View({ suite, rules: { ...quickRules, name: 'other' } })
    expect(() => restoreSnapshot(suite, other, bytes, START)).toThrow('another network')
    expect(() => restored(new Uint8Array(0), START)).toThrow(MalformedError)
    expect(() => restored(new TextEncoder().encode('something else entirely, and long enough'), START)).toThrow(MalformedError)
  })
})
