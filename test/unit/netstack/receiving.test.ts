import { describe, expect, it } from 'vitest'
import { ScriptedPeer } from '../../support/scripted-peer.ts'

describe('receiving', () => {
  it('acknowledges every second segment at once and a lone one a little later (RFC 5681 §4.2)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', data: 1000 }).silence()
    peer.wait(39).silence()
    peer.wait(1).expect({ flags: 'A', ack: 1001 })
    peer.say({ flags: 'A', seq: 1001, data: 1000 }).silence()
    peer.say({ flags: 'A', seq: 2001, data: 1000 }).expect({ flags: 'A', ack: 3001 })
    peer.wait(1000).silence()
  })

  it('gives out in order what came out of order, and says what it has by SACK, the newest first (RFC 2018 §4)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', seq: 4, data: 'def' }).expect({ ack: 1, sack: [4, 7] })
    peer.say({ flags: 'A', seq: 10, data: 'jkl' }).expect({ ack: 1, sack: [10, 13, 4, 7] })
    peer.say({ flags: 'A', seq: 7, data: 'g' }).expect({ ack: 1, sack: [4, 8, 10, 13] })
    expect(peer.readText()).toBe('')
    peer.say({ flags: 'A', seq: 1, data: 'abc' }).expect({ ack: 8, sack: [10, 13] })
    peer.say({ flags: 'A', seq: 8, data: 'hi' }).expect({ ack: 13, sack: [] })
    expect(peer.readText()).toBe('abcdefghijkl')
  })

  it('says what came twice (RFC 2883)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', data: 'abcdef' }).wait(40).expect({ ack: 7 })
    peer.say({ flags: 'A', data: 'abc' }).expect({ ack: 7, sack: [1, 4] })
    peer
      .say({ flags: 'A', seq: 4, data: 'defghi' })
      .wait(40)
      .expect({ ack: 10, sack: [4, 7] })
    expect(peer.readText()).toBe('abcdefghi')
  })

  it('answers each segment behind a gap with a duplicate ACK for a peer without SACK', () => {
    const peer = new ScriptedPeer()
    peer.establish({ sackPermitted: false })
    const behind = [2, 3, 4].map((n) => peer.segment({ flags: 'A', seq: n, data: 'x' }))
    peer.packet(...behind)
    expect(peer.all().map(({ ack, sack }) => [ack, sack.length])).toEqual([
      [1, 0],
      [1, 0],
      [1, 0],
    ])
  })

  it('keeps what came first where segments overlap', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', seq: 4, data: 'DEF' }).say({ flags: 'A', seq: 2, data: 'bcxxxgh' }).say({ flags: 'A', data: 'aXX' })
    expect(peer.readText()).toBe('abcDEFgh')
    peer.say({ flags: 'A', seq: 11, data: 'KL' }).say({ flags: 'A', seq: 15, data: 'OP' }).say({ flags: 'A', seq: 10, data: 'jxxmnxxq' })
    peer.say({ flags: 'A', seq: 9, data: 'i' })
    expect(peer.readText()).toBe('ijKLmnOPq')
  })

  it('takes nothing from behind a FIN, and the first FIN as the end', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'FA', seq: 4 }).say({ flags: 'FA', seq: 10 }).say({ flags: 'A', seq: 6, data: 'x' })
    peer.say({ flags: 'A', data: 'abcdefgh' })
    expect(peer.readText()).toBe('abc')
    expect(peer.told()).toEqual(['incoming', 'connected', 'readable', 'remote-end'])
    expect(peer.all().at(-1)).toMatchObject({ ack: 5 })
    expect(peer.connection!.remoteEnded).toBe(true)
  })

  it('keeps 64 ranges apart, and leaves out what would make one more', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    for (let k = 1; k <= 65; k++) peer.say({ flags: 'A', seq: 2 * k + 1, data: 1 })
    peer.say({ flags: 'A', data: 2 })
    for (let seq = 4; seq <= 130; seq += 2) peer.say({ flags: 'A', seq, data: 1 })
    expect(peer.wait(40).all().at(-1)!.ack).toBe(131)
  })

  it('takes urgent data as data (RFC 6093 §6)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'UPA', data: 'one', urgent: 2 }).say({ flags: 'UA', seq: 4, data: 'two', urgent: 65_535 })
    expect(peer.readText()).toBe('onetwo')
  })

  it('gives the peer credit only as the application takes: a window that shuts, and opens once it is worth it', () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 4000 } })
    peer.establish({ windowScale: undefined } as never)
    peer.say({ flags: 'A', data: 1380 }).say({ flags: 'A', seq: 1381, data: 1380 }).expect({ ack: 2761, window: 1240 })
    peer.say({ flags: 'PA', seq: 2761, data: 1240 }).wait(40).expect({ ack: 4001, window: 0 })
    // What does not fit is refused, and said so.
    peer.say({ flags: 'A', seq: 4001, data: 10 }).expect({ ack: 4001, window: 0 })
    // A little room is not worth telling (RFC 9293 §3.8.6.2.2).
    peer.act((connection) => connection.consume(1000)).silence()
    peer.act((connection) => connection.consume(1500)).expect({ ack: 4001, window: 2500 })
    peer.act((connection) => connection.consume(1500)).silence()
  })

  it('takes of a segment only what lies in the window', () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 10 } })
    peer.establish({ windowScale: undefined } as never)
    peer.say({ flags: 'A', data: 'abcdefghijklmnop' }).wait(40).expect({ ack: 11, window: 0 })
    expect(peer.readText()).toBe('abcdefghij')
  })

  it('keeps a window that it promised, but for what its scale rounds off, and takes all that was promised (RFC 7323 §2.4)', () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 1 << 20 } })
    peer.establish()
    let edge = 1 + 65_535
    for (let i = 0; i < 400; i++) {
      peer.say({ flags: 'A', seq: 1 + i * 777, data: 777 })
      for (const { ack, window } of peer.all()) {
        expect(ack + window * 32).toBeGreaterThan(edge - 32)
        edge = Math.max(edge, ack + window * 32)
      }
    }
    expect(edge).toBeLessThanOrEqual(1 + (1 << 20))
    // However it was rounded: all of it is taken, and the window then shuts.
    for (let seq = 1 + 400 * 777; seq < edge; seq += 1380) peer.say({ flags: 'A', seq, data: 1380 })
    expect(peer.connection!.readable).toBeGreaterThanOrEqual(edge - 1)
    expect(peer.connection!.info.memory).toBe(1 << 20)
    peer.all()
    peer.say({ flags: 'A', seq: edge, data: 5 })
    expect(peer.all().at(-1)!.window).toBe(0)
  })

  it('shuts the window for good while nobody reads, however small the pieces are that fill it', () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 100_000 } })
    peer.establish()
    let seq = 1
    for (let i = 0; i < 3000; i++, seq += 101) peer.say({ flags: 'A', seq, data: 101 })
    expect(peer.connection!.readable).toBeLessThanOrEqual(100_000)
    expect(peer.all().at(-1)!.window).toBe(0)
  })

  it('tells of no little room, not even when it answers a probe (RFC 9293 §3.8.6.2.2, MUST-39)', () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 4000 } })
    peer.establish({ windowScale: undefined } as never)
    peer.say({ flags: 'A', data: 1380 }).say({ flags: 'A', seq: 1381, data: 1380 }).say({ flags: 'A', seq: 2761, data: 1240 })
    peer.wait(40).all()
    peer.act((connection) => connection.consume(1000)).silence()
    peer.say({ flags: 'A', seq: 4000, ack: 1 }).expect({ ack: 4001, window: 0 })
    peer.act((connection) => connection.consume(1000))
    peer.say({ flags: 'A', seq: 4000, ack: 1 })
    expect(peer.all().at(-1)).toMatchObject({ ack: 4001, window: 2000 })
  })

  it("hears ACKs from the window's very edge: there a peer stands that filled it and lost a segment", () => {
    const peer = new ScriptedPeer({ tcp: { receiveBufferBytes: 4000 } })
    peer.establish({ windowScale: undefined } as never)
    peer.act((connection) => connection.write(new Uint8Array(100))).expect({ length: 100 })
    // All but the first 1000 bytes of the window arrive.
    peer.say({ flags: 'A', seq: 1001, data: 1380 }).say({ flags: 'A', seq: 2381, data: 1380 }).say({ flags: 'A', seq: 3761, data: 240 })
    peer.all()
    peer.say({ flags: 'A', seq: 4001, ack: 101 }).silence()
    expect(peer.connection!.info).toMatchObject({ inFlight: 0, unacknowledged: 0 })
  })

  it('lets the window grow with what has come, so that a byte at its far end holds no whole buffer', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', seq: 65_000, data: 1 }).expect({ ack: 1, sack: [65_000, 65_001] })
    peer.say({ flags: 'A', seq: 1_000_000, data: 1 }).expect({ ack: 1 })
    expect(peer.connection!.info.memory).toBe(65_536)
    let told = 0
    let seq = 1
    for (; seq < 400_000; seq += 1380) {
      peer.say({ flags: 'A', seq, data: 1380 })
      peer.act((connection) => connection.consume(connection.readable))
      for (const { window } of peer.all()) told = Math.max(told, window * 32)
      // Never so little that a slow start would feel it.
      if (seq > 100_000) expect(told).toBeGreaterThan(2 * seq)
      if (seq > 300_000) break
    }
    expect(told).toBeGreaterThan(1_000_000)
    expect(told).toBeLessThanOrEqual(1 << 20)
  })

  it('does not acknowledge what the memory of all buffers has no room for', () => {
    const peer = new ScriptedPeer({ limits: { bufferBytes: 8192 } })
    peer.establish()
    for (let i = 0; i < 10; i++) peer.say({ flags: 'A', seq: 1 + i * 1380, data: 1380 })
    expect(peer.all().at(-1)!.ack).toBe(1 + 5 * 1380)
    expect(peer.stack.facts.bufferBytes).toBe(8192)
    peer.readText()
    expect(peer.stack.facts.bufferBytes).toBe(0)
    peer.say({ flags: 'A', seq: 1 + 5 * 1380, data: 1380 })
    expect(peer.connection!.readable).toBe(1380)
  })
})

