import type { ShallotError } from '../base/index.ts'
import { PacketBatch, type PacketPort } from '../packet/index.ts'
import type { StackEvent } from './events.ts'
import type { Stack } from './stack.ts'

/** Packets that are taken from the stack at a time. */
const BATCH_PACKETS = 64

export interface StackOnPortModules {
  readonly stack: Stack
  readonly port: PacketPort
  /** Monotonic ms. */
  readonly now: () => number
  /** Runs a task once what is being done now is done: `queueMicrotask` or `setImmediate`, or a simulation's own. */
  readonly soon: (task: () => void) => void
  /** Each event of the stack. What the handler does to connections goes out right after. */
  readonly event: (event: StackEvent) => void
  /** `pollTimeout()` may have changed: set the timer anew. */
  readonly timeoutChanged: () => void
  /** The port is gone; connections have been reset. */
  readonly ended: (error: ShallotError | null) => void
}

/**
 * Carries packets between a stack and a port, both ways, with the port's backpressure: what the port has no room for stays in the stack.
 * It has no timer: its owner calls `expired` at `pollTimeout()`.
 */
export class StackOnPort {
  readonly #modules: StackOnPortModules
  readonly #batch: PacketBatch
  /** Packets of the batch that the port has taken. */
  #taken = 0
  #full = false
  #scheduled = false
  #ended = false

  constructor(modules: StackOnPortModules) {
    this.#modules = modules
    this.#batch = new PacketBatch(BATCH_PACKETS, BATCH_PACKETS * (modules.port.mtu + 3))
  }

  start(): void {
    const { stack, port, now } = this.#modules
    port.attach({
      packets: (batch) => {
        stack.input(batch, now())
        this.#run()
      },
      drained: () => {
        this.#full = false
        this.#run()
      },
      ended: (error) => {
        this.#ended = true
        stack.stop(now())
        this.#tell()
        this.#modules.timeoutChanged()
        this.#modules.ended(error)
      },
    })
  }

  /** Call after anything was done to the stack or to a connection; many calls in one turn are one. */
  touch(): void {
    if (this.#scheduled || this.#ended) return
    this.#scheduled = true
    this.#modules.soon(() => {
      this.#scheduled = false
      if (!this.#ended) this.#run()
    })
  }

  /** When `expired` is to be called; null: not now. */
  pollTimeout(): number | null {
    return this.#ended ? null : this.#modules.stack.deadline
  }

  expired(): void {
    if (this.#ended) return
    this.#modules.stack.poll(this.#modules.now())
    this.#run()
  }

  #run(): void {
    this.#tell()
    this.#send()
    this.#modules.timeoutChanged()
  }

  #tell(): void {
    const { stack, event } = this.#modules
    for (let next = stack.nextEvent(); next !== null; next = stack.nextEvent()) event(next)
  }

  #send(): void {
    const { stack, port, now } = this.#modules
    const batch = this.#batch
    while (!this.#full && !this.#ended) {
      if (this.#taken === batch.count) {
        batch.clear()
        this.#taken = 0
        if (stack.output(batch, now()) === 0) return
      }
      this.#taken += port.send(batch, this.#taken)
      this.#full = this.#taken < batch.count
    }
  }
}
