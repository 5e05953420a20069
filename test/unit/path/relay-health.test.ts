import { describe, expect, it } from 'vitest'
import type { CloseReason } from '../../../src/onion/index.ts'
import { blameFor, type CircuitFailure, RelayHealth } from '../../../src/path/index.ts'
import { idOf } from './relays.ts'

const path = [idOf(0), idOf(1), idOf(2)]
const said = (hop: number, reason: CloseReason): CircuitFailure => ({ reason, origin: 'remote', hop, established: hop + 1 })
const seen = (reason: CloseReason, established: number): CircuitFailure => ({ reason, origin: 'local', hop: null, established })

describe('blameFor', () => {
  it.each([
    ['the next hop for a failed connection, a little the one that says so', said(1, 'connect-failed'), { 2: 1, 1: 0.25 }],
    ['the next hop that was lost', said(0, 'channel-lost'), { 1: 0.75, 0: 0.25 }],
    ['both ends of an extension that timed out', said(0, 'timeout'), { 0: 0.5, 1: 0.5 }],
    ['both ends of an extension that timed out here', seen('timeout', 2), { 1: 0.5, 2: 0.5 }],
    ['a relay that says it is overloaded', said(1, 'overloaded'), { 1: 1 }],
    ['a relay that says it shuts down', said(2, 'shutting-down'), { 2: 2 }],
    ['all hops for a changed cell', seen('protocol', 3), { 0: 1 / 3, 1: 1 / 3, 2: 1 / 3 }],
    ['nobody for the guard itself: it has its own machine', seen('timeout', 0), {}],
    ['nobody for the link to the guard', seen('channel-lost', 3), {}],
    ['nobody for what we asked for', seen('requested', 3), {}],
    ['nobody for a circuit that served its time', said(0, 'finished'), {}],
  ])('blames %s', (_, failure, expected) => {
    expect(Object.fromEntries(blameFor(failure, 3).map(({ hop, points }) => [hop, points]))).toEqual(expected)
  })

  const silent = (hop: number): CircuitFailure => ({ ...seen('timeout', 3), silent: hop })
  it.each([
    ['nobody else for a neighbour behind NAT that cannot be reached', said(0, 'connect-failed'), [1], { 1: 1 }],
    ['nobody else for a neighbour behind NAT that was lost', said(1, 'channel-lost'), [2], { 2: 0.75 }],
    ['nobody else for an extension behind NAT that timed out here', seen('timeout', 1), [1], { 1: 0.5 }],
    ['the neighbour as well where another hop is behind NAT', said(0, 'connect-failed'), [2], { 0: 0.25, 1: 1 }],
    ['the first hop that is silent, a little the one before it', silent(1), [], { 0: 0.25, 1: 1 }],
    ['only the silent hop where it is behind NAT', silent(2), [2], { 2: 1 }],
    ['nobody where the guard is silent: it may be the network', silent(0), [], {}],
  ])('blames %s', (_, failure, behindNat, expected) => {
    expect(Object.fromEntries(blameFor(failure, 3, behindNat).map(({ hop, points }) => [hop, points]))).toEqual(expected)
  })

  it('never blames beyond the path', () => {
    const reasons: CloseReason[] = [
      'connect-failed',
      'timeout',
      'channel-lost',
      'handshake-failed',
      'unknown-relay',
      'protocol',
      'internal',
    ]
    for (const reason of reasons) {
      for (const hop of [0, 1, 2]) for (const blame of blameFor(said(hop, reason), 3)) expect(path[blame.hop]).toBeDefined()
      for (const made of [0, 1, 2, 3]) for (const blame of blameFor(seen(reason, made), 3)) expect(path[blame.hop]).toBeDefined()
    }
  })
})

describe('RelayHealth', () => {
  it('sets a relay that cannot be reached aside, for twice as long every time', () => {
    const health = new RelayHealth()
    expect(health.noteFailure(path, said(1, 'connect-failed'), 0)).toEqual([path[2]])
    expect([...health.setAside(29_999)]).toEqual([path[2]])
    expect([...health.setAside(30_000)]).toEqual([])
    health.noteFailure(path, said(1, 'connect-failed'), 30_000)
    expect([...health.setAside(89_999)]).toEqual([path[2]])
    expect(health.facts(89_999)).toEqual([{ id: path[2], until: 90_000, times: 2 }])
    for (let i = 0, now = 90_000; i < 20; i++, now += 3_600_000) health.noteFailure(path, said(1, 'connect-failed'), now)
    expect(health.facts(90_000 + 19 * 3_600_000)[0]!.until).toBe(90_000 + 20 * 3_600_000)
  })

  it('needs two failures of a pair, and only close together', () => {
    const health = new RelayHealth()
    expect(health.noteFailure(path, seen('timeout', 1), 0)).toEqual([])
    expect(health.noteFailure(path, seen('timeout', 1), 0)).toEqual([path[1], path[0]])
    const slow = new RelayHealth()
    slow.noteFailure(path, seen('timeout', 1), 0)
    expect(slow.noteFailure(path, seen('timeout', 1), 600_000)).toEqual([])
  })

  it('soon sets aside who accuses many others', () => {
    const health = new RelayHealth()
    for (let i = 0; i < 4; i++) health.noteFailure([path[0]!, path[1]!, idOf(10 + i)], said(1, 'connect-failed'), 0)
    expect(health.setAside(0).has(path[1]!)).toBe(true)
  })

  it('sets a relay behind NAT aside by itself, however often, and its guard never for it', () => {
    const health = new RelayHealth()
    for (let i = 0; i < 20; i++) health.noteFailure([path[0]!, idOf(10 + i), path[2]!], said(0, 'connect-failed'), 0, [1])
    expect([...health.setAside(0)]).toEqual(Array.from({ length: 20 }, (_, i) => idOf(10 + i)))
  })

  it('forgives by success', () => {
    const health = new RelayHealth()
    health.noteFailure(path, said(1, 'connect-failed'), 0)
    health.noteSuccess(path, 31_000)
    health.noteFailure(path, said(1, 'connect-failed'), 32_000)
    expect(health.facts(32_000)[0]).toMatchObject({ id: path[2], times: 1 })
  })

  it('stays bounded', () => {
    const health = new RelayHealth()
    for (let i = 0; i < 5000; i++) health.noteFailure([path[0]!, path[1]!, `${i}` as never], said(1, 'connect-failed'), i)
    expect(health.size).toBeLessThanOrEqual(2048)
  })
})
