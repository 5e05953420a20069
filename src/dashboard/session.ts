import type { Problem, Session } from '../control/api-types.ts'

/** The token of this tab. sessionStorage: another tab, and this one once it is closed, has none. */
const KEY = 'shallot-session'

/** The token the page has, if any. */
export function token(): string | null {
  return sessionStorage.getItem(KEY)
}

/** Forgets the token: it was refused, or the person signed out. */
export function forget(): void {
  sessionStorage.removeItem(KEY)
}

/**
 * Takes the one-time code out of the address, so that no history keeps it, and exchanges it for a token.
 * @returns what is wrong with the code; null when there was none, or it was good
 */
export async function redeemCode(): Promise<string | null> {
  const code = codeOf(location.hash)
  if (code === null) return null
  history.replaceState(null, '', `${location.pathname}${location.search}#/`)
  const response = await fetch('/v1/session', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ code }),
  }).catch(() => null)
  if (response === null) return 'The node did not answer.'
  if (!response.ok) return ((await response.json().catch(() => null)) as Problem | null)?.error.message ?? 'The node refused the link.'
  sessionStorage.setItem(KEY, ((await response.json()) as Session).token)
  return null
}

/** A fresh link that is opened in a tab of the page changes the fragment alone: the page begins anew with it. */
export function watchForLinks(): void {
  addEventListener('hashchange', () => {
    if (codeOf(location.hash) !== null) location.reload()
  })
}

/** `#code=…`: every other fragment is a page of the dashboard. */
function codeOf(fragment: string): string | null {
  return new URLSearchParams(fragment.slice(1)).get('code')
}
