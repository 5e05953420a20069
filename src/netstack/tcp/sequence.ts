/** Sequence numbers and timestamps are signed 32-bit integers on a circle (RFC 9293 §3.4): a is before b when `(a - b) | 0` is negative. */
export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

export function after(a: number, b: number): boolean {
  return ((a - b) | 0) > 0
}

/** How far `to` is ahead of `from`. */
export function distance(from: number, to: number): number {
  return (to - from) | 0
}
