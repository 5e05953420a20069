import { describe, expect, it } from 'vitest'
import { concatBytes, MalformedError, SeededRandom } from '../../../src/base/index.ts'
import { FrameReader, frameMessage } from '../../../src/dns/index.ts'

describe('messages on a byte stream', () => {
  it('come out as they went in, however the stream is cut', () => {
    const seed = Date.now() % 1_000_000
    const random = new SeededRandom(seed)
    const messages = [12, 12, 13, 511, 512, 513, 5000, 65_535, 12].map((length) => random.bytes(length))
    const stream = concatBytes(...messages.map(frameMessage))
    for (const most of [1, 3, 700, 100_000]) {
      const reader = new FrameReader()
      const out: Uint8Array[] = []
      for (let at = 0; at < stream.length; ) {
        const length = 1 + random.int(most)
        const chunk = stream.slice(at, at + length)
        out.push(...reader.push(chunk))
        chunk.fill(0) // borrowed
        at += length
      }
      expect(reader.within).toBe(false)
      expect(out.length, `seed ${seed}`).toBe(messages.length)
      for (const [i, message] of messages.entries()) expect(Buffer.compare(out[i]!, message), `seed ${seed}`).toBe(0)
    }
  })

  it('are refused when they are shorter than a header or longer than wanted, before they are waited for', () => {
    expect(() => new FrameReader().push(Uint8Array.of(0, 11))).toThrow(MalformedError)
    expect(() => new FrameReader().push(Uint8Array.of(0, 0))).toThrow(MalformedError)
    expect(() => new FrameReader(4096).push(Uint8Array.of(0x10, 1))).toThrow(MalformedError)
    expect(new FrameReader(4096).push(Uint8Array.of(0x10, 0))).toEqual([])
  })

  it('say whether one is cut', () => {
    const reader = new FrameReader()
    reader.push(Uint8Array.of(0))
    expect(reader.within).toBe(true)
    expect(reader.push(concatBytes(Uint8Array.of(12), new Uint8Array(12)))).toHaveLength(1)
    expect(reader.within).toBe(false)
  })
})
