/** Ports everyone asks for: predicted before anything was. */
const FIRST_PORTS: readonly number[] = [80, 443]
/** Learned ports that are remembered; beyond it the longest unused is forgotten. */
const MAX_PORTS = 16

/** Which ports the next requests will probably be for: those asked for lately, and the web's. Times are monotonic ms. */
export class PortDemand {
  /** How long a port counts as asked for after its last use. */
  memoryMs: number
  /** Port to its last use, least recent first. */
  readonly #lastUse = new Map<number, number>()

  constructor(memoryMs: number) {
    this.memoryMs = memoryMs
  }

  note(port: number, now: number): void {
    this.#lastUse.delete(port)
    this.#lastUse.set(port, now)
    if (this.#lastUse.size > MAX_PORTS) this.#lastUse.delete(this.#lastUse.keys().next().value!)
  }

  /** Ascending. */
  current(now: number): readonly number[] {
    for (const [port, usedAt] of this.#lastUse) {
      if (now - usedAt <= this.memoryMs) break
      this.#lastUse.delete(port)
    }
    return [...new Set([...FIRST_PORTS, ...this.#lastUse.keys()])].sort((a, b) => a - b)
  }
}
