import { describe, expect, it } from 'vitest'
import { ScriptedPeer } from '../../support/scripted-peer.ts'
import { endpoint, VirtualNet } from '../../support/virtual-net.ts'

const text = (value: string) => new TextEncoder().encode(value)

describe('closing (RFC 9293 §3.6)', () => {
  it('ends first, through FIN-WAIT to TIME-WAIT, reading until the peer ends too', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.end()).expect({ flags: 'FA', seq: 1 })
    peer.say({ flags: 'A', ack: 2 }).silence()
    expect(peer.connection!.state).toBe('fin-wait-2')
    expect(peer.connection!.write(text('no'))).toBe(0)
    peer.say({ flags: 'PA', ack: 2, data: 'late' })
    expect(peer.readText()).toBe('late')
    peer.wait(50).expect({ flags: 'A', ack: 5 })
    peer.say({ flags: 'FA', seq: 5, ack: 2 }).expect({ flags: 'A', seq: 2, ack: 6 })
    expect(peer.told()).toEqual(['incoming', 'connected', 'readable', 'remote-end', 'closed done'])
    expect(peer.stack.facts).toMatchObject({ connections: 0, timeWaits: 1 })
    peer.wait(60_001)
    expect(peer.stack.facts).toMatchObject({ timeWaits: 0, timers: 0, bufferBytes: 0 })
  })

  it('ends second, and is gone at once', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'FPA', data: 'bye' }).expect({ flags: 'A', ack: 5 })
    expect(peer.told()).toEqual(['incoming', 'connected', 'readable', 'remote-end'])
    expect(peer.readText()).toBe('bye')
    expect(peer.connection!.remoteEnded).toBe(true)
    peer.act((connection) => connection.write(text('more')))
    peer.expect({ text: 'more' })
    peer.act((connection) => connection.end()).expect({ flags: 'FA', seq: 5 })
    peer.say({ flags: 'A', seq: 5, ack: 6 }).silence()
    expect(peer.told()).toEqual(['closed done'])
    expect(peer.stack.facts).toMatchObject({ connections: 0, timeWaits: 0 })
  })

  it('ends at the same time as the peer (figure 13)', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.end()).expect({ flags: 'FA', seq: 1 })
    peer.say({ flags: 'FA' }).expect({ flags: 'A', seq: 2, ack: 2 })
    expect(peer.connection!.state).toBe('closing')
    peer.say({ flags: 'A', seq: 2, ack: 2 })
    expect(peer.told()).toContain('closed done')
    expect(peer.stack.facts.timeWaits).toBe(1)
  })

  it('tells the end only after what came before it was read', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.end()).expect({ flags: 'FA' })
    peer.say({ flags: 'FPA', ack: 2, data: 'last words' }).expect({ flags: 'A' })
    expect(peer.told()).toEqual(['incoming', 'connected', 'readable', 'remote-end'])
    expect(peer.connection!.state).toBe('closed')
    expect(peer.readText()).toBe('last words')
    expect(peer.told()).toEqual(['closed done'])
    expect(peer.stack.facts.bufferBytes).toBe(0)
  })

  it('repeats a FIN that is not acknowledged', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.end()).expect({ flags: 'FA', seq: 1 })
    peer.wait(3000)
    const again = peer.all()
    expect(again.length).toBeGreaterThan(1)
    for (const one of again) expect(one).toMatchObject({ flags: 'FA', seq: 1, length: 0 })
  })

  it('resets both directions on abort, and drops what was queued', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'PA', data: 'unread' })
    peer.act((connection) => connection.abort()).expect({ flags: 'RA', seq: 1, ack: 7 })
    expect(peer.told()).toEqual(['incoming', 'connected', 'readable', 'closed aborted'])
    expect(peer.stack.facts).toMatchObject({ connections: 0, bufferBytes: 0, timers: 0 })
  })

  it('on release ends in order when all was read, and answers later data with RST', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.release()).expect({ flags: 'FA' })
    peer.say({ flags: 'PA', ack: 2, data: 'for nobody' }).expect({ flags: 'RA' })
    const other = new ScriptedPeer()
    other.establish()
    other.say({ flags: 'PA', data: 'unread' }).act((connection) => connection.release())
    other.expect({ flags: 'RA' })
  })

  it('does not wait for ever for the FIN of a released connection', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.release()).expect({ flags: 'FA' })
    peer.say({ flags: 'A', ack: 2 }).wait(60_100)
    expect(peer.told()).toContain('closed timeout')
    expect(peer.stack.facts).toMatchObject({ connections: 0, timers: 0 })
  })

  it('does not wait for ever either for a window that stays shut, once the application has let go', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.say({ flags: 'A', window: 0 })
    peer.act((connection) => connection.write(text('last words'))).act((connection) => connection.release())
    const began = peer.now
    while (peer.stack.facts.connections > 0 && peer.now - began < 3_600_000) {
      peer.wait(1000)
      // The peer answers each probe, and keeps its window shut.
      for (const { flags } of peer.all()) if (flags === 'A') peer.say({ flags: 'A', window: 0 })
    }
    expect(peer.told()).toContain('closed timeout')
    expect(peer.now - began).toBeLessThan(240_000)
    expect(peer.stack.facts).toMatchObject({ connections: 0, bufferBytes: 0, timers: 0 })
  })

  it('keeps a half-closed connection for as long as its application does', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    peer.act((connection) => connection.end()).expect({ flags: 'FA' })
    peer.say({ flags: 'A', ack: 2 }).wait(3_600_000).silence()
    peer.say({ flags: 'PA', ack: 2, data: 'still here' })
    expect(peer.readText()).toBe('still here')
  })
})

