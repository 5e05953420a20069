import type { Signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useId } from 'preact/hooks'
import { Draw } from './icons.tsx'

/** A field that filters what is below it. */
export function SearchField(props: { readonly label: string; readonly value: Signal<string>; readonly placeholder: string }): JSX.Element {
  const id = useId()
  return (
    <div class="search">
      <label for={id} class="hidden">
        {props.label}
      </label>
      <Draw name="search" />
      <input
        id={id}
        type="search"
        autocomplete="off"
        spellcheck={false}
        placeholder={props.placeholder}
        value={props.value.value}
        onInput={({ currentTarget }) => (props.value.value = currentTarget.value)}
      />
    </div>
  )
}
