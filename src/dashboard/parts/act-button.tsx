import type { ComponentChildren, JSX } from 'preact'
import type { Act } from '../act.ts'

/** A button for an act. While it is done the button says so, and keeps the focus. */
export function ActButton<T>(props: {
  readonly act: Act<readonly [], T>
  readonly class?: string
  readonly label?: string
  readonly busy?: ComponentChildren
  readonly children: ComponentChildren
}): JSX.Element {
  const busy = props.act.state.value.kind === 'busy'
  return (
    <button
      type="button"
      class={`button ${props.class ?? ''}`}
      aria-disabled={busy}
      aria-label={props.label}
      onClick={() => void props.act.run()}
    >
      {busy ? (
        <>
          <span class="spinner" aria-hidden="true" />
          {props.busy ?? props.children}
        </>
      ) : (
        props.children
      )}
    </button>
  )
}
