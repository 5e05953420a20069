import type { ComponentChildren, JSX } from 'preact'
import type { ApiError } from '../api.ts'
import { Draw, type IconName } from './icons.tsx'

/** Where an answer will be: grey lines that keep its place. */
export function Loading({ what, lines = 3 }: { readonly what: string; readonly lines?: number }): JSX.Element {
  return (
    <div class="loading" role="status" aria-label={`Loading ${what}`}>
      {Array.from({ length: lines }, (_, i) => (
        <span key={i} class="bone" />
      ))}
    </div>
  )
}

/** Nothing is there, and why, and what would change that. */
export function Empty(props: { readonly icon: IconName; readonly title: string; readonly children?: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <Draw name={props.icon} />
      <p class="empty-title">{props.title}</p>
      {props.children}
    </div>
  )
}

/** The node could not answer. */
export function Failed({ error, again }: { readonly error: ApiError; readonly again: () => void }): JSX.Element {
  return (
    <div class="empty failed" role="alert">
      <Draw name="warning" />
      <p class="empty-title">This could not be loaded</p>
      <p>{error.message}</p>
      <button type="button" class="button" onClick={again}>
        Try again
      </button>
    </div>
  )
}

/** A message under what it is about: it worked, or it did not. */
export function Notice({ kind, children }: { readonly kind: 'good' | 'bad' | 'info'; readonly children: ComponentChildren }): JSX.Element {
  return (
    <p class={`notice notice-${kind}`} role={kind === 'bad' ? 'alert' : 'status'}>
      <Draw name={kind === 'bad' ? 'warning' : 'check'} />
      <span>{children}</span>
    </p>
  )
}
