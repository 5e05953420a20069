import { describe, expect, it } from 'vitest'
import { EventQueue } from '../../../simulations/event-queue.ts'
import { SeededRandom } from '../../../src/base/index.ts'

describe('EventQueue', () => {
  it('runs events in the order of time, and of asking within one moment, whatever order they came in', () => {
    const queue = new EventQueue()
    const random = new SeededRandom(1)
    const wanted: [number, number][] = []
    const ran: [number, number][] = []
    for (let i = 0; i < 2000; i++) {
      const at = random.int(100)
      wanted.push([at, i])
      queue.at(at, () => ran.push([queue.now, i]))
    }
    queue.runUntil(100)
    expect(ran).toEqual(wanted.sort(([a, i], [b, j]) => a - b || i - j))
    expect(queue.ran).toBe(2000)
  })

  it('runs what an event schedules, lets events be taken back, and stops where it is told', () => {
    const queue = new EventQueue()
    const seen: string[] = []
    queue.at(5, () => queue.after(5, () => seen.push(`late ${queue.now}`)))
    const cancel = queue.at(7, () => seen.push('never'))
    queue.at(6, cancel)
    queue.runUntil(9)
    expect([seen, queue.now]).toEqual([[], 9])
    queue.runUntil(10)
    expect(seen).toEqual(['late 10'])
  })
})
