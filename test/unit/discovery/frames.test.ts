import type { Stream } from '@libp2p/interface'
import { describe, expect, test } from 'vitest'
import { MalformedError } from '../../../src/base/index.ts'
import { FrameStream } from '../../../src/discovery/frames.ts'

/** A stream whose peer is the test. */
class FakeStream extends EventTarget {
  status = 'open'
  writableNeedsDrain = false
  paused = false
  aborted = false
  readonly sent: Uint8Array[] = []

  send(bytes: Uint8Array): boolean {
    this.sent.push(bytes)
    return !this.writableNeedsDrain
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }

  async close(): Promise<void> {
    this.status = 'closed'
  }

  abort(): void {
    this.aborted = true
    this.status = 'aborted'
  }

  receive(bytes: Uint8Array): void {
    this.dispatchEvent(Object.assign(new Event('message'), { data: bytes }))
  }

  end(error?: Error): void {
    this.dispatchEvent(error ? Object.assign(new Event('close'), { error }) : new Event('end'))
  }
}

function made(frameMax = 100): { stream: FakeStream; frames: FrameStream } {
  const stream = new FakeStream()
  return { stream, frames: new FrameStream(stream as unknown as Stream, frameMax) }
}

function frame(...bytes: number[]): Uint8Array {
  return Uint8Array.of(0, 0, 0, bytes.length, ...bytes)
}

const signal = new AbortController().signal

describe('frames of a stream', () => {
  test('are the same however they were cut up on the way', async () => {
    const { stream, frames } = made()
    const all = Buffer.concat([frame(1, 2, 3), frame(), frame(4)])
    const read = (async () => [
      await frames.read(signal),
      await frames.read(signal),
      await frames.read(signal),
      await frames.read(signal),
    ])()
    for (const byte of all) {
      stream.receive(Uint8Array.of(byte))
      await Promise.resolve()
    }
    stream.end()
    expect((await read).map((bytes) => bytes && [...bytes])).toEqual([[1, 2, 3], [], [4], null])
  })

  test('are read after the peer has ended', async () => {
    const { stream, frames } = made()
    stream.receive(frame(1))
    stream.end()
    expect([...(await frames.read(signal))!]).toEqual([1])
    expect(await frames.read(signal)).toBeNull()
  })

  test('that are too long, or cut short, are refused', async () => {
    const long = made(10)
    long.stream.receive(Uint8Array.of(0, 0, 0, 11))
    await expect(long.frames.read(signal)).rejects.toThrow(MalformedError)
    const short = made()
    short.stream.receive(Uint8Array.of(0, 0, 0, 11, 1))
    short.stream.end()
    await expect(short.frames.read(signal)).rejects.toThrow('cut short')
  })

  test('hold the peer back while nobody reads, and let it go on when somebody does', async () => {
    const { stream, frames } = made(10)
    stream.receive(frame(1, 2, 3, 4, 5))
    expect(stream.paused).toBe(false)
    stream.receive(frame(6, 7, 8, 9, 10))
    expect(stream.paused).toBe(true)
    await frames.read(signal)
    await frames.read(signal)
    void frames.read(AbortSignal.timeout(1_000)).catch(() => {})
    expect(stream.paused).toBe(false)
  })

  test('end with the reason when the stream is lost, and with the signal', async () => {
    const { stream, frames } = made()
    const lost = frames.read(signal)
    stream.end(new Error('reset'))
    await expect(lost).rejects.toMatchObject({ code: 'stream-lost' })
    const controller = new AbortController()
    const waiting = made().frames.read(controller.signal)
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
  })

  test('are sent with their length, and not after the end', async () => {
    const { stream, frames } = made()
    expect(frames.send(Uint8Array.of(7, 8))).toBe(true)
    expect([...stream.sent[0]!]).toEqual([0, 0, 0, 2, 7, 8])
    stream.writableNeedsDrain = true
    expect(frames.isWritable).toBe(false)
    const writable = frames.writable(signal)
    stream.writableNeedsDrain = false
    stream.dispatchEvent(new Event('drain'))
    await writable
    frames.close()
    expect(frames.send(Uint8Array.of(1))).toBe(false)
    expect(stream.sent).toHaveLength(1)
  })
})
