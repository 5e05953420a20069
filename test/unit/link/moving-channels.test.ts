import { randomBytes } from 'node:crypto'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { makeCertificate } from '../../../src/link/certificate.ts'
import { encodeFrame, encodeMove, FrameType } from '../../../src/link/frames.ts'
import { createHost, type Host, MOVING_PROTOCOL } from '../../../src/link/index.ts'
import { relayTransport } from '../../../src/nat/relay/index.ts'
import { hello, numbered, plainBytes, Recorder, until } from '../../compliance/cell-channel.ts'
import { newLinkPeer } from '../../support/link-peer.ts'
import { type MovingHosts, moved, startMovingHosts } from '../../support/moving-hosts.ts'

const stops: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

async function start(...options: Parameters<typeof startMovingHosts>): Promise<MovingHosts> {
  const hosts = await startMovingHosts(...options)
  stops.push(hosts.stop)
  return hosts
}

interface Joined {
  readonly atA: Recorder
  readonly atB: Recorder
}

/** What b takes, in order. */
function taking(host: Host): Recorder[] {
  const taken: Recorder[] = []
  host.onChannel((channel) => {
    const recorder = new Recorder()
    recorder.channel = channel
    channel.attach(recorder)
    taken.push(recorder)
    return true
  })
  return taken
}

async function open(hosts: MovingHosts, taken: Recorder[], addresses = hosts.relayed): Promise<Joined> {
  const before = taken.length
  const channel = await hosts.a.dialer.openChannel(hosts.b.id, addresses, AbortSignal.timeout(5000))
  const atA = new Recorder()
  atA.channel = channel
  channel.attach(atA)
  channel.send(hello())
  await until('the channel', () => taken.length > before && taken.at(-1)!.hellos === 1)
  return { atA, atB: taken.at(-1)! }
}

/** Sends cells as room allows, until it is told to stop. */
function pour(recorder: Recorder): { sent: number; stop(): void } {
  const channel = recorder.channel!
  let isStopped = false
  const state = {
    sent: 0,
    stop() {
      isStopped = true
    },
  }
  const pump = (): void => {
    while (!isStopped && channel.room > 0) {
      const count = Math.min(channel.room, 17)
      channel.send(numbered(state.sent, count))
      state.sent += count
    }
  }
  recorder.onDrained = pump
  pump()
  return state
}

const kinds = (joined: Joined): string[] => [joined.atA, joined.atB].map((recorder) => recorder.channel!.kind)

describe('a channel through a relay', () => {
  it('proves who is at the other side, and is shown with its relay', async () => {
    const hosts = await start()
    const joined = await open(hosts, taking(hosts.b))
    expect(joined.atA.channel!.peer).toBe(hosts.b.id)
    expect(joined.atB.channel!.peer).toBe(hosts.a.id)
    const status = hosts.a.links().find((link) => link.peer === hosts.b.id)!
    expect(status).toMatchObject({ kind: 'libp2p', via: hosts.relay.host.id, origin: 'dialed', channels: 1 })
    expect(hosts.b.links().find((link) => link.peer === hosts.a.id)).toMatchObject({ via: hosts.relay.host.id, origin: 'accepted' })
    const stranger = await createHost({ key: randomBytes(32), mode: 'client' })
    stops.push(() => stranger.stop())
    const wrong = hosts.relayed[0]!.replace(hosts.b.id, stranger.id)
    await expect(hosts.a.dialer.openChannel(stranger.id, [wrong], AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'connect-failed',
    })
  })

  it('is opened directly where that can be, and through the relay when the direct address is dead', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const dead = ['/ip4/127.0.0.1/tcp/1/tls', '/ip4/127.0.0.1/tcp/1']
    expect(kinds(await open(hosts, taken, [...dead, ...hosts.relayed]))).toEqual(['libp2p', 'libp2p'])
    expect(kinds(await open(hosts, taken, [...hosts.relayed, ...hosts.b.addresses()]))).toEqual(['tls', 'tls'])
    // The link is there now: whatever the addresses.
    expect(kinds(await open(hosts, taken))).toEqual(['tls', 'tls'])
  })

  it('is opened through the second relay when the first one is dead, or does not know the peer', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const other = await createHost({ key: randomBytes(32), mode: 'server', listen: ['/ip4/127.0.0.1/tcp/0'] })
    stops.push(() => other.stop())
    const [good] = hosts.relayed
    const notARelay = `${other.addresses()[0]}/p2p/${other.id}/p2p-circuit/p2p/${hosts.b.id}`
    const dead = `/ip4/127.0.0.1/tcp/1/p2p/${other.id}/p2p-circuit`
    const at = performance.now()
    expect(kinds(await open(hosts, taken, [dead, notARelay, good!]))).toEqual(['libp2p', 'libp2p'])
    expect(performance.now() - at).toBeLessThan(4000)
  })

  it('may be opened by a client that may dial nobody else, relays included', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const client = await createHost({
      key: randomBytes(32),
      mode: 'client',
      transports: [relayTransport().factory],
      mayDial: (peer) => peer === null,
    })
    stops.push(() => client.stop())
    await expect(client.libp2p.dial(multiaddr(hosts.relayed[0]!))).rejects.toThrow()
    await client.dialer.openChannel(hosts.b.id, hosts.relayed, AbortSignal.timeout(5000)).then((channel) => {
      channel.attach(new Recorder())
      channel.send(hello())
    })
    await until('the channel', () => taken.length === 1)
  })
})

