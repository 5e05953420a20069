import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { connection, tryNow } from '../connection.ts'
import { Badge } from './card.tsx'
import { Draw } from './icons.tsx'

/** Whether what is seen is live. */
export function ConnectionBadge(): JSX.Element {
  const { state } = connection.value
  if (state === 'open') return <Badge tone="good">Live</Badge>
  if (state === 'connecting') return <Badge tone="busy">Connecting</Badge>
  return <Badge tone="bad">Offline</Badge>
}

/** Says above every page that the node is gone, that what is seen is old, and when the next attempt is. */
export function ConnectionBanner(): JSX.Element {
  const state = connection.value
  return (
    <div role="status" class="banner-place">
      {state.state === 'lost' ? (
        <div class="banner">
          <Draw name="offline" />
          <div>
            <strong>The node does not answer.</strong> What you see is from before. The page connects again by itself
            <Countdown to={state.retryAt} />.
          </div>
          <button type="button" class="button button-small" onClick={tryNow}>
            Try now
          </button>
        </div>
      ) : null}
    </div>
  )
}

function Countdown({ to }: { readonly to: number }): JSX.Element {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(timer)
  }, [])
  const left = Math.ceil((to - now) / 1000)
  // Not read aloud each second.
  return <span aria-hidden="true">{left > 0 ? ` in ${left} s` : ' …'}</span>
}
