import { describe, expect, it } from 'vitest'
import { defaultLinkLimits } from '../../../src/link/index.ts'
import { type LifeStep, SignsOfLife } from '../../../src/link/signs-of-life.ts'

const limits = {
  ...defaultLinkLimits,
  pingAfterMs: 20_000,
  pingTimeoutMs: 15_000,
  probeAfterMs: 1_000,
  probeTimeoutMs: 4_000,
  suspectTimeoutMs: 2_000,
}

/** A link in virtual time that is looked at every 250 ms. */
class Run {
  readonly life = new SignsOfLife(limits, 0)
  readonly steps: [number, LifeStep][] = []
  now = 0

  /** @param answerAfterMs when each question is answered; null: never */
  until(end: number, answerAfterMs: number | null = null, each: (now: number) => void = () => {}): this {
    let answerAt: number | null = null
    for (; this.now <= end; this.now += 250) {
      each(this.now)
      if (answerAt !== null && this.now >= answerAt) {
        answerAt = null
        this.life.heard(this.now)
        this.life.answered()
      }
      const step = this.life.step(this.now)
      if (step === null) continue
      this.steps.push([this.now, step])
      if (step === 'gone') break
      this.life.asked(this.now)
      if (answerAfterMs !== null) answerAt = this.now + answerAfterMs
    }
    return this
  }
}

describe('a link', () => {
  it('that nobody uses is asked now and then, and given much time', () => {
    expect(new Run().until(100_000).steps).toEqual([
      [20_250, 'ask'],
      [35_500, 'gone'],
    ])
    expect(new Run().until(70_000, 250).steps.map(([, step]) => step)).toEqual(['ask', 'ask', 'ask'])
  })

  it('whose cells are not answered is asked soon and given little time', () => {
    const run = new Run()
    run.life.sent(0)
    expect(run.until(60_000).steps).toEqual([
      [1_000, 'ask'],
      [5_250, 'gone'],
    ])
  })

  it('is given no longer for being sent more in vain', () => {
    const run = new Run()
    expect(run.until(60_000, null, (now) => run.life.sent(now)).steps.at(-1)).toEqual([5_250, 'gone'])
  })

  it('is not asked while something comes in, and once for cells that want no answer', () => {
    const busy = new Run()
    busy.until(30_000, null, (now) => {
      busy.life.sent(now)
      if (now % 750 === 0) busy.life.heard(now)
    })
    expect(busy.steps).toEqual([])
    const quiet = new Run()
    quiet.life.sent(0)
    expect(quiet.until(15_000, 250).steps).toEqual([[1_000, 'ask']])
  })

  it('in doubt is asked at once, and given up sooner', () => {
    const run = new Run().until(5_000)
    run.life.suspect(5_250)
    expect(run.until(60_000).steps).toEqual([
      [5_250, 'ask'],
      [7_500, 'gone'],
    ])
  })

  it('in doubt that was asked already is not given up before it could answer', () => {
    const run = new Run().until(21_000)
    expect(run.steps).toEqual([[20_250, 'ask']])
    run.life.suspect(25_000)
    expect(run.until(60_000).steps.at(-1)).toEqual([27_250, 'gone'])
    const used = new Run().until(30_000)
    used.life.sent(30_000)
    expect(used.until(60_000).steps.at(-1)).toEqual([35_250, 'gone'])
  })

  it('is in doubt no more when anything has come in, asked or not', () => {
    const run = new Run()
    run.life.suspect(0)
    expect(run.until(1_000).steps).toEqual([[0, 'ask']])
    run.life.heard(1_100)
    expect(run.until(10_000).steps).toEqual([[0, 'ask']])
  })

  it('that is slow is given four of its round trips', () => {
    const run = new Run()
    run.life.sent(0)
    run.until(10_000, 3_000)
    expect(run.life.rttMs).toBe(3_000)
    run.life.sent(10_250)
    expect(run.until(60_000).steps.slice(-2)).toEqual([
      [11_250, 'ask'],
      [23_500, 'gone'],
    ])
  })

  it('is given its time anew when this side has stood still, or could send again only now', () => {
    const run = new Run()
    run.life.sent(0)
    run.until(4_500)
    run.life.excuse(4_600)
    expect(run.until(60_000).steps.at(-1)).toEqual([8_750, 'gone'])
  })

  it('is not begun on when half of the time is over, unless it is only that nobody uses it', () => {
    const run = new Run()
    run.life.sent(0)
    run.until(2_750)
    expect(run.life.isDoubtful(2_900)).toBe(false)
    expect(run.life.isDoubtful(3_100)).toBe(true)
    run.life.heard(3_200)
    expect(run.life.isDoubtful(3_300)).toBe(false)
    expect(new Run().until(34_000).life.isDoubtful(34_000)).toBe(false)
  })
})
