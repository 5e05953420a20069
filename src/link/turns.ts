/** Something with work to do once a turn of the event loop. */
export interface TurnTask {
  runInput?(): void
  runOutput?(): void
}

/**
 * Gathers the work of one turn of the event loop, over all links: what came in is delivered after everything that was readable has
 * been read, and what that caused to be sent is written after everything has been delivered.
 */
export class Turns {
  #inputs: Set<TurnTask> = new Set()
  #outputs: Set<TurnTask> = new Set()
  #spareInputs: Set<TurnTask> = new Set()
  #spareOutputs: Set<TurnTask> = new Set()
  #scheduled = false
  readonly #run = (): void => this.#turn()

  /** Calls `runInput` once, in this turn of the event loop or the next. */
  input(task: TurnTask): void {
    this.#inputs.add(task)
    this.#schedule()
  }

  /** Calls `runOutput` once, after the inputs. */
  output(task: TurnTask): void {
    this.#outputs.add(task)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#run)
  }

  #turn(): void {
    try {
      const inputs = this.#inputs
      this.#inputs = this.#spareInputs
      for (const task of inputs) task.runInput!()
      inputs.clear()
      this.#spareInputs = inputs
      const outputs = this.#outputs
      this.#outputs = this.#spareOutputs
      for (const task of outputs) task.runOutput!()
      outputs.clear()
      this.#spareOutputs = outputs
    } finally {
      this.#scheduled = false
      if (this.#inputs.size > 0 || this.#outputs.size > 0) this.#schedule()
    }
  }
}
