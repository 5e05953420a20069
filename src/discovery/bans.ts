import type { NodeId } from '../base/index.ts'

/** Peers that broke the protocol are not spoken to for this long; those that could not be reached, for a shorter time. */
export const BAN_MS = 3_600_000
export const PAUSE_MS = 15_000
export const BANS_MAX = 1_024

/** Peers not to speak to for a while. Relays can't change their identity cheaply, so this costs them something. */
export class Bans {
  readonly #until = new Map<NodeId, { readonly until: number; readonly banned: boolean }>()
  readonly #pauseMs: number

  constructor(pauseMs = PAUSE_MS) {
    this.#pauseMs = pauseMs
  }

  ban(id: NodeId, now: number): void {
    this.#set(id, now + BAN_MS, true)
  }

  /** The peer could not be reached: others first. */
  pause(id: NodeId, now: number): void {
    if (!this.isBanned(id, now)) this.#set(id, now + this.#pauseMs, false)
  }

  clear(id: NodeId): void {
    if (this.#until.get(id)?.banned === false) this.#until.delete(id)
  }

  /** Banned or paused. */
  has(id: NodeId, now: number): boolean {
    const entry = this.#until.get(id)
    if (!entry) return false
    if (entry.until > now) return true
    this.#until.delete(id)
    return false
  }

  isBanned(id: NodeId, now: number): boolean {
    return this.has(id, now) && this.#until.get(id)!.banned
  }

  /** Who is banned now, for `status`. */
  banned(now: number): NodeId[] {
    return [...this.#until].filter(([, entry]) => entry.banned && entry.until > now).map(([id]) => id)
  }

  #set(id: NodeId, until: number, banned: boolean): void {
    this.#until.delete(id)
    this.#until.set(id, { until, banned })
    const oldest = this.#until.size > BANS_MAX ? this.#until.keys().next().value : undefined
    if (oldest !== undefined) this.#until.delete(oldest)
  }
}
