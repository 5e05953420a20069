import { computed, signal } from '@preact/signals'
import type { Event, RelayBrief, ServingRole } from '../control/api-types.ts'
import { ask } from './api.ts'
import { countryName } from './format.ts'
import { Resource } from './resource.ts'

/** Relays fetched with one request. */
const PAGE = 1000
/** More than this a page does not hold; the counts above the table are of all. */
const MAX_RELAYS = 20_000

/** Every relay of the view in short, page by page. */
export const relays = new Resource<readonly RelayBrief[]>(async (signal) => {
  const found: RelayBrief[] = []
  for (let after: string | null = ''; after !== null && found.length < MAX_RELAYS; ) {
    const page: Awaited<ReturnType<typeof fetchPage>> = await fetchPage(after, signal)
    found.push(...page.relays)
    after = page.next
  }
  return found
}, 60_000)

function fetchPage(after: string, signal: AbortSignal) {
  return ask('GET /v1/relays/brief', { query: { limit: PAGE, ...(after === '' ? {} : { after }) }, signal })
}

/** What an event says of single relays. */
export function takeRelays(event: Event): void {
  if (event.type !== 'relays') return
  if (event.more) {
    relays.refresh()
    return
  }
  relays.update((before) => {
    const byId = new Map(before.map((relay) => [relay.id, relay]))
    for (const relay of event.changed) byId.set(relay.id, relay)
    for (const id of event.gone) byId.delete(id)
    return [...byId.values()]
  })
}

export const wantedRole = signal<ServingRole | ''>('')
/** A code, "??" for those of no known country, or empty. */
export const wantedCountry = signal('')
export const wantedText = signal('')

/** Those that are looked for, the heaviest first. */
export const shownRelays = computed(() => {
  const text = wantedText.value.trim().toLowerCase()
  return (relays.data.value ?? [])
    .filter(
      ({ id, roles, country, software }) =>
        (wantedRole.value === '' || roles.includes(wantedRole.value)) &&
        (wantedCountry.value === '' || (country ?? '??') === wantedCountry.value) &&
        (text === '' || `${id} ${software} ${countryName(country)}`.toLowerCase().includes(text)),
    )
    .sort((a, b) => b.weight - a.weight || (a.id < b.id ? -1 : 1))
})
