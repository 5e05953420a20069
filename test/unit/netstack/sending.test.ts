import { describe, expect, it } from 'vitest'
import { ScriptedPeer } from '../../support/scripted-peer.ts'

const MSS = 1380
const write = (bytes: number) => (connection: { write(bytes: Uint8Array): number }) => connection.write(new Uint8Array(bytes))

/** Established, with a measured round trip of 20 ms: one byte was sent and acknowledged, so data goes on at 2. */
function warm(options = {}, syn = {}): ScriptedPeer {
  const peer = new ScriptedPeer(options)
  peer.establish({ mss: MSS, ...syn }, 20)
  peer.act(write(1)).expect({ seq: 1, length: 1 })
  peer.wait(20).say({ flags: 'A', ack: 2 }).silence()
  return peer
}

describe('sending', () => {
  it('begins with ten segments (RFC 6928), and grows by what is acknowledged', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act(write(100 * MSS))
    expect(peer.all()).toHaveLength(10)
    peer.wait(20).say({ flags: 'A', ack: 1 + 2 * MSS })
    expect(peer.all()).toHaveLength(4)
    peer.say({ flags: 'A', ack: 1 + 10 * MSS })
    expect(peer.all()).toHaveLength(16)
  })

  it('falls back to the initial window after it was idle for longer than the time-out (RFC 5681 §4.1)', () => {
    const peer = warm()
    peer.act(write(30 * MSS)).all()
    peer
      .wait(20)
      .say({ flags: 'A', ack: 2 + 10 * MSS })
      .all()
    peer
      .wait(20)
      .say({ flags: 'A', ack: 2 + 30 * MSS })
      .all()
    expect(peer.connection!.info.congestionWindow).toBeGreaterThan(20 * MSS)
    peer.wait(5000).act(write(100 * MSS))
    expect(peer.all()).toHaveLength(10)
  })

  it('learns nothing of the path while the application says little: the window does not grow unused', () => {
    const peer = warm()
    const before = peer.connection!.info.congestionWindow
    for (let i = 0; i < 50; i++) {
      peer.act(write(100)).expect({ length: 100 })
      peer.wait(20).say({ flags: 'A', ack: 2 + 100 * (i + 1) })
    }
    expect(peer.connection!.info.congestionWindow).toBe(before)
  })

  it("cuts by the peer's MSS less the options of every segment", () => {
    const peer = new ScriptedPeer()
    peer.establish({ mss: 1000, timestamp: 5 })
    peer.act(write(2500))
    expect(peer.all().map(({ length, flags }) => [length, flags])).toEqual([
      [988, 'A'],
      [988, 'A'],
      [524, 'PA'],
    ])
  })

  it('keeps a small segment back while one is in flight with Nagle, and not without', () => {
    const peer = warm()
    peer.act((connection) => connection.setNagle(true))
    peer.act(write(10)).expect({ length: 10 })
    peer.act(write(10)).act(write(10)).silence()
    peer.say({ flags: 'A', ack: 12 }).expect({ length: 20 })
    peer.act(write(MSS + 5)).expect({ length: MSS })
    peer.silence()
    peer.act((connection) => connection.setNagle(false)).expect({ length: 5 })
  })

  it('does not fill a silly window, and probes one that stays shut, for as long as the peer answers (§3.8.6)', () => {
    const peer = warm()
    peer.say({ flags: 'A', ack: 2, window: 0 })
    peer.act(write(5000)).silence()
    for (let i = 0; i < 40; i++) {
      const before = peer.now
      while (peer.now < before + 61_000) {
        peer.wait(1000)
        for (const probe of peer.all()) {
          expect(probe).toMatchObject({ flags: 'A', seq: 1, length: 0 })
          peer.say({ flags: 'A', ack: 2, window: 0 })
        }
      }
    }
    expect(peer.connection!.state).toBe('established')
    // Half of a segment where the peer's window was large once: silly.
    peer.say({ flags: 'A', ack: 2, window: 3 }).silence()
    peer.say({ flags: 'A', ack: 2, window: 1000 })
    expect(peer.all().map(({ length }) => length)).toEqual([MSS, MSS, MSS, 5000 - 3 * MSS])
  })

  it('asks a shut window less and less often: at first after a time-out, then each minute', () => {
    const peer = warm()
    peer.say({ flags: 'A', ack: 2, window: 0 })
    peer.act(write(5000))
    const times: number[] = []
    for (const end = peer.now + 600_000; peer.now < end; ) {
      peer.wait(10)
      for (const { at } of peer.all()) {
        times.push(at)
        peer.say({ flags: 'A', ack: 2, window: 0 })
      }
    }
    const gaps = times.slice(1).map((at, i) => at - times[i]!)
    for (const [i, gap] of gaps.entries()) if (i > 0) expect(gap).toBeGreaterThanOrEqual(Math.min(60_000, 1.9 * gaps[i - 1]!) - 20)
    expect(gaps.at(-1)).toBeGreaterThan(59_000)
    expect(times.length).toBeLessThan(22)
  })

  it('sends into a window that stays silly once the time for better has passed', () => {
    const peer = warm()
    peer.say({ flags: 'A', ack: 2, window: 3 })
    peer.act(write(5000)).silence()
    peer.wait(1000)
    expect(peer.all()[0]).toMatchObject({ seq: 2, length: 384 })
  })

  it('gives up a peer that answers no probe', () => {
    const peer = warm()
    peer.say({ flags: 'A', ack: 2, window: 0 })
    peer.act(write(5000)).wait(300_000)
    expect(peer.all().at(-1)).toMatchObject({ flags: 'RA' })
    expect(peer.told()).toContain('closed timeout')
    expect(peer.stack.facts).toMatchObject({ connections: 0, bufferBytes: 0, timers: 0 })
  })

  it('bears a window that is drawn back over what is in flight: sends again, never gives up, goes on at once (§3.8.6)', () => {
    const peer = warm()
    peer.act(write(5 * MSS))
    expect(peer.all()).toHaveLength(5)
    peer.say({ flags: 'A', ack: 2, window: 0 })
    const began = peer.now
    let probes = 0
    while (peer.now - began < 1_000_000) {
      peer.wait(1000)
      for (const { seq, length } of peer.all()) {
        // Old data only; the first after the probe of the tail.
        expect([2, 2 + 4 * MSS]).toContain(seq)
        expect(length).toBe(MSS)
        probes++
        // It takes nothing, and says so.
        peer.say({ flags: 'A', ack: 2, window: 0 })
      }
    }
    expect(peer.connection!.state).toBe('established')
    expect(probes).toBeGreaterThan(15)
    expect(probes).toBeLessThan(40)
    peer.say({ flags: 'A', ack: 2, window: 65_535 })
    expect(peer.all().map(({ seq }) => seq)).toContain(2)
    peer.say({ flags: 'A', ack: 2 + MSS, window: 65_535 })
    expect(peer.all().map(({ seq }) => seq)).toContain(2 + MSS)
  })

  it('still gives up a peer that drew its window back and then says nothing', () => {
    const peer = warm()
    peer.act(write(5 * MSS)).say({ flags: 'A', ack: 2, window: 0 })
    peer.wait(300_000)
    expect(peer.told()).toContain('closed timeout')
  })

  it('takes a window scale of more than 14 as 14 (RFC 7323 §2.3), and none where it is not wanted', () => {
    const peer = warm({}, { windowScale: 200 })
    expect(peer.connection!.info.sendWindow).toBe(65_535 * 2 ** 14)
    const plain = warm({ tcp: { windowScaling: false } })
    expect(plain.connection!.info.sendWindow).toBe(65_535)
  })

  it('cuts no smaller than 216 bytes, whatever the peer asks for', () => {
    const peer = warm({}, { mss: 1 })
    peer.act(write(1000))
    expect(peer.all().map(({ length }) => length)).toEqual([216, 216, 216, 216, 136])
  })

  it('tells of room once half of the send buffer is free again', () => {
    const peer = warm({ tcp: { sendBufferBytes: 10_000 } })
    peer.told()
    let taken = 0
    peer.act((connection) => {
      taken = connection.write(new Uint8Array(20_000))
    })
    expect(taken).toBe(10_000)
    peer.all()
    peer.say({ flags: 'A', ack: 2 + 2 * MSS })
    expect(peer.told()).toEqual([])
    peer.say({ flags: 'A', ack: 2 + 4 * MSS })
    expect(peer.told()).toEqual(['drained'])
  })

  it('ignores an old window (SND.WL1 and WL2)', () => {
    const peer = warm()
    peer.say({ flags: 'A', seq: 4, data: 'def', ack: 2, window: 1000 })
    // Said before that, and come after it.
    peer.say({ flags: 'A', seq: 1, data: 'abc', ack: 2, window: 0 })
    peer.act(write(100))
    expect(peer.all().some(({ length }) => length === 100)).toBe(true)
    peer.say({ flags: 'A', seq: 7, ack: 102, window: 1000 }).say({ flags: 'A', seq: 7, ack: 2, window: 0 })
    peer.act(write(100)).expect({ length: 100 })
  })
})

