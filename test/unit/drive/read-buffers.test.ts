import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { READ_BYTES, ReadBuffers, readInto } from '../../../src/drive/read-buffers.ts'

const open: { destroy(): void }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.destroy()
})

/** Both ends of a TCP connection. */
async function tcpPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const dialled = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [accepted] = (await once(server, 'connection')) as [Socket]
  server.close()
  open.push(dialled, accepted)
  return [dialled, accepted]
}

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 9)) & 0xff)

/** Reads until `length` bytes have come; gives each chunk back once it is copied, as those who pack cells do. */
function collect(stream: PassThrough | Socket, length: number): Promise<Buffer> {
  const buffers = new ReadBuffers()
  const chunks: Buffer[] = []
  let got = 0
  return new Promise((resolve) => {
    readInto(stream, buffers, (bytes) => {
      chunks.push(Buffer.from(bytes))
      buffers.release(bytes)
      got += bytes.length
      if (got >= length) resolve(Buffer.concat(chunks))
    })
  })
}

/** What `readInto` needs of Node that Node does not promise. */
const handleOf = (socket: Socket): { useUserBuffer: unknown } => (socket as unknown as { _handle: { useUserBuffer: unknown } })._handle

describe('reading a stream into buffers that are used again', () => {
  test('reads a plain socket without the data event', async () => {
    const [from, to] = await tcpPair()
    const bytes = pattern(1_000_000)
    const read = collect(to, bytes.length)
    expect(to.listenerCount('data')).toBe(0)
    from.write(bytes)
    expect((await read).equals(bytes)).toBe(true)
  })

  test('reads a socket whose handle takes no buffer of ours by the data event', async () => {
    const [from, to] = await tcpPair()
    handleOf(to).useUserBuffer = undefined
    const bytes = pattern(1_000_000)
    const read = collect(to, bytes.length)
    expect(to.listenerCount('data')).toBe(1)
    from.write(bytes)
    expect((await read).equals(bytes)).toBe(true)
  })

  test('reads any other stream by the data event, and pauses as usual', async () => {
    const stream = new PassThrough()
    open.push(stream)
    stream.write('before')
    const chunks: string[] = []
    readInto(stream, new ReadBuffers(), (bytes) => chunks.push(Buffer.from(bytes).toString()))
    await expect.poll(() => chunks.join('')).toBe('before')
    stream.pause()
    stream.write(' and after')
    await new Promise((resolve) => setImmediate(resolve))
    expect(chunks.join('')).toBe('before')
    stream.resume()
    await expect.poll(() => chunks.join('')).toBe('before and after')
  })

  test('keeps what was read before either way', async () => {
    for (const bare of [false, true]) {
      const [from, to] = await tcpPair()
      if (bare) handleOf(to).useUserBuffer = undefined
      from.write('early ')
      to.once('readable', () => {})
      await expect.poll(() => to.readableLength).toBe(6)
      const read = collect(to, 10)
      to.resume()
      from.write('late')
      expect((await read).toString()).toBe('early late')
    }
  })
})

describe('the buffers', () => {
  test('lend large reads memory that comes back, and small ones memory of their own', () => {
    const buffers = new ReadBuffers()
    const large = buffers.copy(pattern(40_000))
    expect(large.buffer.byteLength).toBe(READ_BYTES)
    buffers.release(large)
    expect(buffers.copy(pattern(30_000)).buffer).toBe(large.buffer)
    const small = buffers.copy(pattern(100))
    expect(small.buffer.byteLength).toBe(100)
  })

  test('take back only what they lent, and once', () => {
    const buffers = new ReadBuffers()
    buffers.release(new Uint8Array(READ_BYTES))
    const lent = buffers.copy(pattern(40_000))
    buffers.release(lent)
    buffers.release(lent)
    const [one, other] = [buffers.copy(pattern(40_000)), buffers.copy(pattern(40_000))]
    expect(one.buffer).not.toBe(other.buffer)
  })
})
