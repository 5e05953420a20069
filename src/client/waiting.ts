import { StreamError } from './stream-error.ts'

interface Waiter<T> {
  readonly resolve: (value: T) => void
  readonly reject: (error: Error) => void
}

/** What was asked of a circuit and is not answered yet, by stream. */
export class Waiting<T> {
  readonly #waiters = new Map<number, Waiter<T>>()

  get size(): number {
    return this.#waiters.size
  }

  has(stream: number): boolean {
    return this.#waiters.has(stream)
  }

  /** @param cancel called when the signal ends the wait. @throws StreamError 'aborted', or what `reject` is given */
  add(stream: number, cancel: () => void, signal: AbortSignal | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        if (!this.#waiters.delete(stream)) return
        cancel()
        reject(new StreamError('aborted'))
      }
      const settled = (): void => signal?.removeEventListener('abort', aborted)
      signal?.addEventListener('abort', aborted, { once: true })
      this.#waiters.set(stream, {
        resolve: (value) => {
          settled()
          resolve(value)
        },
        reject: (error) => {
          settled()
          reject(error)
        },
      })
    })
  }

  resolve(stream: number, value: T): void {
    this.#take(stream)?.resolve(value)
  }

  reject(stream: number, error: Error): void {
    this.#take(stream)?.reject(error)
  }

  rejectAll(error: Error): void {
    for (const stream of [...this.#waiters.keys()]) this.reject(stream, error)
  }

  #take(stream: number): Waiter<T> | undefined {
    const waiter = this.#waiters.get(stream)
    this.#waiters.delete(stream)
    return waiter
  }
}
