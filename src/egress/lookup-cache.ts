import { ExitRefusal } from '../relaying/index.ts'

export interface LookupCacheOptions {
  readonly maxEntries: number
  /** Lookups under way at once, and those that may wait for their turn. */
  readonly maxRunning: number
  readonly maxQueued: number
  readonly minTtlSeconds: number
  readonly maxTtlSeconds: number
  readonly negativeTtlSeconds: number
  /** Monotonic milliseconds. */
  readonly now: () => number
}

export interface Found<T> {
  readonly value: T
  readonly ttlSeconds: number
}

/** A definite "there is none", which may be remembered. */
export class NotFound extends ExitRefusal {
  constructor(message: string, cause?: unknown) {
    super('resolve-failed', message, cause)
    this.name = 'NotFound'
  }
}

interface Entry<T> {
  readonly outcome: T | NotFound
  readonly expiresAt: number
}

/** Lookups that are shared while they run, bounded in number, and remembered. */
export class LookupCache<T> {
  readonly #options: LookupCacheOptions
  /** In the order of use, the oldest first. */
  readonly #entries = new Map<string, Entry<T>>()
  readonly #underWay = new Map<string, Promise<Found<T>>>()
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(options: LookupCacheOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#entries.size
  }

  get running(): number {
    return this.#running
  }

  /** What is remembered, what is under way already, or what `load` finds. A lookup that its asker gives up goes on for the others. @throws ExitRefusal */
  async get(key: string, load: () => Promise<Found<T>>, timeoutMs: number, signal: AbortSignal): Promise<Found<T>> {
    signal.throwIfAborted()
    const now = this.#options.now()
    const entry = this.#entries.get(key)
    if (entry && entry.expiresAt > now) {
      this.#entries.delete(key)
      this.#entries.set(key, entry)
      if (entry.outcome instanceof NotFound) throw entry.outcome
      return { value: entry.outcome, ttlSeconds: Math.ceil((entry.expiresAt - now) / 1000) }
    }
    let lookup = this.#underWay.get(key)
    if (!lookup) {
      if (this.#running >= this.#options.maxRunning && this.#waiting.length >= this.#options.maxQueued) {
        throw new ExitRefusal('resource-limit', 'too many names are being resolved')
      }
      lookup = this.#run(key, load)
      this.#underWay.set(key, lookup)
      lookup.catch(() => {}) // its askers may all have left
    }
    return patiently(lookup, timeoutMs, signal)
  }

  async #run(key: string, load: () => Promise<Found<T>>): Promise<Found<T>> {
    if (this.#running >= this.#options.maxRunning) await new Promise<void>((go) => this.#waiting.push(go))
    else this.#running++
    try {
      const found = await load()
      const ttlSeconds = Math.min(this.#options.maxTtlSeconds, Math.max(this.#options.minTtlSeconds, found.ttlSeconds))
      this.#remember(key, found.value, ttlSeconds)
      return { value: found.value, ttlSeconds }
    } catch (error) {
      if (error instanceof NotFound) this.#remember(key, error, this.#options.negativeTtlSeconds)
      throw error
    } finally {
      this.#underWay.delete(key)
      // The place goes to the next in line, or is free.
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }

  #remember(key: string, outcome: T | NotFound, ttlSeconds: number): void {
    if (ttlSeconds <= 0 || this.#options.maxEntries === 0) return
    this.#entries.delete(key)
    this.#entries.set(key, { outcome, expiresAt: this.#options.now() + ttlSeconds * 1000 })
    if (this.#entries.size > this.#options.maxEntries) this.#entries.delete(this.#entries.keys().next().value!)
  }
}

/** Waits for a shared promise, but not longer than this asker wants to. */
function patiently<T>(shared: Promise<T>, timeoutMs: number, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const slow = setTimeout(() => leave(new ExitRefusal('timeout', 'the name took too long to resolve')), timeoutMs)
    const aborted = (): void => leave(signal.reason)
    const done = (): void => {
      clearTimeout(slow)
      signal.removeEventListener('abort', aborted)
    }
    const leave = (error: unknown): void => {
      done()
      reject(error)
    }
    signal.addEventListener('abort', aborted, { once: true })
    shared.then((value) => {
      done()
      resolve(value)
    }, leave)
  })
}
