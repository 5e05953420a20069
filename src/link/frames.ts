import { MalformedError } from '../base/index.ts'
import { BATCH_HEADROOM, CELL_BYTES } from '../onion/index.ts'

/**
 * Frames of a direct link. docs/spec/link.md §3
 *
 *   0      type u8
 *   1      flags u8, zero
 *   2..3   count u16
 *   4..7   channel u32
 *   8..    CELLS: count cells; MOVE: a token of 16 bytes
 */
export const FRAME_HEADER_BYTES = 8
/** The most cells of a CELLS frame: with its header just under 64 KiB. */
export const MAX_FRAME_CELLS = 42
/** Credit of either side of a new channel, in cells. */
export const INITIAL_WINDOW_CELLS = 128
/** Credit a channel may hold at most; more is a violation. */
export const MAX_CREDIT_CELLS = 1 << 20

export const FrameType = { cells: 1, window: 2, fin: 3, reset: 4, ping: 5, pong: 6, goAway: 7, move: 8, moved: 9 } as const

/** What names a channel that moves: drawn at random by its opener. */
export const TOKEN_BYTES = 16

/** Why a channel was reset. For people: nothing depends on it. */
export const ResetReason = { aborted: 0, refused: 1, limit: 2, violation: 3, timeout: 4 } as const
/** Why no more channels are wanted on a link. */
export const GoAwayReason = { idle: 0, stopping: 1, violation: 2, limit: 3 } as const

export interface FrameSink {
  /** A CELLS frame begins; its bytes follow by `cellBytes`. */
  cellsFrame(channel: number, count: number): void
  /** The next bytes of the CELLS frame, `[from, to)` of a chunk; borrowed for the call. */
  cellBytes(chunk: Uint8Array, from: number, to: number): void
  /** The bytes of the CELLS frame are complete. */
  cellsDone(): void
  window(channel: number, cells: number): void
  fin(channel: number): void
  reset(channel: number, reason: number): void
  ping(nonce: number): void
  pong(nonce: number): void
  goAwayFrame(reason: number): void
  /** @param token TOKEN_BYTES, borrowed for the call */
  move(channel: number, token: Uint8Array): void
  moved(channel: number): void
}

/** Takes a link's bytes apart, chunk by chunk, without copying cells. */
export class FrameDecoder {
  readonly #sink: FrameSink
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES)
  readonly #token = new Uint8Array(TOKEN_BYTES)
  #have = 0
  #left = 0
  /** The channel of a MOVE whose token is coming in, and how much of that is there. */
  #moving = 0
  #haveToken = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Whether the bytes so far end within a frame. */
  get isWithinFrame(): boolean {
    return this.#have > 0 || this.#left > 0 || this.#moving !== 0
  }

  /** @throws MalformedError: the link can't go on */
  push(chunk: Uint8Array): void {
    const end = chunk.length
    let at = 0
    while (at < end) {
      if (this.#left > 0) {
        const to = Math.min(end, at + this.#left)
        this.#left -= to - at
        this.#sink.cellBytes(chunk, at, to)
        if (this.#left === 0) this.#sink.cellsDone()
        at = to
      } else if (this.#moving !== 0) {
        const to = Math.min(end, at + TOKEN_BYTES - this.#haveToken)
        this.#token.set(chunk.subarray(at, to), this.#haveToken)
        this.#haveToken += to - at
        at = to
        if (this.#haveToken === TOKEN_BYTES) this.#moveDone()
      } else if (this.#have === 0 && end - at >= FRAME_HEADER_BYTES) {
        this.#frame(chunk, at)
        at += FRAME_HEADER_BYTES
      } else {
        this.#header[this.#have++] = chunk[at++]!
        if (this.#have === FRAME_HEADER_BYTES) {
          this.#have = 0
          this.#frame(this.#header, 0)
        }
      }
    }
  }

  #moveDone(): void {
    const channel = this.#moving
    this.#moving = 0
    this.#sink.move(channel, this.#token)
  }

  #frame(bytes: Uint8Array, at: number): void {
    const type = bytes[at]!
    const count = (bytes[at + 2]! << 8) | bytes[at + 3]!
    const channel = ((bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!) >>> 0
    if (bytes[at + 1] !== 0) throw malformed('flags are not zero')
    switch (type) {
      case FrameType.cells:
        if (count === 0 || count > MAX_FRAME_CELLS) throw malformed(`CELLS count is not 1 to ${MAX_FRAME_CELLS}`)
        named(channel)
        this.#left = count * CELL_BYTES
        this.#sink.cellsFrame(channel, count)
        return
      case FrameType.window:
        if (count === 0) throw malformed('WINDOW grants nothing')
        this.#sink.window(named(channel), count)
        return
      case FrameType.fin:
        if (count !== 0) throw malformed('FIN has a count')
        this.#sink.fin(named(channel))
        return
      case FrameType.reset:
        this.#sink.reset(named(channel), count)
        return
      case FrameType.ping:
        this.#sink.ping(channel)
        return
      case FrameType.pong:
        this.#sink.pong(channel)
        return
      case FrameType.goAway:
        if (channel !== 0) throw malformed('GOAWAY names a channel')
        this.#sink.goAwayFrame(count)
        return
      case FrameType.move:
        if (count !== 0) throw malformed('MOVE has a count')
        this.#moving = named(channel)
        this.#haveToken = 0
        return
      case FrameType.moved:
        if (count !== 0) throw malformed('MOVED has a count')
        this.#sink.moved(named(channel))
        return
      default:
        throw malformed('unknown type')
    }
  }
}

function named(channel: number): number {
  if (channel === 0) throw malformed('channel 0')
  return channel
}

function malformed(problem: string): MalformedError {
  return new MalformedError('link frame', problem)
}

/** MOVE: 24 bytes. */
export function encodeMove(channel: number, token: Uint8Array): Buffer {
  return Buffer.concat([encodeFrame(FrameType.move, 0, channel), token])
}

/** A frame without cells: 8 bytes. */
export function encodeFrame(type: number, count: number, channel: number): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  putHeader(bytes, 0, type, count, channel)
  return bytes
}

/** Writes a CELLS header right before the cells at `start`, into headroom that nobody else reads; returns header and cells as one view. */
export function frameInPlace(bytes: Uint8Array, start: number, count: number, channel: number): Buffer {
  const at = start - FRAME_HEADER_BYTES
  putHeader(bytes, at, FrameType.cells, count, channel)
  return Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset + at, FRAME_HEADER_BYTES + count * CELL_BYTES)
}

/** Whether the bytes before `start` are a batch's own headroom, and not the end of a cell that may still wait to be written. */
export function hasOwnHeadroom(start: number): boolean {
  return start === BATCH_HEADROOM
}

function putHeader(bytes: Uint8Array, at: number, type: number, count: number, channel: number): void {
  bytes[at] = type
  bytes[at + 1] = 0
  bytes[at + 2] = count >>> 8
  bytes[at + 3] = count
  bytes[at + 4] = channel >>> 24
  bytes[at + 5] = channel >>> 16
  bytes[at + 6] = channel >>> 8
  bytes[at + 7] = channel
}
