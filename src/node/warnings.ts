import type { NodeEvent, Warning } from './node-control.ts'

/** Warnings that are remembered at once; the oldest goes first. */
const MAX_WARNINGS = 64

/** What a person should know and can do something about, each once, until it is over. */
export class Warnings {
  readonly #wall: () => number
  readonly #emit: (event: NodeEvent) => void
  readonly #open = new Map<string, Warning>()

  constructor(wall: () => number, emit: (event: NodeEvent) => void) {
    this.#wall = wall
    this.#emit = emit
  }

  /** @param key tells two warnings of one code apart */
  raise(code: string, message: string, key = code): void {
    const before = this.#open.get(key)
    if (before?.message === message) return
    const warning = { code, message, since: before?.since ?? this.#wall() }
    if (before !== undefined && before.code !== code) this.over(key)
    this.#open.delete(key)
    this.#open.set(key, warning)
    const oldest = this.#open.size > MAX_WARNINGS ? this.#open.keys().next().value : undefined
    if (oldest !== undefined) this.#open.delete(oldest)
    this.#emit({ type: 'warning', at: this.#wall(), warning })
  }

  over(key: string): void {
    const warning = this.#open.get(key)
    if (!warning) return
    this.#open.delete(key)
    this.#emit({ type: 'warning-over', at: this.#wall(), code: warning.code })
  }

  list(): readonly Warning[] {
    return [...this.#open.values()]
  }
}