describe('a channel over an ordinary connection that the peer had dialled', () => {
  const dialBack = async ({ a, b }: MovingHosts): Promise<void> => {
    const address = a.addresses().find((text) => !text.endsWith('/tls'))!
    await b.libp2p.dial(multiaddr(`${address}/p2p/${a.id}`))
    await until('the connection at both ends', () => a.libp2p.getPeers().some((peer) => peer.toString() === b.id))
  }

  it('moves to a direct link when the peer is reached through relays; the peer is told that one is missing', async () => {
    const hosts = await start()
    await dialBack(hosts)
    const told: string[] = []
    const stop = hosts.b.onMovingChannel((peer) => told.push(peer))
    const taken = taking(hosts.b)
    const joined = await open(hosts, taken)
    expect(kinds(joined)).toEqual(['libp2p', 'libp2p'])
    expect(hosts.a.links().find(({ channels }) => channels === 1)).toMatchObject({ kind: 'libp2p', direction: 'inbound', via: null })
    expect(told).toEqual([hosts.a.id])
    const up = pour(joined.atA)
    await hosts.upgrade()
    await moved(joined.atA.channel!, joined.atB.channel!)
    up.stop()
    await until('all cells', () => joined.atB.count === up.sent)
    expect(kinds(await open(hosts, taken))).toEqual(['tls', 'tls'])
    // That one needs none.
    expect(told).toEqual([hosts.a.id])
    stop()
  })

  it('is one that stays when the peer can be dialled', async () => {
    const hosts = await start()
    await dialBack(hosts)
    const told: string[] = []
    hosts.b.onMovingChannel((peer) => told.push(peer))
    const addresses = ['/ip4/127.0.0.1/tcp/1/tls', ...hosts.b.addresses().filter((text) => !text.endsWith('/tls'))]
    expect(kinds(await open(hosts, taking(hosts.b), addresses))).toEqual(['libp2p', 'libp2p'])
    expect(told).toEqual([])
  })
})

