import type { TcpHeader } from '../../packet/index.ts'
import { before } from './sequence.ts'

/** How much the peer takes: SND.WND with what it came from (RFC 9293 §3.3.1). */
export class PeerWindow {
  /** SND.WND in bytes, and the largest it was. */
  bytes = 0
  most = 0
  /** Shift of the windows the peer sends. */
  scale = 0
  /** SND.WL1 and SND.WL2. */
  #sequence = 0
  #ack = 0

  /** @param bytes not scaled any more */
  set(bytes: number, sequence: number, ack: number): void {
    this.bytes = bytes
    if (bytes > this.most) this.most = bytes
    this.#sequence = sequence
    this.#ack = ack
  }

  /** Takes the window of a segment that is not older than the last that set it (§3.10.7.4); true when it changed. */
  update(segment: TcpHeader): boolean {
    if (before(segment.sequence, this.#sequence)) return false
    if (segment.sequence === this.#sequence && before(segment.acknowledgment, this.#ack)) return false
    const bytes = segment.window << this.scale
    const changed = bytes !== this.bytes
    this.set(bytes, segment.sequence, segment.acknowledgment)
    return changed
  }
}
