import { MalformedError, Reader, utf8Bytes } from '../base/index.ts'
import { MESSAGE_BODY_BYTES } from './cell.ts'
import type { Target } from './circuit.ts'
import { HOST_BYTES, isSayableTarget, readTarget } from './messages.ts'

/**
 * Datagrams in UDP_DATAGRAM messages. docs/spec/streams.md §7
 *
 *     body:  index u8 | count u8 | bytes        fragment `index` of `count`
 *     whole: port u16 | length u8 | host | payload     the fragments' bytes, back to back
 *
 * A circuit is reliable and ordered, so the fragments of a datagram follow each other on their stream. A sender may give one up
 * between fragments: the next datagram's first fragment replaces it.
 */

/** The longest payload: what IPv4 can carry over UDP. */
export const MOST_DATAGRAM_BYTES = 65_507
const FRAGMENT_HEADER_BYTES = 2
const FRAGMENT_BYTES = MESSAGE_BODY_BYTES - FRAGMENT_HEADER_BYTES
const MOST_WHOLE_BYTES = 3 + HOST_BYTES + MOST_DATAGRAM_BYTES
/** Fragments of one datagram. */
export const MOST_FRAGMENTS = Math.ceil(MOST_WHOLE_BYTES / FRAGMENT_BYTES)

export const datagramLimits = {
  /** What waits longer is dropped before encryption. */
  staleMs: 100,
  /** What may wait, over all associations of a circuit. */
  queueBytes: 256 * 1024,
  /** A small datagram costs its overhead too. */
  leastChargeBytes: 256,
} as const

interface WaitingDatagram {
  readonly stream: number
  readonly hop: number
  readonly whole: Uint8Array
  readonly at: number
}

/** Datagrams that wait for cells. The first may be partly sent. */
export class DatagramQueue {
  readonly #waiting: WaitingDatagram[] = []
  #first = 0
  /** The next fragment of the first datagram. */
  #fragment = 0
  #charge = 0
  /** Fragments of all that waits: no more cells than these are needed. */
  fragments = 0
  /** Dropped: the queue was full, or it had waited too long. */
  dropped = 0

  get queuedBytes(): number {
    return this.#charge
  }

  get isEmpty(): boolean {
    return this.#first === this.#waiting.length
  }

  /** @param bytes borrowed. False when it was dropped at once. */
  push(stream: number, hop: number, peer: Target, bytes: Uint8Array, now: number): boolean {
    if (bytes.length > MOST_DATAGRAM_BYTES || !isSayableTarget(peer) || this.#charge >= datagramLimits.queueBytes) {
      this.dropped++
      return false
    }
    const host = utf8Bytes(peer.host)
    const whole = new Uint8Array(3 + host.length + bytes.length)
    whole[0] = peer.port >> 8
    whole[1] = peer.port
    whole[2] = host.length
    whole.set(host, 3)
    whole.set(bytes, 3 + host.length)
    this.#waiting.push({ stream, hop, whole, at: now })
    this.#charge += chargeOf(whole)
    this.fragments += Math.ceil(whole.length / FRAGMENT_BYTES)
    return true
  }

  /** Drops what belongs to no stream any more and what waited too long, unless it is partly sent already. */
  expire(now: number, isOpen: (stream: number) => boolean): void {
    while (!this.isEmpty) {
      const { at, stream } = this.#waiting[this.#first]!
      if (isOpen(stream) && (this.#fragment > 0 || now - at <= datagramLimits.staleMs)) return
      this.dropped++
      this.#shift(this.#fragment)
    }
  }

  /** The next fragment's stream, hop and body length; null when nothing waits. */
  peek(): { stream: number; hop: number; length: number } | null {
    if (this.isEmpty) return null
    const { stream, hop, whole } = this.#waiting[this.#first]!
    return { stream, hop, length: FRAGMENT_HEADER_BYTES + Math.min(FRAGMENT_BYTES, whole.length - this.#fragment * FRAGMENT_BYTES) }
  }

  /** Writes the body that `peek` told of, at `at`. */
  take(out: Uint8Array, at: number): void {
    const { whole } = this.#waiting[this.#first]!
    const count = Math.ceil(whole.length / FRAGMENT_BYTES)
    const from = this.#fragment * FRAGMENT_BYTES
    out[at] = this.#fragment
    out[at + 1] = count
    out.set(whole.subarray(from, from + FRAGMENT_BYTES), at + FRAGMENT_HEADER_BYTES)
    this.fragments--
    if (++this.#fragment === count) this.#shift(count)
  }

  clear(): void {
    this.#waiting.length = 0
    this.#first = 0
    this.#fragment = 0
    this.#charge = 0
    this.fragments = 0
  }

  /** @param sent how many of its fragments were counted off already */
  #shift(sent: number): void {
    const { whole } = this.#waiting[this.#first]!
    this.#charge -= chargeOf(whole)
    this.fragments -= Math.ceil(whole.length / FRAGMENT_BYTES) - sent
    this.#fragment = 0
    this.#first++
    if (this.#first === this.#waiting.length || this.#first >= 64) {
      this.#waiting.splice(0, this.#first)
      this.#first = 0
    }
  }
}

function chargeOf(whole: Uint8Array): number {
  return Math.max(datagramLimits.leastChargeBytes, whole.length)
}

export interface Datagram {
  readonly peer: Target
  readonly bytes: Uint8Array
}

/** Puts the fragments of one association together. Holds at most one unfinished datagram. */
export class Reassembler {
  #parts: Uint8Array[] = []
  #count = 0
  #length = 0

  /**
   * Takes a UDP_DATAGRAM's body (copied) and gives the datagram when it is whole.
   * @throws MalformedError when a fragment does not follow the one before it, or the datagram has not its form
   */
  add(body: Uint8Array): Datagram | null {
    const reader = new Reader('UDP_DATAGRAM', body)
    const index = reader.u8()
    const count = reader.u8()
    const bytes = reader.rest()
    if (count === 0 || count > MOST_FRAGMENTS || index >= count) throw new MalformedError('UDP_DATAGRAM', `fragment ${index} of ${count}`)
    if (index === 0) this.#reset(count)
    else if (count !== this.#count || index !== this.#parts.length) throw new MalformedError('UDP_DATAGRAM', 'fragment out of turn')
    // Only whole fragments before the last: one datagram has one form.
    if (index + 1 < count ? bytes.length !== FRAGMENT_BYTES : bytes.length === 0) {
      throw new MalformedError('UDP_DATAGRAM', `fragment of ${bytes.length} bytes`)
    }
    this.#length += bytes.length
    if (count === 1) {
      this.#reset(0)
      return decodeDatagram(bytes.slice())
    }
    this.#parts.push(bytes.slice())
    if (index + 1 < count) return null
    const whole = new Uint8Array(this.#length)
    let at = 0
    for (const part of this.#parts) {
      whole.set(part, at)
      at += part.length
    }
    this.#reset(0)
    return decodeDatagram(whole)
  }

  #reset(count: number): void {
    if (this.#parts.length > 0) this.#parts = []
    this.#count = count
    this.#length = 0
  }
}

/** `port u16, length u8, host, payload`; the payload is a view. @throws MalformedError */
export function decodeDatagram(whole: Uint8Array): Datagram {
  const reader = new Reader('datagram', whole)
  const peer = readTarget(reader)
  const bytes = reader.rest()
  if (bytes.length > MOST_DATAGRAM_BYTES) throw new MalformedError('datagram', `payload of ${bytes.length} bytes`)
  return { peer, bytes }
}