describe('TIME-WAIT', () => {
  function waiting(syn = {}): ScriptedPeer {
    const peer = new ScriptedPeer()
    peer.establish(syn)
    const stamp = 'timestamp' in syn ? { timestamp: 1001 } : {}
    peer.act((connection) => connection.end()).expect({ flags: 'FA' })
    peer.say({ flags: 'FA', ack: 2, ...stamp }).expect({ flags: 'A', ack: 2 })
    expect(peer.stack.facts.timeWaits).toBe(1)
    peer.told()
    return peer
  }

  it('acknowledges a FIN that comes again, and begins anew', () => {
    const peer = waiting()
    peer.wait(50_000).say({ flags: 'FA', ack: 2 }).expect({ flags: 'A', seq: 2, ack: 2 })
    peer.wait(50_000)
    expect(peer.stack.facts.timeWaits).toBe(1)
    peer.wait(10_001)
    expect(peer.stack.facts.timeWaits).toBe(0)
  })

  it('is not ended by a RST (RFC 1337)', () => {
    const peer = waiting()
    peer.say({ flags: 'R', seq: 2 }).silence()
    expect(peer.stack.facts.timeWaits).toBe(1)
  })

  it('gives way to a SYN that is newer, by number or by timestamp (RFC 6191), and to no other', () => {
    const byNumber = waiting()
    byNumber.say({ flags: 'S', seq: -5 }).expect({ flags: 'A', ack: 2 })
    const old = byNumber.irs!
    byNumber.say({ flags: 'S', seq: 100 }).expect({ flags: 'SA', ack: 101 })
    // Its own numbers are beyond the old connection's.
    expect((byNumber.irs! - old) | 0).toBeGreaterThan(2)
    const byTime = waiting({ timestamp: 1000 })
    byTime.say({ flags: 'S', seq: 100, timestamp: 900 }).expect({ flags: 'A', ack: 2 })
    byTime.say({ flags: 'S', seq: -100, timestamp: 2000 }).expect({ flags: 'SA', ack: -99 })
  })

  it('does not talk to another TIME-WAIT: after a simultaneous close both are silent', () => {
    const net = new VirtualNet(1, { delayMs: 5 })
    net.b.listen({ address: null, port: 80 })
    const both = [net.a.dial(endpoint('10.0.0.2', 80), net.now)]
    const closed: string[] = []
    net.onEvent = (_side, event) => {
      if (event.type === 'incoming') both.push(event.connection)
      if (event.type === 'incoming') event.connection.accept()
      if (event.type === 'closed') closed.push(event.reason)
    }
    net.wait(100)
    for (const connection of both) connection.end()
    net.wait(20)
    expect(closed).toEqual(['done', 'done'])
    expect([net.a.facts.timeWaits, net.b.facts.timeWaits]).toEqual([1, 1])
    let packets = 0
    net.onPacket = () => packets++
    net.wait(30_000)
    // The ACKs of the two FINs at most.
    expect(packets).toBeLessThanOrEqual(2)
  })

  it('answers what is out of its place, but only so often', () => {
    const peer = waiting()
    for (let i = 0; i < 10; i++) peer.say({ flags: 'A', seq: 500, ack: 2, data: 10 })
    expect(peer.all()).toMatchObject([{ flags: 'A', seq: 2, ack: 2 }])
    peer.wait(500).say({ flags: 'A', seq: 1, ack: 2 }).expect({ flags: 'A', seq: 2, ack: 2 })
    // A bare ACK where it should be says nothing that wants an answer.
    peer.wait(1000).say({ flags: 'A', seq: 2, ack: 2 }).silence()
  })

  it('is bounded: the oldest is forgotten', () => {
    const peer = new ScriptedPeer({ limits: { timeWaits: 2 } })
    peer.stack.listen({ address: null, port: 80 })
    for (const port of [1, 2, 3]) {
      const one = new ScriptedPeer({}, 1, { own: 80, peer: port })
      peer.packet(one.segment({ flags: 'S', seq: 0 }))
      one.irs = peer.irs
      peer.packet(one.segment({ flags: 'A' }))
      peer.act((connection) => connection.end())
      peer.packet(one.segment({ flags: 'FA', ack: 2 }))
    }
    expect(peer.stack.facts).toMatchObject({ connections: 0, timeWaits: 2 })
  })
})
