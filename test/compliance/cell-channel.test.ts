import { randomBytes } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import type { NodeId } from '../../src/base/index.ts'
import { makeCertificate } from '../../src/link/certificate.ts'
import { encodeFrame, encodeMove, FrameType } from '../../src/link/frames.ts'
import {
  ByteMeter,
  type CellChannel,
  type CellChannelHandlers,
  CIRCUIT_PROTOCOL,
  createHost,
  defaultLinkLimits,
  type Host,
  type LinkLimits,
  MOVING_PROTOCOL,
  memoryChannelPair,
} from '../../src/link/index.ts'
import { CELL_BYTES } from '../../src/onion/index.ts'
import { newLinkPeer } from '../support/link-peer.ts'
import { moved, startMovingHosts } from '../support/moving-hosts.ts'
import { type ChannelHarness, cellChannelCompliance, hello, plainBytes } from './cell-channel.ts'

const closeTimeoutMs = 500
const limits: LinkLimits = { ...defaultLinkLimits, closeTimeoutMs }

cellChannelCompliance('memory', async () => {
  const meters = [new ByteMeter(), new ByteMeter()] as const
  const peers = [id(), id()] as const
  return {
    meters,
    mostHeldBytes: (128 + 42) * CELL_BYTES * 3,
    closeTimeoutMs,
    async connect(atA, atB) {
      const [a, b] = memoryChannelPair({ peers, meters, closeTimeoutMs })
      a.attach(atA)
      b.attach(atB)
      a.send(hello())
      return { a, b }
    },
    async truncate(atB) {
      const [a, b] = memoryChannelPair({ peers, meters })
      a.attach({ cells() {}, drained() {}, ended() {} })
      b.attach(atB)
      a.send(hello())
      await new Promise((resolve) => setTimeout(resolve, 20))
      b.violate()
    },
    async stop() {},
  }
})

cellChannelCompliance('direct TLS link', () =>
  hosts(true, async (a, b, handlers) => {
    const peer = await newLinkPeer(b.addresses()[1]!)
    handlers.next = handlers.attach
    const cell = plainBytes(hello())
    // A frame of two cells, of which one and a half come.
    peer.socket.write(Buffer.concat([Uint8Array.of(1, 0, 0, 2, 0, 0, 0, 1), cell, cell.subarray(0, 700)]))
    await handlers.accepted
    await new Promise((resolve) => setTimeout(resolve, 30))
    peer.socket.end()
    void a
  }),
)

cellChannelCompliance('libp2p stream', () =>
  hosts(false, async (a, b, handlers) => {
    handlers.next = handlers.attach
    const connection = await a.libp2p.dial(multiaddr(`${b.addresses()[0]}/p2p/${b.id}`))
    const stream = await connection.newStream(CIRCUIT_PROTOCOL)
    const cell = plainBytes(hello())
    stream.send(Buffer.concat([cell, cell.subarray(0, 700)]))
    await handlers.accepted
    await stream.close()
  }),
)

cellChannelCompliance('relayed stream that may move', () => moving('stays'))
cellChannelCompliance('relayed stream that moved to a direct link', () => moving('has moved'))
cellChannelCompliance('relayed stream that moves to a direct link while in use', () => moving('is moving'))

