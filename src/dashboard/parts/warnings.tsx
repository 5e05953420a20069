import type { JSX } from 'preact'
import type { Warning } from '../../control/api-types.ts'
import { moment } from '../format.ts'
import { Draw } from './icons.tsx'

/** What a person should do something about. */
export function Warnings({ warnings }: { readonly warnings: readonly Warning[] }): JSX.Element | null {
  if (warnings.length === 0) return null
  return (
    <ul class="warnings" aria-label="Warnings">
      {warnings.map(({ code, message, since }) => (
        <li key={code}>
          <Draw name="warning" />
          <span>
            {message} <span class="warning-since">Since {moment(since)}.</span>
          </span>
        </li>
      ))}
    </ul>
  )
}