describe('loss', () => {
  it('sends again what three SACKs leave out, at once, and halves less than half (RFC 6675, 9438)', () => {
    const peer = warm()
    peer.act(write(10 * MSS)).all()
    const edge = (n: number) => 2 + n * MSS
    const before = peer.connection!.info.congestionWindow
    peer
      .wait(20)
      .say({ flags: 'A', ack: 2, sack: [edge(1), edge(2)] })
      .silence()
    peer.say({ flags: 'A', ack: 2, sack: [edge(1), edge(3)] }).silence()
    peer.say({ flags: 'A', ack: 2, sack: [edge(1), edge(4)] }).expect({ seq: 2, length: MSS })
    peer.silence()
    peer
      .wait(20)
      .say({ flags: 'A', ack: edge(10) })
      .silence()
    expect(peer.connection!.info.congestionWindow).toBeCloseTo(before * 0.7, -3)
  })

  it('sends one new segment for each of the first duplicates (limited transmit, RFC 3042)', () => {
    const peer = warm()
    peer.act(write(30 * MSS)).all()
    peer
      .wait(20)
      .say({ flags: 'A', ack: 2, sack: [2 + MSS, 2 + 2 * MSS] })
      .expect({ seq: 2 + 10 * MSS })
    peer.say({ flags: 'A', ack: 2, sack: [2 + MSS, 2 + 3 * MSS] }).expect({ seq: 2 + 11 * MSS })
    peer.silence()
  })

  it('finds a lost retransmission without waiting for the timer (RFC 8985)', () => {
    const peer = warm()
    peer.act(write(30 * MSS)).all()
    const edge = (n: number) => 2 + n * MSS
    peer.wait(20).say({ flags: 'A', ack: 2, sack: [edge(1), edge(8)] })
    expect(peer.all()[0]).toMatchObject({ seq: 2 })
    const began = peer.now
    // What was sent after the retransmission arrives; the retransmission does not.
    let sacked = 8
    let again = false
    while (!again && peer.now < began + 190) {
      sacked++
      peer.wait(10).say({ flags: 'A', ack: 2, sack: [edge(1), edge(sacked)] })
      again = peer.all().some(({ seq }) => seq === 2)
    }
    expect(again).toBe(true)
    const { retransmissions } = peer.connection!.info
    expect(retransmissions).toBeGreaterThan(1)
    expect(peer.stack.facts.retransmissions).toBe(retransmissions)
  })

  it('waits with reordering seen: what is only late is not sent again', () => {
    const peer = warm()
    const edge = (n: number) => 2 + n * MSS
    peer.act(write(9 * MSS)).all()
    peer.wait(20).say({ flags: 'A', ack: 2, sack: [edge(1), edge(3)] })
    peer.say({ flags: 'A', ack: edge(3) }).all()
    peer.say({ flags: 'A', ack: edge(3), sack: [edge(4), edge(8)] }).silence()
    peer
      .wait(3)
      .say({ flags: 'A', ack: edge(9) })
      .silence()
    expect([peer.connection!.info.retransmissions, peer.stack.facts.retransmissions]).toEqual([0, 0])
  })

  it('waits longer for what is late with each report of something that came twice (RFC 8985 §6.2)', () => {
    const peer = warm()
    const edge = (n: number) => 2 + n * MSS
    peer.act(write(4 * MSS)).all()
    // The first one came twice, says the peer: half of the round trip of 20 ms is waited now, not a quarter.
    peer.wait(20).say({ flags: 'A', ack: edge(4), sack: [2, edge(1)] })
    peer.act(write(6 * MSS)).all()
    peer.wait(20).say({ flags: 'A', ack: edge(4), sack: [edge(5), edge(10)] })
    peer.wait(9).silence()
    peer.wait(2).expect({ seq: edge(4), length: MSS })
  })

  it('repeats the tail after two round trips, well before the timer (tail loss probe)', () => {
    const peer = warm()
    peer.act(write(3 * MSS)).all()
    peer.wait(41).expect({ seq: 2 + 2 * MSS, length: MSS })
    peer.silence()
  })

  it('takes a tail that the probe repaired for a loss, and one that came twice for none (RFC 8985 §7.4)', () => {
    for (const twice of [false, true]) {
      const peer = warm()
      peer.act(write(3 * MSS)).all()
      const before = peer.connection!.info.congestionWindow
      peer.wait(41).expect({ seq: 2 + 2 * MSS, length: MSS })
      const end = 2 + 3 * MSS
      peer.wait(20).say({ flags: 'A', ack: end, ...(twice ? { sack: [end - MSS, end] } : {}) })
      const { congestionWindow } = peer.connection!.info
      if (twice) expect(congestionWindow).toBeGreaterThanOrEqual(before)
      else expect(congestionWindow).toBeCloseTo(0.7 * before, -3)
    }
  })

  it('uses three duplicate ACKs and partial ACKs for a peer without SACK (RFC 5681, 6582)', () => {
    const peer = warm({}, { sackPermitted: false })
    const edge = (n: number) => 2 + n * MSS
    peer.act(write(10 * MSS)).all()
    peer.wait(20)
    for (let i = 0; i < 2; i++) peer.say({ flags: 'A', ack: 2 }).silence()
    peer.say({ flags: 'A', ack: 2 }).expect({ seq: 2, length: MSS })
    peer
      .wait(20)
      .say({ flags: 'A', ack: edge(4) })
      .expect({ seq: edge(4), length: MSS })
    peer
      .wait(20)
      .say({ flags: 'A', ack: edge(10) })
      .silence()
    expect(peer.connection!.info.inFlight).toBe(0)
  })

  it('times out with doubling patience, begins with one segment again, and gives up after the limit (RFC 6298)', () => {
    const peer = warm({ tcp: { sack: false } })
    peer.act(write(4 * MSS)).all()
    const began = peer.now
    peer.wait(200_000)
    const times = peer.all().map(({ at, seq, flags }) => ({ after: at - began, seq, flags }))
    expect(times[0]!.seq).toBe(2)
    expect(times[0]!.after).toBeGreaterThanOrEqual(200)
    const distinct = [...new Set(times.map(({ after }) => after))]
    for (let i = 1; i < 5; i++) expect(distinct[i]! / distinct[i - 1]!).toBeGreaterThan(1.9)
    expect(times.at(-1)!.flags).toBe('RA')
    expect(peer.told()).toContain('closed timeout')
  })

  it('sends again what a receiver had sacked and threw away (RFC 2018 §8)', () => {
    const peer = warm()
    const edge = (n: number) => 2 + n * MSS
    peer.act(write(3 * MSS)).all()
    peer.wait(20).say({ flags: 'A', ack: 2, sack: [edge(1), edge(3)] })
    peer.wait(10_000).all()
    peer.say({ flags: 'A', ack: edge(1) })
    peer.wait(60_000)
    expect(peer.all().some(({ seq }) => seq === edge(1))).toBe(true)
  })

  it('does not believe a SACK of what was never sent', () => {
    const peer = warm()
    peer.act(write(2 * MSS)).all()
    peer.say({ flags: 'A', ack: 2, sack: [2 + 50 * MSS, 2 + 60 * MSS] })
    peer.say({ flags: 'A', ack: 2, sack: [2 + MSS, 2 + 60 * MSS] })
    peer
      .say({ flags: 'A', ack: 2, sack: [9, 5] })
      .say({ flags: 'A', ack: 2, sack: [2, 2 + MSS] })
      .silence()
    expect(peer.connection!.info.inFlight).toBe(2 * MSS)
  })

  it('takes back a reduction that a timestamp shows to be unneeded (RFC 3522, 4015)', () => {
    const fresh = new ScriptedPeer()
    fresh.establish({ mss: MSS, timestamp: 1 })
    fresh.act(write(10 * MSS))
    const first = fresh.all()[0]!
    const size = first.length
    const before = fresh.connection!.info.congestionWindow
    fresh.wait(1500)
    expect(fresh.all().some(({ seq }) => seq === 1)).toBe(true)
    expect(fresh.connection!.info.congestionWindow).toBeLessThan(before)
    fresh.say({ flags: 'A', ack: 1 + size, timestamp: 2, timestampEcho: first.timestamp! })
    expect(fresh.connection!.info.congestionWindow).toBeGreaterThanOrEqual(before)
  })
})

