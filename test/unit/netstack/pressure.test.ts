import { describe, expect, it } from 'vitest'
import type { TcpConnection } from '../../../src/netstack/index.ts'
import { megabytesInUse } from '../../support/memory-in-use.ts'
import { ScriptedPeer } from '../../support/scripted-peer.ts'
import { endpoint, VirtualNet } from '../../support/virtual-net.ts'

/** Peers of one stack, each on a port of its own, established. */
function peersOf(
  peer: ScriptedPeer,
  count: number,
): { readonly ports: readonly ScriptedPeer[]; readonly connections: readonly TcpConnection[] } {
  peer.stack.listen({ address: null, port: 80 })
  const ports: ScriptedPeer[] = []
  const connections: TcpConnection[] = []
  for (let i = 0; i < count; i++) {
    const one = new ScriptedPeer({}, 1, { own: 80, peer: 1000 + i })
    peer.packet(one.segment({ flags: 'S', seq: 0, mss: 1380, sackPermitted: true, windowScale: 7 }))
    one.irs = peer.irs
    peer.packet(one.segment({ flags: 'A' }))
    ports.push(one)
    connections.push(peer.connection!)
  }
  peer.all()
  peer.told()
  return { ports, connections }
}

describe('when the memory of all buffers has run out', () => {
  it('what lies behind gaps is thrown away, and is taken when it comes again', () => {
    const peer = new ScriptedPeer({ limits: { bufferBytes: 256 << 10 } })
    const { ports, connections } = peersOf(peer, 5)
    // Each holds 64 KiB by one byte behind a gap.
    for (const one of ports.slice(0, 4)) peer.packet(one.segment({ flags: 'A', seq: 65_000, data: 1 }))
    expect(peer.stack.facts.bufferBytes).toBe(256 << 10)
    peer.packet(ports[4]!.segment({ flags: 'A', data: 'honest' }))
    expect(connections[4]!.readable).toBe(0)
    peer.packet(ports[4]!.segment({ flags: 'A', data: 'honest' }))
    expect(connections[4]!.readable).toBe(6)
    expect(peer.stack.facts.bufferBytes).toBe(4096)
    expect(connections.map(({ state }) => state)).toEqual(new Array(5).fill('established'))
    // Nothing of it is believed to be here still.
    peer.packet(ports[0]!.segment({ flags: 'A', data: 64_999 }))
    expect(connections[0]!.readable).toBe(64_999)
  })

  it('what an honest peer sent behind the one segment that it lost is kept', () => {
    const peer = new ScriptedPeer({ limits: { bufferBytes: 128 << 10 } })
    const { ports, connections } = peersOf(peer, 3)
    for (let seq = 1381; seq < 13_801; seq += 1380) peer.packet(ports[0]!.segment({ flags: 'A', seq, data: 1380 }))
    peer.packet(ports[1]!.segment({ flags: 'A', seq: 65_000, data: 1 }))
    for (let i = 0; i < 3; i++) {
      peer.wait(1000)
      peer.packet(ports[2]!.segment({ flags: 'A', data: 60_000 }))
    }
    expect(connections[2]!.readable).toBe(60_000)
    peer.packet(ports[0]!.segment({ flags: 'A', data: 1380 }))
    expect(connections[0]!.readable).toBe(13_800)
  })

  it('who keeps a window shut for ever gives way, the longest first, and no other (RFC 6429)', () => {
    const peer = new ScriptedPeer({ limits: { bufferBytes: 1 << 20, stalledMs: 60_000 } })
    const { ports, connections } = peersOf(peer, 10)
    const data = new Uint8Array(100_000)
    // All but the last shut their windows with 128 KiB held for each, the first of them first.
    const answer = (): void => {
      peer.all()
      for (const one of ports.slice(0, 8)) peer.packet(one.segment({ flags: 'A', window: 0 }))
    }
    answer()
    for (const connection of connections.slice(0, 8)) {
      peer.act(() => connection.write(data)).wait(1000)
      answer()
    }
    expect(peer.stack.facts.bufferBytes).toBe(1 << 20)
    // Nobody has been waiting for long enough: the next one finds no room, and nobody is hurt.
    expect(connections[8]!.write(data)).toBe(0)
    peer.wait(40_000)
    answer()
    expect(peer.stack.facts.connections).toBe(10)
    for (let i = 0; i < 25; i++) {
      peer.wait(1000)
      answer()
    }
    peer.told()
    expect(connections[9]!.write(data)).toBe(0)
    peer.wait(1000)
    answer()
    expect(peer.told()).toEqual(['closed overloaded'])
    expect(connections.map(({ state }) => state === 'closed')).toEqual([true, ...new Array(9).fill(false)])
    expect(connections[9]!.write(data)).toBe(data.length)
  })

  it('one whose peer takes bytes now and then is not stalled', () => {
    const peer = new ScriptedPeer({ limits: { bufferBytes: 128 << 10, stalledMs: 60_000 } })
    const { ports, connections } = peersOf(peer, 2)
    peer.act(() => connections[0]!.write(new Uint8Array(100_000)))
    let acked = 0
    for (let i = 0; i < 20; i++) {
      peer.wait(10_000).all()
      acked += 100
      peer.packet(ports[0]!.segment({ flags: 'A', ack: 1 + acked, window: 10 }))
      peer.act(() => connections[1]!.write(new Uint8Array(70_000)))
    }
    expect(connections[0]!.state).toBe('established')
  })
})

describe('an idle connection', () => {
  it('costs about 4 KB: 5,000 of them 20 MB', () => {
    const net = new VirtualNet(1, { delayMs: 1 })
    net.b.listen({ address: null, port: 80 })
    const connections: TcpConnection[] = []
    net.onEvent = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      else if (event.type === 'connected' && side === 'a') event.connection.write(new Uint8Array(5000))
      else if (event.type === 'readable') event.connection.consume(event.connection.readable)
    }
    const open = (count: number): void => {
      for (let i = 0; i < count; i++) connections.push(net.a.dial(endpoint('10.0.0.2', 80), net.now))
      net.wait(1000)
    }
    open(200)
    const before = megabytesInUse()
    // The SYN queue holds no more at once.
    for (let i = 0; i < 5; i++) open(500)
    expect(connections.every(({ state }) => state === 'established')).toBe(true)
    // Both ends are here: 5,000 connections.
    expect(megabytesInUse() - before).toBeLessThan(30)
  }, 30_000)

  it('holds no buffer, neither before its first byte nor after its last', () => {
    const peer = new ScriptedPeer()
    peer.establish()
    expect(peer.connection!.info.memory).toBe(0)
    peer.act((connection) => connection.write(new Uint8Array(200_000)))
    peer.say({ flags: 'A', data: 1000 })
    expect(peer.connection!.info.memory).toBeGreaterThan(200_000)
    let seen = 0
    while (seen < 200_000) {
      for (const { length } of peer.all()) seen += length
      peer.say({ flags: 'A', seq: 1001, ack: 1 + seen })
    }
    peer.readText()
    expect(peer.connection!.info.memory).toBe(0)
    expect(peer.stack.facts.bufferBytes).toBe(0)
  })
})
