import type { CircuitRequest } from '../path/index.ts'
import type { PooledCircuit } from './pooled-circuit.ts'
import { StreamError } from './stream-error.ts'

/** A request that waits for a circuit. */
export interface WaitingRequest {
  readonly request: CircuitRequest
  /** Monotonic ms. */
  readonly since: number
  /** Builds for it, or for others like it, that failed. */
  failures: number
  readonly resolve: (circuit: PooledCircuit) => void
  readonly reject: (error: Error) => void
}

/** Requests that may wait for a circuit at once. */
const MAX_WAITING = 4_096

/** Requests that wait for a circuit, in the order they came. */
export class WaitingRequests {
  #waiting: WaitingRequest[] = []

  get size(): number {
    return this.#waiting.length
  }

  /** Those of now: what happens to one changes nothing of the list that was given. */
  all(): readonly WaitingRequest[] {
    return [...this.#waiting]
  }

  /**
   * Waits. @param whyNot why there has been no circuit, for a request that is given up
   * @throws StreamError 'no-circuit', and whatever it is rejected with
   */
  add(request: CircuitRequest, since: number, signal: AbortSignal, whyNot: () => string): Promise<PooledCircuit> {
    if (this.#waiting.length >= MAX_WAITING) return Promise.reject(new StreamError('no-circuit', 'too many requests wait for a circuit'))
    const { promise, resolve, reject } = Promise.withResolvers<PooledCircuit>()
    const settle = (): void => {
      signal.removeEventListener('abort', aborted)
      this.#waiting = this.#waiting.filter((one) => one !== waiting)
    }
    const waiting: WaitingRequest = {
      request,
      since,
      failures: 0,
      resolve: (circuit) => {
        settle()
        resolve(circuit)
      },
      reject: (error) => {
        settle()
        reject(error)
      },
    }
    const aborted = (): void => waiting.reject(new StreamError('no-circuit', whyNot()))
    signal.addEventListener('abort', aborted, { once: true })
    this.#waiting.push(waiting)
    return promise
  }
}