describe('timestamps (RFC 7323)', () => {
  it('echoes the newest in order, and refuses what is older (PAWS) with an ACK', () => {
    const peer = new ScriptedPeer()
    peer.establish({ timestamp: 1000 })
    peer.say({ flags: 'A', data: 'a', timestamp: 1010 }).wait(40).expect({ ack: 2, timestampEcho: 1010 })
    peer.say({ flags: 'A', seq: 2, data: 'b', timestamp: 1005 }).expect({ ack: 2, timestampEcho: 1010 })
    expect(peer.readText()).toBe('a')
    // Behind a gap it is not taken over (§4.3).
    peer.say({ flags: 'A', seq: 5, data: 'e', timestamp: 1020 }).expect({ ack: 2, timestampEcho: 1010 })
    // Without the option a segment is dropped.
    peer.say({ flags: 'A', seq: 2, data: 'b' }).silence()
  })

  it('forgets an old timestamp after 24 days of silence (§5.5)', () => {
    const peer = new ScriptedPeer()
    peer.establish({ timestamp: 1000 })
    peer.wait(25 * 24 * 3600 * 1000)
    peer.say({ flags: 'A', data: 'a', timestamp: -2_000_000_000 })
    expect(peer.readText()).toBe('a')
  })

  it('counts its own milliseconds, from an offset that differs from flow to flow', () => {
    const peer = new ScriptedPeer()
    peer.establish({ timestamp: 1 })
    peer.act((connection) => connection.write(new Uint8Array(1)))
    const first = peer.expect({ length: 1 }).timestamp!
    peer.say({ flags: 'A', ack: 2, timestamp: 2 }).wait(500)
    peer.act((connection) => connection.write(new Uint8Array(1)))
    expect((peer.expect({ length: 1 }).timestamp! - first) | 0).toBe(500)
    expect(first).not.toBe(10_000)
  })
})

