/** TCP's control bits (RFC 9293 §3.1). */
export const TcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const

export const TCP_HEADER_BYTES = 20
export const MAX_SACK_BLOCKS = 4
/** The timestamps option with its padding. */
export const TCP_TIMESTAMP_BYTES = 12

/** Why bytes are no TCP segment. A malformed option is no such reason: options behind it are left out (RFC 9293 §3.2, MUST-7). */
export type TcpProblem = 'short' | 'data-offset'

/**
 * The header of one TCP segment, made once and filled over and over. Sequence numbers and timestamps are signed 32-bit integers:
 * compare them by `(a - b) | 0`.
 */
export class TcpHeader {
  sourcePort = 0
  destinationPort = 0
  sequence = 0
  acknowledgment = 0
  flags = 0
  /** As on the wire: not scaled. */
  window = 0
  urgent = 0
  payloadStart = 0
  end = 0
  /** Options; -1: not there. */
  mss = -1
  windowScale = -1
  sackPermitted = false
  hasTimestamps = false
  timestamp = 0
  timestampEcho = 0
  sackCount = 0
  readonly sackLeft = new Int32Array(MAX_SACK_BLOCKS)
  readonly sackRight = new Int32Array(MAX_SACK_BLOCKS)

  /** Reads the segment in [start, end); null when it is in order. The checksum is `transportChecksumHolds`'s. */
  parse(view: DataView, start: number, end: number): TcpProblem | null {
    if (end - start < TCP_HEADER_BYTES) return 'short'
    const headerBytes = (view.getUint8(start + 12) >> 4) << 2
    if (headerBytes < TCP_HEADER_BYTES || headerBytes > end - start) return 'data-offset'
    this.sourcePort = view.getUint16(start)
    this.destinationPort = view.getUint16(start + 2)
    this.sequence = view.getInt32(start + 4)
    this.acknowledgment = view.getInt32(start + 8)
    this.flags = view.getUint8(start + 13)
    this.window = view.getUint16(start + 14)
    this.urgent = view.getUint16(start + 18)
    this.payloadStart = start + headerBytes
    this.end = end
    this.mss = -1
    this.windowScale = -1
    this.sackPermitted = false
    this.hasTimestamps = false
    this.sackCount = 0
    if (headerBytes === TCP_HEADER_BYTES) return null
    const at = start + TCP_HEADER_BYTES
    // RFC 7323 appendix A: how nearly every segment of a connection looks.
    if (headerBytes === TCP_HEADER_BYTES + TCP_TIMESTAMP_BYTES && view.getInt32(at) === 0x0101_080a) {
      this.#timestamps(view, at + 2)
      return null
    }
    this.#options(view, at, this.payloadStart)
    return null
  }

  get payloadBytes(): number {
    return this.end - this.payloadStart
  }

  #timestamps(view: DataView, at: number): void {
    this.hasTimestamps = true
    this.timestamp = view.getInt32(at + 2)
    this.timestampEcho = view.getInt32(at + 6)
  }

  #options(view: DataView, start: number, end: number): void {
    let at = start
    while (at < end) {
      const kind = view.getUint8(at)
      if (kind === 0) return
      if (kind === 1) {
        at++
        continue
      }
      if (end - at < 2) return
      const length = view.getUint8(at + 1)
      if (length < 2 || length > end - at) return
      switch (kind) {
        case 2:
          if (length === 4) this.mss = view.getUint16(at + 2)
          break
        case 3:
          if (length === 3) this.windowScale = view.getUint8(at + 2)
          break
        case 4:
          if (length === 2) this.sackPermitted = true
          break
        case 5:
          this.#sack(view, at, length)
          break
        case 8:
          if (length === 10) this.#timestamps(view, at)
          break
      }
      at += length
    }
  }

  /** RFC 2018 §3: up to four pairs of left and right edges. */
  #sack(view: DataView, at: number, length: number): void {
    if ((length - 2) % 8 !== 0) return
    for (let i = at + 2; i < at + length && this.sackCount < MAX_SACK_BLOCKS; i += 8) {
      this.sackLeft[this.sackCount] = view.getInt32(i)
      this.sackRight[this.sackCount++] = view.getInt32(i + 4)
    }
  }
}

/** What a segment's options are to be. */
export interface TcpOptions {
  readonly mss?: number
  readonly windowScale?: number
  readonly sackPermitted?: boolean
  readonly timestamp?: number
  readonly timestampEcho?: number
  /** Pairs of left and right edges, flat. */
  readonly sack?: readonly number[]
}

/** Bytes that the options take, padding included. */
export function tcpOptionBytes(options: TcpOptions): number {
  let length = 0
  if (options.mss !== undefined) length += 4
  if (options.windowScale !== undefined) length += 3
  if (options.sackPermitted) length += 2
  if (options.timestamp !== undefined) length += 10
  if (options.sack !== undefined && options.sack.length > 0) length += 2 + options.sack.length * 4
  return (length + 3) & ~3
}

/** The fields of a segment's fixed header. */
export interface TcpFields {
  readonly sourcePort: number
  readonly destinationPort: number
  readonly sequence: number
  readonly acknowledgment: number
  readonly flags: number
  readonly window: number
  readonly urgent?: number
}

/** Writes header and options, the checksum left 0; returns where the payload starts. For SYNs, RSTs and tests: a connection has its own template. */
export function writeTcp(view: DataView, at: number, fields: TcpFields, options: TcpOptions = {}): number {
  const headerBytes = TCP_HEADER_BYTES + tcpOptionBytes(options)
  view.setUint16(at, fields.sourcePort)
  view.setUint16(at + 2, fields.destinationPort)
  view.setInt32(at + 4, fields.sequence)
  view.setInt32(at + 8, fields.acknowledgment)
  view.setUint8(at + 12, (headerBytes >> 2) << 4)
  view.setUint8(at + 13, fields.flags)
  view.setUint16(at + 14, fields.window)
  view.setUint16(at + 16, 0)
  view.setUint16(at + 18, fields.urgent ?? 0)
  let next = at + TCP_HEADER_BYTES
  if (options.mss !== undefined) {
    view.setUint16(next, 0x0204)
    view.setUint16(next + 2, options.mss)
    next += 4
  }
  if (options.sackPermitted) {
    view.setUint16(next, 0x0402)
    next += 2
  }
  if (options.timestamp !== undefined) {
    view.setUint16(next, 0x080a)
    view.setInt32(next + 2, options.timestamp)
    view.setInt32(next + 6, options.timestampEcho ?? 0)
    next += 10
  }
  if (options.windowScale !== undefined) {
    view.setUint16(next, 0x0303)
    view.setUint8(next + 2, options.windowScale)
    next += 3
  }
  if (options.sack !== undefined && options.sack.length > 0) {
    view.setUint8(next, 5)
    view.setUint8(next + 1, 2 + options.sack.length * 4)
    next += 2
    for (const edge of options.sack) {
      view.setInt32(next, edge)
      next += 4
    }
  }
  while (next < at + headerBytes) view.setUint8(next++, next === at + headerBytes ? 0 : 1)
  return next
}
