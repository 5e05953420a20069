import { describe, expect, it } from 'vitest'
import { ScriptedPeer } from '../../support/scripted-peer.ts'
import { endpoint } from '../../support/virtual-net.ts'

describe('opening (RFC 9293 §3.5)', () => {
  it('answers a SYN only once the application has accepted, with the options that both know', () => {
    const peer = new ScriptedPeer()
    peer.acceptsAll = false
    const listener = peer.stack.listen({ address: null, port: null })
    peer.say({ flags: 'S', seq: 0, mss: 1200, sackPermitted: true, windowScale: 7, timestamp: 77 })
    peer.silence()
    expect(peer.events[0]).toMatchObject({ type: 'incoming', listener })
    expect(peer.connection!.local).toEqual(peer.own)
    // The peer asks again: still nothing, and no second event.
    peer.wait(1000).say({ flags: 'S', seq: 0, mss: 1200, sackPermitted: true, windowScale: 7, timestamp: 77 }).silence()
    peer.act((connection) => connection.accept())
    peer.expect({ flags: 'SA', ack: 1, mss: 1380, sackPermitted: true, windowScale: 5, timestampEcho: 77 })
    peer.say({ flags: 'A', timestamp: 78 })
    expect(peer.told()).toEqual(['incoming', 'connected'])
    expect(peer.stack.facts).toMatchObject({ connections: 1, halfOpen: 0 })
  })

  it('offers no option that the SYN did not have', () => {
    const peer = new ScriptedPeer()
    peer.stack.listen({ address: null, port: 80 })
    peer.say({ flags: 'S', seq: 0 })
    peer.expect({ flags: 'SA', mss: 1380, sackPermitted: false, windowScale: -1, timestamp: null, window: 65_535 })
    peer.say({ flags: 'A' })
    // RFC 9293 §3.7.1: without an MSS option 536.
    peer.act((connection) => connection.write(new Uint8Array(2000)))
    expect(peer.all().map(({ length }) => length)).toEqual([536, 536, 536, 392])
  })

  it.each([
    ['reset', 'RA'],
    ['ignore', null],
  ] as const)('refuses with %s', (how, flags) => {
    const peer = new ScriptedPeer()
    peer.acceptsAll = false
    peer.stack.listen({ address: null, port: null })
    peer.say({ flags: 'S', seq: 0 }).act((connection) => connection.refuse(how))
    if (flags !== null) peer.expect({ flags, ack: 1 })
    peer.silence()
    expect(peer.told()).toEqual(['incoming', 'closed aborted'])
    expect(peer.stack.facts).toMatchObject({ connections: 0, halfOpen: 0 })
  })

  it('refuses with ICMP in the name of the one who was called', () => {
    const peer = new ScriptedPeer()
    peer.acceptsAll = false
    peer.stack.listen({ address: null, port: null })
    peer.say({ flags: 'S', seq: 0 }).act((connection) => connection.refuse('host-unreachable'))
    peer.silence()
    const [icmp] = peer.others
    expect([icmp![9], icmp![20], icmp![21]]).toEqual([1, 3, 1])
    // The quoted header is the SYN's: from the peer to us, with its ports and number.
    expect([...icmp!.subarray(40, 48)]).toEqual([10, 0, 0, 2, 10, 0, 0, 1])
    expect(new DataView(icmp!.buffer, 48).getUint16(2)).toBe(80)
    expect(new DataView(icmp!.buffer, 48).getInt32(4)).toBe(peer.iss)
  })

  it('forgets an asked connection whose peer resets, and one the application never decides on', () => {
    const peer = new ScriptedPeer()
    peer.acceptsAll = false
    peer.stack.listen({ address: null, port: null })
    peer.say({ flags: 'S', seq: 0 }).say({ flags: 'R', seq: 1 })
    expect(peer.told()).toEqual(['incoming', 'closed reset'])
    peer.say({ flags: 'S', seq: 0 }).wait(61_000)
    expect(peer.told()).toEqual(['incoming', 'closed timeout'])
    expect(peer.stack.facts.connections).toBe(0)
  })

  it('dials with all its options, and repeats the SYN with growing patience until it gives up', () => {
    const peer = new ScriptedPeer()
    peer.dial()
    peer.expect({ flags: 'S', mss: 1380, sackPermitted: true, windowScale: 5, at: 10_000 })
    peer.wait(62_000)
    expect(peer.all().map(({ at }) => (at - 10_000) / 1000)).toEqual([1, 3, 7, 15, 31])
    expect(peer.told()).toEqual(['closed timeout'])
  })

  it('finishes a dial with an ACK, and is refused by a RST that acknowledges the SYN only', () => {
    const peer = new ScriptedPeer()
    peer.dial()
    peer.expect({ flags: 'S' })
    peer.say({ flags: 'R', seq: 0 }).say({ flags: 'RA', seq: 0, ack: 5 }).silence()
    peer.say({ flags: 'SA', seq: 0, ack: 9 }).expect({ flags: 'R', seq: 9 })
    peer.say({ flags: 'SA', seq: 0, mss: 1000 }).expect({ flags: 'A', seq: 1, ack: 1 })
    expect(peer.told()).toEqual(['connected'])
    const other = new ScriptedPeer()
    other.dial()
    other.say({ flags: 'RA', seq: 0 })
    expect(other.told()).toEqual(['closed refused'])
  })

  it('opens simultaneously (figure 8)', () => {
    const peer = new ScriptedPeer()
    peer.dial()
    peer.expect({ flags: 'S' })
    peer.say({ flags: 'S', seq: 0, mss: 1000 }).expect({ flags: 'SA', seq: 0, ack: 1 })
    peer.say({ flags: 'SA', seq: 0 })
    expect(peer.told()).toEqual(['connected'])
    peer.expect({ flags: 'A', seq: 1, ack: 1 })
    expect(peer.connection!.state).toBe('established')
  })

  it('answers a repeated SYN with the SYN-ACK again, and a wrong ACK with RST', () => {
    const peer = new ScriptedPeer()
    peer.stack.listen({ address: null, port: 80 })
    peer.say({ flags: 'S', seq: 0 }).expect({ flags: 'SA' })
    peer.say({ flags: 'S', seq: 0 }).expect({ flags: 'SA', seq: 0, ack: 1 })
    peer.say({ flags: 'A', ack: 100 }).expect({ flags: 'R', seq: 100 })
    expect(peer.connection!.state).toBe('syn-received')
  })

  it('answers what belongs to nothing with RST as §3.10.7.1 has it, and a RST with nothing', () => {
    const peer = new ScriptedPeer()
    peer.irs = 0
    peer.say({ flags: 'A', ack: 1000 }).expect({ flags: 'R', seq: 1000 })
    peer.say({ flags: 'S', seq: 0 }).expect({ flags: 'RA', seq: 0, ack: 1 })
    peer.say({ flags: 'FP', seq: 5, data: 'abc' }).expect({ flags: 'RA', seq: 0, ack: 9 })
    peer.say({ flags: 'R' }).say({ flags: 'RA' }).silence()
  })

  it('finds out that the other side has forgotten the connection, or we have (half-open, §3.5.1)', () => {
    // The peer has crashed, and asks anew: our challenge shows it what we think, its RST ends that, its next SYN is a new one.
    const peer = new ScriptedPeer()
    peer.establish()
    peer.told()
    peer.say({ flags: 'S', seq: 777_777, mss: 1000 }).expect({ flags: 'A', seq: 1, ack: 1 })
    peer.say({ flags: 'R', seq: 1 })
    expect(peer.told()).toEqual(['closed reset'])
    peer.say({ flags: 'S', seq: 777_777, mss: 1000 }).expect({ flags: 'SA', ack: 777_778 })
    // We have forgotten, and dial from the same port: the peer says what it thinks, and we end that.
    const other = new ScriptedPeer()
    other.dial()
    other.expect({ flags: 'S' })
    other.say({ flags: 'A', seq: 55, ack: 5000 }).expect({ flags: 'R', seq: 5000 })
    other.wait(1000).expect({ flags: 'S' })
    other.say({ flags: 'SA', seq: 0 }).expect({ flags: 'A' })
    expect(other.told()).toEqual(['connected'])
  })

  it('leaves a SYN of a flood without a word when it gives way: who is named in it asked for nothing', () => {
    const peer = new ScriptedPeer({ limits: { halfOpen: 2 } })
    peer.stack.listen({ address: null, port: 80 })
    for (const port of [1, 2, 3, 4]) peer.packet(new ScriptedPeer({}, 1, { own: 80, peer: port }).segment({ flags: 'S', seq: 0 }))
    expect(peer.all().map(({ flags }) => flags)).toEqual(['SA', 'SA', 'SA', 'SA'])
    expect(peer.stack.facts).toMatchObject({ connections: 2, halfOpen: 2 })
  })

  it('keeps data that came with the last ACK of the handshake, and asks again for those of a SYN', () => {
    const peer = new ScriptedPeer()
    peer.stack.listen({ address: null, port: 80 })
    peer.say({ flags: 'S', seq: 0, data: 'early' }).expect({ flags: 'SA', ack: 1 })
    peer.say({ flags: 'PA', data: 'early' })
    expect(peer.readText()).toBe('early')
  })

  it('writes before it is connected, and sends that with the handshake done', () => {
    const peer = new ScriptedPeer()
    peer.dial().write(new TextEncoder().encode('hello'))
    peer.connection!.end()
    peer.expect({ flags: 'S' })
    peer.say({ flags: 'SA', seq: 0 }).expect({ flags: 'FPA', text: 'hello' })
    expect(peer.connection!.state).toBe('fin-wait-1')
    peer.say({ flags: 'FA', ack: 7 }).expect({ flags: 'A', seq: 7, ack: 2 })
    expect(peer.told()).toEqual(['connected', 'remote-end', 'closed done'])
  })

  it('takes initial numbers from the clock and a keyed hash of the tuple (RFC 6528)', () => {
    const a = new ScriptedPeer()
    a.dial(4000)
    const b = new ScriptedPeer()
    b.dial(4001)
    const again = new ScriptedPeer()
    again.now += 1000
    again.dial(4000)
    expect(a.irs).not.toBe(b.irs)
    expect((again.irs! - a.irs!) | 0).toBe(250_000)
  })

  it('has a limit of connections, of half-open ones (the oldest gives way) and of listeners', () => {
    const peer = new ScriptedPeer({ limits: { halfOpen: 2, connections: 3, listeners: 1 } })
    peer.acceptsAll = false
    peer.stack.listen({ address: null, port: null })
    expect(() => peer.stack.listen({ address: null, port: 81 })).toThrow(/as many listeners/)
    for (const port of [1, 2, 3]) {
      const syn = new ScriptedPeer({}, 1, { own: 80, peer: port }).segment({ flags: 'S', seq: 0 })
      peer.packet(syn)
    }
    expect(peer.told()).toEqual(['incoming', 'incoming', 'closed overloaded', 'incoming'])
    peer.stack.dial(endpoint('10.0.0.9', 1), peer.now)
    expect(() => peer.stack.dial(endpoint('10.0.0.9', 2), peer.now)).toThrow(/as many connections/)
  })
})
