/** A machine that tells when it wants to be woken. */
export interface Timed {
  /** Monotonic ms, or null. */
  pollTimeout(): number | null
}

/**
 * One timer for one machine. A deadline that moves later costs nothing: an armed timer that fires too early asks again.
 * It never keeps the process alive.
 */
export class Deadline {
  readonly #machine: Timed
  readonly #now: () => number
  readonly #expired: () => void
  #timer: NodeJS.Timeout | null = null
  #at = 0

  constructor(machine: Timed, now: () => number, expired: () => void) {
    this.#machine = machine
    this.#now = now
    this.#expired = expired
  }

  /** Call after anything that may have moved the machine's deadline. */
  update(): void {
    const at = this.#machine.pollTimeout()
    if (at === null) {
      this.stop()
      return
    }
    if (this.#timer && this.#at <= at) return
    this.stop()
    this.#at = at
    this.#timer = setTimeout(
      () => {
        this.#timer = null
        this.#expired()
      },
      Math.max(1, Math.ceil(at - this.#now())),
    )
    this.#timer.unref()
  }

  stop(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
  }
}
