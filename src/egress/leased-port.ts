import type { Medium, PacketBatch, PacketPort, PacketPortHandlers, PortStats } from '../packet/index.ts'

/** A lease's port that tells once when it is over, by whomever it was ended. */
export class LeasedPort implements PacketPort {
  readonly #port: PacketPort
  #given: (() => void) | null

  /** @param given called once, when the lease is given back */
  constructor(port: PacketPort, given: () => void) {
    this.#port = port
    this.#given = given
  }

  get name(): string {
    return this.#port.name
  }

  get medium(): Medium {
    return this.#port.medium
  }

  get mtu(): number {
    return this.#port.mtu
  }

  get stats(): Readonly<PortStats> {
    return this.#port.stats
  }

  attach(handlers: PacketPortHandlers): void {
    this.#port.attach({
      packets: (batch) => handlers.packets(batch),
      drained: () => handlers.drained(),
      ended: (error) => {
        this.#over()
        handlers.ended(error)
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
    this.#over()
  }

  #over(): void {
    const given = this.#given
    this.#given = null
    given?.()
  }
}
