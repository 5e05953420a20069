import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type tls from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import type { LinkLimits } from '../../../src/link/index.ts'
import type { TlsChannel } from '../../../src/link/tls-channel.ts'
import { CELL_BYTES, type ChannelEnd } from '../../../src/onion/index.ts'
import { hello, numbered, Recorder, until } from '../../compliance/cell-channel.ts'
import { type LinkNode, newLinkNode } from '../../support/link-nodes.ts'
import { newLinkPeer } from '../../support/link-peer.ts'

const nodes: LinkNode[] = []
async function start(limits: Partial<LinkLimits> = {}): Promise<LinkNode> {
  const node = await newLinkNode(limits)
  nodes.push(node)
  return node
}

afterEach(async () => {
  for (const node of nodes.splice(0)) await node.stop()
})

/** Takes every channel and keeps its recorder. */
function taking(node: LinkNode): Recorder[] {
  const recorders: Recorder[] = []
  node.acceptor = (channel) => {
    const recorder = new Recorder()
    recorder.channel = channel
    channel.attach(recorder)
    recorders.push(recorder)
    return true
  }
  return recorders
}

function attached(channel: TlsChannel | Awaited<ReturnType<LinkNode['open']>>): Recorder {
  const recorder = new Recorder()
  recorder.channel = channel
  channel.attach(recorder)
  return recorder
}

const frame = (type: number, count: number, channel: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes[0] = type
  bytes.writeUInt16BE(count, 2)
  bytes.writeUInt32BE(channel, 4)
  return bytes
}
const cellsFrame = (channel: number, count: number): Buffer => Buffer.concat([frame(1, count, channel), Buffer.alloc(count * CELL_BYTES)])

