import { type PacketPort, type PacketPortHandlers, PortAround } from '../packet/index.ts'

/** A lease's port that tells once when it is over, by whomever it was ended. */
export class LeasedPort extends PortAround {
  #given: (() => void) | null

  /** @param given called once, when the lease is given back */
  constructor(port: PacketPort, given: () => void) {
    super(port)
    this.#given = given
  }

  attach(handlers: PacketPortHandlers): void {
    this.port.attach({
      packets: (batch) => handlers.packets(batch),
      drained: () => handlers.drained(),
      ended: (error) => {
        this.#over()
        handlers.ended(error)
      },
    })
  }

  override close(): void {
    this.port.close()
    this.#over()
  }

  #over(): void {
    const given = this.#given
    this.#given = null
    given?.()
  }
}
