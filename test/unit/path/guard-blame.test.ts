import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import type { CloseReason } from '../../../src/onion/index.ts'
import { type CircuitFailure, GuardBlame, GuardSample, pathConfig } from '../../../src/path/index.ts'
import { idOf, relays, viewOf } from './relays.ts'

const SECOND = 1000
const HOUR = 3_600_000
const path = (middle = 1, exit = 2) => [idOf(0), idOf(middle), idOf(exit)]
const said = (hop: number, reason: CloseReason): CircuitFailure => ({ reason, origin: 'remote', hop, established: hop + 1 })
const seen = (reason: CloseReason, established: number): CircuitFailure => ({ reason, origin: 'local', hop: null, established })

/** Circuits are being built, so that failures stand out. */
function working(): GuardBlame {
  const blame = new GuardBlame()
  blame.noteBuilt(0)
  return blame
}

describe('GuardBlame: one failure', () => {
  it.each([
    ['all: the guard refuses', said(0, 'overloaded'), 1],
    ['all: the guard says that it cannot reach the middle', said(0, 'connect-failed'), 1],
    ['all: the guard lost the middle', said(0, 'channel-lost'), 1],
    ['all: the link to the guard broke', seen('channel-lost', 2), 1],
    ['all: a cell was changed', seen('protocol', 2), 1],
    ['all: the second hop never answered', seen('timeout', 1), 1],
    ['a part: the middle says that it cannot reach the exit', said(1, 'connect-failed'), 0.25],
    ['a part: the exit refuses', said(2, 'overloaded'), 0.25],
    ['a part: the third hop never answered', seen('timeout', 2), 0.25],
    ['nothing: the guard itself was not reached, which its own machine counts', seen('timeout', 0), 0],
  ])('counts %s', (_, failure, share) => {
    expect(working().share(path(), failure, SECOND)).toBe(share)
  })

  it('counts nothing where only relays behind NAT are to blame', () => {
    expect(working().share(path(), said(0, 'connect-failed'), SECOND, [1])).toBe(0)
    expect(working().share(path(), said(0, 'connect-failed'), SECOND, [2])).toBe(1)
  })
})

describe('GuardBlame: many', () => {
  it('counts an exit that cannot be reached once an hour, whoever says so', () => {
    const blame = working()
    const shares = [1, 3, 4].map((middle) => blame.share(path(middle), said(1, 'connect-failed'), SECOND))
    expect(shares).toEqual([0.25, 0, 0])
    blame.noteBuilt(HOUR)
    expect(blame.share(path(), said(1, 'connect-failed'), HOUR)).toBe(0)
    expect(blame.share(path(), said(1, 'connect-failed'), HOUR + SECOND)).toBe(0.25)
  })

  it('counts a middle that the guard cannot reach in full once an hour, and a part in between', () => {
    const blame = working()
    const shares = [SECOND, 2 * SECOND, HOUR, HOUR + SECOND].map((now) => blame.share(path(), said(0, 'connect-failed'), now))
    expect(shares).toEqual([1, 0.25, 0.25, 1])
  })

  it('counts it against every guard through which it fails', () => {
    const blame = working()
    expect(blame.share([idOf(8), idOf(1), idOf(2)], said(0, 'connect-failed'), SECOND)).toBe(1)
    expect(blame.share([idOf(9), idOf(1), idOf(2)], said(0, 'connect-failed'), SECOND)).toBe(1)
  })

  it('counts nothing behind the second hop while nothing at all succeeds, and goes on counting what the guard could do alone', () => {
    const blame = working()
    expect(blame.share(path(1, 5), said(1, 'connect-failed'), 60 * SECOND)).toBe(0.25)
    expect(blame.share(path(1, 6), said(1, 'connect-failed'), 61 * SECOND)).toBe(0)
    expect(blame.share(path(1, 6), seen('timeout', 2), 61 * SECOND)).toBe(0)
    expect(blame.share(path(1, 6), said(0, 'overloaded'), 61 * SECOND)).toBe(1)
    blame.noteBuilt(70 * SECOND)
    expect(blame.share(path(1, 6), said(1, 'connect-failed'), 71 * SECOND)).toBe(0.25)
  })

  it('remembers no more than so many relays', () => {
    const blame = working()
    for (let i = 1; i < 5000; i++) blame.share([idOf(0), idOf(i), idOf(2)], said(0, 'connect-failed'), SECOND)
    expect(blame.size).toBe(2048)
  })
})

/** Builds through one guard, one in ten seconds, as the network makes them fail. */
function tally(builds: number, fails: (middle: number, exit: number, random: SeededRandom) => CircuitFailure | null) {
  const sample = new GuardSample(pathConfig.parse({}))
  const random = new SeededRandom(5)
  sample.sample(viewOf(relays(10)), random, 0)
  const [first] = sample.current(0) as [ReturnType<typeof idOf>]
  const blame = new GuardBlame()
  for (let i = 0; i < builds; i++) {
    const [middle, exit, now] = [100 + random.int(50), 200 + random.int(30), i * 10 * SECOND]
    const failure = fails(middle, exit, random)
    if (failure === null) blame.noteBuilt(now)
    sample.noteBuild(first, failure === null, failure === null ? 1 : blame.share([first, idOf(middle), idOf(exit)], failure, now))
  }
  return sample.warnings().map(({ level }) => level)
}

describe('path bias', () => {
  it('blames no guard when all exits are gone, after an hour of success or from the start', () => {
    let built = 0
    expect(tally(1000, () => (built++ < 360 ? null : said(1, 'connect-failed')))).toEqual([])
    expect(tally(1000, () => said(1, 'connect-failed'))).toEqual([])
    expect(tally(1000, () => seen('timeout', 2))).toEqual([])
  })

  it('blames no guard when half of all exits are gone, or a third of the middles', () => {
    expect(tally(1000, (_, exit) => (exit % 2 === 0 ? said(1, 'connect-failed') : null))).toEqual([])
    expect(tally(1000, (middle) => (middle % 3 === 0 ? said(0, 'connect-failed') : null))).toEqual([])
  })

  const friend = (middle: number): boolean => middle % 5 === 0
  it.each<[string, () => CircuitFailure]>([
    ['ends the channel of', () => seen('channel-lost', 1)],
    ['refuses', () => said(0, 'overloaded')],
    ['says nothing of', () => seen('timeout', 1)],
    ['claims to have lost the middle of', () => said(0, 'channel-lost')],
    ['changes cells of', () => seen('protocol', 2)],
  ])('warns of a guard that %s every circuit whose middle is no friend', (_, how) => {
    expect(tally(400, (middle) => (friend(middle) ? null : how()))).toEqual(['warn'])
  })

  it('warns of a guard that claims not to reach every middle that is no friend', () => {
    expect(tally(400, (middle) => (friend(middle) ? null : said(0, 'connect-failed')))).toEqual(['warn'])
  })

  it('lets no share of successes hide what the guard does alone', () => {
    expect(tally(400, (_, __, random) => (random.unit() < 0.4 ? null : seen('channel-lost', 1)))).toEqual(['warn'])
  })
})
