import type { JSX } from 'preact'
import { Mark } from '../parts/icons.tsx'

/** The page has no token: where one comes from. */
export function SignedOutPage({ why }: { readonly why: string | null }): JSX.Element {
  return (
    <main id="main" class="signed-out" tabIndex={-1}>
      <Mark />
      <h1>Open this page with a fresh link</h1>
      {why === null ? null : <p role="alert">{plain(why)}</p>}
      <p>
        This is the dashboard of a Shallot node. Only its owner may look: the node gives out a link that opens the page once. Ask for it in
        a terminal on the machine of the node:
      </p>
      <pre>
        <code>shallot ui</code>
      </pre>
      <p class="muted">It opens in your browser. The link is good for two minutes; a tab that is open stays signed in.</p>
    </main>
  )
}

/** What the node says is written for a terminal: here it is a sentence. */
function plain(said: string): string {
  const text = said.replaceAll('`', '')
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`
}
