import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Connections of one listener at once: commands, a dashboard, a few readers of events. */
const MAX_CONNECTIONS = 64

/** Answers a request; `letIn` is to be called for one whose asker may ask. */
export type Answering = (request: IncomingMessage, response: ServerResponse, letIn: <T>(caller: T) => T) => void

/**
 * The connections of a listener. Whoever reaches it can open some; so beyond the limit the one goes that has been there longest without a request
 * that was let in, and those who may ask are never kept out by those who may not.
 */
export class Connections {
  /** Without such a request now, the longest first. */
  readonly #idle = new Set<Socket>()
  readonly #asking = new Set<Socket>()

  /** A new one. */
  add(socket: Socket): void {
    this.#idle.add(socket)
    socket.once('close', () => {
      this.#idle.delete(socket)
      this.#asking.delete(socket)
    })
    if (this.#idle.size + this.#asking.size > MAX_CONNECTIONS) this.#idle.values().next().value!.destroy()
  }

  /** Its request was let in, and is being answered. */
  asks(socket: Socket, response: ServerResponse): void {
    this.#idle.delete(socket)
    this.#asking.add(socket)
    response.once('close', () => {
      this.#asking.delete(socket)
      if (!socket.destroyed) this.#idle.add(socket)
    })
  }
}
