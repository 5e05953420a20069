import type { PacketBatch } from '../packet/index.ts'
import type { CircuitOutput } from './circuit.ts'
import { putArrivalBatch } from './packets.ts'

/** What a machine has to say, in order, until the driver drains it. */
export class OutputQueue {
  #outputs: CircuitOutput[] = []
  #first = 0
  #cells = 0
  /** Packets in the driver's hands until it asks for the next output. */
  #lent: PacketBatch | null = null

  push(output: CircuitOutput): void {
    if (output.type === 'cells') this.#cells++
    this.#outputs.push(output)
  }

  poll(): CircuitOutput | null {
    if (this.#lent !== null) {
      putArrivalBatch(this.#lent)
      this.#lent = null
    }
    if (this.#first === this.#outputs.length) return null
    const output = this.#outputs[this.#first++]!
    if (this.#first === this.#outputs.length) {
      this.#outputs = []
      this.#first = 0
    }
    if (output.type === 'cells') this.#cells--
    else if (output.type === 'packets') this.#lent = output.batch
    return output
  }

  /** Whether encrypted cells wait: nothing may be encrypted by `pollCells` before they are sent. */
  get holdsCells(): boolean {
    return this.#cells > 0
  }
}
