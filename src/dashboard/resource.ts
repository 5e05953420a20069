import { type Signal, signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ApiAnswers } from '../control/api-types.ts'
import { ApiError, ask } from './api.ts'
import { connection, onOpen, signOut } from './connection.ts'

type Getter = Extract<keyof ApiAnswers, `GET ${string}`>

/** What is asked for at most this often, however many things happen. */
const SOON_MS = 250

/** An answer of the node that is kept as new as somebody looks at it. */
export class Resource<T> {
  /** The last answer; undefined before the first. */
  readonly data: Signal<T | undefined> = signal(undefined)
  /** Why there is none, or no newer one. */
  readonly error: Signal<ApiError | null> = signal(null)
  #readAt = 0
  readonly #load: (signal: AbortSignal) => Promise<T>
  readonly #everyMs: number | null
  #users = 0
  #timer: ReturnType<typeof setTimeout> | null = null
  #asking: AbortController | null = null

  /** @param everyMs how old an answer may become while somebody looks; null: only `refresh` asks again */
  constructor(load: (signal: AbortSignal) => Promise<T>, everyMs: number | null) {
    this.#load = load
    this.#everyMs = everyMs
    onOpen(() => this.refresh())
  }

  /** When the last answer came: milliseconds of `performance.now`. */
  get readAt(): number {
    return this.#readAt
  }

  /** Asks soon, if somebody looks. */
  refresh(): void {
    if (this.#users > 0) this.#schedule(SOON_MS)
  }

  /** Asks at once, whoever looks. */
  async reload(): Promise<void> {
    this.#stop()
    const asking = new AbortController()
    this.#asking = asking
    try {
      const answer = await this.#load(asking.signal)
      if (asking.signal.aborted) return
      this.#readAt = performance.now()
      this.data.value = answer
      this.error.value = null
    } catch (error) {
      if (asking.signal.aborted) return
      const problem = error instanceof ApiError ? error : new ApiError(0, 'broken', String(error))
      if (problem.status === 401) signOut('The link that opened this page is no longer good.')
      this.error.value = problem
    }
    this.#asking = null
    if (this.#users > 0 && this.#everyMs !== null) this.#schedule(this.#everyMs)
  }

  /** Puts what an event said in the answer's place. */
  update(change: (before: T) => T): void {
    const before = this.data.peek()
    if (before !== undefined) this.data.value = change(before)
  }

  /** Begins to look. */
  use(): () => void {
    this.#users += 1
    if (this.#users === 1) void this.reload()
    return () => {
      this.#users -= 1
      if (this.#users === 0) this.#stop()
    }
  }

  #schedule(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = null
      // Nobody sees a hidden page; and what does not answer is asked again when it is there.
      if (document.visibilityState === 'hidden' || connection.peek().state === 'lost') this.#schedule(this.#everyMs ?? 5000)
      else if (this.#asking === null) void this.reload()
    }, ms)
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#asking?.abort()
    this.#asking = null
  }
}

/** A resource that is one route's answer. */
export function answerOf<R extends Getter>(
  route: R,
  everyMs: number | null,
  query: Readonly<Record<string, string | number>> = {},
): Resource<ApiAnswers[R]> {
  return new Resource((signal) => ask(route, { query, signal }), everyMs)
}

/** Looks at a resource while the component is there. */
export function useResource<T>(resource: Resource<T>): { readonly data: T | undefined; readonly error: ApiError | null } {
  useEffect(() => resource.use(), [resource])
  return { data: resource.data.value, error: resource.error.value }
}
