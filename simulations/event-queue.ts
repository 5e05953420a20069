import { assert } from '../src/base/index.ts'

interface Event {
  readonly at: number
  /** Order among events of one moment: the order they were asked for in. */
  readonly order: number
  run: (() => void) | null
}

/** Takes an event back; nothing happens when it has run already. */
export type Cancel = () => void

/** Virtual time (ms from the start) and what is to happen in it. Events of one moment run in the order they were scheduled, so a run repeats exactly. */
export class EventQueue {
  readonly #heap: Event[] = []
  #now = 0
  #order = 0
  #ran = 0

  get now(): number {
    return this.#now
  }

  /** Events that have run. */
  get ran(): number {
    return this.#ran
  }

  at(time: number, run: () => void): Cancel {
    const event: Event = { at: Math.max(time, this.#now), order: this.#order++, run }
    this.#push(event)
    return () => {
      event.run = null
    }
  }

  after(delayMs: number, run: () => void): Cancel {
    return this.at(this.#now + delayMs, run)
  }

  /** Runs all events up to and including a moment, then stands there. */
  runUntil(time: number): void {
    assert(time >= this.#now, 'virtual time goes forward')
    for (let next = this.#heap[0]; next && next.at <= time; next = this.#heap[0]) {
      this.#pop()
      this.#now = next.at
      if (!next.run) continue
      const { run } = next
      next.run = null
      this.#ran++
      run()
    }
    this.#now = time
  }

  #push(event: Event): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(event)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = event
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
