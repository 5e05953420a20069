import { assert, MalformedError } from '../base/index.ts'
import { DNS_HEADER_BYTES, DNS_MESSAGE_BYTES } from './numbers.ts'

const FIRST_ROOM_BYTES = 512

/** A message as it goes on a byte stream: behind its length in two bytes. RFC 1035 §4.2.2 */
export function frameMessage(message: Uint8Array): Uint8Array {
  assert(message.length <= DNS_MESSAGE_BYTES, 'a message is at most 65535 bytes')
  const frame = new Uint8Array(2 + message.length)
  frame[0] = message.length >> 8
  frame[1] = message.length & 0xff
  frame.set(message, 2)
  return frame
}

/** Takes messages out of a byte stream. Holds no more than came in, and never more than one message. */
export class FrameReader {
  readonly #mostBytes: number
  /** The frame that is coming in, its length included; it grows with what has come. */
  #room = new Uint8Array(FIRST_ROOM_BYTES)
  #have = 0

  /** @param mostBytes the longest message that is taken */
  constructor(mostBytes: number = DNS_MESSAGE_BYTES) {
    this.#mostBytes = mostBytes
  }

  /** Whether the stream stands within a message: its end now would cut that off. */
  get within(): boolean {
    return this.#have > 0
  }

  /** The messages that are whole now, each in memory of its own; the chunk is borrowed. @throws MalformedError when one is too short or too long */
  push(chunk: Uint8Array): Uint8Array[] {
    const messages: Uint8Array[] = []
    let at = 0
    while (at < chunk.length) {
      const wanted = this.#have < 2 ? 2 : 2 + this.#length()
      const taken = Math.min(wanted - this.#have, chunk.length - at)
      this.#keep(chunk.subarray(at, at + taken))
      at += taken
      if (this.#have < wanted) break
      if (wanted === 2) {
        const length = this.#length()
        if (length < DNS_HEADER_BYTES) throw new MalformedError('DNS stream', 'a message is shorter than its header')
        if (length > this.#mostBytes) throw new MalformedError('DNS stream', `a message is longer than ${this.#mostBytes} bytes`)
        continue
      }
      messages.push(this.#room.slice(2, wanted))
      this.#have = 0
      if (this.#room.length > FIRST_ROOM_BYTES) this.#room = new Uint8Array(FIRST_ROOM_BYTES)
    }
    return messages
  }

  #length(): number {
    return (this.#room[0]! << 8) | this.#room[1]!
  }

  #keep(bytes: Uint8Array): void {
    const need = this.#have + bytes.length
    if (need > this.#room.length) {
      const grown = new Uint8Array(Math.max(need, Math.min(this.#room.length * 2, 2 + DNS_MESSAGE_BYTES)))
      grown.set(this.#room.subarray(0, this.#have))
      this.#room = grown
    }
    this.#room.set(bytes, this.#have)
    this.#have = need
  }
}
