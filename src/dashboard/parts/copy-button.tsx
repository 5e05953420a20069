import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { Draw } from './icons.tsx'

/** How long it stands that something was copied. */
const SAID_MS = 2500

/** Puts a text on the clipboard, and says so to the eye and to the screen reader. */
export function CopyButton({ text, what }: { readonly text: string; readonly what: string }): JSX.Element | null {
  const [said, say] = useState<'' | 'Copied' | 'Not copied'>('')
  useEffect(() => {
    if (said === '') return
    const timer = setTimeout(() => say(''), SAID_MS)
    return () => clearTimeout(timer)
  }, [said])
  // A page that came over plain HTTP from another machine is not trusted with it.
  if (navigator.clipboard === undefined) return null
  return (
    <span class="copy">
      <button
        type="button"
        class="icon-button copy-button"
        aria-label={`Copy ${what}`}
        title={`Copy ${what}`}
        onClick={() =>
          void navigator.clipboard.writeText(text).then(
            () => say('Copied'),
            () => say('Not copied'),
          )
        }
      >
        <Draw name={said === 'Copied' ? 'check' : 'copy'} />
      </button>
      <span class="copy-said" role="status">
        {said}
      </span>
    </span>
  )
}
