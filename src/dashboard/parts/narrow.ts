import { signal } from '@preact/signals'

const query = matchMedia('(max-width: 560px)')

/** Whether the window is as narrow as a phone: the width of the style sheet. */
export const narrow = signal(query.matches)

query.addEventListener('change', ({ matches }) => {
  narrow.value = matches
})
