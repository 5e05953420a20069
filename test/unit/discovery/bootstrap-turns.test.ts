import { describe, expect, test } from 'vitest'
import { type NodeId, nodeIdFromKey, SeededRandom } from '../../../src/base/index.ts'
import { BootstrapTurns, type PeerSource } from '../../../src/discovery/index.ts'

const id = (number: number): NodeId => nodeIdFromKey(new SeededRandom(number).bytes(32))
const address = (number: number): string => `/ip4/192.0.2.${number}/tcp/4460/p2p/${id(number)}`
const anyone = (): boolean => true
const noDisk = (): readonly PeerSource[] => []
const disk =
  (...numbers: number[]) =>
  (): readonly PeerSource[] =>
    numbers.map((number) => ({ id: id(number), addresses: [], from: 'stale' }))

function turns(...sources: number[][]): BootstrapTurns {
  const named = sources.map((numbers, i) => ({ name: ['network.toml', 'node.bootstrap', 'friends'][i]!, addresses: numbers.map(address) }))
  return new BootstrapTurns(named, id(99), new SeededRandom(1))
}

/** Asks whoever's turn it is; nobody answers. */
function failOnce(of: BootstrapTurns, most = 3, fromDisk = noDisk): Set<NodeId> {
  const asked = of.current(most, anyone, fromDisk)
  of.note(asked, false, asked.length)
  return new Set(asked.map((peer) => peer.id))
}

describe('bootstrap sources', () => {
  test('have their turns in order, the disk last, and then the first begins anew', () => {
    const of = turns([1, 2], [3], [4, 5])
    expect(failOnce(of)).toEqual(new Set([id(1), id(2)]))
    expect(failOnce(of)).toEqual(new Set([id(3)]))
    expect(failOnce(of)).toEqual(new Set([id(4), id(5)]))
    expect(of.rounds).toBe(0)
    expect(failOnce(of, 3, disk(6, 7))).toEqual(new Set([id(6), id(7)]))
    expect(of.rounds).toBe(1)
    expect(failOnce(of)).toEqual(new Set([id(1), id(2)]))
  })

  test('that answer are asked again, and nobody after them learns of this node', () => {
    const of = turns([1], [2])
    failOnce(of)
    for (let i = 0; i < 3; i++) {
      const asked = of.current(3, anyone, noDisk)
      expect(asked.map((peer) => peer.id)).toEqual([id(2)])
      of.note(asked, true, 0)
    }
    expect(of.rounds).toBe(0)
  })

  test('with many addresses ask some at a time, others in the next turn, all in the end', () => {
    const all = Array.from({ length: 10 }, (_, i) => i + 1)
    const of = turns(all, [50])
    const asked = new Set<NodeId>()
    for (let round = 0; round < 4; round++) {
      const now = failOnce(of, 3)
      expect(now.size).toBe(3)
      for (const one of now) asked.add(one)
      failOnce(of)
      failOnce(of)
    }
    expect(of.rounds).toBe(4)
    expect(asked).toEqual(new Set(all.map(id)))
  })

  test('leave out this node itself and who may not be asked; one that has nobody left is skipped', () => {
    const of = turns([99], [1, 2], [3])
    const asked = of.current(3, (peer) => peer !== id(1), noDisk)
    expect(asked.map((peer) => peer.id)).toEqual([id(2)])
    expect(of.current(3, (peer) => peer === id(3), noDisk).map((peer) => peer.id)).toEqual([id(3)])
    expect(turns([99]).isEmpty).toBe(true)
    expect(turns([99], [1]).isEmpty).toBe(false)
  })

  test('tell in words what failed, without an address', () => {
    const of = turns([1, 2, 3, 4], [5])
    const first = of.current(3, anyone, noDisk)
    of.note(first, false, 2)
    of.note(of.current(3, anyone, noDisk), false, 1)
    of.note(of.current(3, anyone, disk(6, 7)), false, 0)
    expect(of.explain()).toBe(
      'nobody answered: network.toml (3 of 4 addresses: 2 not reached, 1 gave no view), node.bootstrap (1 address: not reached), the relays known from before (2 addresses: reached, but no view was given)',
    )
    expect(of.explain()).not.toMatch(/192\.0\.2|12D3/)
    of.note(of.current(3, anyone, noDisk), true, 0)
    expect(of.explain()).toBe('no address of any node is known')
  })
})
