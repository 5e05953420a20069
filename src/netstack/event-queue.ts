import type { StackEvent } from './events.ts'

/** Events that are of no connection, bounded by number and bytes. */
export class EventQueue {
  readonly #most: number
  readonly #mostBytes: number
  #events: { readonly event: StackEvent; readonly bytes: number }[] = []
  #from = 0
  #bytes = 0
  /** Events for which there was no room. */
  dropped = 0

  constructor(most: number, mostBytes: number) {
    this.#most = most
    this.#mostBytes = mostBytes
  }

  /** Whether an event with so many bytes would be taken; counts it as dropped if not. */
  hasRoom(bytes: number): boolean {
    if (this.#events.length - this.#from < this.#most && this.#bytes + bytes <= this.#mostBytes) return true
    this.dropped++
    return false
  }

  push(event: StackEvent, bytes: number): void {
    this.#events.push({ event, bytes })
    this.#bytes += bytes
  }

  take(): StackEvent | null {
    const first = this.#events[this.#from]
    if (first === undefined) return null
    this.#from++
    this.#bytes -= first.bytes
    if (this.#from === this.#events.length || this.#from > this.#most) {
      this.#events = this.#events.slice(this.#from)
      this.#from = 0
    }
    return first.event
  }
}
