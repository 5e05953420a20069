// biome-ignore-all lint/a11y/useSemanticElements: browsers draw <meter> in colours of their own
import type { ComponentChildren, JSX } from 'preact'
import { useId } from 'preact/hooks'

/** A titled region of a page. */
export function Card(props: {
  readonly title: string
  /** Which one of those that have this title. */
  readonly number?: number | undefined
  readonly aside?: ComponentChildren
  readonly class?: string
  readonly children: ComponentChildren
}): JSX.Element {
  const id = useId()
  return (
    <section class={`card ${props.class ?? ''}`} aria-labelledby={id}>
      <header class="card-head">
        <h2 id={id}>
          {props.title}
          {props.number === undefined ? null : <span class="card-number"> {props.number}</span>}
        </h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  )
}

/** A number with its name above and what puts it in proportion below. */
export function Figure(props: { readonly name: string; readonly value: string; readonly note?: string | undefined }): JSX.Element {
  return (
    <div class="figure">
      <dt>{props.name}</dt>
      <dd>
        <span class="figure-value">{props.value}</span>
        {props.note === undefined ? null : <span class="figure-note">{props.note}</span>}
      </dd>
    </div>
  )
}

/** Figures beside each other. */
export function Figures({ children }: { readonly children: ComponentChildren }): JSX.Element {
  return <dl class="figures">{children}</dl>
}

/** A state in a word, with a dot in its colour; the word carries the meaning. */
export function Badge(props: {
  readonly tone: 'good' | 'busy' | 'bad' | 'idle' | 'accent'
  readonly children: ComponentChildren
}): JSX.Element {
  return <span class={`badge badge-${props.tone}`}>{props.children}</span>
}

/** How much of a limit is used. */
export function Meter(props: { readonly name: string; readonly used: number; readonly limit: number; readonly text: string }): JSX.Element {
  const share = props.limit <= 0 ? 0 : Math.min(1, props.used / props.limit)
  const tone = share > 0.9 ? 'bad' : share > 0.7 ? 'busy' : 'good'
  return (
    <div class="meter-row">
      <span class="meter-name">{props.name}</span>
      <span class="meter-text">{props.text}</span>
      <span
        class={`meter meter-${tone}`}
        role="meter"
        aria-label={props.name}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share * 100)}
        aria-valuetext={props.text}
      >
        <span style={{ width: `${share * 100}%` }} />
      </span>
    </div>
  )
}

/** Names with counts as bars, the largest first. */
export function Bars(props: {
  readonly label: string
  readonly rows: readonly { readonly key: string; readonly name: string; readonly value: number; readonly text: string }[]
  readonly chosen?: string | null
  readonly choose?: (key: string) => void
}): JSX.Element {
  const most = Math.max(1, ...props.rows.map(({ value }) => value))
  return (
    <ul class="bars" aria-label={props.label}>
      {props.rows.map(({ key, name, value, text }) => {
        const inside = (
          <>
            <span class="bar-name">{name}</span>
            <span class="bar-text">{text}</span>
            <span class="bar" aria-hidden="true">
              <span style={{ width: `${(value / most) * 100}%` }} />
            </span>
          </>
        )
        return (
          <li key={key}>
            {props.choose === undefined ? (
              <div class="bar-row">{inside}</div>
            ) : (
              <button type="button" class="bar-row" aria-pressed={props.chosen === key} onClick={() => props.choose?.(key)}>
                {inside}
              </button>
            )}
          </li>
        )
      })}
    </ul>
  )
}