describe('links of a node', () => {
  it('carry all channels with a peer over one connection, also when many are opened at once', async () => {
    const [a, b] = [await start(), await start()]
    const taken = taking(b)
    const channels = await Promise.all(Array.from({ length: 20 }, () => a.open(b)))
    for (const channel of channels) attached(channel)
    for (const channel of channels) channel.send(hello())
    await until('all channels', () => taken.length === 20)
    expect(a.links.links.size).toBe(1)
    expect(b.links.links.size).toBe(1)
    expect([...b.links.links][0]!.peer).toBe(a.id)
    expect([...a.links.links][0]!.peer).toBe(b.id)
  })

  it('serve the side that did not dial as well', async () => {
    const [a, b] = [await start(), await start()]
    const atA = taking(a)
    taking(b)
    attached(await a.open(b)).channel!.send(hello())
    await until('the link at b', () => b.links.links.size === 1)
    const back = attached(await b.links.openChannel(a.id, [], AbortSignal.timeout(1000)))
    back.channel!.send(numbered(0, 3))
    await until('the cells', () => atA[0]?.count === 3)
    expect(a.links.links.size).toBe(1)
  })

  it('come up once or twice when two nodes dial each other at once, and both work', async () => {
    const [a, b] = [await start(), await start()]
    const atA = taking(a)
    const atB = taking(b)
    const [fromA, fromB] = await Promise.all([a.open(b), b.open(a)])
    attached(fromA)
    attached(fromB)
    fromA.send(numbered(0, 9))
    fromB.send(numbered(0, 9))
    await until('both', () => atA[0]?.count === 9 && atB[0]?.count === 9)
    expect(a.links.links.size).toBeLessThanOrEqual(2)
    const links = a.links.links.size
    for (let i = 0; i < 5; i++) attached(await a.open(b)).channel!.send(hello())
    await until('the later ones', () => atB.length === 6)
    expect(a.links.links.size).toBe(links)
  })

  it('are refused when another identity answers, before a frame is sent', async () => {
    const [a, b, c] = [await start(), await start(), await start()]
    const taken = taking(b)
    await expect(a.links.openChannel(c.id, [b.address], AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'identity-mismatch',
      kind: 'link',
    })
    expect(a.links.links.size).toBe(0)
    expect(taken).toEqual([])
  })

  it('take the address that answers, and say identity-mismatch rather than connect-failed when that is the better reason', async () => {
    const [a, b, c] = [await start({ dialStaggerMs: 20 }), await start(), await start()]
    const silent = net.createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const nobody = { host: '127.0.0.1', port: (silent.address() as net.AddressInfo).port }
    taking(b)
    attached(await a.links.openChannel(b.id, [nobody, { host: '127.0.0.1', port: 1 }, b.address], AbortSignal.timeout(5000)))
    await expect(a.links.openChannel(c.id, [b.address, { host: '127.0.0.1', port: 1 }], AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'identity-mismatch',
    })
    await expect(a.links.openChannel(c.id, [{ host: '127.0.0.1', port: 1 }], AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'connect-failed',
    })
    silent.close()
  })

  it('give up a dial when nobody waits for it any more, and when there is no answer in time', async () => {
    const a = await start({ connectTimeoutMs: 100 })
    const silent = net.createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const nobody = { host: '127.0.0.1', port: (silent.address() as net.AddressInfo).port }
    await expect(a.links.openChannel(a.id, [nobody], AbortSignal.timeout(20))).rejects.toMatchObject({ code: 'aborted' })
    await expect(a.links.openChannel(a.id, [nobody], AbortSignal.timeout(5000))).rejects.toMatchObject({ code: 'connect-failed' })
    silent.close()
  })

  it('keep within maxLinks', async () => {
    const [a, b, c] = [await start({ maxLinks: 1 }), await start(), await start()]
    taking(b)
    attached(await a.open(b))
    await expect(a.open(c)).rejects.toMatchObject({ code: 'link-limit' })
  })

  it('close when idle, but not those used last, nor those that carry channels', async () => {
    const a = await start({ idleLinkMs: 50, keepIdleLinks: 1 })
    const peers = [await start(), await start(), await start()]
    const open: Recorder[] = []
    for (const peer of peers) {
      taking(peer)
      open.push(attached(await a.open(peer)))
      open.at(-1)!.channel!.send(hello())
      await delay(5)
    }
    open[0]!.channel!.close()
    await delay(10)
    open[1]!.channel!.close()
    await until('one link to close', () => a.links.links.size === 2)
    await delay(150)
    expect([...a.links.links].map((link) => link.peer).sort()).toEqual([peers[1]!.id, peers[2]!.id].sort())
    expect(peers[0]!.links.links.size).toBe(0)
    expect(open[2]!.ends).toEqual([])
  })

  it('lose no channel that the peer opens while they close', async () => {
    const [a, b] = [await start({ idleLinkMs: 30, keepIdleLinks: 0 }), await start()]
    for (let round = 0; round < 30; round++) {
      const taken = taking(a)
      const out = attached(await a.open(b))
      out.channel!.close()
      await until('the link at b', () => b.links.links.size > 0)
      await delay(25 + (round % 8) * 3)
      const back = attached(await b.links.openChannel(a.id, [a.address], AbortSignal.timeout(1000)))
      back.channel!.send(numbered(0, 2))
      await until('the cells', () => taken[0]?.count === 2)
      expect(back.ends).toEqual([])
      back.channel!.close()
    }
  })

  it('find a dead peer', async () => {
    const a = await start({ pingAfterMs: 50, pingTimeoutMs: 100 })
    const b = await start()
    taking(b)
    const proxy = await stallingProxy(b.address.port)
    const recorder = attached(await a.links.openChannel(b.id, [{ host: '127.0.0.1', port: proxy.port }], AbortSignal.timeout(5000)))
    recorder.channel!.send(hello())
    await delay(250)
    expect(recorder.ends).toEqual([])
    expect([...a.links.links][0]!.rttMs).not.toBeNull()
    proxy.stall()
    await until('the end', () => recorder.ends.length > 0)
    expect(recorder.ends).toEqual(['reset'])
    expect(a.reasons).toContain('no sign of life')
    proxy.stop()
  })

  it('find a peer dead soon when it does not answer cells, and begin nothing on a link in doubt', async () => {
    const a = await start({ probeAfterMs: 50, probeTimeoutMs: 300 })
    const b = await start()
    taking(b)
    const proxy = await stallingProxy(b.address.port)
    const recorder = attached(await a.links.openChannel(b.id, [{ host: '127.0.0.1', port: proxy.port }], AbortSignal.timeout(5000)))
    recorder.channel!.send(hello())
    await delay(500)
    expect(recorder.ends).toEqual([])
    proxy.stall()
    recorder.channel!.send(hello())
    await until('doubt', () => [...a.links.links][0]!.isDoubtful)
    expect(a.links.usable(b.id)).toBeNull()
    attached(await a.open(b)).channel!.send(hello())
    await until('the end', () => recorder.ends.length > 0)
    expect(recorder.ends).toEqual(['reset'])
    expect(a.links.links.size).toBe(1)
    proxy.stop()
  })

  it('ask the older links with a peer for a sign of life when it makes another one', async () => {
    const a = await start({ suspectTimeoutMs: 100 })
    const b = await start()
    taking(b)
    const proxy = await stallingProxy(b.address.port)
    const old = attached(await a.links.openChannel(b.id, [{ host: '127.0.0.1', port: proxy.port }], AbortSignal.timeout(5000)))
    old.channel!.send(hello())
    await until('the first answer', () => [...a.links.links][0]!.rttMs !== null)
    proxy.stall()
    taking(a)
    ;[...b.links.links][0]!.stop()
    attached(await b.open(a)).channel!.send(hello())
    await until('the end of the older one', () => old.ends.length > 0)
    expect([...a.links.links].map((link) => link.origin)).toEqual(['accepted'])
    proxy.stop()
  })

  it('end a link whose peer takes nothing in, and give back every byte', async () => {
    const a = await start({ writeStallMs: 150 })
    const b = await start()
    taking(b)
    const proxy = await stallingProxy(b.address.port)
    const address = { host: '127.0.0.1', port: proxy.port }
    const recorders: Recorder[] = []
    for (let i = 0; i < 40; i++) {
      recorders.push(attached(await a.links.openChannel(b.id, [address], AbortSignal.timeout(5000))))
      recorders[i]!.channel!.send(hello())
    }
    await delay(30)
    proxy.stall()
    for (const { channel } of recorders) for (let i = 0; i < 10; i++) channel!.send(numbered(0, 42))
    await delay(30)
    expect(a.meter.total).toBeGreaterThan(5_000_000)
    expect(recorders[7]!.channel!.queuedSince).not.toBeNull()
    await until('the ends', () => recorders.every((recorder) => recorder.ends.length === 1))
    expect(a.reasons).toContain('the peer takes nothing in')
    expect(a.meter.total).toBe(0)
    for (const { channel } of recorders) expect(channel!.queuedBytes).toBe(0)
    proxy.stop()
  })

  it('let no channel starve another', async () => {
    const [a, b] = [await start(), await start()]
    const taken = taking(b)
    const bulk = attached(await a.open(b))
    const small = attached(await a.open(b))
    bulk.channel!.send(hello())
    await until('the first', () => taken.length === 1)
    small.channel!.send(hello())
    await until('the second', () => taken.length === 2)
    const keepBusy = (): void => {
      while (bulk.channel!.room > 0) bulk.channel!.send(numbered(0, bulk.channel!.room))
    }
    taken[0]!.onCells = () => {}
    bulk.onDrained = keepBusy
    keepBusy()
    for (let i = 0; i < 20; i++) {
      small.channel!.send(numbered(i, 1))
      const before = taken[0]!.count
      await until(`cell ${i}`, () => taken[1]!.count === i + 1)
      // What the bulk channel got through while one cell of the other waited: bounded by the buffers between them.
      expect((taken[0]!.count - before) * CELL_BYTES).toBeLessThan(16 * 1024 * 1024)
    }
    const two = [attached(await a.open(b)), attached(await a.open(b))]
    for (const recorder of two) {
      recorder.onDrained = () => {
        while (recorder.channel!.room > 0) recorder.channel!.send(numbered(0, recorder.channel!.room))
      }
      recorder.onDrained()
    }
    await until('both', () => taken.length === 4)
    taken[2]!.onCells = () => {}
    taken[3]!.onCells = () => {}
    await until('some', () => taken[2]!.count > 4000 && taken[3]!.count > 4000)
    const ratio = taken[2]!.count / taken[3]!.count
    expect(ratio).toBeGreaterThan(0.2)
    expect(ratio).toBeLessThan(5)
  })

  it('give each of many quiet channels as much memory as its cells need', async () => {
    const [a, b] = [await start(), await start()]
    const taken = taking(b)
    const before = process.memoryUsage().arrayBuffers
    const recorders: Recorder[] = []
    for (let i = 0; i < 1000; i++) recorders.push(attached(await a.open(b)))
    for (const recorder of recorders) recorder.channel!.send(hello())
    // Held by paused readers: what a buffer of the pool for each would be 64 MB.
    const take = b.acceptor!
    b.acceptor = (channel) => {
      const isTaken = take(channel)
      channel.pause()
      return isTaken
    }
    await until('all channels', () => taken.length === 1000 && b.meter.total === 1000 * CELL_BYTES)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 1024 * 1024)
  })

  it('stop with open channels and dials under way, and leave nothing behind', async () => {
    const [a, b] = [await start(), await start()]
    const taken = taking(b)
    const recorder = attached(await a.open(b))
    recorder.channel!.send(numbered(0, 42))
    await until('the cells', () => taken[0]?.count === 42)
    const dialling = a.links.openChannel(b.id, [], AbortSignal.timeout(1000))
    await a.stop()
    await dialling.catch(() => {})
    await until('the ends', () => recorder.ends.length === 1 && taken[0]!.ends.length === 1)
    expect(recorder.ends).toEqual(['reset'])
    expect(taken[0]!.ends).toEqual(['reset'])
    await until('no links', () => a.links.links.size + b.links.links.size === 0)
    await expect(a.open(b)).rejects.toMatchObject({ code: 'aborted' })
    expect(a.meter.total + b.meter.total).toBe(0)
  })

  it('grow the window of a channel that it holds back, and not that of a slow consumer', async () => {
    const [a, b] = [await start(), await start()]
    const taken = taking(b)
    const fast = attached(await a.open(b))
    const slow = attached(await a.open(b))
    for (const recorder of [fast, slow]) {
      recorder.onDrained = () => {
        while (recorder.channel!.room > 0) recorder.channel!.send(numbered(0, recorder.channel!.room))
      }
      recorder.channel!.send(hello())
      await until('it', () => taken.length === (recorder === fast ? 1 : 2))
    }
    taken[0]!.onCells = () => {}
    taken[1]!.onCells = () => {
      taken[1]!.channel!.pause()
      setTimeout(() => taken[1]!.channel!.resume(), 80)
    }
    fast.onDrained!()
    slow.onDrained!()
    const window = (recorder: Recorder): number => (recorder.channel as TlsChannel).windowCells
    await until('growth', () => window(taken[0]!) > 128)
    await delay(700)
    expect(window(taken[1]!)).toBe(128)
    expect(window(taken[0]!)).toBeLessThanOrEqual((8 * 1024 * 1024) / CELL_BYTES)
  })
})

