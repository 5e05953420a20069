import { describe, expect, it } from 'vitest'
import { defaultTcpSettings } from '../../../src/netstack/index.ts'
import { Cubic } from '../../../src/netstack/tcp/cubic.ts'
import { HyStart } from '../../../src/netstack/tcp/hystart.ts'
import { ProportionalReduction } from '../../../src/netstack/tcp/proportional-reduction.ts'
import { RttEstimator } from '../../../src/netstack/tcp/rtt.ts'
import { ScriptedPeer } from '../../support/scripted-peer.ts'

const MSS = 1000

/** A window that is always full, acknowledged once a round trip, in segments at each whole second. */
function avoidCongestion(cubic: Cubic, seconds: number, rttMs: number, from = 0): number[] {
  const segments: number[] = []
  for (let now = from; now <= from + seconds * 1000; now += rttMs) {
    if ((now - from) % 1000 === 0) segments.push(cubic.cwnd / MSS)
    for (let acked = cubic.cwnd; acked > 0; acked -= 10 * MSS) cubic.onAck(Math.min(acked, 10 * MSS), rttMs, rttMs, 0, 0, now)
  }
  return segments
}

/** At a window of so many segments, out of slow start. */
function at(segments: number): Cubic {
  const cubic = new Cubic(MSS, 10)
  cubic.cwnd = segments * MSS
  return cubic
}

describe('CUBIC (RFC 9438)', () => {
  it('falls to 0.7 of the window, comes back in the time that its curve says, and goes on beyond', () => {
    const cubic = at(1000)
    cubic.onLoss()
    expect(cubic.cwnd).toBe(700 * MSS)
    const segments = avoidCongestion(cubic, 18, 100)
    // §4.2, figure 2: K = cbrt(300 / 0.4) = 9.1 s.
    expect(segments[4]).toBeGreaterThan(940)
    expect(segments[9]).toBeGreaterThan(985)
    expect(segments[9]).toBeLessThan(1015)
    expect(segments[18]).toBeGreaterThan(1250)
    // Concave, then convex.
    expect(segments[1]! - segments[0]!).toBeGreaterThan(segments[8]! - segments[7]!)
    expect(segments[18]! - segments[17]!).toBeGreaterThan(segments[10]! - segments[9]!)
  })

  it('makes room for others when it loses again below its last peak (fast convergence, §4.7)', () => {
    const cubic = at(1000)
    cubic.onLoss()
    cubic.cwnd = 800 * MSS
    cubic.onLoss()
    // The new plateau is 800 * 1.7 / 2 = 680; K = cbrt(120 / 0.4) = 6.7 s.
    const segments = avoidCongestion(cubic, 7, 100)
    expect(segments[7]).toBeGreaterThan(670)
    expect(segments[7]).toBeLessThan(690)
  })

  it('is never slower than Reno where windows are small (§4.3)', () => {
    const cubic = at(10)
    cubic.onLoss()
    const segments = avoidCongestion(cubic, 2, 10)
    // 200 round trips: first 0.53 of a segment each, then a whole one.
    expect(segments[2]).toBeGreaterThan(100)
  })

  it('after a time-out begins with one segment, and slow start ends at 0.7 of what was in flight', () => {
    const cubic = at(100)
    cubic.onTimeout(50 * MSS)
    expect([cubic.cwnd, cubic.ssthresh]).toEqual([MSS, 35 * MSS])
  })

  it('begins with ten segments, of large ones fewer (RFC 6928)', () => {
    expect(new Cubic(1460, 10).cwnd).toBe(14_600)
    expect(new Cubic(9000, 10).cwnd).toBe(18_000)
    expect(new Cubic(4000, 10).cwnd).toBe(14_600)
  })
})

describe('HyStart++ (RFC 9406)', () => {
  const rounds = (rtts: readonly number[]): { readonly shares: number[]; readonly finished: boolean } => {
    const hystart = new HyStart()
    const shares: number[] = []
    let next = 0
    for (const rtt of rtts) {
      const una = next
      next += 20 * MSS
      let share = 1
      for (let i = 0; i < 10; i++) share = hystart.onAck(rtt + (i % 3), una, next)
      shares.push(share)
    }
    return { shares, finished: hystart.finished }
  }

  it('slows down when round trips grow by an eighth, and ends slow start five rounds later', () => {
    expect(rounds([80, 80, 81, 92, 95, 100])).toEqual({ shares: [1, 1, 1, 4, 4, 4], finished: false })
    expect(rounds([80, 80, 92, 93, 94, 95, 96, 97]).finished).toBe(true)
  })

  it('takes a passing delay for one, and steady round trips for room', () => {
    expect(rounds([80, 80, 92, 80, 80])).toEqual({ shares: [1, 1, 4, 1, 1], finished: false })
    expect(rounds(new Array(20).fill(30)).shares).toEqual(new Array(20).fill(1))
  })
})