describe('keep-alive (RFC 9293 §3.8.4)', () => {
  it('is off unless asked for', () => {
    const peer = warm()
    peer.wait(24 * 3600 * 1000).silence()
  })

  it('probes an idle peer, and ends a connection whose peer does not answer', () => {
    const peer = warm()
    peer.act((connection) => connection.setKeepAlive(10_000))
    peer.wait(10_000).expect({ flags: 'A', seq: 1, length: 0 })
    peer.say({ flags: 'A', ack: 2 }).silence()
    peer.wait(9000).silence()
    peer.wait(200_000)
    const said = peer.all()
    expect(said.slice(0, 8).every(({ seq, length }) => seq === 1 && length === 0)).toBe(true)
    expect(said.at(-1)!.flags).toBe('RA')
    expect(peer.told()).toContain('closed timeout')
  })
})

describe('path MTU', () => {
  /** ICMP "fragmentation needed" about a segment of ours. */
  function tooBig(peer: ScriptedPeer, mtu: number, sequence: number): Uint8Array {
    const packet = new Uint8Array(56)
    packet.set(peer.segment({ flags: 'A' }).subarray(0, 20))
    const view = new DataView(packet.buffer)
    view.setUint16(2, packet.length)
    packet[9] = 1
    view.setUint16(10, 0)
    view.setUint16(10, sum(packet.subarray(0, 20)))
    packet.set([3, 4], 20)
    view.setUint16(26, mtu)
    packet.set([0x45, 0, 5, 140, 0, 0, 0x40, 0, 60, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 28)
    view.setUint16(48, 80)
    view.setUint16(50, 5000)
    view.setInt32(52, sequence)
    view.setUint16(22, sum(packet.subarray(20)))
    return packet
  }

  it('cuts smaller when a router says so, sends again what was too large, and keeps its window (RFC 1191)', () => {
    const peer = warm()
    peer.act(write(2 * MSS)).all()
    const before = peer.connection!.info.congestionWindow
    peer.packet(tooBig(peer, 1000, (peer.irs! + 2) | 0))
    expect(peer.all().map(({ seq, length }) => [seq, length])).toEqual([
      [2, 960],
      [962, 420],
      [1382, 960],
      [2342, 420],
    ])
    expect(peer.connection!.info).toMatchObject({ congestionWindow: before, mss: 960 })
    // The next connection to that host begins with it.
    const next = peer.stack.dial({ address: peer.peer.address, port: 99 }, peer.now)
    expect(next.info.mss).toBeLessThanOrEqual(960)
  })

  it('does not believe one that quotes what is not in flight (RFC 5927), nor a size that cannot be', () => {
    const peer = warm()
    peer.act(write(2 * MSS)).all()
    peer.packet(tooBig(peer, 1000, (peer.irs! + 100_000) | 0)).silence()
    peer.packet(tooBig(peer, 60, (peer.irs! + 2) | 0))
    expect(peer.connection!.info.mss).toBe(552 - 40)
  })

  it('finds a black hole for large packets by itself (RFC 4821, 2923)', () => {
    const peer = warm()
    peer.act(write(5 * MSS))
    peer.all()
    for (let i = 0; i < 30 && peer.connection!.info.mss === MSS; i++) peer.wait(500)
    expect(peer.connection!.info.mss).toBe(1280 - 40)
    peer.wait(5000)
    expect(peer.all().some(({ seq, length }) => seq === 2 && length <= 1240)).toBe(true)
  })
})

function sum(bytes: Uint8Array): number {
  let total = 0
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}