describe('hostile peers of a link', () => {
  async function victim(limits: Partial<LinkLimits> = {}): Promise<{ node: LinkNode; taken: Recorder[] }> {
    const node = await start(limits)
    return { node, taken: taking(node) }
  }

  it.each([
    ['another protocol', { protocol: 'h2' }],
    ['no protocol', { protocol: null }],
    ['no certificate', { certificate: null }],
    ['TLS 1.2', { options: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as tls.ConnectionOptions }],
  ])('with %s get no link', async (_, options) => {
    const { node, taken } = await victim()
    const peer = await newLinkPeer(node.multiaddr, options)
    peer.socket.write(cellsFrame(1, 1))
    await peer.error
    await until('the refusal', () => node.reasons.length > 0)
    expect(node.links.links.size).toBe(0)
    expect(taken).toEqual([])
  })

  it('that never finish the handshake are cut off', async () => {
    const { node } = await victim({ handshakeTimeoutMs: 100 })
    const socket = net.connect(node.address.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write(Uint8Array.of(0x16, 3, 1))
    await new Promise((resolve) => socket.once('close', resolve))
  })

  it('beyond the limits of one address are refused', async () => {
    const { node } = await victim({ maxInboundPerAddress: 3 })
    for (let i = 0; i < 5; i++) await newLinkPeer(node.multiaddr)
    await until('three links', () => node.links.links.size === 3)
    expect(node.reasons.filter((why) => why === 'too many connections of this address').length).toBe(2)
    const { node: other } = await victim({ inboundPerSecondPerAddress: 2 })
    for (let i = 0; i < 6; i++) await newLinkPeer(other.multiaddr)
    expect(other.reasons).toContain('too many connections a second of this address')
  })

  it.each([
    ['an unknown frame', frame(99, 0, 1)],
    ['a channel of our kind', cellsFrame(2, 1)],
    ['credit for a channel that was never opened', frame(2, 5, 7)],
    ['the end of a channel that was never opened', frame(3, 0, 7)],
    ['flags', Buffer.from('0101000100000001', 'hex')],
    ['noise', Buffer.alloc(5000, 0xa7)],
  ])('that send %s lose the link, and their channels end as violations', async (_, bytes) => {
    const { node, taken } = await victim()
    const peer = await newLinkPeer(node.multiaddr)
    peer.socket.write(cellsFrame(1, 2))
    await until('the channel', () => taken.length === 1)
    peer.socket.write(bytes)
    await peer.error
    await until('the end', () => taken[0]!.ends.length > 0)
    expect(taken[0]!.ends).toEqual(['violation'])
    expect(node.links.links.size).toBe(0)
    expect(node.meter.total).toBe(0)
    expect(node.reasons.some((why) => why.startsWith('the peer broke the protocol'))).toBe(true)
  })

  it('that overrun their credit lose the channel, not the link', async () => {
    const { node, taken } = await victim()
    node.acceptor = wrap(node, (recorder) => recorder.channel!.pause())
    const peer = await newLinkPeer(node.multiaddr)
    for (let i = 0; i < 4; i++) peer.socket.write(cellsFrame(1, 32))
    await until('the channel', () => taken.length === 1 && taken[0]!.channel!.queuedBytes === 128 * CELL_BYTES)
    peer.socket.write(cellsFrame(1, 1))
    await until('the end', () => taken[0]!.ends.length > 0)
    expect(taken[0]!.ends).toEqual(['violation'])
    expect(taken[0]!.count).toBe(0)
    expect(node.links.links.size).toBe(1)
    expect(node.meter.total).toBe(0)
    peer.socket.write(cellsFrame(3, 1))
    await until('another channel', () => taken.length === 2)

    function wrap(of: LinkNode, then: (recorder: Recorder) => void): LinkNode['acceptor'] {
      const inner = of.acceptor!
      return (channel) => {
        const ok = inner(channel)
        then(taken.at(-1)!)
        return ok
      }
    }
  })

  it('that grant without end lose the channel', async () => {
    const { node, taken } = await victim()
    const peer = await newLinkPeer(node.multiaddr)
    peer.socket.write(cellsFrame(1, 1))
    await until('the channel', () => taken.length === 1)
    for (let i = 0; i < 20; i++) peer.socket.write(frame(2, 65535, 1))
    await until('the end', () => taken[0]!.ends.length > 0)
    expect(taken[0]!.ends).toEqual(['violation'])
  })

  it('that open too many channels are refused each beyond the limit', async () => {
    const { node, taken } = await victim({ maxChannelsPerPeer: 5 })
    const peer = await newLinkPeer(node.multiaddr)
    const replies: Buffer[] = []
    peer.socket.on('data', (chunk) => replies.push(chunk))
    for (let id = 1; id < 40; id += 2) peer.socket.write(cellsFrame(id, 1))
    const resets = (): number => {
      const bytes = Buffer.concat(replies)
      let count = 0
      for (let at = 0; at < bytes.length; at += 8) if (bytes[at] === 4) count++
      return count
    }
    await until('the refusals', () => resets() === 15)
    expect(taken.length).toBe(5)
  })

  it('that ask and never read are cut off, with a bound on what waits for them', async () => {
    const { node } = await victim({ writeStallMs: 300 })
    const peer = await newLinkPeer(node.multiaddr)
    peer.socket.pause()
    const pings = Buffer.concat(Array.from({ length: 8000 }, (_, i) => frame(5, 0, i)))
    let over = false
    void peer.error.then(() => {
      over = true
    })
    for (let i = 0; i < 400 && !over; i++) {
      if (!peer.socket.write(pings)) await delay(1)
    }
    await until('the end', () => node.links.links.size === 0)
  })

  it('that close within a frame end that channel as a violation and the others as resets', async () => {
    const { taken } = await (async () => {
      const given = await victim()
      const peer = await newLinkPeer(given.node.multiaddr)
      peer.socket.write(Buffer.concat([cellsFrame(1, 1), cellsFrame(3, 1), cellsFrame(1, 2).subarray(0, 2000)]))
      await until('both', () => given.taken.length === 2)
      await delay(30)
      peer.socket.end()
      return given
    })()
    await until('the ends', () => taken.every((recorder) => recorder.ends.length > 0))
    const ends: ChannelEnd[] = taken.flatMap((recorder) => recorder.ends)
    expect(ends).toEqual(['violation', 'reset'])
  })
})

/** Passes bytes on to a port of this machine until it is told to stall: then it neither reads nor writes. */
async function stallingProxy(port: number): Promise<{ port: number; stall: () => void; stop: () => void }> {
  const sockets: net.Socket[] = []
  const server = net.createServer((inner) => {
    const outer = net.connect(port, '127.0.0.1')
    sockets.push(inner, outer)
    for (const socket of [inner, outer]) socket.on('error', () => {})
    inner.pipe(outer)
    outer.pipe(inner)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as net.AddressInfo).port,
    stall: () => {
      for (const socket of sockets) {
        socket.unpipe()
        socket.pause()
      }
    },
    stop: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