describe('the round trip (RFC 6298)', () => {
  const settings = { ...defaultTcpSettings, minRtoMs: 10, maxRtoMs: 5000 }

  it('makes the time-out of mean and variation', () => {
    const rtt = new RttEstimator(settings)
    expect(rtt.timeout).toBe(1000)
    rtt.sample(100)
    expect([rtt.smoothed, rtt.rto]).toEqual([100, 300])
    rtt.sample(180)
    // RTTVAR = 3/4 * 50 + 1/4 * 80 = 57.5; SRTT = 7/8 * 100 + 1/8 * 180 = 110.
    expect([rtt.smoothed, rtt.rto]).toEqual([110, 110 + 4 * 57.5])
    for (let i = 0; i < 200; i++) rtt.sample(100)
    expect(rtt.rto).toBeCloseTo(110, 0)
  })

  it('doubles with each time-out, up to its limit', () => {
    const rtt = new RttEstimator(settings)
    rtt.sample(100)
    const timeouts = Array.from({ length: 6 }, () => {
      rtt.backOff()
      return rtt.timeout
    })
    expect(timeouts).toEqual([600, 1200, 2400, 4800, 5000, 5000])
    rtt.resetBackoff()
    expect(rtt.timeout).toBe(300)
  })

  it('of a SYN that was sent twice is not known, and waits for three seconds (§5.7)', () => {
    const peer = new ScriptedPeer()
    peer.dial()
    peer.expect({ flags: 'S' })
    peer.wait(1000).expect({ flags: 'S' })
    peer.wait(30).say({ flags: 'SA', seq: 0 }).expect({ flags: 'A' })
    expect(peer.connection!.info).toMatchObject({ smoothedRttMs: null, rtoMs: 3000 })
    const once = new ScriptedPeer()
    once.dial()
    once.wait(30).say({ flags: 'SA', seq: 0 })
    expect(once.connection!.info.smoothedRttMs).toBe(30)
  })

  it('does not believe an echo that would mean days', () => {
    const peer = new ScriptedPeer()
    peer.establish({ mss: 1380, timestamp: 5 }, 20)
    peer.act((connection) => connection.write(new Uint8Array(10)))
    const first = peer.expect({ length: 10 })
    peer.wait(1000).all()
    peer.say({ flags: 'A', ack: 11, timestamp: 6, timestampEcho: (first.timestamp! - 1_000_000_000) | 0 })
    expect(peer.connection!.info).toMatchObject({ smoothedRttMs: 20, rtoMs: 220 })
  })

  it('measures none either by those that stood behind one that was sent twice: they arrived long before', () => {
    const peer = new ScriptedPeer()
    peer.establish({ mss: 1380, sackPermitted: false }, 20)
    peer.act((connection) => connection.write(new Uint8Array(4 * 1380))).all()
    peer.wait(400)
    expect(peer.all()).toMatchObject([{ seq: 1 }])
    peer.say({ flags: 'A', ack: 1 + 4 * 1380 })
    expect(peer.connection!.info).toMatchObject({ inFlight: 0, smoothedRttMs: 20 })
  })

  it('measures no round trip by a segment that was sent twice, unless a timestamp says which (§3, RFC 7323 §4)', () => {
    for (const timestamp of [undefined, 5]) {
      const peer = new ScriptedPeer()
      const stamp = timestamp === undefined ? {} : { timestamp }
      peer.establish({ mss: 1380, ...stamp }, 20)
      peer.act((connection) => connection.write(new Uint8Array(10)))
      const first = peer.expect({ length: 10 })
      peer.wait(1000)
      const again = peer.all().at(-1)!
      expect(again).toMatchObject({ seq: first.seq, length: 10 })
      peer.say({ flags: 'A', ack: 11, ...(timestamp === undefined ? {} : { timestamp: 6, timestampEcho: first.timestamp! }) })
      // Without: 20 ms, of the handshake. With: the answer is to the first, which took so long.
      if (timestamp === undefined) expect(peer.connection!.info.smoothedRttMs).toBe(20)
      else expect(peer.connection!.info.smoothedRttMs).toBeGreaterThan(100)
    }
  })
})

describe('proportional rate reduction (RFC 9937)', () => {
  it('sends seven segments for ten that arrive, evenly, while the window comes down', () => {
    const reduction = new ProportionalReduction()
    reduction.start(100 * MSS, MSS)
    let pipe = 99 * MSS
    let sent = 0
    const sentAfter: number[] = []
    for (let i = 0; i < 90; i++) {
      pipe -= MSS
      reduction.onAck(MSS, true, pipe, 70 * MSS, MSS)
      while (reduction.allows(MSS)) {
        reduction.spend(MSS)
        pipe += MSS
        sent++
      }
      sentAfter.push(sent)
    }
    expect(Math.abs(sentAfter[29]! - 21)).toBeLessThanOrEqual(1)
    expect(Math.abs(sentAfter[59]! - 42)).toBeLessThanOrEqual(1)
    expect(Math.abs(sentAfter[89]! - 63)).toBeLessThanOrEqual(1)
    expect(pipe).toBeGreaterThanOrEqual(70 * MSS)
  })

  it('below the new window sends no more than arrives, and one more where it is safe', () => {
    const reduction = new ProportionalReduction()
    reduction.start(100 * MSS, MSS)
    reduction.spend(MSS)
    reduction.onAck(5 * MSS, false, 20 * MSS, 70 * MSS, MSS)
    let sent = 0
    for (; reduction.allows(MSS); sent++) reduction.spend(MSS)
    expect(sent).toBe(5)
    reduction.onAck(5 * MSS, true, 20 * MSS, 70 * MSS, MSS)
    for (sent = 0; reduction.allows(MSS); sent++) reduction.spend(MSS)
    expect(sent).toBe(6)
  })
})
