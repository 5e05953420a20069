/** What `shallot doctor` found out about one thing. */
export interface Finding {
  /** Stable and kebab-case. */
  readonly check: string
  /** `note`: nothing is wrong, and it is good to know. */
  readonly result: 'ok' | 'note' | 'warn' | 'fail'
  /** What is so, one plain sentence. */
  readonly message: string
  /** What to do; null when there is nothing. */
  readonly advice: string | null
}

export const ok = (check: string, message: string): Finding => ({ check, result: 'ok', message, advice: null })
export const note = (check: string, message: string, advice: string | null = null): Finding => ({ check, result: 'note', message, advice })
export const warn = (check: string, message: string, advice: string): Finding => ({ check, result: 'warn', message, advice })
export const fail = (check: string, message: string, advice: string): Finding => ({ check, result: 'fail', message, advice })
