import { PacketBatch, type PacketPort, type PacketPortHandlers, PortAround } from '../../packet/index.ts'

/** Packets that do not come from the stack and wait for the device, at most; beyond it they are dropped, as a router's queue would. */
const QUEUE_PACKETS = 512

/**
 * Stands between a device and the stack: shows itself to the stack as the port, lets a sorter have each batch first, and lets others send to the
 * device too, each under the device's backpressure.
 */
export class Junction extends PortAround {
  readonly #sort: (batch: PacketBatch) => PacketBatch
  readonly #queue: PacketBatch
  #taken = 0
  #full = false
  #ended = false
  /** Packets of others for which there was no room. */
  dropped = 0

  /** @param sort gives the packets that the stack is to have: the batch itself, or another that is lent until the next call */
  constructor(port: PacketPort, sort: (batch: PacketBatch) => PacketBatch) {
    super(port)
    this.#sort = sort
    this.#queue = new PacketBatch(QUEUE_PACKETS, QUEUE_PACKETS * (port.mtu + 3))
  }

  attach(handlers: PacketPortHandlers): void {
    this.port.attach({
      packets: (batch) => {
        const rest = this.#sort(batch)
        if (rest.count > 0) handlers.packets(rest)
        this.flush()
      },
      drained: () => {
        this.#full = false
        this.flush()
        if (!this.#full) handlers.drained()
      },
      ended: (error) => {
        this.#ended = true
        this.#queue.clear()
        this.#taken = 0
        handlers.ended(error)
      },
    })
  }

  override send(batch: PacketBatch, from = 0): number {
    this.flush()
    return this.#full ? 0 : this.#forward(batch, from)
  }

  /** The queue to the device, for a packet of up to `length` bytes: written where `reserve(length)` says, then committed, then `flush`. Null: no room. */
  place(length: number): PacketBatch | null {
    if (!this.#ended && this.#queue.reserve(length) >= 0) return this.#queue
    this.dropped++
    return null
  }

  /** Sends what waits in the queue, as far as the device takes it. */
  flush(): void {
    const queue = this.#queue
    if (queue.count === 0 || this.#full) return
    this.#taken += this.#forward(queue, this.#taken)
    if (this.#taken < queue.count) return
    queue.clear()
    this.#taken = 0
  }

  #forward(batch: PacketBatch, from: number): number {
    const taken = this.port.send(batch, from)
    this.#full = taken < batch.count - from
    return taken
  }
}