/** A channel through a relay that stays there, has moved when the test begins, or moves while it runs. */
async function moving(when: 'stays' | 'has moved' | 'is moving'): Promise<ChannelHarness> {
  const { a, keyOfA, b, relayed, upgrade, stop } = await startMovingHosts({ closeTimeoutMs })
  let next: ((channel: CellChannel) => void) | null = null
  b.onChannel((channel) => {
    next?.(channel)
    return next !== null
  })
  const accept = (atB: CellChannelHandlers): Promise<CellChannel> =>
    new Promise((resolve) => {
      next = (channel) => {
        channel.attach(atB)
        resolve(channel)
      }
    })
  return {
    meters: [a.meter, b.meter],
    mostHeldBytes: 10 * 1024 * 1024,
    closeTimeoutMs,
    async connect(atA, atB) {
      const accepted = accept(atB)
      const channel = await a.dialer.openChannel(b.id, relayed, AbortSignal.timeout(10_000))
      channel.attach(atA)
      channel.send(hello())
      if (when === 'is moving') void upgrade()
      const taken = await accepted
      if (when === 'has moved') {
        await upgrade()
        await moved(channel, taken)
      }
      return { a: channel, b: taken }
    },
    async truncate(atB) {
      const accepted = accept(atB)
      const connection = await a.libp2p.dial(multiaddr(relayed[0]!))
      const stream = await connection.newStream(MOVING_PROTOCOL, { runOnLimitedConnection: true })
      const token = randomBytes(16)
      const cell = plainBytes(hello())
      stream.send(Buffer.concat([Uint8Array.of(0), token]))
      if (when === 'stays') {
        stream.send(Buffer.concat([cell, cell.subarray(0, 700)]))
        await accepted
        await stream.close()
        return
      }
      stream.send(cell)
      await accepted
      // A bare direct link under the opener's identity, on which the channel goes on.
      const peer = await newLinkPeer(b.addresses()[1]!, { certificate: makeCertificate(keyOfA, Date.now()) })
      const answer = new Promise<void>((resolve) => {
        peer.socket.on('data', (data: Buffer) => {
          if (data.includes(Buffer.from('0900000000000001', 'hex'))) resolve()
        })
      })
      peer.socket.write(Buffer.concat([encodeMove(1, token), encodeFrame(FrameType.window, 1, 1)]))
      await answer
      await stream.close()
      // A frame of one cell, of which a part comes.
      peer.socket.write(Buffer.concat([Uint8Array.of(1, 0, 0, 1, 0, 0, 0, 1), cell.subarray(0, 700)]))
      await new Promise((resolve) => setTimeout(resolve, 50))
      peer.socket.end()
    },
    stop,
  }
}

interface Accepting {
  attach: (channel: CellChannel) => void
  next: ((channel: CellChannel) => void) | null
  readonly accepted: Promise<void>
}

/** Two hosts joined by one kind of channel. */
async function hosts(isDirect: boolean, cutShort: (a: Host, b: Host, accepting: Accepting) => Promise<void>): Promise<ChannelHarness> {
  const a = await createHost({ key: randomBytes(32), mode: 'client', limits })
  const b = await createHost({ key: randomBytes(32), mode: 'server', listen: ['/ip4/127.0.0.1/tcp/0'], limits })
  const addresses = b.addresses().filter((address) => address.endsWith('/tls') === isDirect)
  let next: ((channel: CellChannel) => void) | null = null
  b.onChannel((channel) => {
    if (next === null) return false
    next(channel)
    return true
  })
  return {
    meters: [a.meter, b.meter],
    // The window of the receiver (as far as it has grown), the stream's or socket's buffers, and the sender's queue.
    mostHeldBytes: 10 * 1024 * 1024,
    closeTimeoutMs,
    async connect(atA, atB) {
      const accepted = Promise.withResolvers<CellChannel>()
      next = (channel) => {
        channel.attach(atB)
        accepted.resolve(channel)
      }
      const channel = await a.dialer.openChannel(b.id, addresses, AbortSignal.timeout(10_000))
      channel.attach(atA)
      channel.send(hello())
      return { a: channel, b: await accepted.promise }
    },
    async truncate(atB: CellChannelHandlers) {
      const accepted = Promise.withResolvers<void>()
      const accepting: Accepting = {
        attach: (channel) => {
          channel.attach(atB)
          accepted.resolve()
        },
        get next() {
          return next
        },
        set next(value) {
          next = value
        },
        accepted: accepted.promise,
      }
      await cutShort(a, b, accepting)
    },
    async stop() {
      await a.stop()
      await b.stop()
    },
  }
}

function id(): NodeId {
  return `12D3KooW${randomBytes(8).toString('hex')}` as NodeId
}
