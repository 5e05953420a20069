import type { ShallotError } from '../base/index.ts'
import { type PacketPort, type PacketPortHandlers, PortAround } from '../packet/index.ts'

/** A port that also tells us when it has ended, whoever is attached to it. */
export class WatchedPort extends PortAround {
  readonly #ended: (error: ShallotError | null) => void

  constructor(port: PacketPort, ended: (error: ShallotError | null) => void) {
    super(port)
    this.#ended = ended
  }

  attach(handlers: PacketPortHandlers): void {
    this.port.attach({
      packets: (batch) => handlers.packets(batch),
      drained: () => handlers.drained(),
      ended: (error) => {
        handlers.ended(error)
        this.#ended(error)
      },
    })
  }
}
