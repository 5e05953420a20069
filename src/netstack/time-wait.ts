import type { Endpoint } from './endpoint.ts'
import { Flow } from './flow-table.ts'
import type { TcpConnection } from './tcp/connection.ts'

/** What is left of a connection for 2 MSL (RFC 9293 §3.6): it answers a late FIN, and keeps old segments out of a new connection. */
export class TimeWait extends Flow {
  readonly kind = 'time-wait'
  readonly local: Endpoint
  readonly remote: Endpoint
  /** SND.NXT and RCV.NXT. */
  readonly next: number
  readonly received: number
  readonly timestampRecent: number
  /** Null: without timestamps. */
  readonly timestampOffset: number | null
  deadline: number
  /** When it last answered something that needs no answer to go on. */
  answeredAt = Number.NEGATIVE_INFINITY
  heapIndex = -1
  heapTime = Number.POSITIVE_INFINITY
  readonly #expired: (entry: TimeWait) => void

  constructor(connection: TcpConnection, deadline: number, expired: (entry: TimeWait) => void) {
    super(connection.words, connection.remotePort, connection.localPort)
    this.local = connection.local
    this.remote = connection.remote
    const numbers = connection.finalNumbers
    this.next = numbers.next
    this.received = numbers.received
    this.timestampRecent = numbers.timestampRecent
    this.timestampOffset = numbers.timestampOffset
    this.deadline = deadline
    this.#expired = expired
  }

  onTimer(): void {
    this.#expired(this)
  }
}