describe('channels that move', () => {
  it('move under load in both directions, and the relay may go', async () => {
    const hosts = await start()
    const joined = await open(hosts, taking(hosts.b))
    const up = pour(joined.atA)
    const down = pour(joined.atB)
    await until('traffic', () => joined.atA.count > 200 && joined.atB.count > 200)
    expect(kinds(joined)).toEqual(['libp2p', 'libp2p'])
    await hosts.upgrade()
    await moved(joined.atA.channel!, joined.atB.channel!)
    const status = (): ReturnType<Host['links']> => [...hosts.a.links(), ...hosts.b.links()]
    await until('the streams to be gone on both sides', () => status().every((link) => link.kind === 'tls' || link.channels === 0))
    expect(hosts.a.directLink(hosts.b.id)).toMatchObject({ channels: 1 })
    const seen = joined.atA.count
    hosts.cutRelayed()
    await until('more traffic', () => joined.atA.count > seen + 1000)
    up.stop()
    down.stop()
    await until('all cells', () => joined.atB.count === up.sent && joined.atA.count === down.sent)
    expect([joined.atA.wrong, joined.atB.wrong]).toEqual([null, null])
    joined.atA.channel!.close()
    await until('the ends', () => joined.atA.ends.length + joined.atB.ends.length === 2)
    expect([joined.atA.ends, joined.atB.ends]).toEqual([['fin'], ['fin']])
    await until('the meters to be zero', () => hosts.a.meter.total + hosts.b.meter.total === 0)
  })

  it('move to an unlimited libp2p connection where there is no direct link, and on to that when there is', async () => {
    const hosts = await start()
    const joined = await open(hosts, taking(hosts.b))
    const up = pour(joined.atA)
    const down = pour(joined.atB)
    // As WebRTC would: a connection of libp2p's without a relay's limits.
    const { a, b } = hosts
    await a.libp2p.dial(multiaddr(`${b.addresses()[0]}/p2p/${b.id}`), { force: true } as never)
    const onRelay = (): number[] => [a, b].map((host) => host.links().find(({ via }) => via !== null)!.channels)
    const onLibp2p = (host: Host, peer: Host): number =>
      host.links().find((link) => link.kind === 'libp2p' && link.via === null && link.peer === peer.id)?.channels ?? 0
    await until('the channel to leave the relay', () => onRelay().every((channels) => channels === 0))
    expect([onLibp2p(a, b), onLibp2p(b, a), ...kinds(joined)]).toEqual([1, 1, 'libp2p', 'libp2p'])
    hosts.cutRelayed()
    await hosts.upgrade()
    await moved(joined.atA.channel!, joined.atB.channel!)
    await until('the streams to be gone', () => onLibp2p(a, b) + onLibp2p(b, a) === 0)
    up.stop()
    down.stop()
    await until('all cells', () => joined.atB.count === up.sent && joined.atA.count === down.sent)
    expect([joined.atA.wrong, joined.atB.wrong, joined.atA.ends, joined.atB.ends]).toEqual([null, null, [], []])
  })

  it('move all, many at a time', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const all: Joined[] = []
    for (let i = 0; i < 100; i++) all.push(await open(hosts, taken))
    const pours = all.map((joined) => pour(joined.atA))
    await hosts.upgrade()
    await moved(...all.flatMap((joined) => [joined.atA.channel!, joined.atB.channel!]))
    for (const one of pours) one.stop()
    await until('all cells', () => all.every((joined, i) => joined.atB.count === pours[i]!.sent))
    expect(all.every((joined) => joined.atB.wrong === null)).toBe(true)
    expect(all.every((joined) => joined.atA.ends.length === 0)).toBe(true)
  })

  it('outlive the byte limit of the relay, which ends those that have not moved', async () => {
    const hosts = await start({}, { connectionBytes: 3_000_000 })
    const taken = taking(hosts.b)
    const first = await open(hosts, taken)
    pour(first.atA)
    await until('the relay to end the connection', () => first.atA.ends.length + first.atB.ends.length === 2)
    expect([first.atA.ends, first.atB.ends, first.atB.wrong]).toEqual([['reset'], ['reset'], null])
    const second = await open(hosts, taken)
    await hosts.upgrade()
    await moved(second.atA.channel!, second.atB.channel!)
    const more = pour(second.atA)
    await until('more than the limit', () => second.atB.count > 5000)
    more.stop()
    await until('all of it', () => second.atB.count === more.sent)
  })

  it('move while the reader has paused, holding no more than they may', async () => {
    const hosts = await start()
    const joined = await open(hosts, taking(hosts.b))
    joined.atB.channel!.pause()
    const up = pour(joined.atA)
    await until('the sender to be held back', () => joined.atA.channel!.room === 0)
    await hosts.upgrade()
    await until('the opener to move', () => joined.atA.channel!.kind === 'tls')
    await until('the sender to be held back again', () => joined.atA.channel!.room === 0)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(joined.atB.count).toBe(0)
    expect(hosts.b.meter.total).toBeLessThan(6 * 1024 * 1024)
    joined.atB.channel!.resume()
    up.stop()
    await until('all cells', () => joined.atB.count === up.sent)
    expect(joined.atB.wrong).toBeNull()
  })

  it('come to no gap whatever is cut when', async () => {
    const seed = 7
    const random = new SeededRandom(seed)
    const hosts = await start()
    const taken = taking(hosts.b)
    const ends: Record<string, number> = {}
    for (let round = 0; round < 25; round++) {
      const joined = await open(hosts, taken)
      const up = pour(joined.atA)
      pour(joined.atB)
      const cut = random.int(3)
      void hosts.upgrade().catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, random.int(30)))
      if (cut === 0) hosts.cutRelayed()
      if (cut === 1) hosts.cutDirect()
      if (cut === 2) joined.atA.channel!.close()
      await new Promise((resolve) => setTimeout(resolve, random.int(30)))
      joined.atA.channel!.close()
      await until('both ends', () => joined.atA.ends.length === 1 && joined.atB.ends.length === 1)
      const what = `seed ${seed} round ${round}`
      expect([joined.atA.wrong, joined.atB.wrong], what).toEqual([null, null])
      const [end] = joined.atB.ends
      ends[end!] = (ends[end!] ?? 0) + 1
      if (end === 'fin') expect(joined.atB.count, what).toBe(up.sent)
      hosts.cutDirect()
      await until('the link to be gone', () => hosts.a.directLink(hosts.b.id) === null && hosts.b.directLink(hosts.a.id) === null)
    }
    // Both have been seen; a direct link that is cut within a cell ends its channel as a violation.
    expect(Object.keys(ends)).toEqual(expect.arrayContaining(['fin', 'reset']))
    await until('the meters to be zero', () => hosts.a.meter.total + hosts.b.meter.total === 0)
  }, 30_000)
})

