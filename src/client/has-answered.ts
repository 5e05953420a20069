/** Whether a failed dial shows that the network is up: somebody at the guard's address refused, reset, or was not the guard. */
export function hasAnswered(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code } = at as { code?: unknown }
    if (code === 'ECONNREFUSED' || code === 'ECONNRESET' || code === 'identity-mismatch') return true
    if (at instanceof AggregateError && at.errors.some(hasAnswered)) return true
  }
  return false
}