describe('blind attacks (RFC 5961)', () => {
  it('is reset only by a RST at exactly the next number; one in the window is challenged', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'R', seq: 100 }).expect({ flags: 'A', seq: 1, ack: 1 })
    peer.say({ flags: 'R', seq: -100 }).say({ flags: 'R', seq: 9_000_000 }).silence()
    expect(peer.connection!.state).toBe('established')
    peer.say({ flags: 'R', seq: 1 })
    expect(peer.told()).toEqual(['incoming', 'connected', 'closed reset'])
  })

  it('challenges a SYN, wherever it is', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'S', seq: 1 }).expect({ flags: 'A', ack: 1 })
    peer.say({ flags: 'S', seq: 50_000_000 }).expect({ flags: 'A', ack: 1 })
    peer.say({ flags: 'SA', seq: 0 }).expect({ flags: 'A', ack: 1 })
    expect(peer.connection!.state).toBe('established')
  })

  it('refuses data whose ACK lies outside of what can be (§5.2)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', data: 'evil', ack: 100 }).expect({ flags: 'A', seq: 1, ack: 1 })
    peer.say({ flags: 'A', data: 'evil', ack: 1 - 65_536 * 128 - 1 }).expect({ flags: 'A', ack: 1 })
    peer.say({ flags: '', data: 'evil' }).silence()
    expect(peer.readText()).toBe('')
    peer.say({ flags: 'A', data: 'good', ack: 1 })
    expect(peer.readText()).toBe('good')
  })

  it('challenges only so often', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    for (let i = 0; i < 100; i++) peer.say({ flags: 'R', seq: 100 + i })
    expect(peer.all()).toHaveLength(10)
    peer.wait(5001).say({ flags: 'R', seq: 100 })
    expect(peer.all()).toHaveLength(1)
  })

  it('is not ended by ICMP once it stands (RFC 5927), but is while it connects', () => {
    const unreachable = (peer: ScriptedPeer, code: number, sequence: number) => {
      const packet = new Uint8Array(20 + 8 + 28)
      packet.set(peer.segment({ flags: 'S' }).subarray(0, 20))
      const view = new DataView(packet.buffer)
      view.setUint16(2, packet.length)
      packet[9] = 1
      view.setUint16(10, 0)
      view.setUint16(10, sum(packet.subarray(0, 20)))
      packet.set([3, code], 20)
      packet.set([0x45, 0, 0, 40, 0, 0, 0, 0, 60, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 28)
      view.setUint16(48, 80)
      view.setUint16(50, 5000)
      view.setInt32(52, sequence)
      view.setUint16(22, sum(packet.subarray(20)))
      return packet
    }
    const standing = new ScriptedPeer()
    standing.establish()
    standing.act((connection) => connection.write(new Uint8Array(10))).all()
    standing.packet(unreachable(standing, 3, (standing.irs! + 1) | 0))
    expect(standing.connection!.state).toBe('established')
    const dialing = new ScriptedPeer()
    dialing.dial()
    dialing.packet(unreachable(dialing, 3, (dialing.irs! + 7) | 0))
    expect(dialing.told()).toEqual([])
    dialing.packet(unreachable(dialing, 3, dialing.irs!))
    expect(dialing.told()).toEqual(['closed unreachable'])
    // A net or host that is unreachable may be reachable soon: the SYN is repeated, and the reason kept.
    const soft = new ScriptedPeer()
    soft.dial()
    soft.packet(unreachable(soft, 1, soft.irs!))
    expect(soft.told()).toEqual([])
    soft.wait(61_000)
    expect(soft.told()).toEqual(['closed unreachable'])
  })
})

function sum(bytes: Uint8Array): number {
  let total = 0
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}