describe('moving, with a peer that does not keep to the rules', () => {
  /** A bare stream that opens a channel, as a, to b. */
  async function bareStream(hosts: MovingHosts, token: Uint8Array, purpose = 0): Promise<Stream> {
    const connection = await hosts.a.libp2p.dial(multiaddr(hosts.relayed[0]!))
    const stream = await connection.newStream(MOVING_PROTOCOL, { runOnLimitedConnection: true })
    stream.addEventListener('message', () => {})
    stream.send(Buffer.concat([Uint8Array.of(purpose), token]))
    return stream
  }

  async function bareLink(hosts: MovingHosts, key: Uint8Array) {
    const peer = await newLinkPeer(hosts.b.addresses()[1]!, { certificate: makeCertificate(key, Date.now()) })
    const answers: string[] = []
    peer.socket.on('data', (data: Buffer) => {
      for (let at = 0; at + 8 <= data.length; at += 8) answers.push(data.subarray(at, at + 8).toString('hex'))
    })
    return { ...peer, answers }
  }

  const MOVED = (id: number): string => encodeFrame(FrameType.moved, 0, id).toString('hex')
  const REFUSED = (id: number): string => encodeFrame(FrameType.reset, 1, id).toString('hex')

  it('takes a channel only by its token, from the peer that opened it, and once', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const token = randomBytes(16)
    const stream = await bareStream(hosts, token)
    stream.send(plainBytes(hello()))
    await until('the channel', () => taken.length === 1 && taken[0]!.hellos === 1)
    const stranger = await bareLink(hosts, randomBytes(32))
    stranger.socket.write(encodeMove(1, token))
    await until('the stranger to be refused', () => stranger.answers.includes(REFUSED(1)))
    const own = await bareLink(hosts, hosts.keyOfA)
    own.socket.write(Buffer.concat([encodeMove(1, randomBytes(16)), encodeMove(3, token), encodeMove(5, token)]))
    await until('the answers', () => own.answers.includes(REFUSED(5)))
    expect(own.answers).toContain(REFUSED(1))
    expect(own.answers).toContain(MOVED(3))
    // Not before the end of the old way has come: what is sent on the new one waits.
    own.socket.write(cellsFrame(3, 0, 3))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(taken[0]!.count).toBe(0)
    await stream.close()
    await until('the cells', () => taken[0]!.count === 3)
    // Nor a second time, to what is no better.
    own.socket.write(encodeMove(7, token))
    await until('the refusal', () => own.answers.includes(REFUSED(7)))
    own.socket.write(encodeFrame(FrameType.fin, 0, 3))
    await until('the end', () => taken[0]!.ends.length === 1)
    expect(taken[0]).toMatchObject({ ends: ['fin'], wrong: null })
    own.socket.destroy()
    stranger.socket.destroy()
  })

  it('resets a channel whose new way is lost while the old one goes on', async () => {
    const hosts = await start()
    const taken = taking(hosts.b)
    const token = randomBytes(16)
    const stream = await bareStream(hosts, token)
    stream.send(plainBytes(hello()))
    await until('the channel', () => taken.length === 1)
    const own = await bareLink(hosts, hosts.keyOfA)
    own.socket.write(encodeMove(1, token))
    await until('the answer', () => own.answers.includes(MOVED(1)))
    own.socket.destroy()
    await until('the end', () => taken[0]!.ends.length === 1)
    expect(taken[0]!.ends).toEqual(['reset'])
    await until('the old stream to be reset', () => stream.status === 'reset')
  })

  it('refuses a token that is in use, an unknown purpose, and a stream without a preamble', async () => {
    const hosts = await start({ handshakeTimeoutMs: 300 })
    const taken = taking(hosts.b)
    const token = randomBytes(16)
    await bareStream(hosts, token)
    await until('the channel', () => taken.length === 1)
    const again = await bareStream(hosts, token)
    const unknown = await bareStream(hosts, randomBytes(16), 2)
    const silent = await bareStream(hosts, new Uint8Array(3))
    const nothing = await bareStream(hosts, randomBytes(16), 1)
    await until('the refusals', () => [again, unknown, silent, nothing].every((stream) => stream.status === 'reset'))
    expect(taken.length).toBe(1)
  })

  it('ends a link that breaks the rules of moving', async () => {
    const hosts = await start()
    taking(hosts.b)
    const bad: [string, Uint8Array][] = [
      ['MOVE of an id that was used', Buffer.concat([encodeMove(1, randomBytes(16)), encodeMove(1, randomBytes(16))])],
      ['MOVE of an id that is not the sender’s', encodeMove(2, randomBytes(16))],
      ['MOVED without MOVE', Buffer.concat([cellsFrame(1, 0, 1), encodeFrame(FrameType.moved, 0, 1)])],
      ['MOVED of nothing', encodeFrame(FrameType.moved, 0, 9)],
    ]
    for (const [what, bytes] of bad) {
      const peer = await bareLink(hosts, randomBytes(32))
      peer.socket.write(bytes)
      await peer.error
      expect(peer.answers.includes(encodeFrame(FrameType.goAway, 2, 0).toString('hex')), what).toBe(true)
    }
  })

  it('stays on the relay with a peer that knows nothing of moving', async () => {
    const hosts = await start()
    await hosts.b.libp2p.unhandle(MOVING_PROTOCOL)
    const taken = taking(hosts.b)
    const joined = await open(hosts, taken)
    await hosts.upgrade()
    joined.atA.channel!.send(numbered(0, 10))
    await until('the cells', () => joined.atB.count === 10)
    expect(kinds(joined)).toEqual(['libp2p', 'libp2p'])
  })
})

/** A CELLS frame of numbered cells. */
function cellsFrame(id: number, from: number, count: number): Buffer {
  const cells = plainBytes(numbered(from, count))
  const header = Buffer.alloc(8)
  header[0] = 1
  header.writeUInt16BE(count, 2)
  header.writeUInt32BE(id, 4)
  return Buffer.concat([header, cells])
}
