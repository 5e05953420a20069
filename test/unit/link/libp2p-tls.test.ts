import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import type { ConnectionEncrypter, MessageStream, PeerId, SecureConnectionOptions, StreamMuxerFactory } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { tls } from '@libp2p/tls'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { describe, expect, test } from 'vitest'
import { makeCertificate } from '../../../src/link/certificate.ts'
import { libp2pTls } from '../../../src/link/libp2p-tls.ts'

const muxer = { protocol: '/yamux/1.0.0' } as StreamMuxerFactory
const upgrader = { getStreamMuxers: () => new Map([[muxer.protocol, muxer]]) }

interface Side {
  readonly peer: PeerId
  readonly encrypter: ConnectionEncrypter
}

async function side(kind: 'ours' | 'library', fill: number): Promise<Side> {
  const seed = new Uint8Array(32).fill(fill)
  const privateKey = await generateKeyPairFromSeed('Ed25519', seed)
  const encrypter =
    kind === 'ours'
      ? libp2pTls(makeCertificate(seed, Date.now()))({ upgrader })
      : tls()({ privateKey, upgrader, logger: { forComponent: () => multiaddrConnectionPair()[0].log } } as never)
  return { peer: peerIdFromPrivateKey(privateKey), encrypter }
}

const kinds = [
  ['ours', 'ours'],
  ['ours', 'library'],
  ['library', 'ours'],
] as const

/** Both ends of a connection of which the first dials. */
async function secured(dialing: Side, accepting: Side, options: SecureConnectionOptions = {}, inbound: SecureConnectionOptions = {}) {
  const [outer, inner] = multiaddrConnectionPair()
  const [out, into] = await Promise.all([
    dialing.encrypter.secureOutbound(outer, { remotePeer: accepting.peer, ...options }),
    accepting.encrypter.secureInbound(inner, inbound),
  ])
  return { out, into, outer, inner }
}

async function received(stream: MessageStream, length: number): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let got = 0
  return new Promise((resolve, reject) => {
    stream.addEventListener('close', () => reject(new Error(`closed after ${got} of ${length} bytes`)))
    stream.addEventListener('message', ({ data }) => {
      const bytes = data.subarray()
      chunks.push(bytes)
      got += bytes.length
      if (got >= length) resolve(Buffer.concat(chunks))
    })
  })
}

async function send(stream: MessageStream, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; at += 50_000) if (!stream.send(bytes.subarray(at, at + 50_000))) await stream.onDrain()
}

const closed = (stream: MessageStream): Promise<Error | undefined> =>
  new Promise((resolve) => stream.addEventListener('close', ({ error }) => resolve(error), { once: true }))

describe.each(kinds)('TLS of a libp2p connection, %s dialling %s', (dialing, accepting) => {
  test('proves both identities and chooses the muxer in the handshake', async () => {
    const [a, b] = [await side(dialing, 1), await side(accepting, 2)]
    const { out, into } = await secured(a, b)
    expect(out.remotePeer.equals(b.peer)).toBe(true)
    expect(into.remotePeer.equals(a.peer)).toBe(true)
    expect([out.streamMuxer, into.streamMuxer]).toEqual([muxer, muxer])
  })

  test('chooses no muxer where none is to be chosen', async () => {
    const [a, b] = [await side(dialing, 1), await side(accepting, 2)]
    const { out } = await secured(a, b, { skipStreamMuxerNegotiation: true }, { skipStreamMuxerNegotiation: true })
    expect(out.streamMuxer).toBeUndefined()
  })

  test('carries a megabyte each way, unchanged and in order', async () => {
    const { out, into } = await secured(await side(dialing, 1), await side(accepting, 2))
    const bytes = Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff)
    const [there, back] = [received(into.connection, bytes.length), received(out.connection, bytes.length)]
    await Promise.all([send(out.connection, bytes), send(into.connection, bytes)])
    expect((await there).equals(bytes)).toBe(true)
    expect((await back).equals(bytes)).toBe(true)
  })

  test('refuses a peer that is somebody else', async () => {
    const [a, b, c] = [await side(dialing, 1), await side(accepting, 2), await side('ours', 3)]
    const [outer, inner] = multiaddrConnectionPair()
    const over = closed(outer)
    const accepted = b.encrypter.secureInbound(inner).catch(() => {})
    await expect(a.encrypter.secureOutbound(outer, { remotePeer: c.peer })).rejects.toThrow()
    expect(await over).toBeInstanceOf(Error)
    await accepted
  })

  test('a close at one end is a close at the other, after what was sent before it', async () => {
    const { out, into } = await secured(await side(dialing, 1), await side(accepting, 2))
    const bytes = new Uint8Array(100_000).fill(7)
    const there = received(into.connection, bytes.length)
    const over = closed(into.connection)
    await send(out.connection, bytes)
    await out.connection.close()
    expect((await there).equals(bytes)).toBe(true)
    await over
    expect([out.connection.status, into.connection.status]).toEqual(['closed', 'closed'])
  })

  test('an abort at one end ends the other', async () => {
    const { out, into } = await secured(await side(dialing, 1), await side(accepting, 2))
    const over = closed(into.connection)
    out.connection.abort(new Error('enough'))
    await over
    expect(out.connection.status).toBe('aborted')
  })
})

describe('TLS of a libp2p connection', () => {
  test('pauses the connection below while its reader pauses, and loses nothing', async () => {
    const { out, into, inner } = await secured(await side('ours', 1), await side('ours', 2))
    into.connection.pause()
    const bytes = new Uint8Array(1_000_000).fill(9)
    const there = received(into.connection, bytes.length)
    await send(out.connection, bytes)
    await expect.poll(() => (inner as unknown as { readStatus: string }).readStatus).toBe('paused')
    into.connection.resume()
    expect((await there).equals(bytes)).toBe(true)
  })

  test('ends when its signal says so, and when it has said so before', async () => {
    const { encrypter } = await side('ours', 1)
    for (const early of [true, false]) {
      const [outer] = multiaddrConnectionPair()
      const ending = new AbortController()
      if (early) ending.abort(new Error('too slow'))
      const securing = encrypter.secureOutbound(outer, { signal: ending.signal })
      ending.abort(new Error('too slow'))
      await expect(securing).rejects.toThrow('too slow')
      expect(outer.status).toBe('aborted')
    }
  })

  test('ends when the connection ends within the handshake, or speaks no TLS', async () => {
    const { encrypter } = await side('ours', 1)
    const [outer, inner] = multiaddrConnectionPair()
    const securing = encrypter.secureOutbound(outer)
    inner.abort(new Error('gone'))
    await expect(securing).rejects.toThrow()

    const [speaking, listening] = multiaddrConnectionPair()
    const accepting = encrypter.secureInbound(listening)
    speaking.send(new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n'))
    await expect(accepting).rejects.toThrow()
    expect(listening.status).toBe('aborted')
  })
})
