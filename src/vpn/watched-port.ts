import type { ShallotError } from '../base/index.ts'
import type { Medium, PacketBatch, PacketPort, PacketPortHandlers, PortStats } from '../packet/index.ts'

/** A port that also tells us when it has ended, whoever is attached to it. */
export class WatchedPort implements PacketPort {
  readonly medium: Medium
  readonly name: string
  readonly stats: Readonly<PortStats>
  readonly #port: PacketPort
  readonly #ended: (error: ShallotError | null) => void

  constructor(port: PacketPort, ended: (error: ShallotError | null) => void) {
    this.#port = port
    this.#ended = ended
    this.medium = port.medium
    this.name = port.name
    this.stats = port.stats
  }

  get mtu(): number {
    return this.#port.mtu
  }

  attach(handlers: PacketPortHandlers): void {
    this.#port.attach({
      packets: (batch) => handlers.packets(batch),
      drained: () => handlers.drained(),
      ended: (error) => {
        handlers.ended(error)
        this.#ended(error)
      },
    })
  }

  send(batch: PacketBatch, from = 0): number {
    return this.#port.send(batch, from)
  }
  pause(): void {
    this.#port.pause()
  }
  resume(): void {
    this.#port.resume()
  }
  close(): void {
    this.#port.close()
  }
}
