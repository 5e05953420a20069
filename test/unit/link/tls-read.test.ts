import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { connect, createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import { makeCertificate } from '../../../src/link/certificate.ts'
import { readTls } from '../../../src/link/tls-read.ts'

const open: { destroy(): void }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.destroy()
})

const { keyPem: key, certificatePem: cert } = makeCertificate(new Uint8Array(32).fill(5), Date.now())
const pattern = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 9)) & 0xff))

/** Both ends of a TLS connection, handshake done, nothing read yet: the dialling one and the accepted one. */
async function tlsPair(): Promise<[TLSSocket, TLSSocket]> {
  const tls = createTlsServer({ key, cert })
  const server = createServer((socket) => void tls.emit('connection', socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const dialled = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', rejectUnauthorized: false })
  const [[accepted]] = (await Promise.all([once(tls, 'secureConnection'), once(dialled, 'secureConnect')])) as [[TLSSocket], unknown]
  server.close()
  open.push(dialled, accepted)
  return [dialled, accepted]
}

/** What `readTls` needs of Node that Node does not promise: the two ways it can be missing. */
const missing: Record<string, (socket: TLSSocket) => void> = {
  'a handle that takes no buffer': (socket) => {
    ;(socket as unknown as { _handle: { useUserBuffer: unknown } })._handle.useUserBuffer = undefined
  },
  'a socket without the field': (socket) => {
    const symbol = Object.getOwnPropertySymbols(socket).find((one) => one.description === 'kBufferCb')!
    Reflect.deleteProperty(socket, symbol)
  },
}

function collect(socket: TLSSocket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let got = 0
  return new Promise((resolve) => {
    readTls(socket, (chunk) => {
      chunks.push(Buffer.from(chunk))
      got += chunk.length
      if (got >= length) resolve(Buffer.concat(chunks))
    })
  })
}

describe('reading a TLS socket', () => {
  test('needs no data event on this version of Node, at either end', async () => {
    const bytes = pattern(500_000)
    for (const at of [0, 1] as const) {
      const pair = await tlsPair()
      const read = collect(pair[at], bytes.length)
      expect(pair[at].listenerCount('data')).toBe(0)
      pair[1 - at]!.write(bytes)
      expect((await read).equals(bytes)).toBe(true)
    }
  })

  for (const [what, takeAway] of Object.entries(missing)) {
    test(`goes by the data event with ${what}, and reads the same`, async () => {
      const bytes = pattern(500_000)
      for (const at of [0, 1] as const) {
        const pair = await tlsPair()
        takeAway(pair[at])
        const read = collect(pair[at], bytes.length)
        expect(pair[at].listenerCount('data')).toBe(1)
        pair[1 - at]!.write(bytes)
        expect((await read).equals(bytes)).toBe(true)
      }
    })
  }

  test('keeps what had come before it was read, either way', async () => {
    for (const bare of [false, true]) {
      const [dialled, accepted] = await tlsPair()
      if (bare) missing['a handle that takes no buffer']!(accepted)
      dialled.write('early ')
      accepted.once('readable', () => {})
      await expect.poll(() => accepted.readableLength).toBe(6)
      const read = collect(accepted, 10)
      accepted.resume()
      dialled.write('late')
      expect((await read).toString()).toBe('early late')
    }
  })
})
