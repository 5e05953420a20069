import { type Signal, signal } from '@preact/signals'
import { useMemo } from 'preact/hooks'
import { ApiError } from './api.ts'
import { signOut } from './connection.ts'

/** Something the person does, and how it goes. */
export interface Act<A extends readonly unknown[], T> {
  readonly state: Signal<
    | { readonly kind: 'idle' | 'busy' }
    | { readonly kind: 'done'; readonly value: T }
    | { readonly kind: 'failed'; readonly error: ApiError }
  >
  /** Does it, unless it is being done. */
  readonly run: (...given: A) => Promise<void>
  readonly clear: () => void
}

/** An act of a component, made once. */
export function useAct<A extends readonly unknown[], T>(work: (...given: A) => Promise<T>): Act<A, T> {
  // the work is given anew with each drawing and means the same
  return useMemo(() => {
    const state: Act<A, T>['state'] = signal({ kind: 'idle' })
    return {
      state,
      async run(...given) {
        if (state.peek().kind === 'busy') return
        state.value = { kind: 'busy' }
        try {
          state.value = { kind: 'done', value: await work(...given) }
        } catch (error) {
          const problem = error instanceof ApiError ? error : new ApiError(0, 'broken', String(error))
          if (problem.status === 401) signOut('The link that opened this page is no longer good.')
          state.value = { kind: 'failed', error: problem }
        }
      },
      clear() {
        state.value = { kind: 'idle' }
      },
    }
  }, [])
}
