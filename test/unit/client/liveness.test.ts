import { describe, expect, test } from 'vitest'
import { Liveness, type LivenessStep } from '../../../src/client/index.ts'

const options = { probeAfterMs: 3_000, probeTimeoutMs: 2_000 }

/** Runs the machine in virtual time; what it wanted, and when. */
class Run {
  readonly machine = new Liveness(options)
  readonly steps: [number, LivenessStep][] = []
  now = 0
  rttMs: number | null = null

  /** Time passes; whoever `answers` sends a cell so long after each probe. */
  until(end: number, answerAfterMs: number | null = null): this {
    let answerAt: number | null = null
    for (;;) {
      const at = Math.min(this.machine.pollTimeout() ?? Number.POSITIVE_INFINITY, answerAt ?? Number.POSITIVE_INFINITY)
      if (at > end) break
      this.now = at
      if (at === answerAt) {
        answerAt = null
        this.machine.noteHeard(at)
        continue
      }
      const step = this.machine.handleTimeout(at, this.rttMs)
      if (step) this.steps.push([at, step])
      if (step === 'dead') break
      if (step === 'probe' && answerAfterMs !== null) answerAt = at + answerAfterMs
    }
    this.now = end
    return this
  }
}

describe('a circuit is watched', () => {
  test('not while nothing is open on it', () => {
    const run = new Run()
    expect(run.machine.pollTimeout()).toBeNull()
    run.machine.setActive(true, 0)
    run.machine.setActive(false, 100)
    expect([run.machine.pollTimeout(), run.until(1e9).steps]).toEqual([null, []])
  })

  test('on, when all has closed without the answer that is due', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.machine.noteSent(0)
    run.machine.setActive(false, 2_000)
    run.machine.setActive(true, 2_500)
    run.machine.noteSent(2_500)
    run.machine.setActive(false, 2_900)
    expect(run.until(20_000).steps).toEqual([
      [3_000, 'probe'],
      [4_000, 'widen'],
      [5_000, 'dead'],
    ])
  })

  test('no longer when that answer has come', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.machine.noteSent(0)
    run.machine.setActive(false, 1_000)
    run.machine.noteHeard(1_500)
    expect([run.machine.pollTimeout(), run.until(1e9).steps]).toEqual([null, []])
  })

  test('and, silent, is probed, asked hop by hop, and given up', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.machine.noteSent(0)
    expect(run.until(20_000).steps).toEqual([
      [3_000, 'probe'],
      [4_000, 'widen'],
      [5_000, 'dead'],
    ])
  })

  test('from the last cell on, however much is sent in vain', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.machine.noteHeard(500)
    for (let now = 1_000; now < 3_900; now += 100) {
      run.until(now)
      run.machine.noteSent(now)
    }
    expect(run.until(20_000).steps[0]).toEqual([4_000, 'probe'])
    expect(run.steps.at(-1)).toEqual([6_000, 'dead'])
  })

  test('and is not probed while cells come in', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    for (let now = 0; now < 60_000; now += 2_900) {
      run.until(now)
      run.machine.noteHeard(now)
    }
    expect(run.steps).toEqual([])
  })

  test('less and less often while it is silent and answers, and quickly again once something is sent', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.until(300_000, 100)
    expect(run.steps.map(([at]) => at)).toEqual([3_000, 9_100, 21_200, 45_300, 93_400, 153_500, 213_600, 273_700])
    expect(run.steps.every(([, step]) => step === 'probe')).toBe(true)
    run.machine.noteSent(300_000)
    run.steps.length = 0
    expect(run.until(310_000).steps).toEqual([
      [303_000, 'probe'],
      [304_000, 'widen'],
      [305_000, 'dead'],
    ])
  })

  test('and given longer when its round trip is long', () => {
    const run = new Run()
    run.rttMs = 1_500
    run.machine.setActive(true, 0)
    expect(run.until(20_000).steps).toEqual([
      [3_000, 'probe'],
      [6_000, 'widen'],
      [9_000, 'dead'],
    ])
  })

  test('and is not blamed for a machine that stood still', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.until(3_000)
    expect(run.machine.handleTimeout(30_000, null)).toBeNull()
    expect(run.machine.pollTimeout()).toBe(31_000)
    run.machine.noteHeard(30_001)
    expect(run.machine.isDoubtful).toBe(false)
    expect(run.steps).toEqual([[3_000, 'probe']])
  })

  test('and an answer at the last moment saves it', () => {
    const run = new Run()
    run.machine.setActive(true, 0)
    run.until(4_999)
    expect(run.machine.isDoubtful).toBe(true)
    run.machine.noteHeard(4_999)
    expect([run.machine.isDoubtful, run.machine.pollTimeout()]).toEqual([false, 10_999])
  })
})

describe('a suspected circuit', () => {
  test('is probed at once though nothing is open on it, and is doubtful until it answers', () => {
    const run = new Run()
    expect(run.machine.suspect(100, null)).toBe('widen')
    expect([run.machine.isDoubtful, run.machine.suspect(200, null)]).toEqual([true, null])
    run.machine.noteHeard(400)
    expect([run.machine.isDoubtful, run.machine.pollTimeout()]).toEqual([false, null])
    run.machine.suspect(1_000, null)
    expect(run.until(9_000).steps).toEqual([[3_000, 'dead']])
  })
})
