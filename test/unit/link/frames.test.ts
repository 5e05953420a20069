import { describe, expect, it } from 'vitest'
import { MalformedError, SeededRandom } from '../../../src/base/index.ts'
import {
  encodeFrame,
  encodeMove,
  FrameDecoder,
  type FrameSink,
  FrameType,
  frameInPlace,
  MAX_FRAME_CELLS,
} from '../../../src/link/frames.ts'
import { CELL_BYTES, newBatch } from '../../../src/onion/index.ts'

/** Writes down what a decoder says; cells as their first byte. */
class Script implements FrameSink {
  readonly lines: string[] = []
  #bytes: number[] = []

  cellsFrame(channel: number, count: number): void {
    this.lines.push(`cells ${channel} ${count}`)
    this.#bytes = []
  }
  cellBytes(chunk: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; at++) this.#bytes.push(chunk[at]!)
  }
  cellsDone(): void {
    const cells: number[] = []
    for (let at = 0; at < this.#bytes.length; at += CELL_BYTES) cells.push(this.#bytes[at]!)
    this.lines.push(`done ${this.#bytes.length} [${cells.join(' ')}]`)
  }
  window(channel: number, cells: number): void {
    this.lines.push(`window ${channel} ${cells}`)
  }
  fin(channel: number): void {
    this.lines.push(`fin ${channel}`)
  }
  reset(channel: number, reason: number): void {
    this.lines.push(`reset ${channel} ${reason}`)
  }
  ping(nonce: number): void {
    this.lines.push(`ping ${nonce}`)
  }
  pong(nonce: number): void {
    this.lines.push(`pong ${nonce}`)
  }
  goAwayFrame(reason: number): void {
    this.lines.push(`goaway ${reason}`)
  }
  move(channel: number, token: Uint8Array): void {
    this.lines.push(`move ${channel} ${[...token]}`)
  }
  moved(channel: number): void {
    this.lines.push(`moved ${channel}`)
  }
}

function cells(channel: number, ...first: number[]): Buffer {
  const batch = newBatch(first.length)
  first.forEach((byte, i) => {
    batch.bytes[batch.start + i * CELL_BYTES] = byte
  })
  return frameInPlace(batch.bytes, batch.start, batch.count, channel)
}

const stream = Buffer.concat([
  encodeFrame(FrameType.ping, 0, 0xffff_ffff),
  cells(1, 10, 11, 12),
  encodeFrame(FrameType.window, 65_535, 0x8000_0001),
  cells(3, 20),
  encodeMove(
    5,
    Uint8Array.from({ length: 16 }, (_, i) => i),
  ),
  encodeFrame(FrameType.moved, 0, 6),
  encodeFrame(FrameType.fin, 0, 1),
  encodeFrame(FrameType.reset, 4, 3),
  encodeFrame(FrameType.pong, 0, 7),
  encodeFrame(FrameType.goAway, 2, 0),
])
const script = [
  'ping 4294967295',
  'cells 1 3',
  `done ${3 * CELL_BYTES} [10 11 12]`,
  'window 2147483649 65535',
  'cells 3 1',
  `done ${CELL_BYTES} [20]`,
  'move 5 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15',
  'moved 6',
  'fin 1',
  'reset 3 4',
  'pong 7',
  'goaway 2',
]

describe('frames of a link', () => {
  it('have the bytes of the specification', () => {
    expect(encodeFrame(FrameType.window, 0x1234, 0x89abcdef).toString('hex')).toBe('0200123489abcdef')
    const frame = cells(0x01020304, 0xaa, 0xbb)
    expect(frame.subarray(0, 9).toString('hex')).toBe('0100000201020304aa')
    expect(frame.length).toBe(8 + 2 * CELL_BYTES)
  })

  it('are read the same wherever the chunks are cut', () => {
    const seed = 42
    const random = new SeededRandom(seed)
    for (let round = 0; round < 300; round++) {
      const sink = new Script()
      const decoder = new FrameDecoder(sink)
      for (let at = 0; at < stream.length; ) {
        const size = 1 + random.int(round % 3 === 0 ? 9 : 3000)
        decoder.push(stream.subarray(at, at + size))
        at += size
      }
      expect(sink.lines, `seed ${seed} round ${round}`).toEqual(script)
      expect(decoder.isWithinFrame).toBe(false)
    }
  })

  it('know when the bytes end within one', () => {
    expect(encodeMove(0x01020304, new Uint8Array(16).fill(0xee)).toString('hex')).toBe(`0800000001020304${'ee'.repeat(16)}`)
    for (const length of [3, 8 + 8 + 100, 8 + 8 + 3 * CELL_BYTES + 2, 4 * 8 + 4 * CELL_BYTES + 8, 4 * 8 + 4 * CELL_BYTES + 8 + 15]) {
      const decoder = new FrameDecoder(new Script())
      decoder.push(stream.subarray(0, length))
      expect(decoder.isWithinFrame, String(length)).toBe(true)
    }
  })

  it.each([
    ['an unknown type', '0000000000000001'],
    ['another unknown type', '0a00000000000001'],
    ['a MOVE with a count', '0800000100000001'],
    ['a MOVE of channel 0', '0800000000000000'],
    ['a MOVED with a count', '0900000100000001'],
    ['a MOVED of channel 0', '0900000000000000'],
    ['flags', '0101000100000001'],
    ['no cells', '0100000000000001'],
    ['too many cells', `010000${(MAX_FRAME_CELLS + 1).toString(16)}00000001`],
    ['cells of channel 0', '0100000100000000'],
    ['a window of nothing', '0200000000000001'],
    ['a window of channel 0', '0200000100000000'],
    ['a FIN with a count', '0300000100000001'],
    ['a FIN of channel 0', '0300000000000000'],
    ['a RESET of channel 0', '0400000000000000'],
    ['a GOAWAY of a channel', '0700000000000001'],
  ])('refuse %s', (_, hex) => {
    expect(() => new FrameDecoder(new Script()).push(Buffer.from(hex, 'hex'))).toThrow(MalformedError)
  })
})
