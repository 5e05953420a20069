import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { INITIAL_WINDOW_BYTES, LEAST_DATA_CHARGE_BYTES, ReceiveWindow, SendQueue, windowLimits } from '../../../src/onion/streams.ts'

interface Path {
  /** Bytes a millisecond at the narrowest place. */
  readonly rate: number
  readonly roundTripMs: number
  /** Bytes a millisecond that the reader takes; as they come when not given. */
  readonly reads?: number
}

interface Sample {
  readonly at: number
  readonly window: number
  /** What waits in front of the narrowest place. */
  readonly queued: number
  readonly delivered: number
}

/** A sender that always has more, a path, and a receiver, in steps of a millisecond. */
function transfer({ rate, roundTripMs, reads }: Path, durationMs: number): Sample[] {
  const window = new ReceiveWindow({ free: windowLimits.circuitBytes })
  const oneWay = roundTripMs / 2
  const grants: { at: number; bytes: number }[] = [{ at: 0, bytes: INITIAL_WINDOW_BYTES }]
  const arriving: { at: number; bytes: number }[] = []
  let queued = 0
  let budget = 0
  let unread = 0
  let delivered = 0
  const samples: Sample[] = []
  for (let now = 0; now < durationMs; now++) {
    while (grants[0] && grants[0].at <= now) queued += grants.shift()!.bytes
    // Whole messages go through, so that none is charged more than its length.
    budget = Math.min(budget + rate, rate + 2000)
    const served = Math.floor(Math.min(queued, budget) / 1500) * 1500
    queued -= served
    budget -= served
    if (served > 0) arriving.push({ at: now + oneWay, bytes: served })
    while (arriving[0] && arriving[0].at <= now) {
      const { bytes } = arriving.shift()!
      expect(window.receive(bytes), 'the credit is never overrun').toBe(true)
      unread += bytes
    }
    const taken = Math.min(unread, reads ?? unread)
    if (taken > 0) {
      unread -= taken
      delivered += taken
      window.consume(taken)
      window.tune(taken, now, roundTripMs)
      const grant = window.grant
      if (grant > 0) {
        window.give(grant)
        grants.push({ at: now + oneWay, bytes: grant })
      }
    }
    samples.push({ at: now, window: window.window, queued, delivered })
  }
  return samples
}

function rateOver(samples: readonly Sample[], from: number, to: number): number {
  return (samples[to]!.delivered - samples[from]!.delivered) / (to - from)
}

describe('a window that tunes itself', () => {
  it('fills a path of 80 MB/s and 150 ms within seconds', () => {
    const samples = transfer({ rate: 80_000, roundTripMs: 150 }, 4000)
    expect(rateOver(samples, 1500, 2500)).toBeGreaterThan(70_000)
    expect(samples.at(-1)!.window).toBe(windowLimits.mostBytes)
  })

  it('at least doubles in a round trip while it grows', () => {
    const samples = transfer({ rate: 1e9, roundTripMs: 100 }, 1000)
    for (let at = 100; samples[at]!.window < windowLimits.mostBytes / 2; at += 100) {
      expect(samples[at + 100]!.window).toBeGreaterThanOrEqual(2 * samples[at]!.window)
    }
  })

  it('at least doubles in a round trip when the bytes come evenly, too', () => {
    // So long that the allowance for queues is nothing beside it.
    const roundTripMs = 1000
    const window = new ReceiveWindow({ free: windowLimits.circuitBytes })
    const windows: number[] = []
    let owed = 0
    for (let now = 0; now < 8000; now++) {
      windows.push(window.window)
      // A sender that spreads a round trip's window over the round trip.
      owed += (windows[now - roundTripMs] ?? INITIAL_WINDOW_BYTES) / roundTripMs
      const length = Math.min(Math.floor(owed), window.granted)
      if (length < LEAST_DATA_CHARGE_BYTES) continue
      owed -= length
      window.receive(length)
      window.consume(length)
      window.tune(length, now, roundTripMs)
      window.give(window.grant)
    }
    // 64 times the initial window are six doublings; half a round trip more for the first measurement.
    expect(windows[6.5 * roundTripMs]).toBe(windowLimits.mostBytes)
  })

  it.each([
    { rate: 100, roundTripMs: 100, mostQueueMs: 1000 },
    { rate: 1000, roundTripMs: 100, mostQueueMs: 400 },
    { rate: 10_000, roundTripMs: 100, mostQueueMs: 300 },
    { rate: 10_000, roundTripMs: 10, mostQueueMs: 100 },
  ])('keeps a path of $rate kB/s and $roundTripMs ms full, and queues little', ({ rate, roundTripMs, mostQueueMs }) => {
    const samples = transfer({ rate, roundTripMs }, 10_000)
    expect(rateOver(samples, 5000, 9999)).toBeGreaterThan(rate * 0.97)
    for (const { queued } of samples.slice(6000)) expect(queued / rate).toBeLessThan(mostQueueMs)
  })

  it('fills a fast local path', () => {
    const samples = transfer({ rate: 200_000, roundTripMs: 2 }, 2000)
    expect(rateOver(samples, 500, 1999)).toBeGreaterThan(190_000)
  })

  it('follows a reader that is slower than the path', () => {
    const samples = transfer({ rate: 80_000, roundTripMs: 150, reads: 1000 }, 10_000)
    expect(rateOver(samples, 5000, 9999)).toBeGreaterThan(970)
    expect(samples.at(-1)!.window).toBeLessThan(600_000)
  })

  it('borrows from the circuit’s sum and gives back', () => {
    const budget = { free: 1_000_000 }
    const window = new ReceiveWindow(budget)
    for (let now = 0; now < 2000; now += 10) {
      window.receive(100_000)
      window.consume(100_000)
      window.give(window.grant)
      window.tune(100_000, now, 200)
    }
    expect(window.window).toBe(INITIAL_WINDOW_BYTES + 1_000_000)
    expect(budget.free).toBe(0)
    const other = new ReceiveWindow(budget)
    expect(other.window).toBe(INITIAL_WINDOW_BYTES)
    window.release()
    expect(budget.free).toBe(1_000_000)
  })
})

