import type { ServerResponse } from 'node:http'
import type { NodeControl, NodeEvent } from '../node/index.ts'

const MAX_READERS = 16
/** A reader that lets this much wait is cut off: it can connect again and ask for the present state. */
const MAX_WAITING_BYTES = 256 * 1024
/** A comment now and then tells a reader that the node lives. */
const HEARTBEAT_MS = 15_000

/** Server-sent events (HTML standard §9.2) to any number of readers up to a limit. */
export class EventFeed {
  readonly #readers = new Set<ServerResponse>()
  readonly #unsubscribe: () => void
  #heartbeat: NodeJS.Timeout | null = null

  constructor(node: NodeControl) {
    this.#unsubscribe = node.subscribe((event) => this.#publish(event))
  }

  /** Makes the response a reader; false when there are too many. */
  add(response: ServerResponse): boolean {
    if (this.#readers.size >= MAX_READERS) return false
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    response.write(': shallot events\n\n')
    this.#readers.add(response)
    this.#heartbeat ??= setInterval(() => this.#write(': here\n\n'), HEARTBEAT_MS).unref()
    response.once('close', () => this.#remove(response))
    return true
  }

  close(): void {
    this.#unsubscribe()
    for (const reader of this.#readers) reader.end()
    this.#readers.clear()
    if (this.#heartbeat !== null) clearInterval(this.#heartbeat)
    this.#heartbeat = null
  }

  #publish(event: NodeEvent): void {
    this.#write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
  }

  #write(text: string): void {
    for (const reader of this.#readers) {
      if (reader.writableLength > MAX_WAITING_BYTES) reader.destroy()
      else reader.write(text)
    }
  }

  #remove(response: ServerResponse): void {
    this.#readers.delete(response)
    if (this.#readers.size === 0 && this.#heartbeat !== null) {
      clearInterval(this.#heartbeat)
      this.#heartbeat = null
    }
  }
}
