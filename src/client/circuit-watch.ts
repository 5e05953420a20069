import { Deadline } from '../drive/index.ts'
import type { ClientCircuitMachine } from '../onion/index.ts'
import { Liveness, type LivenessOptions, type LivenessStep } from './liveness.ts'

export interface CircuitWatchModules {
  readonly machine: Pick<ClientCircuitMachine, 'hops' | 'ping' | 'cellsFrom' | 'rttMs'>
  readonly options: LivenessOptions
  readonly now: () => number
  /** Pings wait in the machine. */
  readonly flush: () => void
  /** `isDoubtful` has changed. */
  readonly doubted: () => void
  /** @param silent index of the first hop that nothing came from, nor from any behind it */
  readonly dead: (silent: number) => void
}

/** Watches one circuit: carries between its `Liveness`, a timer, and the machine's pings. */
export class CircuitWatch {
  readonly #m: CircuitWatchModules
  readonly #liveness: Liveness
  readonly #deadline: Deadline
  #lastCells = 0
  /** Cells of each hop when the probe began; empty while there is none. */
  #before: number[] = []

  constructor(modules: CircuitWatchModules) {
    this.#m = modules
    this.#liveness = new Liveness(modules.options)
    this.#deadline = new Deadline(this.#liveness, modules.now, () => {
      this.#do(this.#liveness.handleTimeout(modules.now(), modules.machine.rttMs))
    })
  }

  get isDoubtful(): boolean {
    return this.#liveness.isDoubtful
  }

  /** Monotonic ms of the last cell of the last hop; -Infinity before the first. */
  get heardAt(): number {
    return this.#liveness.heardAt
  }

  follow(isActive: boolean): void {
    this.#liveness.setActive(isActive, this.#m.now())
    this.#deadline.update()
  }

  sent(): void {
    this.#liveness.noteSent(this.#m.now())
    this.#deadline.update()
  }

  /** Cells have come in: of which hop, the machine knows. */
  received(): void {
    const { machine, now, doubted } = this.#m
    const cells = machine.hops === 0 ? 0 : machine.cellsFrom(machine.hops - 1)
    if (cells === this.#lastCells) return
    this.#lastCells = cells
    const wasDoubtful = this.isDoubtful
    this.#liveness.noteHeard(now())
    this.#before = []
    if (wasDoubtful) doubted()
  }

  /** A relay of the circuit is in doubt. */
  suspect(): void {
    const { machine, now } = this.#m
    this.#do(this.#liveness.suspect(now(), machine.rttMs))
  }

  stop(): void {
    this.#deadline.stop()
  }

  #do(step: LivenessStep | null): void {
    const { machine, now } = this.#m
    const last = machine.hops - 1
    const hops = Array.from({ length: machine.hops }, (_, hop) => hop)
    switch (step) {
      case 'probe':
        this.#before = hops.map((hop) => machine.cellsFrom(hop))
        machine.ping(now(), last)
        break
      case 'widen': {
        const isFirst = this.#before.length === 0
        if (isFirst) this.#before = hops.map((hop) => machine.cellsFrom(hop))
        for (const hop of hops) if (isFirst || hop !== last) machine.ping(now(), hop)
        break
      }
      case 'dead': {
        const heard = hops.findLastIndex((hop) => machine.cellsFrom(hop) > (this.#before[hop] ?? 0))
        this.#m.dead(heard + 1)
        return
      }
      default:
        break
    }
    this.#deadline.update()
    if (step === null) return
    this.#m.flush()
    if (step === 'widen') this.#m.doubted()
  }
}