describe('credit', () => {
  it('is refused beyond what was granted', () => {
    const window = new ReceiveWindow({ free: 0 })
    expect(window.receive(INITIAL_WINDOW_BYTES - 300)).toBe(true)
    expect(window.receive(301)).toBe(false)
    expect(window.receive(300)).toBe(true)
    expect(window.receive(1)).toBe(false)
  })

  it('is charged for tiny messages as for small ones, and comes back whole', () => {
    const window = new ReceiveWindow({ free: 0 })
    let messages = 0
    while (window.receive(1)) messages++
    expect(messages).toBe(INITIAL_WINDOW_BYTES / LEAST_DATA_CHARGE_BYTES)
    for (let i = 0; i < messages; i++) window.consume(1)
    expect(window.grant).toBe(INITIAL_WINDOW_BYTES)
  })

  it('is granted again when a quarter of the window was consumed', () => {
    const window = new ReceiveWindow({ free: 0 })
    window.receive(INITIAL_WINDOW_BYTES)
    window.consume(INITIAL_WINDOW_BYTES / 4 - 1)
    expect(window.grant).toBe(0)
    window.consume(1)
    expect(window.grant).toBe(INITIAL_WINDOW_BYTES / 4)
  })

  it('never promises more than the window, whatever comes and is consumed', () => {
    const random = new SeededRandom(3)
    const window = new ReceiveWindow({ free: windowLimits.circuitBytes })
    let unread = 0
    for (let now = 0; now < 20_000; now++) {
      const length = 1 + random.int(1515)
      if (window.receive(length)) unread += length
      const taken = random.int(unread + 1)
      unread -= taken
      window.consume(taken)
      window.tune(taken, now, 30)
      const grant = window.grant
      window.give(grant)
      expect(window.granted + unread).toBeLessThanOrEqual(windowLimits.mostBytes)
      if (grant > 0) expect(window.granted + unread).toBeLessThanOrEqual(window.window)
    }
  })
})

describe('the queue of offered bytes', () => {
  it('gives out what was put in, in any pieces', () => {
    const random = new SeededRandom(4)
    const queue = new SendQueue()
    const put: number[] = []
    const got: number[] = []
    for (let i = 0; i < 3000; i++) {
      const piece = random.bytes(random.int(40))
      queue.push(piece)
      put.push(...piece)
      const out = new Uint8Array(100)
      const length = Math.min(random.int(45), queue.length)
      queue.take(out, 20, length)
      got.push(...out.subarray(20, 20 + length))
      expect(queue.length).toBe(put.length - got.length)
    }
    const rest = new Uint8Array(queue.length)
    queue.take(rest, 0, queue.length)
    got.push(...rest)
    expect(got).toEqual(put)
    expect(queue.length).toBe(0)
  })
})
