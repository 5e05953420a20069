import { describe, expect, test } from 'vitest'
import { CircuitBuildError } from '../../../src/client/circuit-facts.ts'
import { BuildRecord, failedAt, failedWithoutPath } from '../../../src/client/outage.ts'
import { StreamError } from '../../../src/client/stream-error.ts'
import type { CloseReason } from '../../../src/onion/index.ts'
import type { PathFailure } from '../../../src/path/index.ts'

/** A record in which circuits were built before, then these failures, one a second. */
function record(...failures: Parameters<BuildRecord['noteFailed']>[0][]): BuildRecord {
  const made = new BuildRecord()
  made.noteBuilt()
  for (const [i, at] of failures.entries()) made.noteFailed(at, i * 1000)
  return made
}

describe('an outage', () => {
  test('begins with some failures in a row over some seconds, and names the place where most failed', () => {
    expect(record('exit', 'exit').outage(false, 10_000)).toBeNull()
    expect(record('exit', 'exit', 'exit').outage(false, 4_999)).toBeNull()
    expect(record('exit', 'exit', 'guard').outage(false, 5_000)).toEqual({ at: 'exit', since: 0, failures: 3 })
    expect(record('exit', 'exit', 'exit', 'guard', 'guard', 'guard', 'guard', 'guard', 'guard').outage(false, 9_000)?.at).toBe('guard')
  })

  test('is none while a circuit stands, and ends when one is built', () => {
    const broken = record('exit', 'exit', 'exit')
    expect(broken.outage(true, 5_000)).toBeNull()
    expect(broken.outage(false, 5_000)).not.toBeNull()
    broken.noteBuilt()
    expect(broken.outage(false, 6_000)).toBeNull()
    broken.noteFailed('exit', 7_000)
    expect(broken.outage(false, 20_000)).toBeNull()
  })

  test('is not known any more where nobody has tried for long', () => {
    expect(record('exit', 'exit', 'exit').outage(false, 122_000)).not.toBeNull()
    expect(record('exit', 'exit', 'exit').outage(false, 122_001)).toBeNull()
  })

  test('takes longer to be one before the first circuit ever', () => {
    const starting = new BuildRecord()
    for (let i = 0; i < 20; i++) starting.noteFailed('no-relay', i * 1000)
    expect(starting.outage(false, 29_999)).toBeNull()
    expect(starting.outage(false, 30_000)).toEqual({ at: 'no-relay', since: 0, failures: 20 })
  })

  test('is not made of what was ended from here', () => {
    expect(record(null, null, null).outage(false, 60_000)).toBeNull()
  })
})

describe('where a build broke', () => {
  const broke = (reason: CloseReason, hops: number, said: number | null = null) =>
    failedAt(new CircuitBuildError({ reason, origin: said === null ? 'local' : 'remote', hop: said, hops, silent: null }))
  test.each([
    ['the guard', new Error('connection refused'), 'guard'],
    ['the circuit pool, which gave the path up', new StreamError('no-circuit', 'a relay has left the view'), null],
  ])('outside a circuit: %s', (_, error, at) => expect(failedAt(error)).toBe(at))

  test('is the hop that did not answer, or of which the one before it spoke', () => {
    expect(broke('timeout', 0)).toBe('guard')
    expect(broke('timeout', 1)).toBe('middle')
    expect(broke('timeout', 2)).toBe('exit')
    expect(broke('connect-failed', 1, 0)).toBe('middle')
    expect(broke('connect-failed', 2, 1)).toBe('exit')
    expect(broke('requested', 1)).toBeNull()
  })
})

describe('a path that could not be drawn', () => {
  const view = { candidates: () => ({ indexes: Int32Array.of(1) }), exits: () => ({ total: 1 }) } as never
  const empty = { candidates: () => ({ indexes: new Int32Array() }), exits: () => ({ total: 0 }) } as never
  const failure = (position: PathFailure['position'], rule: PathFailure['rule']): PathFailure => ({
    kind: 'no-path',
    position,
    rule,
    counts: rule === null ? {} : { [rule]: 2 },
    need: { ports: [25], family: null },
  })
  test.each([
    ['no exit is known', failure('exit', 'role'), empty, 'no-exit'],
    ['no exit lets the port through', failure('exit', 'port'), view, 'ports'],
    ['the wishes allow none', failure('exit', 'not-in-exit-countries'), view, 'wishes'],
    ['the wishes leave no middle', failure('middle', 'excluded-network'), view, 'wishes'],
    ['relays are too alike', failure('exit', 'same-network'), view, 'no-relay'],
    ['no middle is known', failure('middle', 'role'), view, 'no-relay'],
    ['all guards wait to be tried again', failure('guard', null), view, 'guard'],
    ['no guard is known', failure('guard', null), empty, 'no-relay'],
  ] as const)('%s', (_, without, seen, at) => expect(failedWithoutPath(without, seen)).toBe(at))

  test('is remembered where wishes leave none: the last that was looked for', () => {
    const made = record()
    made.noteWithoutPath(failure('exit', 'not-in-exit-countries'), view, 0)
    made.noteWithoutPath(failure('guard', 'excluded-country'), view, 1000)
    made.noteWithoutPath(failure('guard', null), empty, 2000)
    expect(made.outage(false, 5_000)).toMatchObject({ at: 'wishes', without: { position: 'guard', counts: { 'excluded-country': 2 } } })
    for (let i = 0; i < 3; i++) made.noteFailed('exit', 6000)
    expect(made.outage(false, 6_000)).toEqual({ at: 'exit', since: 0, failures: 6 })
  })
})
